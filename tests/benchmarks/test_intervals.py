"""Confidence intervals: known quantiles, known answers, and that they cover as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.gpu.intervals import (
    Estimate,
    bootstrap_interval,
    mean_interval,
    ratio_interval,
    student_quantile,
)

SEEDS = 2000


@pytest.mark.parametrize(
    ("level", "freedom", "quantile"),
    [
        (0.95, 1, 12.706),
        (0.95, 2, 4.303),
        (0.95, 9, 2.262),
        (0.99, 9, 3.250),
        (0.90, 10, 1.812),
        (0.95, 120, 1.980),
    ],
)
def test_quantiles_are_those_of_the_tables(level: float, freedom: int, quantile: float) -> None:
    """Student's quantiles agree with any printed table to its last digit."""
    assert student_quantile(level, freedom) == pytest.approx(quantile, abs=6e-4)


@pytest.mark.parametrize(("level", "freedom"), [(0.0, 3), (1.0, 3), (0.95, 0)])
def test_impossible_quantiles_are_refused(level: float, freedom: int) -> None:
    """A level outside 0..1, or no degree of freedom, is an error and not a number."""
    with pytest.raises(ValueError, match="no quantile"):
        student_quantile(level, freedom)


def test_interval_of_three_values_by_hand() -> None:
    """Mean 2, standard error 1/√3, two degrees of freedom: 2 ± 2.484."""
    found = mean_interval([1.0, 2.0, 3.0])
    assert (found.value, found.low, found.high) == pytest.approx((2.0, -0.4841, 4.4841), abs=1e-3)
    assert found.holds(2.0)
    assert not found.holds(5.0)


def test_one_value_has_no_ends_and_none_is_an_error() -> None:
    """Nothing is claimed from a single value; of no value there is no mean."""
    assert mean_interval([3.0]) == Estimate(3.0, -math.inf, math.inf)
    with pytest.raises(ValueError, match="no value"):
        mean_interval([])
    with pytest.raises(ValueError, match="ratio to nothing"):
        ratio_interval([1.0], [0.0])


def test_a_fixed_ratio_is_found_exactly() -> None:
    """Parts that are all 0.9 of their wholes give 0.9 without an error."""
    wholes = [1.0, 5.0, 3.0]
    found = ratio_interval([0.9 * whole for whole in wholes], wholes)
    assert (found.value, found.half_width) == pytest.approx((0.9, 0.0), abs=1e-12)


def test_intervals_cover_as_often_as_they_say() -> None:
    """Over many seeds of ten noisy values, 95 % of Student's intervals hold the truth; bootstrap's fewer."""
    held = {"mean": 0, "ratio": 0, "bootstrap": 0}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        wholes = rng.normal(10.0, 2.0, 10)
        parts = 1.1 * wholes + rng.normal(0.0, 1.0, 10)
        held["mean"] += mean_interval(wholes.tolist()).holds(10.0)
        held["ratio"] += ratio_interval(parts.tolist(), wholes.tolist()).holds(1.1)
        if seed % 10 == 0:
            held["bootstrap"] += bootstrap_interval(wholes.tolist(), seed=seed).holds(10.0)
    assert 0.935 < held["mean"] / SEEDS < 0.965
    assert 0.93 < held["ratio"] / SEEDS < 0.965
    assert 0.82 < held["bootstrap"] / (SEEDS / 10) < 0.95
