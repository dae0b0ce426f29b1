"""How many steps of a pipeline are under way at a time, and for how long such a state lasts.

An engine with pipeline stages schedules a step whenever fewer are under way than there are stages and a
request is free for it, and else waits for the oldest step's output. A request is in one step at a time, so
the running requests fall into sets that take turns. Who comes joins the set that is scheduled next; a set
ends with its last request. A set more begins only if a step leaves something to schedule: a prompt longer
than its token budget, or several that come at once. So at light load all requests share one step, while
the other stages wait; and once there are several sets, large ones live on for minutes. How many there are
is therefore a matter of chance and history, and of both states it can only be told how often they are met.

With *j* sets of about *m* requests each, sizes scatter as those of an infinite server (Poisson), so that a
set dies out ``e^m`` times more seldom the larger it is. Births and deaths of a further set balance, where
each request that comes begins one with the chance ``split``:

    chance(j + 1) / chance(j) = split · (e^m − 1)² / e^m,   m = present / (j + 1)

and where every request that goes is followed by another at once, of *n* that are always there,

    chance(j + 1) / chance(j) = split · (((j + 1) / j)^n − 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from joulescope.insight.steady.chunks import TOKENS, Chunks

Floats = NDArray[np.float64]

_BEGUN_SECONDS = 300.0
"""How long a queue is taken to have been there."""

_MOST_LOG = 60.0
"""Logarithm of a ratio beyond which one of two states is never met."""


def split_chance(fresh: Chunks, budget_tokens: float, beside: float) -> float:
    """How often a request that comes leaves a step's budget too small for all that is there to compute.

    Args:
        fresh: chunks of prompts.
        budget_tokens: of a step.
        beside: requests that come while a step is waited for, in the mean.
    """
    pairs = fresh.pairs()
    both = float(pairs.chance @ (pairs.figures[:, TOKENS] > budget_tokens))
    return min(fresh.per_request - 1.0 + beside * both, 1.0)


def open_ratio(split: float, present: float, sets: int) -> float:
    """Logarithm of how much oftener there is a set more than ``sets``, where requests come at a rate.

    ``present``: requests in the mean where there is one set more.
    """
    mean = max(present / (sets + 1), 1e-9)
    if split <= 0.0:
        return -math.inf
    return math.log(split) + 2.0 * math.log(-math.expm1(-mean)) + mean


def closed_ratio(split: float, present: float, sets: int) -> float:
    """The same where so many requests are always there."""
    more = present * math.log((sets + 1) / sets)
    grown = math.expm1(min(more, _MOST_LOG)) - 1.0
    if split <= 0.0 or grown <= 0.0:
        return -math.inf
    return math.log(split) + math.log(grown)


def chances(log_ratios: Sequence[float]) -> Floats:
    """Chances of one set, two, …, from the logarithms of each by the one before."""
    steps = np.clip(np.nan_to_num(np.array(log_ratios), neginf=-_MOST_LOG), -_MOST_LOG, _MOST_LOG)
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def since_begun(splits_per_second: float, most: int, stages: int) -> list[float]:
    """Chances of one set, two, … where a queue never empties, some minutes after it began.

    Who waits is taken into any set that loses one, so that none ends: there are as many as were ever begun.
    """
    expected = splits_per_second * _BEGUN_SECONDS
    found = [
        math.exp(-expected + at * math.log(max(expected, 1e-300)) - math.lgamma(at + 1.0))
        for at in range(most)
    ]
    found[-1] += max(1.0 - sum(found), 0.0)
    return found + [0.0] * (stages - most)


def slowest_of(values: Floats, chance: Floats, most: int) -> Floats:
    """Mean of the largest of 1, 2, …, ``most`` values that are drawn independently.

    Args:
        values: that are possible (rows × values).
        chance: of each (rows × values); rows sum to 1.
    """
    order = np.argsort(values, axis=1)
    ranked = np.take_along_axis(values, order, axis=1)
    below = np.cumsum(np.take_along_axis(chance, order, axis=1), axis=1)
    below = np.clip(below / below[:, -1:], 0.0, 1.0)
    before = np.concatenate([np.zeros((len(below), 1)), below[:, :-1]], axis=1)
    means = [(ranked * (below**count - before**count)).sum(axis=1) for count in range(1, most + 1)]
    return np.stack(means, axis=1)
