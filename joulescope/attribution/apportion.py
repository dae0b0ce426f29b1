"""Whole microjoules over weights, without losing or inventing one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_TINY = 1e-200
"""Weights that sum to less are scaled up first: microjoules over so little would be infinite."""


def apportion(total_uj: int, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Divides ``total_uj`` in proportion to ``weights``; the parts sum to it exactly.

    Cumulative rounding: part *i* is the difference of the rounded running shares, so that each part is
    within one microjoule of its exact share and no rounding piles up at one end.

    Args:
        total_uj: microjoules, not negative, below 2**53 so that a float holds them exactly.
        weights: not negative, at least one; if all are zero the division is equal.
    """
    running = np.cumsum(weights)
    last = float(running[-1])
    if last <= 0.0:
        running = np.arange(1.0, len(weights) + 1.0)
        last = float(len(weights))
    if last < _TINY:
        running, last = running / last, 1.0
    edges = np.rint(running * (total_uj / last)).astype(np.int64)
    edges[-1] = total_uj
    np.minimum(edges, total_uj, out=edges)
    parts = np.empty_like(edges)
    parts[0] = edges[0]
    np.subtract(edges[1:], edges[:-1], out=parts[1:])
    return parts
