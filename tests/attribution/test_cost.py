"""The cost model of a step: its formula before anything is learned, and what it learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from joulescope.attribution.cost import (
    OWN_TIME,
    SAVED,
    TIME,
    WEIGHT,
    CostModel,
    Prices,
    StepColumns,
)
from joulescope.attribution.laws import KV_BYTES, LINEAR_FLOPS, OTHER_FLOPS, READ_BYTES, TOKENS, Weights
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


def columns_of(*steps: tuple[list[int], list[int], float]) -> StepColumns:
    """Steps given by the contexts, the scheduled tokens and the seconds of each."""
    contexts = [np.array(context) for context, _, _ in steps]
    scheduled = [np.array(tokens) for _, tokens, _ in steps]
    offsets = np.cumsum([0, *(len(context) for context in contexts)])
    ones = np.ones(int(offsets[-1]), dtype=np.int64)
    seconds = np.array([seconds for _, _, seconds in steps])
    return StepColumns(np.concatenate(contexts), np.concatenate(scheduled), ones, offsets, seconds)


def priced(model: CostModel, *steps: tuple[list[int], list[int], float]) -> Prices:
    return model.price(columns_of(*steps))


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
        model.learn_energy(steps.sum(axis=0), joules, 0.0)
    assert model.time.coefficients[3] == pytest.approx(6e-13, rel=0.05)
    probe = priced(model, ([500] * 32, [1] * 32, 0.012)).rows[WEIGHT].sum()
    expected = (16e9 + 32 * 501 * 131072.0) * 1.3e-10 + 32 * (17e9 + 501 * 5.2e5) * 8e-13 + 32 * 0.05
    assert probe == pytest.approx(expected + 150.0 * 0.012, rel=0.03)


def test_at_the_power_limit_a_step_costs_its_time() -> None:
    """Whatever runs draws the limit: joules are the limit times each one's part of the duration."""
    step = ([0, 700, 900], [4000, 1, 1], 0.2)
    model = CostModel(FACTS, 1, H)
    prices = model.price(columns_of(step), at_limit=True)
    assert prices.rows[WEIGHT] == pytest.approx(700.0 * prices.rows[TIME])
    assert prices.rows[SAVED] == pytest.approx(700.0 * prices.rows[OWN_TIME])
    assert prices.rows[WEIGHT].sum() == pytest.approx(700.0 * 0.2)


def test_it_learns_how_unevenly_experts_are_chosen() -> None:
    """Few experts that get most of the tokens show in how durations grow with the tokens of a step."""
    model = CostModel(MIXTURE, 1, H)
    truth = Weights(4e9, 86e9, 0.125, unevenness=0.8)
    rng = np.random.default_rng(4)
    for _ in range(100):
        told = []
        for _ in range(20):
            count = int(rng.integers(1, 96))
            context = rng.integers(50, 2000, count)
            read = float(truth.of(np.array(float(count))))
            kv, other = (
                float((context + 1).sum()) * 131072.0,
                float((context + 1).sum()) * 5.2e5 + count * 1e9,
            )
            told.append(
                (context.tolist(), [1] * count, 1e-3 + 2e-5 * count + (read + kv) * 4e-13 + other * 2e-15)
            )
        model.learn_times(priced(model, *told).steps)
    for tokens in (2, 20, 80):
        step = priced(model, ([100] * tokens, [1] * tokens, 0.05)).steps[0]
        assert step[TOKENS] == tokens
        assert step[READ_BYTES] == pytest.approx(float(truth.of(np.array(float(tokens)))), rel=0.03)


def test_one_gpu_has_one_fit_of_its_joules() -> None:
    """A second engine on it goes on with what the first learned; one that has learned its own does not."""
    first, second, third = (CostModel(FACTS, 1, H) for _ in range(3))
    steps = priced(first, ([500] * 32, [1] * 32, 0.012)).steps
    first.learn_energy(steps[0], 9.0, 0.0)
    third.learn_energy(steps[0], 7.0, 0.0)
    second.share_energy(first)
    third.share_energy(first)
    assert second.energy is first.energy
    assert third.energy is not first.energy


def test_who_moves_to_another_gpu_takes_along_what_was_learned() -> None:
    """It is a copy from then on: what the two GPUs teach does not mix."""
    first, second = CostModel(FACTS, 1, H), CostModel(FACTS, 1, H)
    second.share_energy(first)
    steps = priced(first, ([500] * 32, [1] * 32, 0.012)).steps
    first.learn_energy(steps[0], 9.0, 0.0)
    second.part_energy()
    learned = second.energy.coefficients.copy()
    first.learn_energy(steps[0], 5.0, 0.0)
    assert second.energy.coefficients == pytest.approx(learned)
    assert first.energy.coefficients != pytest.approx(learned)
