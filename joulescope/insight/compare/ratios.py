"""Ratios of sums over parts, and how sure they are.

A figure such as joules per token is R = Σ J_i / Σ T_i over the parts of a point. Its variance is that of the
residuals J_i − R·T_i (the ratio estimator of survey sampling):

    Var R = n / (n − 1) · Σ (J_i − R·T_i)² / (Σ T_i)²

times (1 + ρ) / (1 − ρ) where consecutive residuals are alike with correlation ρ > 0, as those of minutes are
while a load drifts. The interval is Student's, 90 %. From one part nothing is known of the scatter, and no
interval is given. What is the same in all parts, such as the gain error of a meter, is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from joulescope.insight.compare.values import Figure

NORMAL_90 = 1.6449
"""Half the width of the 90 % interval of a normal distribution, in standard deviations."""
_STUDENT_90 = {1: 6.3138, 2: 2.9200}
_MOST_CORRELATION = 0.8
_LEAST_PARTS_FOR_CORRELATION = 8


def student_90(freedom: int) -> float:
    """Half the width of the 90 % interval of Student's distribution; Hill's expansion from 3 on (±0.5 %)."""
    if freedom in _STUDENT_90:
        return _STUDENT_90[freedom]
    z = NORMAL_90
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def ratio(tops: Sequence[float], bottoms: Sequence[float]) -> Figure | None:
    """Σ tops / Σ bottoms, parts in the order of time; ``None`` where there is nothing to divide by."""
    below = math.fsum(bottoms)
    if below <= 0:
        return None
    value = math.fsum(tops) / below
    if not math.isfinite(value):
        return None
    count = len(tops)
    if count < 2:
        return Figure(value)
    residuals = [top - value * bottom for top, bottom in zip(tops, bottoms, strict=True)]
    scatter = math.hypot(*(each / below for each in residuals))  # a square may be too large for a float
    half = student_90(count - 1) * scatter * math.sqrt(count / (count - 1) * _stretch(residuals))
    return Figure(value, value - half, value + half) if math.isfinite(half) else Figure(value)


def _stretch(residuals: Sequence[float]) -> float:
    """By what the variance grows because neighbours are alike; 1 where too few parts tell."""
    if len(residuals) < _LEAST_PARTS_FOR_CORRELATION:
        return 1.0
    largest = max(map(abs, residuals))
    if not 0.0 < largest < math.inf:
        return 1.0
    parts = [each / largest for each in residuals]
    product = math.fsum(a * b for a, b in pairwise(parts))
    correlation = min(max(product / math.fsum(each * each for each in parts), 0.0), _MOST_CORRELATION)
    return (1 + correlation) / (1 - correlation)


def mean(values: Sequence[float], weights: Sequence[float]) -> Figure | None:
    """A weighted mean of figures that are known only as such (quantiles), with their scatter."""
    return ratio([value * weight for value, weight in zip(values, weights, strict=True)], weights)


def relative_half(figure: Figure) -> float | None:
    """Half the width of the interval, relative to the value; ``None`` where it is not known."""
    if figure.low is None or figure.high is None or figure.value == 0:
        return None
    return abs((figure.high - figure.low) / (2 * figure.value))


def with_relative_half(value: float, half: float | None) -> Figure:
    """A figure with this relative half width."""
    if half is None:
        return Figure(value)
    return Figure(value, value * (1 - half), value * (1 + half))


def change(figure: Figure, reference: Figure) -> Figure | None:
    """``figure / reference − 1``; errors of the two are taken to be independent."""
    if reference.value == 0:
        return None
    factor = figure.value / reference.value
    halves = relative_half(figure), relative_half(reference)
    if halves[0] is None or halves[1] is None:
        return Figure(factor - 1)
    half = abs(factor) * math.hypot(halves[0], halves[1])
    return Figure(factor - 1, factor - 1 - half, factor - 1 + half)
