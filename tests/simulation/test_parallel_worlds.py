"""Worlds of several GPUs or engines."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from joulescope.hook.wire import Hello, Overhead, Step
from joulescope.replay import Replay
from joulescope.simulation.engine import SimulatedEngine
from joulescope.simulation.gpu import SimulatedGpu
from joulescope.simulation.group import law_of
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.worlds import H100, WORLDS
from tests.simulation.stories import DECODE, PREFILL, columns, features, of, run_of


def test_engines_name_their_gpus_in_rank_order() -> None:
    """The hello of each engine lists its own GPUs by rank, and says how the model is spread over them."""
    shapes = {
        "tensor-parallel-2": (2, 1, 1),
        "pipeline-parallel-2": (1, 2, 1),
        "data-parallel-dummy": (1, 1, 2),
    }
    for name, shape in shapes.items():
        run, records = run_of(name)
        hellos = of(Hello, records)
        facts = [greeting.engine for greeting in hellos]
        assert (facts[0].tensor_parallel, facts[0].pipeline_parallel, facts[0].data_parallel) == shape
        assert [gpu for each in facts for gpu in each.gpus] == [gpu.uuid for gpu in run.gpus]
        assert [each.data_parallel_index for each in facts] == list(range(len(facts)))
        assert [greeting.session for greeting in hellos] == list(range(1, len(facts) + 1))


def test_tensor_parallel_gpus_work_together_and_the_slow_one_sets_the_pace() -> None:
    """Both GPUs are busy in the same stretches; the slower one draws more, the other waits for it."""
    run, _ = run_of("tensor-parallel-2")
    assert run.truth.steps is not None
    first, second = ([step for step in run.truth.steps if step.gpu == gpu.uuid] for gpu in run.gpus)
    assert [(step.start_ns, step.end_ns) for step in first] == [
        (step.start_ns, step.end_ns) for step in second
    ]
    assert sum(step.joules for step in second) > 1.02 * sum(step.joules for step in first)
    world = WORLDS["tensor-parallel-2"]
    even = law_of(replace(world, parallel=replace(world.parallel, slowness=(), hunger=())))
    step = features(*[DECODE] * 8).sum(axis=1)
    slow, same = law_of(world).cost(step), even.cost(step)
    assert slow.seconds[0] == slow.seconds[1] > 1.02 * same.seconds[0]
    assert slow.joules[1] > slow.joules[0] > same.joules[0] == same.joules[1]


def test_talking_takes_time_on_top_of_the_halved_work() -> None:
    """Two GPUs are less than twice as fast as one: each all-reduce has a latency, and more with tokens."""
    world = WORLDS["tensor-parallel-2"]
    alone = law_of(replace(world, parallel=replace(world.parallel, tensor=1, slowness=(), hunger=())))
    silent = law_of(
        replace(
            world,
            parallel=replace(
                world.parallel, slowness=(), hunger=(), reduce_seconds=0.0, reduce_bytes_per_second=1e18
            ),
        )
    )
    for requests in ([DECODE], [PREFILL]):
        step = features(*requests).sum(axis=1)
        one, two = alone.cost(step).seconds[0], law_of(world).cost(step).seconds[0]
        assert one > two > 1.05 * silent.cost(step).seconds[0]


def test_pipeline_stages_work_on_different_steps_at_once() -> None:
    """Each GPU has its own stretch of every step, in the order of the stages, and steps overlap."""
    run, records = run_of("pipeline-parallel-2")
    assert run.truth.steps is not None
    first, second = ([step for step in run.truth.steps if step.gpu == gpu.uuid] for gpu in run.gpus)
    assert [step.step for step in first] == [step.step for step in second]
    assert all(before.end_ns <= after.start_ns for before, after in zip(first, second, strict=True))
    overlap = sum(after.start_ns < before.end_ns for before, after in zip(second, first[1:], strict=False))
    assert overlap > 0.3 * len(second)
    told = of(Step, records)
    for before, after in pairwise(told):
        if after.schedule_start_ns < before.output_start_ns:
            chunked = {handle for handle, _, _, sampled in columns(before) if not sampled}
            assert set(before.request) & set(after.request) <= chunked


def test_waiting_for_the_other_stage_belongs_to_the_requests() -> None:
    """With one request at a time each GPU of a pipeline waits half of the time, at the requests' expense."""
    run, _ = run_of("pipeline-parallel-2", 5.0, 0.6)
    assert run.truth.steps is not None
    gap = sum(step.gap_joules for step in run.truth.steps)
    assert gap > 0.1 * sum(step.joules for step in run.truth.steps)


