"""Shapley values of a step whose cost is a function of sums over its requests.

Each request brings a vector of features (one sequence, so many bytes, so many FLOPs); the cost of a step is
some function of their sum: a roofline, a power cap, a mixture of experts that saturates. The Shapley value
is the mean marginal cost over all orders of arrival. When requests are many and small, that is Aumann and
Shapley's integral along the way from nobody to everybody ("Values of Non-Atomic Games", 1974): a request
pays its features times the mean slope of the cost on the way. The one large request that a step may have (a
prefill among decodes) is treated as there or not there, since a part of it never is.

All functions take many steps at once; the quadrature's cost does not depend on the number of requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LARGE = 3.0
"""So many times the mean makes a request the large one of its step."""

_NODES = (np.arange(16) + 0.5) / 16
"""Midpoints of the integral's equal parts: what is integrated has kinks, which finer rules do not like."""

_CHANCES = np.stack([1.0 - _NODES, _NODES]) / len(_NODES)
"""A small request comes at the moment t of the way; the large one has come before it with chance t."""


class Law(Protocol):
    """A cost as a function of summed features."""

    def value(self, sums: Floats) -> Floats:
        """Cost of steps whose requests sum to ``sums`` (… × features)."""
        ...

    def value_and_slopes(self, sums: Floats) -> tuple[Floats, Floats]:
        """The same, and the derivatives by each feature (… × features)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Division:
    """How the cost of each step divides, in the cost's unit."""

    constant: Floats
    """What is paid once, for all together (steps)."""
    slopes: Floats
    """What a unit of each feature pays, for all but the large request (steps × features)."""
    large: Floats
    """What the large request pays, its part of the constant left out (steps)."""


def divide_cost(law: Law, others: Floats, large: Floats) -> Division:
    """Divides the cost of steps.

    Args:
        law: the cost.
        others: summed features of each step's requests without the large one (steps × features).
        large: features of each step's large request, zeros where there is none (steps × features).
    """
    way = others[:, None, :] * _NODES[:, None]
    values, slopes = law.value_and_slopes(np.stack([way, way + large[:, None, :]]))
    return Division(
        constant=law.value(np.zeros_like(others)),
        slopes=np.einsum("am,anmf->nf", _CHANCES, slopes),
        large=(values[1] - values[0]).mean(axis=1),
    )


def divide_largest(constants: Floats, prices: Floats, others: Floats, large: Floats) -> Division:
    """Divides the cost of steps that is the largest of several linear bounds.

    The same as :func:`divide_cost`, exactly: along the way each bound is the largest in at most one stretch,
    and in a stretch the cost is linear.

    Args:
        constants: of each bound.
        prices: of each feature, by each bound (bounds × features).
        others, large: as for :func:`divide_cost`.
    """
    rise = others @ prices.T
    begin = np.stack([np.zeros_like(rise), large @ prices.T]) if large.any() else np.zeros((1, *rise.shape))
    begin += constants
    low, high = _pairs(len(constants))
    steeper = rise[:, high] - rise[:, low]
    crossing = (begin[..., low] - begin[..., high]) / np.where(steeper == 0.0, np.inf, steeper)
    edges = np.zeros((*begin.shape[:-1], len(low) + 2))
    edges[..., 1:-1] = np.sort(np.clip(crossing, 0.0, 1.0), axis=-1)
    edges[..., -1] = 1.0
    lengths, middles = np.diff(edges), 0.5 * (edges[..., 1:] + edges[..., :-1])
    bounds = begin[..., None, :] + middles[..., None] * rise[:, None, :]
    chances = np.stack([1.0 - middles[0], middles[1]]) if len(begin) == 2 else np.ones_like(middles)
    is_largest = bounds.argmax(axis=-1)[..., None] == np.arange(len(constants))
    parts = ((lengths * chances)[..., None] * is_largest).sum(axis=(0, 2))
    means = (lengths * bounds.max(axis=-1)).sum(axis=-1)
    return Division(
        constant=np.full(len(others), constants.max()),
        slopes=parts @ prices,
        large=means[-1] - means[0],
    )


@lru_cache
def _pairs(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Every pair of so many bounds."""
    low, high = np.triu_indices(count, 1)
    return low, high
