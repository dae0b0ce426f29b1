"""Distributions of latencies: their means are those of the long run, and their limits are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from joulescope.insight.steady import LengthClass, Workload, latencies, steady_state
from joulescope.simulation.scheduler import EngineLimits
from joulescope.simulation.worlds import H100_LLAMA_8B, WORLDS
from tests.insight.steady.services import service_of

CHAT = (LengthClass(1.0, 200.0, 300.0), LengthClass(0.3, 1500.0, 100.0, cached_tokens=1000.0))
SERVICE = service_of(H100_LLAMA_8B)


@pytest.mark.parametrize("rate", [1.0, 20.0])
def test_means_of_the_draws_are_the_means_of_the_long_run(rate: float) -> None:
    load = Workload(CHAT, arrivals_per_second=rate)
    operation, found = steady_state(load, SERVICE), latencies(load, SERVICE)
    assert found.first_token is not None
    assert found.inter_token.mean() == pytest.approx(operation.inter_token_seconds, rel=0.01)
    assert found.first_token.mean() == pytest.approx(operation.first_token_seconds, rel=0.03)


def test_the_queue_of_a_batch_limit_is_in_the_first_token() -> None:
    """Of a few servers that many ask: the mean wait is Little's law's, and a tenth waits much longer."""
    limited = service_of(H100_LLAMA_8B, EngineLimits(max_num_seqs=8))
    load = Workload(CHAT, arrivals_per_second=3.5)
    operation, found = steady_state(load, limited), latencies(load, limited)
    assert found.first_token is not None
    assert operation.queue_seconds is not None
    assert operation.queue_seconds > 0.1
    assert found.first_token.mean() == pytest.approx(operation.first_token_seconds, rel=0.1)
    most = found.percentile("first_token_seconds", 99.0)
    assert most is not None
    assert most > 3.0 * found.first_token.mean()


def test_percentiles_ascend_and_the_same_question_has_the_same_answer() -> None:
    load = Workload(CHAT, arrivals_per_second=12.0)
    one, two = latencies(load, SERVICE), latencies(load, SERVICE)
    for figure in ("inter_token_seconds", "first_token_seconds"):
        values = [one.percentile(figure, percent) or 0.0 for percent in (50.0, 90.0, 95.0, 99.0)]
        assert values == sorted(values)
        assert values[0] < values[-1]
    assert np.array_equal(one.inter_token, two.inter_token)


def test_while_a_queue_grows_no_first_token_is_told() -> None:
    assert latencies(Workload(CHAT, arrivals_per_second=200.0), SERVICE).first_token is None
    assert latencies(Workload(CHAT, concurrency=math.inf), SERVICE).first_token is None


def test_one_client_waits_as_long_for_every_token() -> None:
    """Nobody else's prompt is ever in its steps."""
    one = latencies(Workload((LengthClass(1.0, 200.0, 301.0),), concurrency=1.0), SERVICE)
    assert one.inter_token[0] == pytest.approx(one.inter_token[-1], rel=0.001)


def test_a_pipeline_waits_for_the_steps_beside_its_own() -> None:
    classes = (LengthClass(1.0, 3000.0, 200.0),)
    service = service_of(WORLDS["pipeline-parallel-2"])
    load = Workload(classes, arrivals_per_second=2.0)
    found, operation = latencies(load, service), steady_state(load, service)
    assert found.inter_token.mean() == pytest.approx(operation.inter_token_seconds, rel=0.1)
    alone = latencies(load, replace(service, flights=1.0))
    assert not np.array_equal(found.inter_token, alone.inter_token)
