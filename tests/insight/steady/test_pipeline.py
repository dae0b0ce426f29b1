"""Pipelines in the long run: how many steps are under way, and what waiting for the slowest one costs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from joulescope.insight.steady import LengthClass, Workload, flight_chances, steady_state
from joulescope.insight.steady.pipeline import chances, slowest_of
from joulescope.simulation.worlds import WORLDS
from tests.insight.steady.services import service_of

CHAT = (LengthClass(1.0, 200.0, 300.0), LengthClass(0.02, 12_000.0, 100.0))
TWO = service_of(WORLDS["pipeline-parallel-2"])


def test_the_slowest_of_several_is_the_mean_of_their_largest() -> None:
    """Of 1, 2 and 4 in equal parts: the larger of two is 1 once, 2 three times and 4 five times in nine."""
    values, chance = np.array([[4.0, 1.0, 2.0]]), np.full((1, 3), 1.0 / 3.0)
    assert slowest_of(values, chance, 2)[0] == pytest.approx([7.0 / 3.0, (1.0 + 6.0 + 20.0) / 9.0])


def test_chances_are_whole_and_follow_their_ratios() -> None:
    assert chances([math.log(3.0), -math.inf]) == pytest.approx([0.25, 0.75, 0.0])
    assert sum(chances([math.inf])) == pytest.approx(1.0)


def test_at_light_load_requests_share_one_step_and_at_heavy_load_they_do_not() -> None:
    light, heavy = (flight_chances(Workload(CHAT, arrivals_per_second=rate), TWO) for rate in (0.3, 4.0))
    assert light[0] > 0.9
    assert heavy[1] > 0.99
    assert flight_chances(Workload(CHAT, concurrency=math.inf), TWO)[1] > 0.99


def test_a_small_batch_that_is_always_full_keeps_the_steps_that_it_began_with() -> None:
    """None of its sets ever ends, and long prompts that begin another are seldom."""
    few = replace(TWO, limits=replace(TWO.limits, max_num_seqs=2))
    one, two = flight_chances(Workload(CHAT, concurrency=math.inf), few)
    assert one + two == pytest.approx(1.0)
    assert one > 0.05
    assert two > 0.05


def test_a_service_of_one_stage_has_one_step_under_way() -> None:
    assert flight_chances(Workload(CHAT, arrivals_per_second=3.0), replace(TWO, pipeline_parallel=1)) == (
        1.0,
    )


def test_where_both_states_are_met_the_long_run_lies_between_them() -> None:
    load = Workload(CHAT, arrivals_per_second=1.5)
    assert 0.02 < flight_chances(load, TWO)[0] < 0.98
    one, two, both = (steady_state(load, replace(TWO, flights=each)) for each in (1.0, 2.0, None))
    assert one.joules_per_token is not None
    assert two.joules_per_token is not None
    assert both.joules_per_token is not None
    # One step at a time reads the weights once for all, and each stage waits while the other works.
    assert one.joules_per_token.total < both.joules_per_token.total < two.joules_per_token.total
    assert two.batch < both.batch < one.batch
    assert both.tokens_per_second == pytest.approx(one.tokens_per_second, rel=1e-3)


def test_stages_wait_for_the_slowest_step_under_way() -> None:
    """With prompts in some steps a request's tokens come later than its own steps last."""
    full = Workload((LengthClass(1.0, 6000.0, 200.0),), concurrency=math.inf)
    service = replace(TWO, limits=replace(TWO.limits, max_num_seqs=32))
    operation = steady_state(full, service)
    assert operation.inter_token_seconds > 1.2 * 2.0 * operation.step_seconds
    alone = steady_state(replace(full, classes=(LengthClass(1.0, 1.0, 200.0),)), service)
    assert alone.inter_token_seconds < 1.05 * 2.0 * (alone.step_seconds + alone.wait_seconds)
