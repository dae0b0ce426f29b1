"""Frozen value types that speak of GPUs: what they are, what they told, and the joules made of it.

Part of :mod:`joulescope.model`, from which everybody imports them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

THROTTLE_REASONS = (
    "power_cap",
    "thermal",
    "hardware_slowdown",
    "power_brake",
    "sync_boost",
    "application_clocks",
    "board_limit",
    "reliability",
)
"""What can hold a GPU's clocks back: the power limit; temperature (by software or hardware); a fault or a
fast drop, by hardware; the server's brake signal; the group it keeps step with; clocks that an operator or a
program asked for; the board's or the silicon's own limits. Idle is none of them."""


@dataclass(frozen=True, slots=True)
class GpuCapabilities:
    """What a GPU and its driver can tell, asked once when the sensor was opened.

    ``None`` and the empty text: it could not be found out.
    """

    energy_counter: bool = False
    power: bool = False
    """What the driver calls power usage: on Ada and Hopper and later the mean of a second, before nearly
    instantaneous."""
    power_average: bool = False
    power_instant: bool = False
    power_samples: bool = False
    """The driver's own buffer of power readings."""
    module_power: bool = False
    """Of the whole module, on Grace Hopper and Grace Blackwell; it contains the GPU's."""
    memory_power: bool = False
    gpm: bool = False
    """Performance counters without a profiler, on Hopper and later."""
    architecture: str = ""
    """``volta``, ``turing``, ``ampere``, ``ada``, ``hopper``, ``blackwell``, …"""
    mig: bool | None = None
    virtualization: str = ""
    """``none``, ``passthrough`` or ``vgpu``; ``host_vgpu`` on a hypervisor."""
    confidential: bool | None = None
    """Confidential computing: the driver then keeps performance counters to itself."""
    persistence: bool | None = None
    """Without it the driver may unload, and its counter restart, when nobody uses the GPU."""


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """What about a GPU is read about once a second. A field that could not be read is ``None``."""

    gpu: str
    time_ns: int
    power_limit_watts: float | None = None
    power_instant_watts: float | None = None
    """Mean of the last moment: 25 ms of every 100 ms on H100 (arXiv 2312.02741)."""
    module_power_watts: float | None = None
    """Contains the GPU's power: never to be added to it."""
    memory_power_watts: float | None = None
    sm_clock_hertz: float | None = None
    memory_clock_hertz: float | None = None
    temperature_celsius: float | None = None
    throttle_reasons: frozenset[str] | None = None
    """Of :data:`THROTTLE_REASONS`, those that hold now."""
    graphics_active_ratio: float | None = None
    """Ratios 0..1 by GPM, means since it was read before: time in which anything ran;"""
    sm_active_ratio: float | None = None
    """SMs that had work;"""
    sm_occupancy_ratio: float | None = None
    """warps that were there, of those that fit;"""
    tensor_active_ratio: float | None = None
    """time of the tensor cores;"""
    dram_active_ratio: float | None = None
    """memory bandwidth, of the highest possible."""
    pcie_sent_bytes_per_second: float | None = None
    """Traffic by GPM, as the GPU sees it."""
    pcie_received_bytes_per_second: float | None = None
    nvlink_sent_bytes_per_second: float | None = None
    nvlink_received_bytes_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class CallTime:
    """How often a driver was asked something, and how long it took in all."""

    calls: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SamplerStatistics:
    """How the reading of GPUs itself fares, cumulative since it began."""

    reads: int
    missed_deadlines: int
    late_seconds: float
    """Sum over all reads of how long after its deadline each began."""
    read_seconds: float
    """Sum over all reads: what the driver's calls cost."""
    opened: int
    """How often the sensor was opened successfully."""
    down: int
    """How often it was lost or could not be opened."""
    call_times: Mapping[str, CallTime] = field(default_factory=dict)
    """How long the driver took, by call."""


MIG_GPM = "mig_gpm"
"""Source of joules that are an instance's share of its GPU's, split by performance counters: an estimate."""

MIG_REST = "mig_rest"
"""Source of the joules that such a split leaves to no instance."""


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """What a sensor knows about one GPU and does not expect to change.

    A MIG instance whose joules are split off its GPU's is a GPU of its own: with a ``parent``.
    """

    gpu: str
    """UUID as the driver (AMD: ``rocminfo``) prints it, ``GPU-…``; the identity of a GPU everywhere."""
    name: str = ""
    index: int | None = None
    power_limit_watts: float | None = None
    memory_total_bytes: int | None = None
    driver_version: str = ""
    energy_source: str = "counter"
    """``counter`` (the driver's energy counter), ``power`` (integrated from power readings) or ``mig_gpm``
    (no meter: a share of its parent's joules, by performance counters)."""
    sensor: str = ""
    """Which kind of sensor answers: ``nvml``, ``amd``, ``engine`` (a sampler beside the engine),
    ``simulated``, ``replayed``."""
    capabilities: GpuCapabilities = GpuCapabilities()
    instances: tuple[str, ...] = ()
    """UUIDs of the MIG instances that the GPU is cut into (``MIG-…``)."""
    energy_split: str = ""
    """How its joules are divided among these instances: ``gpm``; empty: they are not."""
    parent: str = ""
    """UUID of the GPU that this is a MIG instance of; empty for a whole GPU."""
    slices: int | None = None
    """How many of its parent's slices the GPU instance has; ``None`` for a whole GPU."""
    slices_total: int | None = None
    """How many slices the parent has."""
    calibration_factor: float = 1.0
    """True joules per joule that the GPU shows, above 0. Readings are as shown; what is made of them,
    intervals and figures, has the factor in it."""

    @property
    def size_ratio(self) -> float:
        """How large it is, in parts of a whole GPU: 1, or an instance's part of the slices."""
        return self.slices / self.slices_total if self.slices and self.slices_total else 1.0


@dataclass(frozen=True, slots=True)
class GpuReading:
    """What one poll of one GPU returned. A field the sensor could not read is ``None``."""

    gpu: str
    time_ns: int
    """Midpoint of the energy (or else the power) call."""
    energy_joules: float | None = None
    """Cumulative counter since driver load; only differences mean anything."""
    power_watts: float | None = None
    memory_used_bytes: int | None = None
    sm_utilization_ratio: float | None = None
    """0..1, averaged by the driver over its own window (1/6..1 s)."""
    status: GpuStatus | None = None
    """What is read about once a second; the same object until it is read again."""
    clock_error_seconds: float = 0.0
    """How far ``time_ns`` may be from the clock of the reader of this, to either side, at most: 0 where both
    are one machine's, more where the instant was taken by another node's clock and turned into this one's."""


@dataclass(frozen=True, slots=True)
class EnergyInterval:
    """Joules that one GPU drew between two instants: what attribution divides."""

    gpu: str
    start_ns: int
    end_ns: int
    energy_uj: int
    source: str = "counter"
    """``counter``, ``power``, ``mig_gpm``, or of a GPU whose joules are split ``mig_rest``."""
    clock_error_seconds: float = 0.0
    """How far its two edges may be from where they are said to be, by the clocks of two nodes; the largest
    of the readings that it was made of."""


@dataclass(frozen=True, slots=True)
class MeterComparison:
    """A GPU's energy counter beside the integral of its power readings, over the same stretches of time."""

    counter_joules: float
    power_joules: float
    ratio: float | None = None
    """Counter / power over the last minute; ``None`` where too little of it could be compared."""
