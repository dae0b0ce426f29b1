"""Polls the host: opens its zones, reads them and the CPU times once a second, opens them again when lost.

It has no thread. The owner of the accounts calls :meth:`HostPoller.poll` in each of its turns, since it knows
the engines' processes; a read takes far less than a turn, and no driver is asked that could hang.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from joulescope.clock import Clock
from joulescope.errors import SensorError, SensorLost
from joulescope.host_model import CpuTimes, EngineProcess, HostDomain, HostReading
from joulescope.units import NANOSECONDS_PER_SECOND

PERIOD_NS = NANOSECONDS_PER_SECOND
"""Counters of CPUs tick each millisecond; CPU time is told in hundredths of a second."""

REOPEN_NS = 60 * NANOSECONDS_PER_SECOND
"""How often zones are looked for again: a module may be loaded, a permission given, a zone may vanish."""

Engines = Mapping[str, Collection[EngineProcess]]


class Zones(Protocol):
    """Energy counters of the host."""

    skipped: dict[str, str]

    def domains(self) -> Sequence[HostDomain]: ...

    def read(self) -> tuple[Mapping[str, float], Mapping[str, str]]: ...


class Processes(Protocol):
    """CPU times of the host and of engines."""

    def read(self, engines: Engines) -> CpuTimes | None: ...


@dataclass(frozen=True, slots=True)
class HostFound:
    """These domains can be read from now on, these zones are left out and why."""

    domains: Sequence[HostDomain]
    skipped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HostRead:
    """One reading, and the failed reads by domain so far."""

    reading: HostReading
    read_failures: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class HostDown:
    """No domain can be read."""

    error: SensorError
    read_failures: Mapping[str, int]


HostEvent = HostFound | HostRead | HostDown


class HostPoller:
    """Reads the host for as long as it is polled."""

    def __init__(
        self,
        open_zones: Callable[[], Zones],
        processes: Processes,
        clock: Clock,
    ) -> None:
        self._open_zones = open_zones
        self._processes = processes
        self._clock = clock
        self._zones: Zones | None = None
        self._open_ns: int | None = None
        self._read_ns: int | None = None
        self._failures: Counter[str] = Counter()

    def poll(self, engines: Callable[[], Engines]) -> list[HostEvent]:
        """What there is to tell by now, most often nothing; ``engines`` is asked only if a read is due."""
        now_ns = self._clock.now_ns()
        events: list[HostEvent] = []
        try:
            if self._open_ns is None or now_ns - self._open_ns >= REOPEN_NS:
                events += self._open(now_ns)
            if self._zones is not None and (self._read_ns is None or now_ns - self._read_ns >= PERIOD_NS):
                self._read_ns = now_ns
                events.append(self._read(self._zones, engines()))
        except SensorError as error:
            self._zones = None
            events.append(HostDown(error, dict(self._failures)))
        return events

    def _open(self, now_ns: int) -> list[HostEvent]:
        self._open_ns = now_ns
        before = None if self._zones is None else self._zones.domains()
        self._zones = zones = self._open_zones()
        domains = zones.domains()
        return [] if domains == before else [HostFound(domains, zones.skipped)]

    def _read(self, zones: Zones, engines: Engines) -> HostRead:
        energy_joules, failed = zones.read()
        time_ns = self._clock.now_ns()
        self._failures.update(failed.keys())
        if not energy_joules:
            raise SensorLost(f"host energy cannot be read any more: {next(iter(failed.values()), 'no zone')}")
        cpu = self._processes.read(engines)
        return HostRead(HostReading(time_ns, energy_joules, cpu), dict(self._failures))
