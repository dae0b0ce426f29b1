"""What a world is made of: a GPU, a model and a serving runtime, and what makes a world unlike the others.

The parts say what there is; :mod:`joulescope.simulation.physics` says what it costs. The defaults of the
later fields leave a part out: one GPU, a dense model, a cap that stretches steps, nothing that drifts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from joulescope.simulation.scheduler import USUAL_LIMITS, EngineLimits
from joulescope.simulation.workload import MIXED, RequestClass

GPU_MEMORY_UTILIZATION = 0.9
"""Share of the GPU's memory that the runtime takes at once, vLLM's long-time default."""


SM_CLOCK_HERTZ, MEMORY_CLOCK_HERTZ = 1.98e9, 2.619e9
"""Full clocks of an H100 SXM."""


@dataclass(frozen=True, slots=True)
class Dvfs:
    """How clocks and voltage give way at the power limit.

    At a part ``f`` of the full clock arithmetic takes 1/f as long; each operation's energy, and static
    power, go with the square of the voltage, which is ``floor + (1 − floor)·f`` of its full value.
    Goes with an infinite ``overlap_exponent`` only.
    """

    voltage_floor: float = 0.55
    lowest_clock: float = 0.3
    """Part of the full clock below which the GPU does not go, whatever it draws then."""


@dataclass(frozen=True, slots=True)
class Thermal:
    """Leakage that grows with temperature, which follows power.

    The GPU's power relaxes towards ``leak_per_watt`` of what it draws more than ``reference_watts``.
    """

    time_constant_seconds: float = 60.0
    leak_per_watt: float = 0.06
    """Temperature rise per watt (about 0.06 K/W) times leakage per degree (about 1 W/K)."""
    reference_watts: float = 350.0
    """Steady power at which leakage is what the other figures say."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What one GPU does and draws."""

    name: str
    memory_bytes: int
    bytes_per_second: float
    """Memory bandwidth that kernels reach."""
    flops_per_second: float
    """Arithmetic that dense kernels reach."""
    joules_per_byte: float
    """Energy of moving a byte from memory to the arithmetic, beyond the static power."""
    joules_per_flop: float
    """Energy of one floating-point operation, beyond the static power."""
    active_watts: float
    """Static power while a step runs: leakage, clocks at full speed, fans."""
    idle_watts: float
    """Power with a CUDA context but nothing to do."""
    bare_watts: float
    """Power before any process holds a CUDA context."""
    power_limit_watts: float
    """The cap. Work that would draw more takes longer instead."""
    gap_watts: float | None = None
    """Power between two steps while requests are running: clocks stay up. ``None``: as when idle."""
    overlap_exponent: float = math.inf
    """How well memory and arithmetic overlap: time is their p-norm. Infinite: the longer of weight read
    and linear layers, all else one after the other."""
    dvfs: Dvfs | None = None
    """``None``: at the cap a step is stretched and its energy per operation stays."""
    thermal: Thermal | None = None
    """``None``: leakage does not change."""
    clock_ratio: float = 1.0
    """Clocks as the driver tells them, in parts of :data:`SM_CLOCK_HERTZ` and :data:`MEMORY_CLOCK_HERTZ`;
    what they do to speed is in the figures above."""

    @property
    def clocks_hertz(self) -> tuple[float, float]:
        """Of the SMs and of the memory."""
        return self.clock_ratio * SM_CLOCK_HERTZ, self.clock_ratio * MEMORY_CLOCK_HERTZ

    def __post_init__(self) -> None:
        if self.dvfs is not None and not math.isinf(self.overlap_exponent):
            raise ValueError("clocks that fall at the cap go with an infinite overlap_exponent only")


@dataclass(frozen=True, slots=True)
class Experts:
    """Routed experts of a mixture."""

    weight_bytes: float
    """Weights of all routed experts, part of the model's ``weight_bytes``."""
    choice_ratio: float
    """Chance that a token chooses a given expert: chosen / all."""
    popularity: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    """Groups of experts as (part of all experts, chance relative to ``choice_ratio``). Engines tell
    ``choice_ratio`` only."""


