"""The division of a maximum, against the exact Shapley value over all subsets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from joulescope.attribution.shapley import dominant, saved_without, shares_of_maximum

Floats = NDArray[np.float64]


def exact(constants: Floats, own: Floats) -> Floats:
    """Shapley's formula over all subsets; nobody costs nothing."""
    count = own.shape[1]
    members = (np.arange(1 << count)[:, None] >> np.arange(count)) & 1
    value = (constants[:, None] + own @ members.T).max(axis=0)
    value[0] = 0.0
    sizes = members.sum(axis=1)
    shares = np.zeros(count)
    for player in range(count):
        without = np.flatnonzero(members[:, player] == 0)
        gains = value[without | (1 << player)] - value[without]
        weights = [math.factorial(s) * math.factorial(count - s - 1) for s in sizes[without]]
        shares[player] = float(gains @ np.array(weights)) / math.factorial(count)
    return shares


def prefill_among_decodes(prefill: float, seed: int) -> tuple[Floats, Floats]:
    """One request with much arithmetic among nine with little; the third bound is a power cap."""
    rng = np.random.default_rng(seed)
    linear = rng.uniform(0.01, 0.05, 10)
    linear[0] = prefill
    seconds = rng.uniform(0.02, 0.1, 10)
    capped = rng.uniform(0.05, 0.3, 10)
    return np.array([2.2, 1.2, 0.3]), np.stack([seconds, seconds + linear, capped])


@pytest.mark.parametrize("prefill", [0.1, 0.5, 1.2, 2.0, 4.0, 8.0])
@pytest.mark.parametrize("seed", range(4))
def test_shares_are_near_the_exact_ones(prefill: float, seed: int) -> None:
    """Within 6 % for each request, also around the crossing of two bounds; the sum is exact."""
    constants, own = prefill_among_decodes(prefill, seed)
    shares = shares_of_maximum(constants, own)
    assert shares == pytest.approx(exact(constants, own), rel=0.06)
    assert shares.sum() == pytest.approx((constants + own.sum(axis=1)).max(), rel=1e-12)


def test_one_bound_has_a_closed_form() -> None:
    """A constant divides equally and the rest is its owner's, exactly."""
    constants, own = np.array([6.0]), np.array([[1.0, 2.0, 3.0]])
    assert shares_of_maximum(constants, own) == pytest.approx([3.0, 4.0, 5.0])
    assert exact(constants, own) == pytest.approx([3.0, 4.0, 5.0])


def test_a_bound_that_always_wins_is_found() -> None:
    """Only if no subset of the requests could make another bound the largest."""
    assert dominant(np.array([5.0, 0.0]), np.array([[1.0, 1.0], [2.0, 2.0]])) == 0
    assert dominant(np.array([5.0, 0.0]), np.array([[1.0, 1.0], [9.0, 0.0]])) is None


def test_a_single_request_pays_for_all() -> None:
    """Alone in its step, whatever the bounds."""
    constants, own = np.array([2.0, 0.0]), np.array([[1.0], [7.0]])
    assert shares_of_maximum(constants, own) == pytest.approx([7.0])
    assert saved_without(constants, own) == pytest.approx([7.0])


def test_equal_requests_pay_equally() -> None:
    """Symmetry, also where bounds cross."""
    constants, own = np.array([4.0, 0.0]), np.array([[0.1] * 8, [1.0] * 8])
    shares = shares_of_maximum(constants, own)
    assert shares == pytest.approx([1.0] * 8)


def test_what_is_saved_is_the_last_ones_marginal_cost() -> None:
    """Where another bound stays the largest without it, a request saves less than it brings."""
    constants, own = np.array([4.0, 0.0]), np.array([[0.0, 0.0, 0.0], [3.0, 2.0, 1.0]])
    assert saved_without(constants, own) == pytest.approx([2.0, 2.0, 1.0])
