"""Confidence intervals of means and of ratios, from few paired values.

Student's distribution is computed, not approximated: for a whole number of degrees of freedom the chance
of lying within ±t is a finite series (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and
26.7.4). The bootstrap beside it assumes no distribution; with ten values it is a little too narrow, which
is why it is shown for comparison only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Of all intervals made this way, this part holds the true value."""

RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the ends of its confidence interval, in the unit of what was given."""

    value: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Estimate:
    """Mean of independent values with Student's interval; of one value, an interval without ends.

    Raises:
        ValueError: if there is no value.
    """
    if not values:
        raise ValueError("no value to take the mean of")
    count, mean = len(values), float(np.mean(values))
    if count == 1:
        return Estimate(mean, -math.inf, math.inf)
    reach = student_quantile(level, count - 1) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return Estimate(mean, mean - reach, mean + reach)


def ratio_interval(parts: Sequence[float], wholes: Sequence[float], level: float = LEVEL) -> Estimate:
    """Σ parts / Σ wholes of pairs, with Student's interval of the residuals ``part − ratio · whole``.

    It is the classical ratio estimator (Cochran, Sampling Techniques, chapter 6); the wholes must be well
    away from 0 in the mean.

    Raises:
        ValueError: if there is no pair, or the wholes sum to 0.
    """
    total = float(np.sum(wholes))
    if not total:
        raise ValueError("a ratio to nothing")
    ratio = float(np.sum(parts)) / total
    residuals = [part - ratio * whole for part, whole in zip(parts, wholes, strict=True)]
    reach = mean_interval(residuals, level).half_width / abs(total / len(residuals))
    return Estimate(ratio, ratio - reach, ratio + reach)


def bootstrap_interval(values: Sequence[float], level: float = LEVEL, seed: int = 0) -> Estimate:
    """Mean with the percentile interval of :data:`RESAMPLES` drawings with replacement."""
    drawn = np.random.default_rng(seed).choice(np.asarray(values), (RESAMPLES, len(values)))
    low, high = np.quantile(drawn.mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(np.mean(values)), float(low), float(high))


def student_quantile(level: float, freedom: int) -> float:
    """The t with ``P(|T| < t) = level`` for ``freedom`` degrees of freedom.

    Raises:
        ValueError: if the level is not within 0..1 or there is no freedom.
    """
    if not 0 < level < 1 or freedom < 1:
        raise ValueError(f"no quantile of level {level} with {freedom} degrees of freedom")
    low, high = 0.0, 1.0
    while _chance_within(high, freedom) < level:
        high *= 2
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _chance_within(middle, freedom) < level else (low, middle)
    return high


def _chance_within(t: float, freedom: int) -> float:
    """P(|T| < t), by the finite series in the angle θ = atan(t / √freedom)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    if freedom == 1:
        return 2 * angle / math.pi
    term = cosine if odd else 1.0
    total = term
    for index in range(1, (freedom - 1) // 2 if odd else freedom // 2):
        factor = 2 * index / (2 * index + 1) if odd else (2 * index - 1) / (2 * index)
        term *= factor * cosine * cosine
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
