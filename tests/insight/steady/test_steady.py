"""The long run of an engine: balances that must hold, limits that are known, and simulated engines."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from joulescope.insight.steady import LengthClass, Workload, steady_state
from joulescope.simulation import calibration
from joulescope.simulation.scheduler import EngineLimits
from joulescope.simulation.worlds import H100_LLAMA_8B, WORLDS
from tests.insight.steady.services import service_of

CHAT = (LengthClass(1.0, 200.0, 300.0), LengthClass(0.3, 1500.0, 100.0, cached_tokens=1000.0))
SERVICE = service_of(H100_LLAMA_8B)


def test_what_comes_goes_while_it_can_be_served() -> None:
    operation = steady_state(Workload(CHAT, arrivals_per_second=6.0), SERVICE)
    assert operation.requests_per_second == pytest.approx(6.0, rel=1e-6)
    mean_output = (300.0 + 0.3 * 100.0) / 1.3
    assert operation.tokens_per_second == pytest.approx(6.0 * mean_output, rel=1e-6)
    assert not operation.saturated


def test_parts_of_the_joules_are_the_power_by_tokens() -> None:
    operation = steady_state(Workload(CHAT, arrivals_per_second=6.0), SERVICE)
    assert operation.joules_per_token is not None
    assert operation.joules_per_token.total * operation.tokens_per_second == pytest.approx(operation.watts)


def test_an_engine_without_requests_draws_idle_power() -> None:
    operation = steady_state(Workload(CHAT, arrivals_per_second=0.0), SERVICE)
    assert operation.watts == pytest.approx(SERVICE.laws.idle_watts)
    assert operation.joules_per_token is None
    assert operation.busy_ratio == 0.0
    assert operation.inter_token_seconds > 0.0


def test_beyond_its_capacity_the_queue_grows_and_the_rest_stays() -> None:
    one, two = (steady_state(Workload(CHAT, arrivals_per_second=rate), SERVICE) for rate in (200.0, 400.0))
    assert one.saturated
    assert one.first_token_seconds is None
    assert replace(one, capacity_requests_per_second=0.0) == replace(two, capacity_requests_per_second=0.0)
    assert one.requests_per_second == one.capacity_requests_per_second


def test_near_the_capacity_it_goes_over_into_the_saturated_state() -> None:
    full = steady_state(Workload(CHAT, concurrency=math.inf), SERVICE)
    rate = 0.9999 * full.capacity_requests_per_second
    almost = steady_state(Workload(CHAT, arrivals_per_second=rate), SERVICE)
    assert almost.joules_per_token is not None
    assert full.joules_per_token is not None
    assert almost.joules_per_token.total == pytest.approx(full.joules_per_token.total, rel=0.01)
    assert almost.queue_seconds is not None
    assert almost.queue_seconds > 60.0


def test_a_small_change_of_the_load_makes_a_small_change_of_all() -> None:
    rates = (9.0, 9.001, 9.002)
    joules = []
    for rate in rates:
        parts = steady_state(Workload(CHAT, arrivals_per_second=rate), SERVICE).joules_per_token
        assert parts is not None
        joules.append(parts.total)
    first, second = joules[1] - joules[0], joules[2] - joules[1]
    assert first == pytest.approx(second, rel=0.01)
    assert first < 0.0


def test_one_client_has_the_engine_for_itself() -> None:
    service = replace(SERVICE, async_scheduling=False)
    one = steady_state(Workload((LengthClass(1.0, 200.0, 301.0),), concurrency=1.0), service)
    laws = SERVICE.laws
    step_seconds = (
        laws.time_coefficients[0]
        + laws.time_coefficients[1]
        + laws.cost.weight_bytes * laws.time_coefficients[2]
        + 351.0 * laws.cost.kv_bytes_per_token * laws.time_coefficients[3]
    )
    assert one.inter_token_seconds == pytest.approx(step_seconds, rel=0.005)
    assert one.batch == 1.0


def test_drafts_that_are_accepted_make_tokens_come_faster() -> None:
    plain = steady_state(Workload(CHAT, concurrency=4.0), SERVICE)
    drafted = replace(SERVICE, tokens_per_pass=2.5, drafted_per_pass=3.0)
    faster = steady_state(Workload(CHAT, concurrency=4.0), drafted)
    assert faster.inter_token_seconds < 0.5 * plain.inter_token_seconds


@pytest.mark.parametrize(
    ("load", "message"),
    [
        ({}, "either"),
        ({"arrivals_per_second": -1.0}, "negative"),
        ({"concurrency": 1.0, "arrivals_per_second": 1.0}, "either"),
    ],
)
def test_a_load_that_makes_no_sense_is_refused(load: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Workload(CHAT, **load)


@pytest.mark.parametrize("batch", [8, 64])
def test_it_foresees_a_saturated_simulated_engine(batch: int) -> None:
    """The chat task of the calibration; lengths are those that its log-normal distributions have."""
    simulated = calibration.measure(H100_LLAMA_8B, batch, seconds=30.0)
    service = service_of(H100_LLAMA_8B, EngineLimits(max_num_seqs=batch))
    foreseen = steady_state(Workload(calibration_classes(), concurrency=math.inf), service)
    assert foreseen.joules_per_token is not None
    assert foreseen.joules_per_token.total == pytest.approx(simulated.joules_per_output_token, rel=0.04)
    assert foreseen.tokens_per_second == pytest.approx(simulated.output_tokens_per_second, rel=0.04)


def calibration_classes() -> tuple[LengthClass, ...]:
    """Prompts and answers of the chat task in quantiles of the same weight."""
    normal = [-1.64, -1.04, -0.67, -0.39, -0.13, 0.13, 0.39, 0.67, 1.04, 1.64]
    task = calibration.CHAT_TASK
    return tuple(
        LengthClass(
            1.0,
            task.prompt_median * math.exp(task.prompt_sigma * one),
            min(task.output_median * math.exp(task.output_sigma * two), task.max_tokens),
        )
        for one in normal
        for two in normal
    )


def test_every_world_has_a_finite_long_run() -> None:
    for name, world in WORLDS.items():
        operation = steady_state(Workload(CHAT, arrivals_per_second=3.0), service_of(world))
        assert 0.0 < operation.watts < math.inf, name


def test_a_full_cache_bounds_the_batch_and_makes_requests_compute_again() -> None:
    limits = EngineLimits(kv_cache_tokens=20_000)
    full = steady_state(Workload(CHAT, concurrency=math.inf), service_of(H100_LLAMA_8B, limits))
    assert full.kv_usage_ratio == pytest.approx(0.97, abs=0.03)
    assert full.kv_full_ratio == pytest.approx(1.0, abs=0.01)
    assert full.running * 400.0 == pytest.approx(20_000.0, rel=0.1)
    assert full.preemptions_per_second > 0.1
    assert full.recompute_joules_per_token > 0.0


def test_a_cache_that_never_fills_changes_nothing() -> None:
    large = service_of(H100_LLAMA_8B, EngineLimits(kv_cache_tokens=10**8))
    unknown = replace(large, limits=replace(large.limits, kv_cache_tokens=None))
    load = Workload(CHAT, arrivals_per_second=5.0)
    one, two = steady_state(load, large), steady_state(load, unknown)
    assert one.watts == two.watts
    assert one.preemptions_per_second == 0.0
    assert two.kv_usage_ratio is None


def test_prompts_longer_than_a_step_compute_chunks_in_vain_while_the_cache_is_full() -> None:
    classes = (LengthClass(1.0, 9000.0, 300.0), LengthClass(1.0, 20_000.0, 300.0))
    service = service_of(H100_LLAMA_8B, EngineLimits(kv_cache_tokens=100_000))
    full = steady_state(Workload(classes, concurrency=math.inf), service)
    assert full.joules_per_token is not None
    assert full.recompute_joules_per_token > 0.2 * full.joules_per_token.total


def test_a_shared_prefix_takes_its_room_once() -> None:
    classes = (LengthClass(1.0, 3000.0, 200.0, cached_tokens=2800.0),)
    service = service_of(H100_LLAMA_8B, EngineLimits(kv_cache_tokens=30_000))
    alone = steady_state(Workload(classes, concurrency=math.inf), service)
    shared = steady_state(Workload(classes, concurrency=math.inf, shared_tokens=15_000.0), service)
    assert shared.running == pytest.approx(0.5 * alone.running, rel=0.05)