@dataclass(frozen=True, slots=True)
class Model:
    """What one token of a transformer moves and computes."""

    name: str
    dtype: str
    max_model_len: int
    stored_bytes: int
    """All weights, as they lie in memory."""
    weight_bytes: float
    """Weights that a step may read: all but the input embedding."""
    kv_bytes_per_token: float
    flops_per_token: float
    """Linear layers, without the output head."""
    flops_per_token_context: float
    """Attention: for each token and each position that it attends to."""
    flops_per_sample: float
    """The output head, computed only where a token is sampled."""
    layers: int = 32
    hidden: int = 4096
    experts: Experts | None = None
    """``None``: a dense model, of which every step reads all weights."""


@dataclass(frozen=True, slots=True)
class Drafter:
    """A small model that proposes tokens, which the large one verifies. Engines do not tell its cost."""

    tokens: int
    """Proposed for each request in each step."""
    weight_bytes: float
    """Read once for each proposed token, whoever takes part."""
    kv_bytes_per_token: float
    flops_per_token: float
    launch_seconds: float = 2e-4
    """Of each pass of the drafter."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the serving software adds to each step."""

    name: str
    step_seconds: float
    """Launch gaps and synchronisation of one step."""
    sequence_seconds: float
    """Time that each sequence adds whatever its length: sampling, small kernels, host work."""
    sequence_joules: float
    """Energy of the same, beyond the static power."""
    schedule_seconds: float = 60e-6
    """Time of the scheduler's decision on the engine's thread."""
    update_seconds: float = 80e-6
    """Time to take in the output of a step on the engine's thread."""
    readback_seconds: float = 40e-6
    """From the end of the GPU's work until the engine's thread sees it."""
    prepare_seconds: float = 0.0
    """From the scheduler's decision until the GPU can begin."""
    host_seconds_per_sequence: float = 0.0
    """Added to each of schedule, prepare and update for every sequence of the step."""
    graph_sizes: tuple[int, ...] = ()
    """Steps of no more tokens than the last of these are padded to the next one."""


@dataclass(frozen=True, slots=True)
class Parallel:
    """How one model is spread over GPUs, and how many engines there are."""

    tensor: int = 1
    pipeline: int = 1
    engines: int = 1
    """More than one: data-parallel engines, each with its own GPUs."""
    tenants: int = 1
    """More than one: so many engines share the same GPUs."""
    skew: tuple[float, ...] = ()
    """Arrivals of each engine relative to the others; empty: equal."""
    dummy_steps: bool = False
    """An engine without requests computes empty steps while another one has some."""
    reduce_seconds: float = 12e-6
    """Latency of one all-reduce; there are two in each layer."""
    reduce_bytes_per_second: float = 250e9
    reduce_joules_per_byte: float = 0.06e-9
    spin_watts: float = 130.0
    """Static power of a GPU that has done its part of a step and waits for the others'."""
    slowness: tuple[float, ...] = ()
    """Of each GPU, in rank order: its times are so much longer. Empty: all alike."""
    hunger: tuple[float, ...] = ()
    """Of each GPU, in rank order: its joules are so much more. Empty: all alike."""

    @property
    def ranks(self) -> int:
        """GPUs of one engine; rank = pipeline rank · tensor + tensor rank."""
        return self.tensor * self.pipeline


@dataclass(frozen=True, slots=True)
class Change:
    """Another GPU setting from some instant on."""

    hardware: Hardware
    at_ratio: float = 0.5
    """When, as a part of the run's length."""


@dataclass(frozen=True, slots=True)
class World:
    """One kind of service: a model on GPUs under a runtime, and who asks it for what."""

    hardware: Hardware
    model: Model
    runtime: Runtime
    drafter: Drafter | None = None
    parallel: Parallel = Parallel()
    change: Change | None = None
    classes: tuple[RequestClass, ...] = MIXED
    limits: EngineLimits = USUAL_LIMITS
    max_prompt_tokens: int = 30_000
