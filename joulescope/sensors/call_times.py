"""How long a driver takes to answer, call by call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from joulescope.clock import Clock
from joulescope.model import CallTime
from joulescope.units import seconds_from_ns


class CallTimes:
    """Counts calls and sums their durations, failed ones included. Use from one thread at a time."""

    def __init__(self, clock: Clock) -> None:
        self._now_ns = clock.now_ns
        self._calls: Counter[str] = Counter()
        self._total_ns: Counter[str] = Counter()

    def timed(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """What the call returns or raises."""
        start_ns = self._now_ns()
        try:
            return call(*arguments)
        finally:
            self.add(name, self._now_ns() - start_ns)

    def add(self, name: str, took_ns: int) -> None:
        """Notes a call whose duration is known already."""
        self._calls[name] += 1
        self._total_ns[name] += took_ns

    def told(self) -> Mapping[str, CallTime]:
        """All so far, by name of the call. May be called from another thread than the one that calls."""
        calls = dict(self._calls)
        return {name: CallTime(count, seconds_from_ns(self._total_ns[name])) for name, count in calls.items()}
