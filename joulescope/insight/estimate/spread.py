"""Medians and quartiles of weighted draws, and how far the draws leave them uncertain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Stratum = tuple[float, Floats]
"""A weight, and values that share it equally."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How some quantity is spread over queries, in its unit."""

    median: float
    median_error: float
    """Standard error of the median, from the number of draws alone."""
    lower_quartile: float
    upper_quartile: float
    p5: float
    p95: float
    mean: float
    mean_error: float


def spread(strata: Sequence[Stratum], kept: tuple[float, float] = (0.0, 1.0)) -> Spread:
    """Of values in strata, each by its weight; weights need not sum to one.

    The error of the median is that of the distribution function at it (each stratum by itself, as they are
    drawn apart), laid over to the values by the quantiles that far to either side.

    Args:
        kept: between which of their quantiles values were kept, where they are :func:`trimmed`: how many were
            left out below is no chance, what lies between is.
    """
    total = sum(weight for weight, _ in strata)
    ordered = _Ordered(strata, total)
    median = ordered.quantile(0.5)
    variance = 0.0
    mean = mean_variance = 0.0
    for weight, values in strata:
        share, count = weight / total, values.size
        below = float(np.count_nonzero(values <= median)) / count
        if 0.0 < below < 1.0:
            of_all = kept[0] + below * (kept[1] - kept[0])
            variance += share**2 * of_all * (1.0 - of_all) / (count * (kept[1] - kept[0]))
        mean += share * float(values.mean())
        mean_variance += share**2 * float(values.var()) / count
    step = math.sqrt(variance)
    half = 0.5 * (ordered.quantile(min(0.5 + step, 1.0)) - ordered.quantile(max(0.5 - step, 0.0)))
    p5, lower, upper, p95 = (ordered.quantile(share) for share in (0.05, 0.25, 0.75, 0.95))
    return Spread(median, half, lower, upper, p5, p95, mean, math.sqrt(mean_variance))


class _Ordered:
    """Values in order, with the share of weight below the middle of each."""

    def __init__(self, strata: Sequence[Stratum], total: float) -> None:
        values = np.concatenate([each for _, each in strata])
        weights = np.concatenate([np.full(each.size, weight / total / each.size) for weight, each in strata])
        order = np.argsort(values, kind="stable")
        self._values = values[order]
        self._shares = np.cumsum(weights[order]) - 0.5 * weights[order]

    def quantile(self, share: float) -> float:
        return float(np.interp(share, self._shares, self._values))


def trimmed(values: Floats, quantiles: tuple[float, float] | None) -> Floats:
    """The values between two of their quantiles; all if there are none."""
    kept: Floats = values[inside(values, quantiles)]
    return kept


def inside(values: Floats, quantiles: tuple[float, float] | None) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of the values lie between two of their quantiles; all if there are none."""
    if quantiles is None:
        return np.ones(values.shape, dtype=bool)
    low, high = np.quantile(values, quantiles)
    kept: np.ndarray[Any, np.dtype[np.bool_]] = (values >= low) & (values <= high)
    return kept
