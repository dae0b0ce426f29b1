"""The division of a step's cost, against the exact Shapley value over all subsets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from joulescope.attribution.laws import TOKENS, Weights
from joulescope.attribution.shapley import Division, Law, divide_cost, divide_largest

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Largest:
    """The largest of several bounds, each a constant and a price for each feature."""

    constants: Floats
    prices: Floats
    """Bounds × features."""

    def value(self, sums: Floats) -> Floats:
        return np.asarray((self.constants + sums @ self.prices.T).max(axis=-1))

    def value_and_slopes(self, sums: Floats) -> tuple[Floats, Floats]:
        bounds = self.constants + sums @ self.prices.T
        return np.asarray(bounds.max(axis=-1)), np.asarray(self.prices[bounds.argmax(axis=-1)])


@dataclass(frozen=True)
class Saturating:
    """Experts of a mixture: the more tokens, the fewer are still untouched."""

    def value(self, sums: Floats) -> Floats:
        return np.asarray(100.0 - 80.0 * np.exp(-0.1 * sums[..., 0]))

    def value_and_slopes(self, sums: Floats) -> tuple[Floats, Floats]:
        return self.value(sums), 8.0 * np.exp(-0.1 * sums)


def exact(law: Law, own: Floats) -> Floats:
    """Shapley's formula over all subsets of the requests (requests × features); nobody costs nothing."""
    count = len(own)
    members = (np.arange(1 << count)[:, None] >> np.arange(count)) & 1
    value = law.value(members @ own)
    value[0] = 0.0
    sizes = members.sum(axis=1)
    shares = np.zeros(count)
    for player in range(count):
        without = np.flatnonzero(members[:, player] == 0)
        gains = value[without | (1 << player)] - value[without]
        weights = [math.factorial(s) * math.factorial(count - s - 1) for s in sizes[without]]
        shares[player] = float(gains @ np.array(weights)) / math.factorial(count)
    return shares


def divided(law: Law, own: Floats, large: int | None) -> Floats:
    """The shares by the quadrature, as the cost model uses it: scaled to the whole."""
    biggest = np.zeros((1, own.shape[1])) if large is None else own[[large]]
    return scaled(law, own, large, divide_cost(law, own.sum(axis=0, keepdims=True) - biggest, biggest))


def divided_by_bounds(law: Largest, own: Floats, large: int | None) -> Floats:
    """The same without a quadrature."""
    biggest = np.zeros((1, own.shape[1])) if large is None else own[[large]]
    others = own.sum(axis=0, keepdims=True) - biggest
    return scaled(law, own, large, divide_largest(law.constants, law.prices, others, biggest))


def scaled(law: Law, own: Floats, large: int | None, division: Division) -> Floats:
    shares = own @ division.slopes[0]
    if large is not None:
        shares[large] = division.large[0]
    shares += division.constant[0] / len(own)
    return np.asarray(shares * (law.value(own.sum(axis=0)) / shares.sum()))


def prefill_among_decodes(prefill: float, seed: int) -> tuple[Largest, Floats]:
    """One request with much arithmetic among nine with little, under memory, arithmetic and a power cap."""
    rng = np.random.default_rng(seed)
    own = np.stack([rng.uniform(0.02, 0.1, 10), rng.uniform(0.01, 0.05, 10), rng.uniform(0.05, 0.3, 10)], 1)
    own[0, 1] = prefill
    prices = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return Largest(np.array([2.2, 1.2, 0.3]), prices), own


@pytest.mark.parametrize("prefill", [0.5, 1.2, 2.0, 4.0, 8.0])
@pytest.mark.parametrize("seed", range(4))
def test_shares_are_near_the_exact_ones(prefill: float, seed: int) -> None:
    """Within 6 % for each request, also around the crossing of two bounds; the sum is exact."""
    law, own = prefill_among_decodes(prefill, seed)
    assert divided(law, own, 0) == pytest.approx(exact(law, own), rel=0.06)
    assert divided_by_bounds(law, own, 0) == pytest.approx(exact(law, own), rel=0.06)


