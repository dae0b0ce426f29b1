"""From readings of the host to intervals of measured joules, domain by domain.

Unlike a GPU's counter of 64 bits these are narrow: at 300 W one begins again at 0 about every quarter of an
hour. So a decrease is a wrap, if what lies in between is possible, and only otherwise a reset.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from joulescope.host_model import CpuShare, CpuTimes, HostDomain, HostInterval, HostReading
from joulescope.sampling.counter import CounterStep, Delta, First, Reset
from joulescope.units import seconds_from_ns, uj_from_joules

POWER_CAP_WATTS = 2_000.0
"""What no package and no DRAM of one draws: server CPUs are set to 500 W and below."""

MAX_SILENCE_SECONDS = 3600.0
"""Joules of a longer stretch are not taken in, whatever the counter's range: who ran in it is not known."""

_SLACK_JOULES = 1.0


@dataclass(frozen=True, slots=True)
class Wrap:
    """The counter reached its range and began again; it went on by this much in all."""

    joules: float


@dataclass(frozen=True, slots=True)
class Hole:
    """So long a silence that the counter may have gone round unseen: what was drawn is not known."""


@dataclass(frozen=True, slots=True)
class Impossible:
    """The counter rose by more than can have been drawn."""


HostStep = CounterStep | Wrap | Hole | Impossible


def host_step(
    previous_joules: float | None, joules: float, elapsed_seconds: float, range_joules: float | None
) -> HostStep:
    """What lies between two successive values of a counter that begins again after ``range_joules``."""
    if previous_joules is None:
        return First()
    most_joules = POWER_CAP_WATTS * elapsed_seconds + _SLACK_JOULES
    if elapsed_seconds > MAX_SILENCE_SECONDS or (range_joules is not None and most_joules >= range_joules):
        return Hole()
    if joules >= previous_joules:
        return Delta(joules - previous_joules) if joules - previous_joules <= most_joules else Impossible()
    if range_joules is None:
        return Reset()
    through_joules = joules + range_joules - previous_joules
    return Wrap(through_joules) if 0 <= through_joules <= most_joules else Reset()


@dataclass(slots=True)
class DomainMeter:
    """The counter of one domain, and what it could not use, cumulative."""

    info: HostDomain
    wraps: int = 0
    resets: int = 0
    rejected: int = 0
    """Impossible rises, and silences in which the counter may have gone round; the stretch is dropped."""
    time_ns: int = 0
    _joules: float | None = None
    _cpu: CpuTimes | None = None

    def add(self, time_ns: int, joules: float, cpu: CpuTimes | None) -> HostInterval | None:
        """Takes one reading; gives what was drawn since the one before, if that is known."""
        if self._joules is not None and time_ns <= self.time_ns:
            return None
        elapsed_seconds = seconds_from_ns(time_ns - self.time_ns)
        step = host_step(self._joules, joules, elapsed_seconds, self.info.energy_range_joules)
        self.wraps += isinstance(step, Wrap)
        self.resets += isinstance(step, Reset)
        self.rejected += isinstance(step, (Hole, Impossible))
        interval = None
        if isinstance(step, (Delta, Wrap)):
            share = cpu_share(self._cpu, cpu)
            interval = HostInterval(
                self.info.domain, self.time_ns, time_ns, uj_from_joules(step.joules), share
            )
        self.time_ns, self._joules, self._cpu = time_ns, joules, cpu
        return interval


def cpu_share(before: CpuTimes | None, after: CpuTimes | None) -> CpuShare | None:
    """CPU time spent between two readings; ``None`` if either is missing or the host's own went back.

    An engine that was not in the first reading counts from 0. One whose time went back is a new count of
    which nothing can be said yet.
    """
    if before is None or after is None:
        return None
    busy_seconds = after.busy_seconds - before.busy_seconds
    total_seconds = max(after.total_seconds - before.total_seconds, busy_seconds)  # they round apart
    if busy_seconds < 0:
        return None
    spent = {
        engine: max(seconds - before.engine_seconds.get(engine, 0.0), 0.0)
        for engine, seconds in after.engine_seconds.items()
    }
    unseen = bool(before.unseen_engines or after.unseen_engines)
    return CpuShare(busy_seconds, total_seconds, spent, unseen)


class HostMeters:
    """One meter for each domain that was ever read."""

    def __init__(self) -> None:
        self.domains: dict[str, DomainMeter] = {}

    def found(self, domains: Iterable[HostDomain]) -> None:
        """These can be read from now on; one that was known keeps its course."""
        for info in domains:
            meter = self.domains.get(info.domain)
            if meter is None:
                self.domains[info.domain] = DomainMeter(info)
            else:
                meter.info = info

    def add(self, reading: HostReading) -> list[HostInterval]:
        """Takes one reading; gives the intervals that it completes."""
        intervals = []
        for domain, joules in reading.energy_joules.items():
            meter = self.domains.get(domain)
            if meter is None:
                meter = self.domains[domain] = DomainMeter(HostDomain(domain))
            interval = meter.add(reading.time_ns, joules, reading.cpu)
            if interval is not None:
                intervals.append(interval)
        return intervals
