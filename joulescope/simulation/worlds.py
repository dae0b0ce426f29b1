"""Worlds: a GPU, a model and a serving runtime, each with the figures that decide what a step costs.

The figures are *effective* ones, reached in practice, not those of a data sheet. Those of the H100
were set so that a saturated chat load reproduces the ML.ENERGY benchmark (v3, vLLM 0.11) within 10 %;
``python -m joulescope.simulation.calibration`` prints how near it comes, and a test holds it there.
A new world is a new instance, no new code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

GPU_MEMORY_UTILIZATION = 0.9
"""Share of the GPU's memory that the runtime takes at once, vLLM's long-time default."""


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


@dataclass(frozen=True, slots=True)
class Model:
    """What one token of a dense transformer moves and computes."""

    name: str
    dtype: str
    max_model_len: int
    stored_bytes: int
    """All weights, as they lie in memory."""
    weight_bytes: float
    """Weights that every step reads: all but the input embedding."""
    kv_bytes_per_token: float
    flops_per_token: float
    """Linear layers, without the output head."""
    flops_per_token_context: float
    """Attention: for each token and each position that it attends to."""
    flops_per_sample: float
    """The output head, computed only where a token is sampled."""


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


@dataclass(frozen=True, slots=True)
class World:
    """One kind of replica: a model on one GPU under one runtime."""

    hardware: Hardware
    model: Model
    runtime: Runtime


H100 = Hardware(
    name="NVIDIA H100 80GB HBM3 (simulated)",
    memory_bytes=80 * 1024**3,
    bytes_per_second=2.80e12,
    flops_per_second=620e12,
    joules_per_byte=0.138e-9,
    joules_per_flop=0.70e-12,
    active_watts=165.0,
    idle_watts=100.0,
    bare_watts=69.0,
    power_limit_watts=700.0,
)
"""HBM3 3.35 TB/s and 989 TFLOP/s on paper. Idle: 69 W bare, +26..66 W with a context."""

_LLAMA_8B_LAYERS, _LLAMA_8B_HIDDEN, _LLAMA_8B_VOCABULARY = 32, 4096, 128_256
_LLAMA_8B_PARAMETERS = 8_030_261_248
_LLAMA_8B_EMBEDDING = _LLAMA_8B_VOCABULARY * _LLAMA_8B_HIDDEN

LLAMA_3_1_8B = Model(
    name="meta-llama/Llama-3.1-8B-Instruct",
    dtype="bfloat16",
    max_model_len=32_768,
    stored_bytes=2 * _LLAMA_8B_PARAMETERS,
    weight_bytes=2.0 * (_LLAMA_8B_PARAMETERS - _LLAMA_8B_EMBEDDING),
    kv_bytes_per_token=2.0 * 2 * _LLAMA_8B_LAYERS * 8 * 128,
    flops_per_token=2.0 * (_LLAMA_8B_PARAMETERS - 2 * _LLAMA_8B_EMBEDDING),
    flops_per_token_context=4.0 * _LLAMA_8B_LAYERS * _LLAMA_8B_HIDDEN,
    flops_per_sample=2.0 * _LLAMA_8B_EMBEDDING,
)
"""Shape from the model's config: 32 layers, 8 KV heads of 128, bf16 throughout."""

VLLM_ON_HOPPER = Runtime(
    name="vllm",
    step_seconds=1.4e-3,
    sequence_seconds=39.5e-6,
    sequence_joules=0.022,
)

H100_LLAMA_8B = World(hardware=H100, model=LLAMA_3_1_8B, runtime=VLLM_ON_HOPPER)


def _with_gpu(world: World, **figures: float) -> World:
    return replace(world, hardware=replace(world.hardware, **figures))  # type: ignore[arg-type]


def _with_runtime(world: World, **figures: float) -> World:
    return replace(world, runtime=replace(world.runtime, **figures))  # type: ignore[arg-type]


WORLDS = {
    "calibrated": H100_LLAMA_8B,
    # The same form of cost with other figures: what an estimator must learn against its expectation.
    "cheap-arithmetic": _with_gpu(
        H100_LLAMA_8B, joules_per_flop=0.5 * H100.joules_per_flop, active_watts=1.3 * H100.active_watts
    ),
    "slow-memory": _with_gpu(
        H100_LLAMA_8B,
        joules_per_byte=1.8 * H100.joules_per_byte,
        bytes_per_second=0.7 * H100.bytes_per_second,
    ),
    "costly-sequences": _with_runtime(
        H100_LLAMA_8B,
        sequence_joules=2 * VLLM_ON_HOPPER.sequence_joules,
        sequence_seconds=2 * VLLM_ON_HOPPER.sequence_seconds,
    ),
    "low-cap": _with_gpu(H100_LLAMA_8B, power_limit_watts=520.0),
}
"""All known worlds by name."""
