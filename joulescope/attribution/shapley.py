"""Shapley values of a cost that is the largest of several sums.

The time of a step is the longest of several bounds, each a constant that is paid once plus what each
request adds: reading the weights, arithmetic, the power cap. For one bound the Shapley value is known:
the constant divides equally, the rest is its owner's. For several it is the mean marginal cost over all
orders of arrival, which Aumann and Shapley's integral gives to good accuracy when requests are many and
small; the one large request that a step may have (a prefill among decodes) is treated as there or not there,
since a part of it never is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LARGE = 3.0
"""So many times the mean makes a request the large one of its step."""

_NODES = (np.arange(64) + 0.5) / 64
"""Midpoints of the integral's 64 equal parts; the integrand is a step function of few steps."""


def dominant(constants: Floats, own: Floats) -> int | None:
    """The bound that is the largest for every subset of requests, if there is one.

    Args:
        constants: what each bound has once (bounds).
        own: what each request adds to each bound (bounds × requests).
    """
    best = int(np.argmax(constants + own.sum(axis=1)))
    excess = np.maximum(own - own[best], 0.0).sum(axis=1) + constants - constants[best]
    excess[best] = 0.0
    return best if (excess <= 0.0).all() else None


def shares_of_maximum(constants: Floats, own: Floats) -> Floats:
    """Shapley value of each request in ``max over bounds (constant + Σ own)``; sums to the full value."""
    count = own.shape[1]
    best = dominant(constants, own)
    if best is not None:
        return np.asarray(own[best] + constants[best] / count, dtype=np.float64)
    shares = _integrated(constants, own)
    total = float((constants + own.sum(axis=1)).max())
    return shares * (total / float(shares.sum()))


def _integrated(constants: Floats, own: Floats) -> Floats:
    """The integral, before it is scaled to the full value.

    A small request pays what it adds to the bound that is the longest when it comes: its own parts,
    weighted by how much of the time each bound is the longest. Whoever comes first pays the constants
    too, and that is each request equally often.
    """
    sizes = own.max(axis=0)
    large = int(np.argmax(sizes))
    everybody = own.sum(axis=1)
    once = float(constants.max()) / own.shape[1]
    if sizes[large] <= _LARGE * float(sizes.mean()):
        return np.asarray(_chances(constants, everybody, np.ones_like(_NODES)) @ own + once)
    alone = own[:, large]
    small_ones = everybody - alone
    before = _chances(constants, small_ones, 1.0 - _NODES)
    behind = _chances(constants + alone, small_ones, _NODES)
    shares = np.asarray((before + behind) @ own + once)
    path = constants[:, None] + np.outer(small_ones, _NODES)
    shares[large] = float(((path + alone[:, None]).max(axis=0) - path.max(axis=0)).mean()) + once
    return shares


def _chances(constants: Floats, sums: Floats, weights: Floats) -> Floats:
    """For each bound, the weighted part of the way from nobody to everybody on which it is the longest."""
    longest = (constants[:, None] + np.outer(sums, _NODES)).argmax(axis=0)
    return np.bincount(longest, weights, len(constants)) / len(_NODES)


def saved_without(constants: Floats, own: Floats) -> Floats:
    """What the step would be shorter without each request: its marginal cost as the last to come.

    The last request of a step saves all of it.
    """
    sums = constants + own.sum(axis=1)
    if own.shape[1] == 1:
        return np.asarray([sums.max()])
    return np.asarray(sums.max() - (sums[:, None] - own).max(axis=0), dtype=np.float64)
