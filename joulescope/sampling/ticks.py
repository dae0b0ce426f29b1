"""When a counter ticked, told from polls that only see that it did.

A counter that refreshes every 100 ms and is polled every 50 ms shows a new figure up to a poll late. For a
request of half a second that is a tenth of its life. But ticks are regular and polls are not in step with
them: each change confines the tick to the time since the poll before, and all of them together confine it to
a few milliseconds.
"""

from __future__ import annotations

import math

NOMINAL_NS = 100_000_000
"""Refresh period of the energy counter on all parts that were measured (arXiv 2312.02741)."""

_SNAP = 0.12
"""A measured period this near the nominal one is taken for it."""

_ENOUGH = 6
"""So many changes before a period is believed."""

_SLACK_NS = 300_000
"""How much one period may differ from the next."""

_SILENCE_NS = 250_000_000
"""Polls further apart than this tell nothing of ticks."""

_LATE_NS = 2_000_000
"""A reading may have been taken so long before its stamp: the thread was not scheduled in between."""

_BASELINE = 100
"""So many periods apart two ticks must lie for the period to be measured by them."""

_PATIENCE = 3
"""So many ticks out of place and the period is measured anew."""


class TickClock:
    """Follows the ticks of one counter. Constant memory; instants are nanoseconds."""

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._period_ns: float | None = None
        self._changes: list[tuple[int, int]] = []
        self._low_ns = self._high_ns = math.inf
        self._slack_ns: float = _SLACK_NS
        self._anchor: tuple[float, float] | None = None
        self._periods = 0
        self._misses = 0

    @property
    def period_ns(self) -> float | None:
        """The counter's refresh period, once it is known."""
        return self._period_ns

    def saw(self, before_ns: int, now_ns: int) -> int:
        """A poll at ``now_ns`` showed another figure than the one at ``before_ns``: when it ticked.

        Where every poll sees another figure, ticks are more frequent than polls, and it ticked just now;
        after a silence that is assumed too.
        """
        if now_ns - before_ns > _SILENCE_NS:
            self._restart()
            self._low_ns, self._high_ns = float(before_ns), float(now_ns)
            return now_ns
        low_ns, high_ns = float(before_ns - _LATE_NS), float(now_ns)
        if self._period_ns is None:
            every_poll = before_ns <= self._high_ns
            self._measure(before_ns, now_ns)
            self._low_ns, self._high_ns = low_ns, high_ns
            return now_ns if every_poll else (before_ns + now_ns) // 2
        low_ns, high_ns = self._confine(self._period_ns, low_ns, high_ns)
        self._low_ns, self._high_ns = low_ns, high_ns
        return min(max(round((low_ns + high_ns) / 2), before_ns + 1), now_ns)

    def _measure(self, before_ns: int, now_ns: int) -> None:
        """Takes the mean distance of changes for the period, if polls are frequent enough to see each."""
        self._changes.append((before_ns, now_ns))
        if len(self._changes) <= _ENOUGH:
            return
        first, last = self._changes[0], self._changes[-1]
        period_ns = (last[1] - first[1]) / _ENOUGH
        polls_ns = sum(now - before for before, now in self._changes) / len(self._changes)
        self._changes.pop(0)
        if polls_ns > 0.8 * period_ns:
            return
        near = abs(period_ns / NOMINAL_NS - 1.0) < _SNAP
        self._period_ns = NOMINAL_NS if near else period_ns
        self._slack_ns = _SLACK_NS if near else polls_ns / _ENOUGH

    def _confine(self, period_ns: float, low_ns: float, high_ns: float) -> tuple[float, float]:
        """The part of the time since the poll before in which earlier ticks let this one be."""
        passed_ns = (low_ns + high_ns - self._low_ns - self._high_ns) / 2
        periods = max(round(passed_ns / period_ns), 1)
        slack_ns = periods * self._slack_ns
        confined = (
            max(low_ns, self._low_ns + periods * period_ns - slack_ns),
            min(high_ns, self._high_ns + periods * period_ns + slack_ns),
        )
        if confined[0] > confined[1]:
            self._anchor = None
            self._misses += 1
            if self._misses >= _PATIENCE:
                self._restart()
            return low_ns, high_ns
        self._follow(confined, periods)
        return confined

    def _follow(self, confined: tuple[float, float], periods: int) -> None:
        """Measures the period over many ticks."""
        if self._anchor is None:
            self._anchor, self._periods = confined, 0
            return
        self._periods += periods
        if self._periods >= _BASELINE:
            self._period_ns = (sum(confined) - sum(self._anchor)) / 2 / self._periods
            self._slack_ns = _SLACK_NS
            self._anchor, self._periods, self._misses = confined, 0, 0
