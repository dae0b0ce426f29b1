"""Joules of requests by bucket."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from joulescope.model import HistogramState

REQUEST_BOUNDS = (0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 1e4)
TOKEN_BOUNDS = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 50.0)


class Histogram:
    """Observations by bucket, the last traced one of each kept as its exemplar."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._exemplars: list[tuple[Mapping[str, str], float, float] | None] = [None] * (len(bounds) + 1)

    def observe(self, value: float, labels: Mapping[str, str], wall_seconds: float) -> None:
        bucket = bisect_left(self._bounds, value)
        self._counts[bucket] += 1
        self._total += value
        if labels:
            self._exemplars[bucket] = (labels, value, wall_seconds)

    def state(self) -> HistogramState:
        return HistogramState(self._bounds, tuple(self._counts), self._total, tuple(self._exemplars))
