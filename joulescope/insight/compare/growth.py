"""How a step grows with its batch: as a + c·b^q, with q from three points."""

from __future__ import annotations

import math

from joulescope.insight.bisection import narrowed

LINE, LOGARITHM = 1.0, 0.0
"""The ends of q: each request adds the same; each doubling of the batch adds the same."""
_HALVINGS = 50


def grown(batch: float, q: float) -> float:
    """(b^q − 1) / q, which goes over into ln b as q goes to 0."""
    return math.log(batch) if q < 1e-6 else math.expm1(q * math.log(batch)) / q


def shrunk(value: float, q: float) -> float:
    """The batch of which :func:`grown` is this value."""
    return math.exp(value) if q < 1e-6 else math.exp(math.log1p(q * value) / q)


def exponent(*points: tuple[float, float]) -> float | None:
    """q of the curve through three points, batch and what a step costs there; between 0 and 1.

    ``None`` where they do not tell: two are at one batch, or a larger batch costs no more.
    """
    (low, first), (middle, second), (high, third) = sorted(points)
    if not low < middle < high or not first < second < third:
        return None
    share = (second - first) / (third - first)

    def told(q: float) -> float:
        return (grown(middle, q) - grown(low, q)) / (grown(high, q) - grown(low, q))

    if share <= told(LINE):
        return LINE
    if share >= told(LOGARITHM):
        return LOGARITHM
    bent, straight = narrowed(LOGARITHM, LINE, lambda q: told(q) >= share, _HALVINGS)  # told falls with q
    return (straight + bent) / 2
