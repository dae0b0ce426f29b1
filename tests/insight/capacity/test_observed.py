"""What minutes of an engine say of it: a simulated run whose requests and speed are known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from joulescope.errors import PlanError
from joulescope.insight.capacity.observed import observe
from joulescope.insight.steady import steady_state
from joulescope.minute_model import EngineMinute, Kind, Laws
from joulescope.model import CostFacts
from joulescope.replay import Replay
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.worlds import WORLDS


def minutes_of(world: str, rate: float, seconds: float) -> list[EngineMinute]:
    minutes: list[EngineMinute] = []
    run = SimulatedRun(seconds, seed=5, rate_per_second=rate, world=WORLDS[world], truth=False)
    for _ in Replay(run.records(), on_minute=minutes.append):
        pass
    return minutes


@pytest.fixture(scope="module")
def chat() -> list[EngineMinute]:
    return minutes_of("calibrated", 5.0, 80.0)


@pytest.fixture(scope="module")
def drafted() -> list[EngineMinute]:
    return minutes_of("speculative", 5.0, 40.0)


def test_the_long_run_of_what_was_observed_is_what_was_measured(chat: list[EngineMinute]) -> None:
    """One run: what its laws, lengths and rate foresee is how it went."""
    observed = observe(chat)
    foreseen = steady_state(observed.workload, observed.service)
    assert foreseen.joules_per_token is not None
    assert observed.fared.joules_per_token is not None
    assert foreseen.joules_per_token.total == pytest.approx(observed.fared.joules_per_token, rel=0.05)
    assert foreseen.step_seconds == pytest.approx(observed.fared.step_seconds, rel=0.05)
    assert foreseen.batch == pytest.approx(observed.fared.batch, rel=0.1)


def test_what_is_seen_is_told_by_minute(chat: list[EngineMinute]) -> None:
    observed = observe(chat)
    assert observed.seen.batch.low < observed.fared.batch < observed.seen.batch.high
    assert observed.seen.memory_bound
    assert observed.seen.power_limit_watts is not None
    assert observed.seen.power_limit_watts.low == pytest.approx(700.0)
    assert observed.scale == pytest.approx(1.0, abs=0.03)
    assert observed.workload.shared_tokens > 1000.0


def test_power_is_that_of_the_time_that_was_measured(chat: list[EngineMinute]) -> None:
    """While a sidecar had lost its engine, the GPUs were measured all the same."""
    deaf = [replace(each, load=replace(each.load, seconds=each.load.seconds / 2)) for each in chat]
    assert observe(deaf).fared.watts == pytest.approx(observe(chat).fared.watts)
    silent = [replace(each, gpu=replace(each.gpu, seconds=0.0)) for each in chat]
    assert observe(silent).fared.watts == pytest.approx(observe(chat).fared.watts, rel=0.02)


def test_drafts_are_told_as_tokens_of_a_pass(drafted: list[EngineMinute]) -> None:
    """Three are drafted in each step; chat gets about two tokens of it."""
    service = observe(drafted).service
    assert service.drafted_per_pass == pytest.approx(3.0, rel=0.05)
    assert 2.0 < service.tokens_per_pass < 3.0
    assert not service.async_scheduling


def test_one_engine_of_several_must_be_named(chat: list[EngineMinute]) -> None:
    other = [replace(minute, kind=replace(minute.kind, engine="other")) for minute in chat]
    with pytest.raises(PlanError, match="name one with --engine"):
        observe([*chat, *other])
    assert observe([*chat, *other], "other").kind.engine == "other"
    with pytest.raises(PlanError, match="does not tell of engine third"):
        observe([*chat, *other], "third")


def test_of_several_kinds_of_an_engine_the_latest_counts(chat: list[EngineMinute]) -> None:
    before = [
        replace(
            minute,
            kind=replace(minute.kind, software_version="0.1"),
            start_wall_seconds=minute.start_wall_seconds - 3600.0,
            end_wall_seconds=minute.end_wall_seconds - 3600.0,
        )
        for minute in chat
    ]
    assert observe([*before, *chat]) == observe(chat)


def _without_laws(minute: EngineMinute) -> EngineMinute:
    return replace(minute, laws=None)


def _without_facts(minute: EngineMinute) -> EngineMinute:
    laws = minute.laws
    return replace(minute, laws=None if laws is None else replace(laws, cost=CostFacts()))


def _without_requests(minute: EngineMinute) -> EngineMinute:
    return replace(minute, tasks=())


def _of_another_model(minute: EngineMinute) -> EngineMinute:
    return replace(minute, joules=replace(minute.joules, decode=3.0 * minute.joules.decode))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_laws, "no minute has a fitted cost model"),
        (_without_facts, "does not say what its steps read"),
        (_without_requests, "no request ended"),
        (_of_another_model, "times what its cost model says"),
    ],
)
def test_minutes_that_tell_too_little_are_refused(
    chat: list[EngineMinute], change: object, message: str
) -> None:
    assert callable(change)
    with pytest.raises(PlanError, match=message):
        observe([change(minute) for minute in chat])


def test_no_minutes_of_an_engine_are_refused() -> None:
    with pytest.raises(PlanError, match="no minutes of an engine"):
        observe([EngineMinute(Kind(""), 0.0, 60.0)])


def test_the_laws_of_the_latest_minute_that_has_some_count(chat: list[EngineMinute]) -> None:
    last = chat[-1]
    later = replace(last, laws=None, start_wall_seconds=6000.0, end_wall_seconds=6060.0)
    taught = observe([*chat, later]).service.laws
    assert isinstance(taught, Laws)
    assert taught.cost == next(minute.laws.cost for minute in chat if minute.laws is not None)
