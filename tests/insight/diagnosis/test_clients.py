"""Whether clients wait for answers, and what is then a cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.planted import Case, Plant, run
from joulescope.insight.diagnosis import causes
from joulescope.insight.diagnosis.clients import steady_number, wait_for_answers
from joulescope.insight.diagnosis.diagnosis import diagnose
from joulescope.insight.diagnosis.window import Window, window_of
from joulescope.minute_model import EngineMinute
from joulescope.simulation.workload import RequestClass
from joulescope.simulation.worlds import H100_LLAMA_8B
from tests.insight.diagnosis.windows import minutes


def _present(means: Sequence[float], requests: int = 240, uneven: int = 0) -> list[EngineMinute]:
    """Minutes in which so many requests were there in the mean, and so many came."""
    (minute, *_) = minutes()
    return [
        replace(
            minute,
            load=replace(
                minute.load,
                seconds=60.0,
                running_seconds=0.75 * mean * 60.0,
                waiting_seconds=0.25 * mean * 60.0,
                requests_started=requests + (uneven if at % 2 else -uneven),
            ),
        )
        for at, mean in enumerate(means)
    ]


def test_always_as_many_requests_are_a_closed_loop() -> None:
    """Sixteen at any time, but for the moments between an answer and the next request."""
    assert steady_number(_present([15.9, 15.92, 15.88, 15.9, 15.91]))


def test_arrivals_at_random_are_none() -> None:
    """As many requests in the mean, of a Poisson process: chance alone seldom keeps them so even."""
    luck = np.random.default_rng(1)
    # 4 requests a second that stay for 4 seconds: the mean of a minute scatters by 16·2·4/60 = 2.1.
    closed = [steady_number(_present(luck.normal(16.0, 2.1**0.5, 5).tolist())) for _ in range(400)]
    assert sum(closed) < 0.02 * len(closed)


@pytest.mark.parametrize(
    ("means", "requests"),
    [([16.0] * 2, 240), ([0.4] * 4, 240), ([16.0] * 4, 5)],
    ids=["too short", "hardly any", "too few"],
)
def test_too_little_is_known(means: list[float], requests: int) -> None:
    """Then requests are taken to come whenever they like."""
    assert not steady_number(_present(means, requests))


def _window(means: Sequence[float], rate: float, uneven: int = 0) -> Window:
    window = window_of(_present(means, uneven=uneven), "A", None)
    workload = replace(window.observed.workload, arrivals_per_second=rate)
    return replace(window, observed=replace(window.observed, workload=workload))


def test_even_arrivals_are_told_from_a_closed_loop_by_what_stayed() -> None:
    """The engine became slower: of clients that wait the rate fell; of a clock that sends requests, more are
    there."""
    before = _window([16.0, 16.01, 15.99, 16.0], 8.0)
    assert wait_for_answers(before, _window([16.0, 16.01, 15.99, 16.0], 6.0))
    assert not wait_for_answers(before, _window([21.0, 21.01, 20.99, 21.0], 8.0))


def test_clients_may_become_fewer() -> None:
    """Half of them send more than half of the requests, for answers come sooner."""
    before = _window([16.0, 16.01, 15.99, 16.0], 8.0, uneven=9)
    assert wait_for_answers(before, _window([8.0, 8.01, 7.99, 8.0], 5.0, uneven=7))


NARROW = replace(
    H100_LLAMA_8B,
    classes=(
        RequestClass("chat", 0.7, 300, 0.3, 150, 0.3, 512),
        RequestClass("code", 0.3, 900, 0.3, 60, 0.3, 512),
    ),
)
"""A service whose requests scatter little, so that short windows suffice."""


def test_fewer_requests_of_a_slower_engine_are_no_cause() -> None:
    """Clocks fall, and with them the requests that clients can send; all of the change is the clocks'."""
    case = Case("short", (), world=NARROW, clients=12)
    before, after = (
        run(case, plants, 1, 60.0, account=True, warm_up=0.0).minutes
        for plants in ((), (Plant("clocks", 0.7),))
    )
    rates = [sum(each.load.requests_started for each in window) for window in (before, after)]
    assert rates[1] < 0.9 * rates[0]
    found = diagnose(before, after, closed_loop=True)
    assert found.closed_loop
    assert any("Clients wait for answers: 1" in note for note in found.notes)
    parts = {part.cause: part for part in found.parts}
    assert found.parts[0].cause == causes.CLOCKS
    assert parts[causes.CLOCKS].joules_per_token == pytest.approx(found.change, rel=0.2)
    assert not parts[causes.LOAD].significant
    # Taken for arrivals at any time, the echo is told as load.
    echo = {part.cause: part for part in diagnose(before, after, closed_loop=False).parts}
    assert echo[causes.LOAD].joules_per_token > 3.0 * abs(parts[causes.LOAD].joules_per_token)
