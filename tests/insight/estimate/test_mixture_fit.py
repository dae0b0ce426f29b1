"""A law from mixtures of lengths: what was planted, and never a time that was not seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulescope.insight.estimate.mixture_fit import Mixture, fit_mixtures
from joulescope.insight.estimate.throughput import Law, Point, fit
from tests.examples import examples

PLANTED = Law(9.5, (-0.3, -0.9), (1000.0,), (0.25,))


def mixture(random: np.random.Generator, noise: float = 0.0, law: Law = PLANTED) -> Mixture:
    """Queries about a middle length of their own, widely spread."""
    middle = random.uniform(4.0, 8.0, 2)
    inputs, outputs = np.exp(middle[:, None] + random.standard_normal((2, 40)))
    queries = random.integers(1, 20, 40).astype(float)
    seconds = float(np.sum(queries * outputs / law.rates(inputs, outputs)))
    return Mixture(queries, inputs, outputs, seconds * math.exp(noise * random.standard_normal()))


def seconds_by(law: Law, each: Mixture) -> float:
    times = each.queries * each.output_tokens / law.rates(each.input_tokens, each.output_tokens)
    return float(np.sum(times))


def test_the_planted_law_is_found() -> None:
    """From minutes with 5 % of noise, knot and all."""
    random = np.random.default_rng(3)
    law = fit_mixtures([mixture(random, 0.05) for _ in range(200)], input_knots=[1000.0]).law
    assert law.input_slopes == pytest.approx(PLANTED.input_slopes, abs=0.04)
    assert law.output_slopes == pytest.approx(PLANTED.output_slopes, abs=0.04)
    assert law.scatter == pytest.approx(0.05, rel=0.2)


def test_a_fit_of_mean_lengths_would_be_off() -> None:
    """Why it is done: the time of a mixture by a law of means is wrong by more than a tenth, by this not."""
    random = np.random.default_rng(4)
    law = Law(9.0, (-0.9,), (), (0.6,))
    seen = [mixture(random, law=law) for _ in range(60)]
    means = []
    for each in seen:
        total = each.queries.sum()
        tokens = float(np.sum(each.queries * each.output_tokens))
        inputs = float(np.sum(each.queries * each.input_tokens)) / total
        means.append(Point(inputs, tokens / total, tokens / each.node_seconds))
    by_means, by_mixtures = fit(means, cut_off=False).law, fit_mixtures(seen).law
    off = [
        np.mean([abs(seconds_by(found, each) / each.node_seconds - 1.0) for each in seen])
        for found in (by_means, by_mixtures)
    ]
    assert off[0] > 0.1
    assert off[1] < 0.01


def test_one_mix_leaves_slopes_at_zero_and_says_so() -> None:
    """The time is met; of lengths the minutes say nothing."""
    one = Mixture(np.array([10.0]), np.array([500.0]), np.array([200.0]), 4.0)
    found = fit_mixtures([one, one])
    assert seconds_by(found.law, one) == pytest.approx(4.0)
    assert found.law.output_slopes == pytest.approx((0.0,), abs=0.05)
    assert any("0 of 2 slopes" in note for note in found.notes)
    with pytest.raises(ValueError, match="no mixture"):
        fit_mixtures([])


@settings(max_examples=examples(40))
@given(
    st.lists(
        st.tuples(st.floats(1, 1e4), st.floats(1, 1e5), st.floats(1, 1e5), st.floats(1e-3, 1e6)),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_is_given_a_law_comes_out(rows: list[tuple[float, float, float, float]]) -> None:
    """Finite, and no worse than no slopes at all."""
    mixtures = [Mixture(*(np.array([each]) for each in row[:3]), row[3]) for row in rows]
    law = fit_mixtures(mixtures).law
    weights = np.array([each.node_seconds for each in mixtures])
    residuals = np.array([math.log(seconds_by(law, each) / each.node_seconds) for each in mixtures])
    flat = np.array(
        [math.log(each.queries[0] * each.output_tokens[0] / each.node_seconds) for each in mixtures]
    )
    level = np.average(flat, weights=weights)
    assert (
        np.average(residuals**2, weights=weights) <= np.average((flat - level) ** 2, weights=weights) + 1e-6
    )
