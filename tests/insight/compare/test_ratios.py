"""Ratios of sums over parts, and how sure they are."""

from __future__ import annotations

import random

import pytest

from joulescope.insight.compare.ratios import change, ratio, relative_half, student_90
from joulescope.insight.compare.values import Figure


@pytest.mark.parametrize(
    ("freedom", "tabled"),
    [(1, 6.314), (2, 2.920), (3, 2.353), (4, 2.132), (5, 2.015), (10, 1.812), (30, 1.697), (1000, 1.646)],
)
def test_students_distribution_is_that_of_the_tables(freedom: int, tabled: float) -> None:
    assert student_90(freedom) == pytest.approx(tabled, rel=5e-3)


def test_a_ratio_is_of_sums_and_no_mean_of_ratios() -> None:
    """One token for 10 J and 99 tokens for 90 J are 1 J a token."""
    found = ratio([10.0, 90.0], [1.0, 99.0])
    assert found is not None
    assert found.value == 1.0


def test_one_part_tells_no_scatter_and_none_tells_nothing() -> None:
    assert ratio([3.0], [2.0]) == Figure(1.5)
    assert ratio([], []) is None
    assert ratio([1.0], [0.0]) is None


@pytest.mark.parametrize(("parts", "seed"), [(4, 1), (10, 2), (40, 3)])
def test_nine_of_ten_intervals_hold_the_truth(parts: int, seed: int) -> None:
    """Of parts that scatter independently, with sizes that differ too."""
    luck = random.Random(seed)
    held = 0
    for _ in range(400):
        sizes = [luck.uniform(50, 150) for _ in range(parts)]
        found = ratio([2.0 * size * luck.gauss(1.0, 0.1) for size in sizes], sizes)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 2.0 <= found.high
    assert 0.84 <= held / 400 <= 0.96


def test_neighbours_that_are_alike_make_the_interval_wider() -> None:
    """Two values that alternate tell more than the same two in two blocks: a drift."""
    alternating = ratio([1.0, 3.0] * 8, [1.0] * 16)
    drifting = ratio([1.0] * 8 + [3.0] * 8, [1.0] * 16)
    assert alternating is not None
    assert drifting is not None
    assert (relative_half(drifting) or 0) > 2.5 * (relative_half(alternating) or 0)


@pytest.mark.parametrize("parts", [2, 12])
def test_figures_whose_squares_are_too_large_for_a_float_are_told(parts: int) -> None:
    tops, bottoms = [1e200, 3e200] * (parts // 2), [1.0, 1.0] * (parts // 2)
    found = ratio(tops, bottoms)
    usual = ratio([each / 1e200 for each in tops], bottoms)
    assert found is not None
    assert usual is not None
    assert found.value == pytest.approx(1e200 * usual.value)
    assert relative_half(found) == pytest.approx(relative_half(usual))


def test_a_change_is_relative_and_takes_both_errors() -> None:
    found = change(Figure(0.8, 0.76, 0.84), Figure(1.0, 0.9, 1.1))
    assert found is not None
    assert found.low is not None
    assert found.value == pytest.approx(-0.2)
    assert found.value - found.low == pytest.approx(0.8 * (0.05**2 + 0.1**2) ** 0.5)
    assert change(Figure(0.8), Figure(1.0, 0.9, 1.1)) == Figure(pytest.approx(-0.2))
    assert change(Figure(0.8), Figure(0.0)) is None
