"""Shares of a step's true cost, by definition and by the ways in which they are computed."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from math import comb

import numpy as np
import pytest

from joulescope.simulation.group import law_of
from joulescope.simulation.physics import Floats, features_of
from joulescope.simulation.shapley import marginal_joules, shares_of
from joulescope.simulation.worlds import H100_LLAMA_8B, WORLDS

LAW = law_of(H100_LLAMA_8B)


def features(*requests: tuple[int, int]) -> Floats:
    """A step of requests given as (context, scheduled), all of which sample."""
    context, scheduled = np.array(requests, dtype=np.int64).T
    return features_of(context, scheduled, np.ones(len(requests), dtype=np.int64))


def energy_of(step: Floats, members: tuple[int, ...]) -> float:
    """The cost of the subset, from the definition."""
    return float(LAW.energy_joules(step[:, list(members)].sum(axis=1))) if members else 0.0


def shapley_by_definition(step: Floats) -> Floats:
    """Shapley's formula over all subsets: exponential, for a handful of requests."""
    count = step.shape[1]
    energy = {
        subset: energy_of(step, subset)
        for size in range(count + 1)
        for subset in combinations(range(count), size)
    }
    values = np.zeros(count)
    for player in range(count):
        others = [other for other in range(count) if other != player]
        for size in range(count):
            weight = 1 / (count * comb(count - 1, size))
            for members in combinations(others, size):
                joined = tuple(sorted((*members, player)))
                values[player] += weight * (energy[joined] - energy[members])
    return values


DECODE_ONLY = [(100 * k, 1) for k in range(1, 9)]
ONE_PREFILL = [*DECODE_ONLY[:7], (0, 900)]
PREFILLS = [(0, 200), (0, 1500), (4000, 700), (10, 1), (3000, 1), (0, 64)]
MANY = [*[(50 * k, 1) for k in range(9)], (0, 200), (0, 120), (900, 90), (2000, 150)]


@cache
def exact_shares_of_many() -> Floats:
    """By definition, in a second or two."""
    return shapley_by_definition(features(*MANY))


STEPS = pytest.mark.parametrize(
    "requests", [DECODE_ONLY, ONE_PREFILL, PREFILLS], ids=["decode", "mixed", "prefill"]
)


@STEPS
def test_shares_are_the_shapley_value(requests: list[tuple[int, int]]) -> None:
    """In small steps the closed form and the sum over subsets are Shapley's own formula, exactly."""
    step = features(*requests)
    shares = shares_of(LAW, step)
    assert shares.shapley_joules == pytest.approx(shapley_by_definition(step), rel=1e-9)
    assert not shares.error_joules.any()


def test_shares_of_a_large_step_are_near_the_shapley_value() -> None:
    """Sampled orders are within a few percent for one step, and their error cancels over steps."""
    step = features(*MANY)
    exact = exact_shares_of_many()
    assert shares_of(LAW, step).shapley_joules == pytest.approx(exact, abs=0.05 * exact.mean())
    mean = np.mean([shares_of(LAW, step, turn).shapley_joules for turn in range(13)], axis=0)
    assert mean == pytest.approx(exact, abs=0.01 * exact.mean())


def test_the_stated_sampling_error_is_about_the_true_one() -> None:
    """Over many steps the root mean square of the stated draws is within a factor of two of the error."""
    step = features(*MANY)
    exact = exact_shares_of_many()
    shares = [shares_of(LAW, step, turn) for turn in range(13)]
    true = np.sqrt(np.mean([(each.shapley_joules - exact) ** 2 for each in shares]))
    stated = np.sqrt(np.mean([each.error_joules**2 for each in shares]))
    assert 0.5 < stated / true < 2.0


@pytest.mark.parametrize("count", [1, 3, 12, 13, 60])
def test_shares_sum_to_the_step(count: int) -> None:
    """Whatever the orders, no joule of the step is lost or charged twice."""
    step = features((0, 1200), *[(300 + 7 * k, 1) for k in range(count - 1)])
    for turn in (0, 1, 17):
        total = shares_of(LAW, step, turn).shapley_joules.sum()
        assert total == pytest.approx(float(LAW.energy_joules(step.sum(axis=1))), rel=1e-12)


@STEPS
def test_marginal_joules_are_what_is_saved_without_the_request(requests: list[tuple[int, int]]) -> None:
    """The marginal figure is the cost of the step minus that of the step without the request, exactly."""
    step = features(*requests)
    everyone = tuple(range(len(requests)))
    for at, joules in enumerate(shares_of(LAW, step).marginal_joules):
        rest = tuple(other for other in everyone if other != at)
        assert joules == pytest.approx(energy_of(step, everyone) - energy_of(step, rest))
        assert joules == pytest.approx(marginal_joules(LAW, step)[at])


def test_a_request_that_is_alone_saves_the_whole_step() -> None:
    """Without its only request a step would not run: share and marginal figure are its whole energy."""
    step = features((700, 1))
    shares, whole = shares_of(LAW, step), LAW.energy_joules(step[:, 0])
    assert shares.shapley_joules[0] == pytest.approx(whole)
    assert shares.marginal_joules[0] == pytest.approx(whole)
    assert marginal_joules(LAW, step)[0] == pytest.approx(whole)


def test_what_is_paid_once_by_whoever_is_there_is_shared_exactly() -> None:
    """A drafter runs as soon as anybody decodes: chance in the sampled orders does not decide who pays."""
    law = law_of(WORLDS["speculative"])
    step = features(*[(400, 1)] * 40)
    shares = shares_of(law, step).shapley_joules
    assert shares == pytest.approx(np.full(40, shares.mean()), rel=1e-3)
