"""What a setting gives by batch and by rate of requests, and the frontier of time against energy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from joulescope.insight.capacity.forecast import Forecast, Forecaster, Setting
from joulescope.insight.steady import Workload, steady_state

LOADS = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95)
"""Parts of the capacity at which rates are looked at."""


@dataclass(frozen=True, slots=True)
class Point:
    """A state of a setting under one load."""

    setting: str
    load: float
    """Requests at a time, or requests a second."""
    forecast: Forecast


def with_batch(workload: Workload, concurrency: float) -> Workload:
    """The same lengths, with so many requests always there."""
    return replace(workload, arrivals_per_second=None, concurrency=concurrency)


def with_rate(workload: Workload, arrivals_per_second: float) -> Workload:
    """The same lengths at another rate."""
    return replace(workload, arrivals_per_second=arrivals_per_second, concurrency=None)


def capacity_of(workload: Workload, setting: Setting) -> float:
    """Requests a second that it serves if they never run out."""
    return steady_state(with_batch(workload, math.inf), setting.service).capacity_requests_per_second


def largest_batch(workload: Workload, setting: Setting) -> float:
    """How many requests run while many wait."""
    return steady_state(with_batch(workload, math.inf), setting.service).running


def batch_curve(forecaster: Forecaster, setting: Setting, workload: Workload) -> list[Point]:
    """Batches from one to all that fit, in steps of an octave."""
    most = largest_batch(workload, setting)
    batches = [2.0**power for power in range(math.ceil(math.log2(max(most, 1.0)) - 1e-9))]
    return [
        Point(setting.name, batch, forecaster.of(with_batch(workload, batch), setting))
        for batch in [*batches, most]
    ]


def rate_curve(forecaster: Forecaster, setting: Setting, workload: Workload) -> list[Point]:
    """Rates up to nearly what can be served; idle time is in the joules."""
    capacity = capacity_of(workload, setting)
    return [
        Point(setting.name, rate, forecaster.of(with_rate(workload, rate), setting))
        for rate in (np.array(LOADS) * capacity).tolist()
    ]


def frontier(points: Iterable[Point]) -> list[Point]:
    """Those that no other beats in both joules per token and time from token to token, the fastest first."""
    known = [point for point in points if point.forecast.figures]
    by_time = sorted(known, key=lambda point: (_time(point), _joules(point)))
    best, kept = math.inf, []
    for point in by_time:
        if _joules(point) < best:
            best = _joules(point)
            kept.append(point)
    return kept


def _time(point: Point) -> float:
    return point.forecast.figures["inter_token_seconds"].value


def _joules(point: Point) -> float:
    return point.forecast.figures["joules_per_token"].value


def on_frontier(points: Sequence[Point]) -> set[int]:
    """Identities of the points that are on the frontier."""
    return {id(point) for point in frontier(points)}
