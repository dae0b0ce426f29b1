"""The cost of a step, and the shares of its true cost."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from numpy.typing import NDArray

from joulescope.simulation.physics import StepPhysics, StepTerms
from joulescope.simulation.truth import StepCharges, TrueLedger, shares_joules
from joulescope.simulation.worlds import H100, H100_LLAMA_8B, LLAMA_3_1_8B

PHYSICS = StepPhysics(H100_LLAMA_8B)


def terms(*requests: tuple[int, int]) -> StepTerms:
    """A step of requests given as (context, scheduled), all of which sample."""
    context, scheduled = np.array(requests, dtype=np.int64).T
    return PHYSICS.terms(context, scheduled, np.ones(len(requests), dtype=np.int64))


def energy_of(step: StepTerms, members: tuple[int, ...]) -> float:
    """The cost of the subset, from the definition."""
    if not members:
        return 0.0
    chosen = list(members)
    own, linear, seconds = (
        column[chosen].sum() for column in (step.own_joules, step.linear_seconds, step.own_seconds)
    )
    return float(step.energy_joules(own, linear, seconds))


def shapley_by_definition(step: StepTerms) -> NDArray[np.float64]:
    """Shapley's formula over all subsets: exponential, for a handful of requests."""
    count = len(step.own_joules)
    values = np.zeros(count)
    for player in range(count):
        others = [other for other in range(count) if other != player]
        for size in range(count):
            weight = 1 / (count * comb(count - 1, size))
            for members in combinations(others, size):
                gain = energy_of(step, (*members, player)) - energy_of(step, members)
                values[player] += weight * gain
    return values


DECODE_ONLY = [(100 * k, 1) for k in range(1, 9)]
ONE_PREFILL = [*DECODE_ONLY[:7], (0, 900)]
PREFILLS = [(0, 200), (0, 1500), (4000, 700), (10, 1), (3000, 1), (0, 64)]


@pytest.mark.parametrize("requests", [DECODE_ONLY, ONE_PREFILL, PREFILLS], ids=["decode", "mixed", "prefill"])
def test_shares_are_the_shapley_value(requests: list[tuple[int, int]]) -> None:
    """In small steps the closed form and the sum over subsets are Shapley's own formula, exactly."""
    step = terms(*requests)
    assert shares_joules(step) == pytest.approx(shapley_by_definition(step), rel=1e-9)


def test_shares_of_a_large_step_are_near_the_shapley_value() -> None:
    """Sampled orders are within a few percent for one step, and their error cancels over steps."""
    step = terms(*[(50 * k, 1) for k in range(9)], (0, 900), (2000, 150))
    exact = shapley_by_definition(step)
    assert shares_joules(step) == pytest.approx(exact, abs=0.05 * exact.mean())
    mean = np.mean([shares_joules(step, turn) for turn in range(11)], axis=0)
    assert mean == pytest.approx(exact, abs=0.01 * exact.mean())


@pytest.mark.parametrize("requests", [DECODE_ONLY, ONE_PREFILL, PREFILLS], ids=["decode", "mixed", "prefill"])
def test_shares_sum_to_the_step(requests: list[tuple[int, int]]) -> None:
    """Whatever the orders, no joule of the step is lost or charged twice."""
    step = terms(*requests)
    for turn in (0, 1, 17):
        assert shares_joules(step, turn).sum() == pytest.approx(PHYSICS.cost(step).energy_joules, rel=1e-12)


def test_a_small_batch_pays_mostly_for_the_weights() -> None:
    """At batch 8 the part that is paid once is 80..95 % of a decode step, at batch 256 below 25 %."""
    for count, low, high in ((8, 0.80, 0.95), (256, 0.05, 0.25)):
        step = terms(*[(450, 1)] * count)
        fixed = step.fixed_joules + step.active_watts * (step.launch_seconds + step.weight_seconds)
        assert low < fixed / PHYSICS.cost(step).energy_joules < high


def test_power_never_exceeds_the_cap() -> None:
    """Work that would draw more takes longer instead, up to the largest batch and prefill."""
    for requests in ([(0, 8192)], [(500, 1)] * 512, [(0, 300), *[(900, 1)] * 255]):
        assert PHYSICS.cost(terms(*requests)).power_watts <= H100.power_limit_watts * (1 + 1e-12)


def test_a_capped_step_is_stretched() -> None:
    """A step at the cap lasts longer than its work alone would."""
    step = terms((0, 200), *[(200, 1)] * 255)
    work = step.launch_seconds + step.own_seconds.sum() + step.linear_seconds.sum()
    cost = PHYSICS.cost(step)
    assert cost.power_watts == pytest.approx(H100.power_limit_watts)
    assert cost.duration_seconds > work


def test_prefill_attention_is_quadratic() -> None:
    """Ten times the prompt takes more than ten times the energy beyond the fixed part."""
    short, long = terms((0, 2000)), terms((0, 20_000))
    assert long.own_joules[0] > 10 * short.own_joules[0] * 1.05


def test_prefill_in_chunks_computes_the_same_attention_as_at_once() -> None:
    """Cutting a prompt into chunks changes neither the FLOPs nor, beyond KV reads, the energy."""
    whole, first, second = terms((0, 4000)), terms((0, 1000)), terms((1000, 3000))
    kv_again = 1000 * LLAMA_3_1_8B.kv_bytes_per_token * H100.joules_per_byte
    extra = kv_again + H100_LLAMA_8B.runtime.sequence_joules
    extra += LLAMA_3_1_8B.flops_per_sample * H100.joules_per_flop
    assert first.own_joules[0] + second.own_joules[0] - extra == pytest.approx(whole.own_joules[0])


def test_the_ledger_forgets_the_oldest_request() -> None:
    """However long a demo runs, the truth takes bounded memory."""
    ledger = TrueLedger(limit=2)
    for name in ("a", "b", "c"):
        ledger.open(name)
    ones = np.ones(3, dtype=np.int64)
    ledger.charge(["a", "b", "c"], StepCharges.of(np.array([1.0, 2.0, 3.0]), ones, ones, 0 * ones))
    assert ledger.true_joules() == {"b": 2.0, "c": 3.0}
    assert ledger.get("a") is None


def test_naive_shares_conserve_the_step_too() -> None:
    """The rules that serve as comparison divide the same joules, also when no token came out."""
    shares = np.array([5.0, 1.0, 2.0])
    scheduled, recomputed = np.array([98, 1, 1]), np.array([49, 0, 0])
    for sampled in (np.array([0, 1, 1]), np.array([0, 0, 0])):
        charges = StepCharges.of(shares, scheduled, sampled, recomputed)
        assert charges.by_tokens.sum() == pytest.approx(8.0)
        assert charges.by_output.sum() == pytest.approx(8.0)
        assert charges.recomputed[0] == pytest.approx(2.5)
