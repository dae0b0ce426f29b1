"""How far another node's clock is from ours, with an error that is a bound and not a guess.

An exchange has four instants: we ask, it hears, it answers, we hear. What it heard was asked before, and
what we heard it had answered before: so the offset lies within a hard interval, whatever each way took.
Intervals of exchanges one after the other are intersected; between them, and for instants away from the last
one, the interval grows by what two clocks may drift apart.
"""

from __future__ import annotations

import math
from collections import deque

MAX_DRIFT_RATIO = 1.2e-3
"""Most by which the rates of two nodes' CLOCK_MONOTONIC may differ.

The kernel's discipline bends a clock by 500 ppm at most (``MAXFREQ`` of ``linux/timex.h``; ``adjtimex(2)``,
``adjtime(3)``), and quartzes of servers are off by up to 100 ppm: twice both. A clock that is slewed faster
than that (``chronyd`` may, by ``maxslewrate``; a node that was suspended does) shows as an interval that is
empty, and the measurement begins anew."""

_DRIFT_POINTS = 240
_LEAST_DRIFT_SPAN_NS = 10 * 10**9


class LinkClock:
    """Turns instants of the other node's CLOCK_MONOTONIC into ours. Pure: it never looks at a clock.

    The offset is ours minus theirs, nanoseconds. ``jumps`` counts how often what was known could not be true
    together with what came next, so that it was given up.
    """

    def __init__(self, max_drift_ratio: float = MAX_DRIFT_RATIO) -> None:
        self.jumps = 0
        self.exchanges = 0
        self.round_trip_seconds: float | None = None
        """Of the last exchange, without the time that the other side took to answer."""
        self._drift = max_drift_ratio
        self._low_ns = self._high_ns = self._at_ns = 0
        self._known = False
        self._middles: deque[tuple[int, float]] = deque(maxlen=_DRIFT_POINTS)

    @property
    def known(self) -> bool:
        """Whether an instant can be turned."""
        return self._known

    def exchange(self, asked_ns: int, heard_ns: int, answered_ns: int, back_ns: int) -> None:
        """Takes one exchange: first and last instant by our clock, the two between by theirs.

        Raises:
            ValueError: if either clock ran backwards in it, which CLOCK_MONOTONIC does not.
        """
        if back_ns < asked_ns or answered_ns < heard_ns:
            raise ValueError("an exchange in which time runs backwards")
        low_ns = asked_ns - heard_ns - self._growth_ns(answered_ns - heard_ns)
        high_ns = back_ns - answered_ns
        if low_ns > high_ns:  # a clock jumped in the middle of it
            self._begin_anew()
            self._known = False
            return
        self.exchanges += 1
        self.round_trip_seconds = max((back_ns - asked_ns) - (answered_ns - heard_ns), 0) / 1e9
        if self._known:
            growth_ns = self._growth_ns(answered_ns - self._at_ns)
            both_low_ns = max(low_ns, self._low_ns - growth_ns)
            both_high_ns = min(high_ns, self._high_ns + growth_ns)
            if both_low_ns <= both_high_ns:
                low_ns, high_ns = both_low_ns, both_high_ns
            else:
                self._begin_anew()
        self._low_ns, self._high_ns, self._at_ns = low_ns, high_ns, answered_ns
        self._known = True
        self._middles.append((answered_ns, (low_ns + high_ns) / 2))

    def turn(self, time_ns: int) -> tuple[int, float]:
        """An instant of theirs by our clock, and how far that may be off to either side, seconds.

        Raises:
            ValueError: before the first exchange.
        """
        if not self._known:
            raise ValueError("no exchange yet")
        middle_ns = (self._low_ns + self._high_ns) // 2
        half_ns = (self._high_ns - self._low_ns + 1) // 2 + self._growth_ns(time_ns - self._at_ns)
        return time_ns + middle_ns, half_ns / 1e9

    @property
    def offset_seconds(self) -> float | None:
        """The middle of the interval at the last exchange; ``None`` while nothing is known."""
        return (self._low_ns + self._high_ns) / 2e9 if self._known else None

    def error_seconds(self, now_ns: int) -> float | None:
        """Half the interval as it is now, by our clock; ``None`` while nothing is known."""
        if not self._known:
            return None
        return self.turn(now_ns - (self._low_ns + self._high_ns) // 2)[1]

    @property
    def drift_ratio(self) -> float | None:
        """By how much our clock was faster than theirs over the last minute or so, as far as the middles of
        the intervals tell; ``None`` in the first ten seconds."""
        if len(self._middles) < 2:
            return None
        (begin_ns, first_ns), (end_ns, last_ns) = self._middles[0], self._middles[-1]
        if end_ns - begin_ns < _LEAST_DRIFT_SPAN_NS:
            return None
        return (last_ns - first_ns) / (end_ns - begin_ns)

    def _growth_ns(self, span_ns: int) -> int:
        return math.ceil(abs(span_ns) * self._drift)

    def _begin_anew(self) -> None:
        self.jumps += 1
        self._middles.clear()
