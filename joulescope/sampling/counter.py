"""Energy between two instants from a cumulative counter, as the drivers of GPUs keep one.

The counter refreshes about every 100 ms and shows the old figure in between, so only a poll that sees
it *change* says anything about an instant: intervals start and end at such polls.
"""

from __future__ import annotations

from dataclasses import dataclass

from joulescope.model import EnergyInterval
from joulescope.sampling.ticks import TickClock
from joulescope.units import seconds_from_ns, uj_from_joules

HOLE_SECONDS = 5.0
"""A silence longer than this gets an interval of its own, so that it blurs no other."""

REFRESH_ALLOWANCE_SECONDS = 0.5
"""A change may cover up to one refresh period more than the polls around it: 0.1 s on known parts."""

LIMIT_MARGIN_RATIO = 1.25
"""Above the power limit for a moment is possible: cards read up to 5 % high and limits react late."""

POWER_CAP_WATTS = 20_000.0
"""What no single GPU or module can draw: the bound where no limit is known."""

_SLACK_JOULES = 1.0


@dataclass(frozen=True, slots=True)
class First:
    """Nothing to compare with yet."""


@dataclass(frozen=True, slots=True)
class Delta:
    """The counter went on by this much, possibly by nothing."""

    joules: float


@dataclass(frozen=True, slots=True)
class Reset:
    """The counter fell: a driver reload or a GPU reset, never a wrap (it has 64 bits)."""


CounterStep = First | Delta | Reset


def counter_step(previous_joules: float | None, joules: float) -> CounterStep:
    """What lies between two successive values of one counter."""
    if previous_joules is None:
        return First()
    if joules < previous_joules:
        return Reset()
    return Delta(joules - previous_joules)


@dataclass(slots=True)
class MeterCounters:
    """What a meter could not use, cumulative."""

    resets: int = 0
    """Decreases of the counter; the stretch since its last change is dropped."""
    rejected: int = 0
    """Impossible values: energy or power beyond what the GPU can draw; that stretch is dropped."""
    skipped: int = 0
    """Readings that are late, repeated, or carry neither energy nor power."""
    holes: int = 0
    """Silences too long to hold a power reading over; that stretch is dropped."""
    dropped_ns: int = 0
    """Time that no interval covers, because of the above."""


class CounterMeter:
    """Cuts a counter's course into intervals of at least ``window_ns``.

    Energies are differences of one rounded cumulative figure, so that the intervals of a stretch
    without a break sum to ``round(1e6·(last − first))`` microjoules exactly.
    """

    def __init__(self, gpu: str, window_ns: int, counters: MeterCounters) -> None:
        self._gpu = gpu
        self.limit_watts = 0.0
        """The most that the GPU is set to draw, 0 where that is not known."""
        self._window_ns = window_ns
        self._counters = counters
        self._origin_joules = 0.0
        self._joules: float | None = None
        self._power_watts = 0.0
        self._start_ns = self._changed_ns = self._seen_ns = 0
        self._start_uj = 0
        self._ticks = TickClock()

    def add(self, time_ns: int, joules: float, power_watts: float | None) -> list[EnergyInterval]:
        """Takes one poll, later than the one before; gives the intervals that it completes."""
        step = counter_step(self._joules, joules)
        watts_before, self._power_watts = self._power_watts, power_watts or 0.0
        if isinstance(step, First):
            self._begin(time_ns, joules)
            return []
        if isinstance(step, Reset):
            self._counters.resets += 1
            return self._break(time_ns, joules)
        if step.joules > self._possible_joules(time_ns, watts_before):
            self._counters.rejected += 1
            return self._break(time_ns, joules)
        hole = seconds_from_ns(time_ns - self._seen_ns) > HOLE_SECONDS
        intervals = self._close(self._changed_ns) if hole else []
        before_ns, self._seen_ns = self._seen_ns, time_ns
        self._joules = joules
        if step.joules > 0:
            ticked_ns = self._ticks.saw(before_ns, time_ns)
            self._changed_ns = ticked_ns
            if ticked_ns - self._start_ns >= self._window_ns:
                intervals += self._close(ticked_ns)
        return intervals

    @property
    def tick_seconds(self) -> float | None:
        """The counter's refresh period, once it is known."""
        period_ns = self._ticks.period_ns
        return None if period_ns is None else period_ns / 1e9

    def flush(self) -> list[EnergyInterval]:
        """Closes the open window at the last poll, whether or not the counter changed there."""
        return self._close(self._seen_ns)

    def _begin(self, time_ns: int, joules: float) -> None:
        self._origin_joules = self._joules = joules
        self._start_ns = self._changed_ns = self._seen_ns = time_ns
        self._start_uj = 0
        self._ticks = TickClock()

    def _break(self, time_ns: int, joules: float) -> list[EnergyInterval]:
        intervals = self._close(self._changed_ns)
        self._counters.dropped_ns += time_ns - self._start_ns
        self._begin(time_ns, joules)
        return intervals

    def _close(self, end_ns: int) -> list[EnergyInterval]:
        """Ends the open window at a poll since which the counter stood still."""
        if self._joules is None or end_ns <= self._start_ns:
            return []
        end_uj = uj_from_joules(self._joules - self._origin_joules)
        interval = EnergyInterval(self._gpu, self._start_ns, end_ns, end_uj - self._start_uj)
        self._start_ns = end_ns
        self._start_uj = end_uj
        return [interval]

    def _possible_joules(self, time_ns: int, watts_before: float) -> float:
        """The most that can have been drawn since the last change.

        A limit raised since it was read shows in the power readings, so they raise the bound.
        """
        watts = POWER_CAP_WATTS
        if self.limit_watts > 0:
            watts = min(max(self.limit_watts, watts_before, self._power_watts), POWER_CAP_WATTS)
        seconds = seconds_from_ns(time_ns - self._changed_ns) + REFRESH_ALLOWANCE_SECONDS
        return LIMIT_MARGIN_RATIO * watts * seconds + _SLACK_JOULES
