"""The cost model of a step: its formula before anything is learned, and what it learns."""

from __future__ import annotations

import numpy as np
import pytest

from joulescope.attribution.cost import CostModel, StepCost
from joulescope.attribution.prior import Expectation
from joulescope.model import CostFacts

FACTS = CostFacts(
    source="config",
    weight_bytes=16e9,
    kv_bytes_per_token=131072.0,
    flops_per_token=16e9,
    flops_per_token_context=5.2e5,
    flops_per_sample=1e9,
)
H = Expectation(
    launch_seconds=1e-3,
    sequence_seconds=2e-5,
    seconds_per_byte=4e-13,
    seconds_per_flop=2e-15,
    joules_per_byte=1.3e-10,
    joules_per_flop=8e-13,
    sequence_joules=0.02,
    active_watts=150.0,
    limit_watts=700.0,
)


def cost_of(model: CostModel, context: list[int], scheduled: list[int], seconds: float) -> StepCost:
    columns = (np.array(context), np.array(scheduled), np.ones(len(context), dtype=np.int64))
    return model.step_cost(*columns, seconds)


def test_a_decode_step_is_its_formula() -> None:
    """Weights, launch and their time divide equally; KV, arithmetic and their time are their owner's."""
    context = [100, 50_000]
    model = CostModel(FACTS, 1, H)
    kv = [(tokens + 1) * 131072.0 for tokens in context]
    other = [(tokens + 1) * 5.2e5 + 1e9 for tokens in context]
    own_seconds = [k * 4e-13 + o * 2e-15 + 2e-5 for k, o in zip(kv, other, strict=True)]
    fixed_seconds = 1e-3 + 16e9 * 4e-13
    duration = fixed_seconds + sum(own_seconds)
    cost = cost_of(model, context, [1, 1], duration)
    for row in (0, 1):
        dynamic = kv[row] * 1.3e-10 + (16e9 + other[row]) * 8e-13 + 0.02
        own = dynamic + 150.0 * own_seconds[row]
        shared = (16e9 * 1.3e-10 + 150.0 * fixed_seconds) / 2
        assert cost.shapley_joules[row] == pytest.approx(own + shared)
        assert cost.saved_joules[row] == pytest.approx(own)


def test_the_shares_sum_to_the_steps_energy() -> None:
    """Efficiency, with the observed duration, also in a step bound by arithmetic."""
    model = CostModel(FACTS, 1, H)
    for scheduled, seconds in (([1, 1, 1], 0.009), ([4000, 1, 1], 0.15)):
        cost = cost_of(model, [0, 700, 900], scheduled, seconds)
        totals = cost.totals
        dynamic = (16e9 + totals.kv_bytes) * 1.3e-10 + 3 * 0.02
        dynamic += (totals.linear_flops + totals.other_flops) * 8e-13
        assert cost.shapley_joules.sum() == pytest.approx(dynamic + 150.0 * seconds)


def test_the_work_of_two_gpus_is_halved() -> None:
    """Facts are of a whole replica; the model speaks of one GPU of it."""
    one, two = CostModel(FACTS, 1, H), CostModel(FACTS, 2, H)
    half = cost_of(two, [100, 100], [1, 1], 0.005).totals
    whole = cost_of(one, [100, 100], [1, 1], 0.005).totals
    assert half.kv_bytes == pytest.approx(whole.kv_bytes / 2)


def test_an_engine_without_cost_facts_is_charged_by_time_and_sequences() -> None:
    """Nothing is known of its model: equal shares of equal steps, and no division by zero."""
    model = CostModel(CostFacts(), 1, H)
    cost = cost_of(model, [10, 5000], [1, 1], 0.01)
    assert cost.shapley_joules[0] == pytest.approx(cost.shapley_joules[1])
    assert cost.shapley_joules.sum() > 0


def test_it_learns_times_and_energies_from_what_it_sees() -> None:
    """A GPU that reads slower and pays more per sequence than expected is found out."""
    model = CostModel(FACTS, 1, H)
    rng = np.random.default_rng(3)
    for _ in range(400):
        steps = []
        joules = 0.0
        for _ in range(20):
            count = int(rng.integers(1, 64))
            context = rng.integers(50, 4000, count)
            kv = float((context + 1).sum()) * 131072.0
            other = float((context + 1).sum()) * 5.2e5 + count * 1e9
            seconds = 1e-3 + 2e-5 * count + (16e9 + kv) * 6e-13 + other * 2e-15
            ones = np.ones(count, dtype=np.int64)
            totals = model.step_cost(context, ones, ones, seconds).totals
            steps.append(totals)
            joules += (16e9 + kv) * 1.3e-10 + (totals.linear_flops + other) * 8e-13 + 0.05 * count
            joules += 150.0 * seconds
        model.learn_times(steps)
        model.learn_energy([(totals, 1.0) for totals in steps], joules, 0.0)
    assert model.time.coefficients[2] == pytest.approx(6e-13, rel=0.05)
    probe = cost_of(model, [500] * 32, [1] * 32, 0.012).shapley_joules.sum()
    expected = (16e9 + 32 * 501 * 131072.0) * 1.3e-10 + 32 * (17e9 + 501 * 5.2e5) * 8e-13 + 32 * 0.05
    assert probe == pytest.approx(expected + 150.0 * 0.012, rel=0.03)
