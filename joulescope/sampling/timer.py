"""When to look: deadlines on a fixed grid, each moved a little at random.

A GPU that repeats the same work every 100 ms, polled every 100 ms, is always caught in the same moment
of its work; drivers that average only a part of the time make that worse (arXiv 2312.02741 measures
25 ms out of 100 on H100). Random jitter within each period breaks the lockstep, and the grid itself
never drifts: deadline ``k`` is ``start + k·period + jitter``, whatever happened before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from joulescope.clock import Clock
from joulescope.units import ns_from_seconds, seconds_from_ns

_SLICE_SECONDS = 0.2
"""Longest single sleep: how long a cancelled wait may go unnoticed."""


@dataclass(frozen=True, slots=True)
class Tick:
    """One deadline that was kept."""

    number: int
    """Position in the grid; a skipped deadline leaves a hole in the numbers."""
    deadline_ns: int
    late_ns: int
    """How long after its deadline it fired, never below 0."""
    missed: int
    """Deadlines before this one, since the last tick, that passed unused."""


class DeadlineTimer:
    """Waits for one deadline after the other; see the module's text for where they lie."""

    def __init__(
        self, clock: Clock, period_seconds: float, random: Random, *, jitter_ratio: float = 0.2
    ) -> None:
        """``jitter_ratio`` is the part of a period over which deadlines are spread, 0 for none.

        Raises:
            ValueError: if the period is not above 0 or the ratio not within 0..1.
        """
        if not period_seconds > 0:
            raise ValueError(f"period_seconds must be above 0, got {period_seconds}")
        if not 0 <= jitter_ratio <= 1:
            raise ValueError(f"jitter_ratio must lie within 0..1, got {jitter_ratio}")
        self._clock = clock
        self._random = random
        self._jitter_ratio = jitter_ratio
        self.restart(period_seconds)

    def restart(self, period_seconds: float | None = None) -> None:
        """Lays a new grid from now on: the next deadline is due at once and none counts as missed.

        ``period_seconds``: of the new grid, above 0; by default the period stays.
        """
        if period_seconds is not None:
            self._period_ns = max(1, ns_from_seconds(period_seconds))
            self._jitter_ns = self._period_ns * self._jitter_ratio
        self._start_ns = self._clock.now_ns()
        self._next = 0

    def wait(self, cancelled: Callable[[], bool] = lambda: False) -> Tick | None:
        """Sleeps until the next deadline; ``None`` if ``cancelled()`` turned true meanwhile.

        A caller that comes late gets the deadline of the current period at once; those of periods that
        are wholly over are skipped and counted.
        """
        current = (self._clock.now_ns() - self._start_ns) // self._period_ns
        number = max(self._next, current)
        deadline_ns = self._start_ns + number * self._period_ns
        if number:
            deadline_ns += int(self._random.random() * self._jitter_ns)
        if not sleep_until(self._clock, deadline_ns, cancelled):
            return None
        late_ns = max(0, self._clock.now_ns() - deadline_ns)
        missed = number - self._next
        self._next = number + 1
        return Tick(number=number, deadline_ns=deadline_ns, late_ns=late_ns, missed=missed)


def sleep_until(clock: Clock, deadline_ns: int, cancelled: Callable[[], bool]) -> bool:
    """Sleeps in slices until ``deadline_ns``; False as soon as ``cancelled()`` is seen to be true."""
    while not cancelled():
        remaining_ns = deadline_ns - clock.now_ns()
        if remaining_ns <= 0:
            return True
        clock.sleep(min(seconds_from_ns(remaining_ns), _SLICE_SECONDS))
    return False
