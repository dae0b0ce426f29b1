"""Frozen values of the host's own energy: CPU packages and DRAM, and the CPU time by which it is divided.

They follow the rules of :mod:`joulescope.model` and stand apart from the GPUs' values, as host joules are
never added to GPU joules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HOST_UNATTRIBUTED_REASONS = ("idle_unknown", "cpu_time_unknown", "processes_unseen")
"""Why measured host joules are nobody's: the host was never seen quiet, so that what it draws anyway is
not known; CPU time could not be read; processes of a connected engine are not visible to the sidecar, so
that theirs cannot be told from those of strangers."""


@dataclass(frozen=True, slots=True)
class HostDomain:
    """One part of the host that has an energy counter of its own. Domains are disjoint: they may be added."""

    domain: str
    """Its label: ``package-0``, ``dram-0`` for the memory beside that package, or ``grace-0``."""
    zone: str = ""
    """Where the operating system shows it (``intel-rapl:0``)."""
    energy_range_joules: float | None = None
    """The counter begins again at 0 after so many joules; ``None`` where that is not known."""
    sensor: str = ""
    """Which kind of sensor answers: ``powercap``, ``hwmon``, ``replayed``."""


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """A process that speaks for an engine: its scheduler, or one of its workers."""

    session: int
    """The connection by which it speaks; never used for a second one."""
    pid: int | None
    """As the sidecar's own pid namespace has it; ``None`` if the process is not visible from there."""


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """CPU time of the whole host and of engines, cumulative: only differences mean anything."""

    busy_seconds: float
    """Of all CPUs together, without idle time and waiting for disks."""
    total_seconds: float
    """Of all CPUs together, busy or not."""
    engine_seconds: Mapping[str, float] = field(default_factory=dict)
    """By engine, from 0 when the engine was first met: its processes and their descendants."""
    unseen_engines: tuple[str, ...] = ()
    """Connected engines of which at least one process is not visible."""


@dataclass(frozen=True, slots=True)
class HostReading:
    """What one poll of the host returned. A domain that could not be read is missing."""

    time_ns: int
    energy_joules: Mapping[str, float]
    """By domain; a counter that begins again at 0 after its range."""
    cpu: CpuTimes | None = None


@dataclass(frozen=True, slots=True)
class CpuShare:
    """CPU time spent between two readings, seconds."""

    busy_seconds: float
    total_seconds: float
    engine_seconds: Mapping[str, float]
    engines_unseen: bool = False


@dataclass(frozen=True, slots=True)
class HostInterval:
    """Joules that one domain drew between two instants, and who had the CPUs meanwhile."""

    domain: str
    start_ns: int
    end_ns: int
    energy_uj: int
    cpu: CpuShare | None = None


@dataclass(frozen=True, slots=True)
class HostDomainTotals:
    """The ledger of one domain: measured = attributed + other + idle + unattributed, exactly."""

    info: HostDomain
    measured_joules: float
    attributed_joules: Mapping[str, float]
    """By engine."""
    other_joules: float
    """Of processes that belong to no engine."""
    idle_joules: float
    unattributed_joules: Mapping[str, float]
    """By reason."""
    residual_joules: float
    """measured − (attributed + other + idle + unattributed); always 0."""
    idle_power_watts: float | None = None
    """What it draws with hardly a process running; ``None`` until the host was seen quiet."""
    intervals: int = 0
    wraps: int = 0
    resets: int = 0
    rejected_intervals: int = 0
    read_failures: int = 0
    up: bool = True


@dataclass(frozen=True, slots=True)
class HostTotals:
    """All domains of the host, and the CPU time seen since the sidecar started."""

    domains: tuple[HostDomainTotals, ...] = ()
    busy_cpu_seconds: float | None = None
    """Of all CPUs together; ``None`` where it was never read."""
    engine_cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    """By engine, of those whose processes were visible."""
    engines_visible: Mapping[str, bool] = field(default_factory=dict)
    """By connected engine, at the last reading: whether all its processes are visible to the sidecar."""
