"""The fair share of each request in the cost of a step: its Shapley value, for any law of costs.

What is paid once, as soon as anybody is there, divides equally; the rest is the mean over all orders of
arrival of what each request adds (Shapley 1953). In a small step that is a sum over all subsets. In a larger
one it is a mean over stratified orders, in which each request arrives once in every stratum of time, so
that one large prefill among many small decodes, the usual case, is averaged well. Whatever the orders, the
shares sum to the step's energy. The orders are two independent sets: how far the two means lie apart is
what is said of the sampling error.

This is written apart from :mod:`joulescope.attribution` on purpose: it is what that is judged against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from joulescope.simulation.physics import Floats, Law

MAX_EXACT = 12
"""Steps of so many requests are computed exactly, from the costs of all their subsets."""

MIN_ORDERS, MAX_ORDERS = 8, 64
"""Orders in each of the two sets, every one together with its reverse: more for small steps."""

MAX_ROUNDS, GOOD_RATIO = 8, 0.015
"""New sets are drawn, at most so often, until their difference is below this part of the mean share."""

_SAMPLED_ARRIVALS = 1024
"""Orders times requests in a set, about: what one step may cost."""


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """How the joules of one step divide, in the order of its requests."""

    shapley_joules: Floats
    """Sums to the step's energy."""
    error_joules: Floats
    """One draw of the sampling error of these: half the difference of two independent estimates, which has
    the standard deviation of their mean. Zero where the shares are exact."""
    marginal_joules: Floats
    """What the step would cost less without the request, exactly."""


def shares_of(law: Law, features: Floats, turn: int = 0) -> Shares:
    """The shares of a step whose requests have these features, [len(FEATURES), requests].

    ``turn`` (the step's number, say) only decides which request meets which of the fixed orders, so
    that what remains of sampling error does not always fall on the same one.
    """
    count = features.shape[1]
    own = law.own_joules(features)
    once = float(law.energy_joules(np.zeros(len(features))))
    if own is not None:
        alone = once if count == 1 else 0.0
        return Shares(once / count + own, np.zeros(count), own + alone)
    if count <= MAX_EXACT:
        shapley, error = _over_subsets(law, features, once), np.zeros(count)
    else:
        shapley, error = _over_orders(law, features, once, turn)
    return Shares(shapley + once / count, error, marginal_joules(law, features))


def marginal_joules(law: Law, features: Floats) -> Floats:
    """Energy of the step minus its energy without each of its requests in turn."""
    whole = features.sum(axis=1)
    if features.shape[1] == 1:
        return law.energy_joules(whole)[None]
    without = whole[:, None] - features
    return np.asarray(law.energy_joules(whole) - law.energy_joules(without))


def _over_subsets(law: Law, features: Floats, once: float) -> Floats:
    """Shapley's formula: what a request adds to each subset of the others, weighted by its size."""
    members, weights = _subsets(features.shape[1])
    return np.asarray((law.energy_joules(features @ members) - once) @ weights)


@lru_cache(maxsize=MAX_EXACT)
def _subsets(count: int) -> tuple[Floats, Floats]:
    """All subsets of ``count`` requests, a column each, and each subset's weight in every share."""
    members = np.array(list(product((0.0, 1.0), repeat=count)))
    size = members.sum(axis=1)[:, None]
    orders = np.array([math.comb(count - 1, each) * count for each in range(count)], dtype=np.float64)
    joined = members / orders[np.maximum(size - 1, 0).astype(np.int64)]
    left_out = (1.0 - members) / orders[np.minimum(size, count - 1).astype(np.int64)]
    return np.ascontiguousarray(members.T), joined - left_out


def _over_orders(law: Law, features: Floats, once: float, turn: int) -> tuple[Floats, Floats]:
    """Mean over sampled orders of what each request adds, and a draw of its error."""
    count = features.shape[1]
    shift = turn % count
    turned = np.roll(features, shift, axis=1)
    early = float(np.median(law.energy_joules(turned) - once - marginal_joules(law, turned)))
    halves = np.zeros((2, count))
    for rounds in range(1, MAX_ROUNDS + 1):
        orders, places, surplus = _orders(count, rounds)
        energy = law.energy_joules(np.cumsum(np.take(turned, orders, axis=1), axis=-1))
        added = np.diff(energy, axis=-1, prepend=once)
        halves += np.take_along_axis(added, places, axis=-1).mean(axis=1)
        # Most add more where they come first than where they come last: that much is known, and chance
        # shall not decide who comes first how often. Over all requests the surplus sums to 0.
        halves -= surplus * early
        error = (halves[0] - halves[1]) / 2
        wanted = GOOD_RATIO * (abs(halves).mean() + rounds * once / count)
        if math.sqrt(np.mean(error**2)) <= wanted:
            break
    halves = np.roll(halves / rounds, -shift, axis=1)
    return halves.mean(axis=0), (halves[0] - halves[1]) / 2


@lru_cache(maxsize=1024)
def _orders(count: int, rounds: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Orders of arrival of ``count`` requests, the place of each request in them, and how much more often
    than in one of ``count`` orders each comes first.

    Two independent Latin hypercubes, [2, orders, requests], the same for everyone who asks. Each order
    comes with its reverse: whoever is early in one is late in the other, which cancels most of what is
    left of the sampling error.
    """
    rows = min(max(_SAMPLED_ARRIVALS // count, MIN_ORDERS), MAX_ORDERS)
    rng = np.random.default_rng((count, rounds))
    strata = rng.permuted(np.tile(np.arange(rows), (2, count, 1)), axis=-1).swapaxes(1, 2)
    arrival = (strata + rng.random((2, rows, count))) / rows
    forward = np.argsort(arrival, axis=-1)
    orders = np.concatenate([forward, forward[..., ::-1]], axis=1)
    places = np.argsort(orders, axis=-1)
    return orders, places, (places == 0).mean(axis=1) - 1.0 / count
