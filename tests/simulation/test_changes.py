"""Changes in the middle of a run: what they do to steps, requests and joules, and when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

import pytest

from joulescope.hook.wire import RequestStart, Step
from joulescope.simulation.changes import (
    BURST_PERIOD_NS,
    KINDS,
    PlannedChange,
    Upheaval,
    changed_world,
    requests,
)
from joulescope.simulation.parts import World
from joulescope.simulation.traces import START_NS, SimulatedRun
from joulescope.simulation.workload import MIXED, PlannedRequest
from joulescope.simulation.worlds import H100_LLAMA_8B

SECOND = 1_000_000_000
HALF_SECONDS = 10.0


def _halves(change: str, seed: int = 3) -> tuple[list[Step], list[Step], float, float]:
    """Steps and joules of the 10 s before a change and of the 10 s after it."""
    changes = [PlannedChange.parse(f"{change}@{HALF_SECONDS:g}")]
    run = SimulatedRun(2 * HALF_SECONDS, seed=seed, rate_per_second=6.0, truth=False, changes=changes)
    middle_ns = START_NS + int(HALF_SECONDS * SECOND)
    steps = [record for record in run.records() if isinstance(record, Step)]
    joules = [
        run.gpu.energy_joules_at(run.gpu.uuid, START_NS + int(at * SECOND))
        for at in (0.0, HALF_SECONDS, 2 * HALF_SECONDS)
    ]
    before = [step for step in steps if step.output_end_ns < middle_ns]
    after = [step for step in steps if middle_ns < step.schedule_start_ns < middle_ns + HALF_SECONDS * SECOND]
    return before, after, joules[1] - joules[0], joules[2] - joules[1]


def _seconds(steps: list[Step]) -> float:
    """Mean of the steps that only decode, of a handful of requests."""
    decoding = [
        step.output_start_ns - step.schedule_end_ns
        for step in steps
        if not step.scheduled and len(step.request) < 30
    ]
    return sum(decoding) / len(decoding) / SECOND


@pytest.mark.parametrize(("change", "least"), [("kernels=1.5", 1.3), ("clocks=0.6", 1.4), ("host=3", 1.3)])
def test_steps_take_longer(change: str, least: float) -> None:
    """Slower kernels, clocks and hosts show in the duration of decode steps, from the change on."""
    before, after, _, _ = _halves(change)
    assert _seconds(after) > least * _seconds(before)


def test_a_hungrier_gpu_draws_more_and_is_as_fast() -> None:
    """Power by another factor, time as before."""
    usual_before, usual_after, *usual = _halves("kernels=1")
    before, after, *joules = _halves("power=1.2")
    assert len(before) == len(usual_before)
    assert abs(len(after) - len(usual_after)) <= 2
    assert joules[0] == pytest.approx(usual[0])
    assert joules[1] == pytest.approx(1.2 * usual[1], rel=0.02)


def test_a_lower_cap_bounds_the_power() -> None:
    """What the GPU draws on average stays below the new limit, and the driver shows the limit."""
    changes = [PlannedChange.parse("cap=0.5@5")]
    run = SimulatedRun(10, seed=3, rate_per_second=12.0, truth=False, changes=changes)
    assert list(run.records())
    uuid = run.gpu.uuid
    assert run.gpu.power_limit_watts_at(uuid, START_NS + 9 * SECOND) == 350.0
    watts = [run.gpu.power_watts_at(uuid, START_NS + int(at * SECOND / 50)) for at in range(260, 490)]
    assert 300 < max(watts) <= 350.001


def test_a_lost_cache_finds_nothing() -> None:
    """No step tells of cached tokens any more once those who came before are served."""
    before, after, _, _ = _halves("cache")
    assert sum(hit for step in before for _, hit, _ in step.cached) > 1000
    assert sum(hit for step in after[len(after) // 3 :] for _, hit, _ in step.cached) == 0


def _plans(change: str, seconds: float) -> list[tuple[float, int]]:
    changes = [PlannedChange.parse(f"{change}@{seconds / 2:g}")]
    stream = requests(20.0, 0, classes=MIXED, seed=1, changes=changes)
    plans = list(takewhile(lambda plan: plan.arrival_ns < seconds * SECOND, stream))
    assert [plan.number for plan in plans] == list(range(1, len(plans) + 1))
    assert len({plan.request_id for plan in plans}) == len(plans)
    return [(plan.arrival_ns / SECOND, plan.prompt_tokens) for plan in plans]


@pytest.mark.parametrize(("change", "factor"), [("load=0.5", 0.5), ("load=2", 2.0)])
def test_load_changes_the_arrivals(change: str, factor: float) -> None:
    """So many times the requests, from the change on, in the order of arrival."""
    plans = _plans(change, 200)
    early = sum(arrival < 100 for arrival, _ in plans)
    assert early == pytest.approx(2000, rel=0.1)
    assert len(plans) - early == pytest.approx(2000 * factor, rel=0.1)
    assert plans == sorted(plans)


def test_mix_changes_the_prompts() -> None:
    """Half of the requests have long prompts afterwards."""
    plans = _plans("mix=0.5", 200)
    early = [tokens for arrival, tokens in plans if arrival < 100]
    late = [tokens for arrival, tokens in plans if arrival >= 100]
    assert sum(late) / len(late) > 1.3 * sum(early) / len(early)


def test_a_run_without_changes_is_what_it_was() -> None:
    """A change after the end leaves every record as it is."""
    usual = [
        record
        for record in SimulatedRun(3, seed=2, truth=False).records()
        if isinstance(record, RequestStart)
    ]
    later = SimulatedRun(3, seed=2, truth=False, changes=[PlannedChange.parse("kernels@100")])
    assert [record for record in later.records() if isinstance(record, RequestStart)] == usual


def test_changes_come_one_after_the_other() -> None:
    """Each builds on the one before, in the order of their times, and none comes twice."""
    seen: list[World] = []
    changes = [PlannedChange.parse("clocks=0.5@2"), PlannedChange.parse("kernels=2@1")]
    upheaval = Upheaval(H100_LLAMA_8B, changes, seen.append, 0)
    assert upheaval.next_ns(10 * SECOND) == SECOND
    for now in (0.5, 1, 1.5, 2, 3):
        upheaval.pass_time(int(now * SECOND))
    speeds = [world.hardware.flops_per_second / H100_LLAMA_8B.hardware.flops_per_second for world in seen]
    assert speeds == [0.5, 0.25]
    assert upheaval.next_ns(10 * SECOND) == 10 * SECOND


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kernels", "KIND@SECONDS"),
        ("kernels=x@3", "KIND@SECONDS"),
        ("fans@3", "no kind of change; there are kernels"),
        ("cache=2@3", "out of range"),
    ],
)
def test_what_is_no_change_is_refused(text: str, words: str) -> None:
    """The message says what was expected."""
    with pytest.raises(ValueError, match=words):
        PlannedChange.parse(text)


def test_every_kind_has_a_usual_size_in_range() -> None:
    """The size may be left out."""
    for name, kind in KINDS.items():
        assert PlannedChange.parse(f"{name}@1") == PlannedChange(name, kind.usual, 1.0)
        assert kind.least <= kind.usual <= kind.largest
        changed_world(H100_LLAMA_8B, PlannedChange(name, kind.usual, 1.0))


def test_clocks_are_told_as_they_fall() -> None:
    """What a driver would say of them: a part of the full clocks from the change on."""
    run = SimulatedRun(4.0, seed=3, truth=False, changes=[PlannedChange.parse("clocks=0.7@2")])
    full = run.gpu.clocks_hertz_at(run.gpu.uuid, START_NS)
    for _ in run.records():
        pass
    assert full is not None
    assert run.gpu.clocks_hertz_at(run.gpu.uuid, START_NS + 4 * SECOND) == pytest.approx(
        [0.7 * each for each in full]
    )


def test_bursts_bring_the_same_requests_closer_together() -> None:
    """Each period's requests come in its first part, and none is lost or another."""
    bursts = [PlannedChange("duty", 0.25, 0.0)]
    usual = list(_arriving(120.0, ()))
    crowded = list(_arriving(120.0, bursts))
    assert [plan.request_id for plan in crowded] == [plan.request_id for plan in usual]
    assert all((plan.arrival_ns - START_NS) % BURST_PERIOD_NS <= 0.25 * BURST_PERIOD_NS for plan in crowded)


def test_acceptance_falls_for_the_same_clients() -> None:
    """From the start on it is no new stream: only the luck of drafts is worse."""
    usual = list(_arriving(20.0, ()))
    worse = list(_arriving(20.0, [PlannedChange("acceptance", 0.5, 0.0)]))
    assert [plan.prompt_tokens for plan in worse] == [plan.prompt_tokens for plan in usual]
    assert [plan.acceptance for plan in worse] == pytest.approx([0.5 * plan.acceptance for plan in usual])


def _arriving(seconds: float, changes: Sequence[PlannedChange]) -> Iterator[PlannedRequest]:
    """Who comes in the first so many seconds, at four requests a second."""
    stream = requests(4.0, START_NS, classes=MIXED, seed=5, changes=changes)
    # Whole periods, so that both ways the same requests are within.
    return takewhile(lambda plan: plan.arrival_ns < START_NS + int(seconds * SECOND), stream)