def test_an_engine_without_requests_computes_dummy_steps_for_its_peer() -> None:
    """Dummy steps run only while the other engine is busy, cost real joules, and are nobody's."""
    run, records = run_of("data-parallel-dummy")
    dummies = of(Overhead, records)
    assert {dummy.reason for dummy in dummies} == {"dummy_batch"}
    assert {dummy.session for dummy in dummies} >= {2}
    for session, balance in enumerate(run.balances(), start=1):
        assert (balance.overhead_joules > 0) == any(dummy.session == session for dummy in dummies)
    steps = {session: [s for s in of(Step, records) if s.session == session] for session in (1, 2)}
    for dummy in dummies:
        own, others = steps[dummy.session], steps[3 - dummy.session]
        assert not any(
            step.schedule_start_ns < dummy.end_ns and step.output_start_ns > dummy.start_ns for step in own
        )
        nearest = min(abs(step.schedule_start_ns - dummy.start_ns) for step in others)
        assert nearest < 100_000_000
    replay = Replay(records)
    list(replay)
    assert replay.snapshot is not None
    told = sum(gpu.overhead_joules.get("dummy_batch", 0.0) for gpu in replay.snapshot.gpus)
    assert told == pytest.approx(sum(balance.overhead_joules for balance in run.balances()), rel=0.25)


def test_two_engines_take_turns_on_one_gpu() -> None:
    """Steps of both never overlap on the GPU, though their spans as the engines see them do."""
    run, records = run_of("two-engines")
    assert run.truth.steps is not None
    assert len(run.gpus) == 1
    spans = sorted((step.start_ns, step.end_ns) for step in run.truth.steps)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    sessions = {session: [s for s in of(Step, records) if s.session == session] for session in (1, 2)}
    assert all(len(steps) > 50 for steps in sessions.values())
    waited = sum(
        any(
            other.schedule_end_ns < step.output_start_ns and other.output_start_ns > step.schedule_end_ns
            for other in sessions[1]
        )
        for step in sessions[2]
    )
    assert waited > 0.5 * len(sessions[2])
    identities = {greeting.engine.instance_id for greeting in of(Hello, records)}
    assert len(identities) == 2


@pytest.mark.parametrize("name", ["two-engines", "data-parallel-dummy"])
def test_what_engines_do_hardly_depends_on_when_they_are_asked(name: str) -> None:
    """Polled twice as often, engines that share something tell the same steps of the same requests."""
    stories = []
    for sample_hz in (20.0, 40.0):
        run = SimulatedRun(3.0, seed=6, world=WORLDS[name], sample_hz=sample_hz, truth=False)
        steps = of(Step, list(run.records()))
        stories.append(sorted((step.session, step.step, tuple(step.request)) for step in steps))
    assert stories[0] == stories[1]


def test_an_engine_needs_as_many_gpus_as_its_world_says() -> None:
    """One GPU for a world of two is refused at once, and the error says how many there must be."""
    with pytest.raises(ValueError, match="2 GPUs, got 1"):
        SimulatedEngine(WORLDS["tensor-parallel-2"], SimulatedGpu(H100, 0), [], start_ns=0)


def test_the_ledger_tells_the_steps_of_engines_apart() -> None:
    """Engines on one GPU number their steps alike; the session says whose each one is."""
    run, records = run_of("two-engines")
    assert run.truth.steps is not None
    noted = {(step.session, step.step) for step in run.truth.steps}
    assert noted == {(step.session, step.step) for step in of(Step, records)}
