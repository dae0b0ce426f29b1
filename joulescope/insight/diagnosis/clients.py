"""Whether clients wait for answers: a closed loop, in which a slower engine is sent fewer requests.

Requests that come whenever they like scatter: how many are there wanders around its mean, the more slowly the
longer they stay. Where each client sends a request when it has its answer, there are always as many as
clients. So the number present, minute by minute, says which it is: whether it scatters as that of arrivals
at random would, or next to not at all. Requests that a clock sends make it as even, but then they come
evenly, which those of clients that wait for answers of many lengths do not. If they do, what stayed tells
when the engine changed: the number, or the rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from joulescope.insight.diagnosis.window import Window
from joulescope.minute_model import EngineMinute

_CHANCE = 0.01
"""That arrivals at random would scatter so little, in each of the windows, for them to be a closed loop."""

_LEAST_SECONDS, _LEAST_MINUTES, _LEAST_REQUESTS = 30.0, 3, 30
_ROUNDING = 1.5
"""Requests that a minute may have more or fewer because one came just before its edge."""

_LEAST_PRESENT = 0.9
"""A client that waits for answers is always there."""


def wait_for_answers(first: Window, second: Window) -> bool:
    """Whether clients of both windows do."""
    if not (steady_number(first.minutes) and steady_number(second.minutes)):
        return False
    if not (even_arrivals(first.minutes) and even_arrivals(second.minutes)):
        return True
    numbers = [each.present for each in (first, second)]
    rates = [each.observed.workload.arrivals_per_second or 0.0 for each in (first, second)]
    if min(numbers) <= 0.0 or min(rates) <= 0.0:
        return False
    moved = [abs(math.log(new / old)) for old, new in (numbers, rates)]
    return moved[0] <= moved[1]


def even_arrivals(minutes: Sequence[EngineMinute]) -> bool:
    """Whether as many requests start in each minute as its time says, as if a clock sent them."""
    full = [each.load for each in minutes if each.load.seconds > _LEAST_SECONDS]
    rate = sum(each.requests_started for each in full) / max(sum(each.seconds for each in full), 1e-9)
    return all(abs(each.requests_started - rate * each.seconds) <= _ROUNDING for each in full)


def steady_number(minutes: Sequence[EngineMinute]) -> bool:
    """Whether as good as always the same number of requests is there, beyond what chance explains."""
    full = [each.load for each in minutes if each.load.seconds > _LEAST_SECONDS]
    seconds = sum(each.seconds for each in full)
    requests = sum(each.requests_started for each in full)
    if len(full) < _LEAST_MINUTES or requests < _LEAST_REQUESTS:
        return False
    present = [(each.running_seconds + each.waiting_seconds) / each.seconds for each in full]
    mean = sum(present) / len(present)
    if mean < _LEAST_PRESENT:
        return False
    stay = mean * seconds / requests
    scatter = sum((each - mean) ** 2 for each in present)
    expected = _variance(mean, stay, seconds / len(full))
    return scatter < expected * _least_scatter(len(full) - 1)


def _variance(mean: float, stay_seconds: float, seconds: float) -> float:
    """Of the mean number present over a stretch of time, if requests come at random: the number is Poisson,
    and what it was is forgotten as those present leave."""
    memory = stay_seconds / seconds
    return mean * 2.0 * memory * (1.0 - memory * (1.0 - math.exp(-1.0 / memory)))


def _least_scatter(freedom: int) -> float:
    """What a sum of so many squares of normal chance is below with the chance :data:`_CHANCE`; by Wilson
    and Hilferty's approximation (1931), which errs to the low side here."""
    spread = 2.0 / (9.0 * freedom)
    root = 1.0 - spread + NormalDist().inv_cdf(_CHANCE) * math.sqrt(spread)
    return float(freedom * max(root, 0.0) ** 3)