@pytest.mark.parametrize("large", [None, 0])
def test_linear_bounds_need_no_quadrature(large: int | None) -> None:
    """The exact integral over the largest of linear bounds is what ever finer quadratures come to."""
    law, own = prefill_among_decodes(2.0, 5)
    biggest = np.zeros((1, 3)) if large is None else own[[large]]
    others = own.sum(axis=0, keepdims=True) - biggest
    fine = np.zeros(3)
    nodes = (np.arange(20_000) + 0.5) / 20_000
    for chance, base in ((1.0 - nodes, 0.0 * biggest), (nodes, biggest)):
        _, slopes = law.value_and_slopes(nodes[:, None] * others + base)
        fine += (chance[:, None] * slopes).mean(axis=0)
    division = divide_largest(law.constants, law.prices, others, biggest)
    assert division.slopes[0] == pytest.approx(fine, rel=1e-3)
    gained = law.value(nodes[:, None] * others + biggest) - law.value(nodes[:, None] * others)
    assert division.large[0] == pytest.approx(gained.mean(), rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("large", [None, 0])
def test_one_bound_has_a_closed_form(large: int | None) -> None:
    """A constant divides equally and the rest is its owner's, exactly."""
    law = Largest(np.array([6.0]), np.array([[1.0]]))
    own = np.array([[1.0], [2.0], [3.0]])
    assert divided(law, own, large) == pytest.approx([3.0, 4.0, 5.0])
    assert exact(law, own) == pytest.approx([3.0, 4.0, 5.0])


def test_equal_requests_pay_equally() -> None:
    """Symmetry, also where bounds cross and where the cost saturates."""
    crossing = Largest(np.array([4.0, 0.0]), np.array([[0.1], [1.0]]))
    for law in (crossing, Saturating()):
        shares = divided(law, np.ones((8, 1)), None)
        assert shares == pytest.approx(exact(law, np.ones((8, 1))))


def test_a_saturating_cost_with_one_large_request() -> None:
    """A prefill that touches all experts by itself pays for them as often as it comes before the others."""
    own = np.array([[60.0], *[[1.0]] * 9])
    assert divided(Saturating(), own, 0) == pytest.approx(exact(Saturating(), own), rel=0.03)


def test_many_steps_at_once_are_each_as_if_alone() -> None:
    """The quadrature takes a batch of steps; none of them changes another."""
    laws = [prefill_among_decodes(size, 1) for size in (0.5, 4.0)]
    law = laws[0][0]
    sums = np.stack([own.sum(axis=0) - own[0] for _, own in laws])
    large = np.stack([own[0] for _, own in laws])
    together = divide_cost(law, sums, large)
    for row in (0, 1):
        alone = divide_cost(law, sums[[row]], large[[row]])
        assert together.slopes[row] == pytest.approx(alone.slopes[0])
        assert together.large[row] == pytest.approx(alone.large[0])


@pytest.mark.parametrize("tokens", [[1, 1, 1, 1], [1, 1, 5, 1], [300, 1, 1, 2000, 1, 40], [7]])
@pytest.mark.parametrize("unevenness", [0.0, 0.6])
def test_the_experts_bytes_divide_exactly(tokens: list[int], unevenness: float) -> None:
    """Many tokens of one request or of several: Owen's integral is the Shapley value, not near it."""
    weights = Weights(3e9, 80e9, 2 / 8, unevenness)
    own = np.zeros((len(tokens), TOKENS + 1))
    own[:, TOKENS] = tokens
    twice = np.array(tokens * 2, dtype=np.float64)
    shares = weights.expert_shares(twice, np.array([len(tokens)] * 2)) + 3e9 / len(tokens)
    assert shares == pytest.approx(np.tile(exact(weights, own), 2), rel=1e-6)
