"""The cost model of a step: its formula before anything is learned, and what it learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from joulescope.attribution.cost import (
    LINEAR_FLOPS,
    READ_BYTES,
    SAVED,
    WEIGHT,
    CostModel,
    Prices,
    StepColumns,
)
from joulescope.attribution.laws import KV_BYTES, OTHER_FLOPS
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
MIXTURE = replace(FACTS, weight_bytes=90e9, expert_weight_bytes=86e9, expert_choice_ratio=0.125)
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


def priced(model: CostModel, *steps: tuple[list[int], list[int], float]) -> Prices:
    """Prices of steps given by the contexts, the scheduled tokens and the seconds of each."""
    contexts = [np.array(context) for context, _, _ in steps]
    scheduled = [np.array(tokens) for _, tokens, _ in steps]
    offsets = np.cumsum([0, *(len(context) for context in contexts)])
    ones = np.ones(int(offsets[-1]), dtype=np.int64)
    seconds = np.array([seconds for _, _, seconds in steps])
    return model.price(
        StepColumns(
            np.concatenate(contexts), np.concatenate(scheduled), ones, offsets, seconds, np.zeros(len(steps))
        )
    )


def test_a_decode_step_is_its_formula() -> None:
    """Weights, launch and their time divide equally; KV, arithmetic and their time are their owner's."""
    context = [100, 50_000]
    kv = [(tokens + 1) * 131072.0 for tokens in context]
    other = [(tokens + 1) * 5.2e5 + 1e9 for tokens in context]
    own_seconds = [k * 4e-13 + o * 2e-15 + 2e-5 for k, o in zip(kv, other, strict=True)]
    fixed_seconds = 1e-3 + 16e9 * 4e-13
    prices = priced(CostModel(FACTS, 1, H), (context, [1, 1], fixed_seconds + sum(own_seconds)))
    for row in (0, 1):
        dynamic = kv[row] * 1.3e-10 + (16e9 + other[row]) * 8e-13 + 0.02
        own = dynamic + 150.0 * own_seconds[row]
        shared = (16e9 * 1.3e-10 + 150.0 * fixed_seconds) / 2
        assert prices.rows[WEIGHT, row] == pytest.approx(own + shared)
        assert prices.rows[SAVED, row] == pytest.approx(own)


@pytest.mark.parametrize("facts", [FACTS, MIXTURE])
@pytest.mark.parametrize(
    ("scheduled", "seconds"), [([1, 1, 1], 0.009), ([4000, 1, 1], 0.15), ([9, 1, 1], 0.02)]
)
def test_the_shares_sum_to_the_steps_energy(facts: CostFacts, scheduled: list[int], seconds: float) -> None:
    """Efficiency, with the observed duration: bound by memory, by arithmetic, and with experts."""
    prices = priced(CostModel(facts, 1, H), ([0, 700, 900], scheduled, seconds))
    step = prices.steps[0]
    dynamic = (step[READ_BYTES] + step[KV_BYTES]) * 1.3e-10 + 3 * 0.02
    dynamic += (step[LINEAR_FLOPS] + step[OTHER_FLOPS]) * 8e-13
    assert prices.rows[WEIGHT].sum() == pytest.approx(dynamic + 150.0 * seconds)
    assert (prices.rows[SAVED] < prices.rows[WEIGHT].sum()).all()


def test_steps_are_priced_each_by_itself() -> None:
    """A batch of unlike steps has the prices that each would have alone."""
    model = CostModel(MIXTURE, 2, H)
    steps = [
        ([5, 700], [1, 1], 0.01),
        ([0, 700, 900], [4000, 1, 1], 0.2),
        ([44], [1], 0.008),
        ([0], [300], 0.03),
    ]
    together = priced(model, *steps)
    at = 0
    for number, step in enumerate(steps):
        alone = priced(model, step)
        assert together.rows[:, at : at + len(step[0])] == pytest.approx(alone.rows)
        assert together.steps[number] == pytest.approx(alone.steps[0])
        at += len(step[0])


def test_alone_in_a_step_a_request_saves_all_of_it() -> None:
    """Without its only request there is no step."""
    rows = priced(CostModel(FACTS, 1, H), ([100], [1], 0.009)).rows
    assert rows[SAVED, 0] == pytest.approx(rows[WEIGHT, 0])


def test_tokens_read_the_experts_that_they_choose() -> None:
    """One token reads the chosen part of the experts, many tokens read nearly all."""
    steps = priced(CostModel(MIXTURE, 1, H), ([10], [1], 0.01), ([0], [4000], 0.3)).steps
    assert steps[0, READ_BYTES] == pytest.approx(4e9 + 86e9 * 0.125)
    assert steps[1, READ_BYTES] == pytest.approx(90e9)


def test_the_work_of_two_gpus_is_halved() -> None:
    """Facts are of a whole replica; the model speaks of one GPU of it."""
    step = ([100, 100], [1, 1], 0.005)
    one, two = priced(CostModel(FACTS, 1, H), step), priced(CostModel(FACTS, 2, H), step)
    assert two.steps[0, KV_BYTES] == pytest.approx(one.steps[0, KV_BYTES] / 2)


def test_an_engine_without_cost_facts_is_charged_by_time_and_sequences() -> None:
    """Nothing is known of its model: equal shares of equal steps, and no division by zero."""
    for tokens in ([1, 1], [512, 1]):
        weights = priced(CostModel(CostFacts(), 1, H), ([10, 5000], tokens, 0.01)).rows[WEIGHT]
        assert weights[0] == pytest.approx(weights[1])
        assert weights.sum() > 0


def test_avoided_joules_are_those_of_a_prefill() -> None:
    """What a hit spares is its FLOPs and the static power while they would have run."""
    flops = 1000 * 16e9 + 0.5 * 1000 * 1001 * 5.2e5
    assert CostModel(FACTS, 1, H).avoided_joules(1000) == pytest.approx(flops * (8e-13 + 150.0 * 2e-15))
    assert CostModel(FACTS, 2, H).avoided_joules(1000) == pytest.approx(flops * (8e-13 + 150.0 * 2e-15))


def test_it_learns_times_and_energies_from_what_it_sees() -> None:
    """A GPU that reads slower and pays more per sequence than expected is found out."""
    model = CostModel(FACTS, 1, H)
    rng = np.random.default_rng(3)
    for _ in range(400):
        told = []
        joules = 0.0
        for _ in range(20):
            count = int(rng.integers(1, 64))
            context = rng.integers(50, 4000, count)
            kv = float((context + 1).sum()) * 131072.0
            other = float((context + 1).sum()) * 5.2e5 + count * 1e9
            seconds = 1e-3 + 2e-5 * count + (16e9 + kv) * 6e-13 + other * 2e-15
            told.append((context.tolist(), [1] * count, seconds))
            joules += (16e9 + kv) * 1.3e-10 + (count * 16e9 + other) * 8e-13 + 0.05 * count + 150.0 * seconds
        steps = priced(model, *told).steps
        model.learn_times(steps)
        model.learn_energy(steps, np.ones(len(steps)), joules, 0.0)
    assert model.time.coefficients[2] == pytest.approx(6e-13, rel=0.05)
    probe = priced(model, ([500] * 32, [1] * 32, 0.012)).rows[WEIGHT].sum()
    expected = (16e9 + 32 * 501 * 131072.0) * 1.3e-10 + 32 * (17e9 + 501 * 5.2e5) * 8e-13 + 32 * 0.05
    assert probe == pytest.approx(expected + 150.0 * 0.012, rel=0.03)
