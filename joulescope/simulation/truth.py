"""Who truly caused the joules of a step: the Shapley value of its true cost.

The simulation knows the cost of every subset of a step's requests, so it can say what no meter can: the
fair share of each. Where nothing but shared and own costs are at work the value has a closed form (a
fixed cost divides equally, an own cost stays with its owner). Where a maximum is at work (arithmetic
that outgrows the weight read, the power cap) it is the mean over all orders of arrival of what each adds
(Shapley 1953): summed over all subsets in a small step, and in a large one over a stratified set of orders,
in which each request arrives once in every stratum of time, so that one large prefill among many small
decodes, the usual case, is averaged well. Whatever the orders, the shares sum to the step's energy.

This is written apart from :mod:`joulescope.attribution` on purpose: it is what that is judged against.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from joulescope.simulation.physics import StepTerms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

MAX_EXACT = 10
"""Steps of so many requests are computed exactly, from the costs of all their subsets."""

MIN_ORDERS, MAX_ORDERS = 16, 512
"""Orders of arrival that are averaged, each together with its reverse: more for small steps."""

_SAMPLED_ARRIVALS = 8192
"""Orders times requests, about: what one step may cost."""


def shares_joules(terms: StepTerms, turn: int = 0) -> Floats:
    """Shapley value of each request in the step; the sum is the step's energy.

    ``turn`` (the step's number, say) only decides which request meets which of the fixed orders, so
    that what remains of sampling error does not always fall on the same one.
    """
    if _is_linear(terms):
        fixed = terms.fixed_joules + terms.active_watts * (terms.launch_seconds + terms.weight_seconds)
        own = terms.own_joules + terms.active_watts * terms.own_seconds
        return np.asarray(fixed / len(own) + own, dtype=np.float64)
    if len(terms.own_joules) <= MAX_EXACT:
        return _sum_over_subsets(terms)
    return _mean_over_orders(terms, turn)


def _is_linear(terms: StepTerms) -> bool:
    """Whether no subset of the step's requests meets a maximum: then shares are closed forms."""
    if terms.linear_seconds.sum() > terms.weight_seconds:
        return False
    stretch = terms.own_joules / terms.headroom_watts - terms.own_seconds
    fixed = terms.fixed_joules / terms.headroom_watts - terms.launch_seconds - terms.weight_seconds
    return bool(fixed + np.maximum(stretch, 0.0).sum() <= 0.0)


def _sum_over_subsets(terms: StepTerms) -> Floats:
    """Shapley's formula: what a request adds to each subset of the others, weighted by its size."""
    count = len(terms.own_joules)
    members, weights = _subsets(count)
    energy = terms.energy_joules(
        members @ terms.own_joules, members @ terms.linear_seconds, members @ terms.own_seconds
    )
    energy[0] = 0.0
    return np.asarray(weights.T @ energy, dtype=np.float64)


@lru_cache(maxsize=MAX_EXACT)
def _subsets(count: int) -> tuple[Floats, Floats]:
    """All subsets of ``count`` requests, a row each, and each subset's weight in every share."""
    members = np.array(list(product((0.0, 1.0), repeat=count)))
    size = members.sum(axis=1)[:, None]
    orders = np.array([math.comb(count - 1, each) * count for each in range(count)], dtype=np.float64)
    joined = members / orders[np.maximum(size - 1, 0).astype(np.int64)]
    left_out = (1.0 - members) / orders[np.minimum(size, count - 1).astype(np.int64)]
    return members, joined - left_out


def _mean_over_orders(terms: StepTerms, turn: int) -> Floats:
    count = len(terms.own_joules)
    orders = (_orders(count) + turn % count) % count
    energy = terms.energy_joules(
        np.cumsum(terms.own_joules[orders], axis=1),
        np.cumsum(terms.linear_seconds[orders], axis=1),
        np.cumsum(terms.own_seconds[orders], axis=1),
    )
    added = np.diff(energy, axis=1, prepend=0.0)
    return np.bincount(orders.ravel(), weights=added.ravel(), minlength=count) / len(orders)


@lru_cache(maxsize=256)
def _orders(count: int) -> NDArray[np.int32]:
    """Orders of arrival of ``count`` requests, a Latin hypercube; the same for everyone who asks.

    Each order comes with its reverse: whoever is early in one is late in the other, which cancels most
    of what is left of the sampling error.
    """
    rows = min(max(_SAMPLED_ARRIVALS // count, MIN_ORDERS), MAX_ORDERS)
    rng = np.random.default_rng(count)
    strata = rng.permuted(np.tile(np.arange(rows), (count, 1)), axis=1).T
    arrival = (strata + rng.random((rows, count))) / rows
    forward = np.argsort(arrival, axis=1).astype(np.int32)
    return np.concatenate([forward, forward[:, ::-1]])


@dataclass(slots=True)
class TrueAccount:
    """What a request truly cost so far."""

    joules: float = 0.0
    """Its Shapley shares of all steps that it was in."""
    recompute_joules: float = 0.0
    """Of these, for tokens that were computed before and lost to a preemption."""
    by_tokens_joules: float = 0.0
    """What it would be charged if each step were divided in proportion to the tokens computed. This and
    the next are wrong on purpose, for comparison."""
    by_output_joules: float = 0.0
    """The same in proportion to the tokens that came out."""


@dataclass(frozen=True, slots=True, eq=False)
class StepCharges:
    """One step's joules by request: the true share, the part of it for recomputed tokens, naive shares."""

    shares: Floats
    recomputed: Floats
    by_tokens: Floats
    by_output: Floats

    @classmethod
    def of(cls, shares: Floats, scheduled: Ints, sampled: Ints, recomputed: Ints) -> StepCharges:
        energy_joules = shares.sum()
        by_tokens = energy_joules * scheduled / scheduled.sum()
        came_out = sampled.sum()
        return cls(
            shares=shares,
            recomputed=shares * recomputed / scheduled,
            by_tokens=by_tokens,
            # A step of which nothing came out has to be charged somehow.
            by_output=energy_joules * sampled / came_out if came_out else by_tokens,
        )


class TrueLedger:
    """True accounts by request id; the oldest are forgotten beyond ``limit``."""

    def __init__(self, limit: int = 200_000) -> None:
        self._limit = limit
        self._accounts: OrderedDict[str, TrueAccount] = OrderedDict()

    def open(self, request_id: str) -> None:
        self._accounts[request_id] = TrueAccount()
        if len(self._accounts) > self._limit:
            self._accounts.popitem(last=False)

    def charge(self, request_ids: list[str], step: StepCharges) -> None:
        """Adds one step; its columns are parallel to the ids."""
        accounts = self._accounts
        columns = (step.shares, step.recomputed, step.by_tokens, step.by_output)
        for request_id, *joules in zip(request_ids, *(each.tolist() for each in columns), strict=True):
            account = accounts.get(request_id)
            if account is not None:
                account.joules += joules[0]
                account.recompute_joules += joules[1]
                account.by_tokens_joules += joules[2]
                account.by_output_joules += joules[3]

    def true_joules(self) -> dict[str, float]:
        """What each request truly cost so far, by request id, oldest first."""
        return {request_id: account.joules for request_id, account in self._accounts.items()}

    def get(self, request_id: str) -> TrueAccount | None:
        return self._accounts.get(request_id)
