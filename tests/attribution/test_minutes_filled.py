"""Minutes of engines as the accountant fills them: nothing lost or twice, each joule when it was drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulescope.attribution.policy import Policy
from joulescope.clock import WallAnchor
from joulescope.hook import wire
from joulescope.minute_model import EngineMinute, Joules
from joulescope.minutes import merge
from joulescope.model import GpuInfo, GpuReading, GpuStatus
from joulescope.pipeline import Pipeline, Scope
from tests import worlds
from tests.attribution.test_properties import policies
from tests.attribution.test_properties import worlds as any_world
from tests.examples import examples
from tests.worlds import GPU, MS, SECOND, end, hello, start, step

MINUTE = 60 * SECOND
PARTS = tuple(field.name for field in fields(Joules))[1:9]


def run(
    world: Iterable[object], policy: Policy | None = None, *, wall_ns: int = 0, until_ns: int | None = None
) -> tuple[Pipeline, list[EngineMinute]]:
    """Feeds records, readings and instants at which is settled; ``wall_ns``: wall time at the instant 0."""
    pipeline = Pipeline(
        policy, Scope(all_gpus=True), window_ns=200 * MS, wall=WallAnchor(0, wall_ns), minutes=True
    )
    now_ns, found = 0, []
    for item in world:
        if isinstance(item, GpuReading):
            pipeline.read([item])
        elif isinstance(item, int):
            now_ns = max(now_ns, item)
            pipeline.settle(now_ns)
            found += pipeline.drain_minutes()
        elif isinstance(item, wire.Record):
            pipeline.take(item.session, [item])  # type: ignore[list-item]
    pipeline.finish(now_ns if until_ns is None else until_ns)
    return pipeline, found + pipeline.drain_minutes()


def uj(joules: float) -> int:
    return round(joules * 1e6)


def sums(minutes: Sequence[EngineMinute]) -> Counter[str]:
    """Whole microjoules of all minutes by part."""
    return Counter(
        {name: sum(uj(getattr(minute.joules, name)) for minute in minutes) for name in (*PARTS, "measured")}
    )


def readings(
    until_ns: int, watts: float, *, every_ns: int = 100 * MS, gpu: str = GPU, **status: object
) -> list[GpuReading]:
    """A counter that rises steadily, once a second with a status."""
    return [
        GpuReading(
            gpu,
            at,
            energy_joules=watts * at / SECOND,
            power_watts=watts,
            status=GpuStatus(gpu, at // SECOND * SECOND, **status),  # type: ignore[arg-type]
        )
        for at in range(0, until_ns + 1, every_ns)
    ]


def at_work(until_ns: int, step_ns: int = 50 * MS, **more: object) -> list[wire.AnyRecord]:
    """One request that decodes without a pause."""
    steps = [
        step(number, at, at + step_ns, [1], context=[100], scheduled=[1], sampled=[1], **more)
        for number, at in enumerate(range(0, until_ns, step_ns))
    ]
    return [hello(), start(1), *steps, end(1, until_ns, len(steps) - 1)]


def settled(world: Sequence[object], until_ns: int, every_ns: int = SECOND // 4) -> list[object]:
    """A world in the order of time, settled as a sidecar does."""
    moments = [*world, *range(0, until_ns, every_ns)]
    return sorted(moments, key=moment)


def moment(item: object) -> int:
    if isinstance(item, int):
        return item
    return item.time_ns if isinstance(item, GpuReading) else worlds.instant(item)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------- whatever arrives


@settings(max_examples=examples(120), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(any_world(), policies(), st.sampled_from([0, 59, 55, 50.1]))
def test_the_minutes_sum_to_the_ledger(world: list[object], policy: Policy, wall_seconds: float) -> None:
    """Microjoule by microjoule, of all GPUs and of each engine, however minutes cut the world."""
    pipeline, minutes = run(world, policy, wall_ns=round(wall_seconds * SECOND))
    accounts = [gpu.account for gpu in pipeline.accountant.gpus.values()]
    overhead: Counter[str] = sum((account.overhead_uj for account in accounts), Counter())
    found = sums(minutes)
    assert found["measured"] == sum(account.measured_uj for account in accounts)
    assert found["prefill"] + found["decode"] == sum(account.attributed_uj for account in accounts)
    assert found["idle"] == sum(account.idle_uj for account in accounts)
    assert found["unattributed"] == sum(account.unattributed_uj.total() for account in accounts)
    for reason in ("startup", "dummy_batch", "preemption", "rejected_draft"):
        assert found[f"overhead_{reason}"] == overhead[reason]
    for minute in minutes:
        assert uj(minute.joules.measured) == sum(uj(getattr(minute.joules, name)) for name in PARTS)


@settings(max_examples=examples(120), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(any_world(), policies(), st.sampled_from([0, 59, 55, 50.1]))
def test_the_minutes_sum_to_the_tallies(world: list[object], policy: Policy, wall_seconds: float) -> None:
    """Tokens, requests, preemptions and the joules that are counted besides."""
    pipeline, minutes = run(world, policy, wall_ns=round(wall_seconds * SECOND))
    for label, tally in pipeline.accountant.tallies.items():
        own = [minute for minute in minutes if minute.kind.engine == label]
        joules, phases = sums(own), tally.attributed_uj
        for phase in ("prefill", "decode"):
            assert joules[phase] == sum(part for (_, of), part in phases.items() if of == phase)
        for kind in ("prefill", "decode", "recomputed", "rejected", "generated", "cached_local"):
            assert sum(getattr(minute.tokens, kind) for minute in own) == tally.tokens[kind]
        assert sum(minute.tokens.accepted for minute in own) == tally.accepted
        assert sum(minute.load.requests_started for minute in own) == tally.requests_started
        assert sum(minute.load.preemptions for minute in own) == tally.preemptions
        reasons: Counter[str] = sum((Counter(dict(each.finish_reasons)) for each in own), Counter())
        assert reasons == +tally.requests_finished
        assert sum(cell.requests for each in own for cell in each.tasks) == tally.requests_finished.total()
        for reason in ("abort", "rejected_draft", "preemption"):
            wasted = sum(uj(getattr(minute.joules, f"wasted_{reason}")) for minute in own)
            assert wasted == tally.wasted_uj[reason]
        assert sum(uj(minute.joules.avoided) for minute in own) == tally.avoided_uj.total()
        assert sum(minute.joules.marginal for minute in own) == pytest.approx(tally.marginal_uj / 1e6)


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(any_world(), st.sampled_from([0, 55]))
def test_figures_make_sense_whatever_arrives(world: list[object], wall_seconds: int) -> None:
    """No part is above its whole, nothing is below zero, and no minute is longer than one."""
    _, minutes = run(world, wall_ns=wall_seconds * SECOND)
    for minute in minutes:
        assert 0.0 <= minute.end_wall_seconds - minute.start_wall_seconds <= 60.0
        load = minute.load
        assert max(load.busy_seconds, load.kv_known_seconds) <= load.seconds + 1e-9
        assert max(load.queued_seconds, load.kv_full_seconds) <= load.busy_seconds + 1e-9
        for steps in (minute.decode_steps, minute.prefill_steps):
            assert min(getattr(steps, field.name) for field in fields(steps)) >= -1e-6
            bound = steps.memory_bound_seconds + steps.compute_bound_seconds + steps.power_bound_seconds
            assert bound == pytest.approx(steps.seconds, abs=1e-6)


# ------------------------------------------------------------------------------------- worlds made by hand


def test_joules_are_of_the_minute_in_which_they_were_drawn() -> None:
    """Intervals cross the edges of minutes; each side gets its own, to a thousandth of an interval."""
    until_ns = 150 * SECOND
    world = settled([*at_work(until_ns), *readings(until_ns, 300.0, every_ns=70 * MS)], until_ns)
    _, minutes = run(world, until_ns=until_ns)
    assert [minute.start_wall_seconds for minute in minutes] == [0.0, 60.0, 120.0]
    for minute, length in zip(minutes, (60.0, 60.0, 30.0), strict=True):
        assert minute.end_wall_seconds - minute.start_wall_seconds == length
        seconds = minute.gpu.seconds
        assert seconds == pytest.approx(length, abs=0.1)
        assert minute.joules.measured == pytest.approx(300.0 * seconds, abs=0.2)
        assert minute.joules.decode == pytest.approx(minute.joules.measured, rel=1e-3)
        assert minute.decode_steps.seconds == pytest.approx(seconds, abs=1e-3)
        assert minute.tokens.decode == pytest.approx(20 * seconds, abs=2)


def test_a_step_that_crosses_the_edge_is_cut_there() -> None:
    """Idle time goes by the time, the step's joules by its own."""
    records = [hello(), start(1), step(0, 58 * SECOND, 62 * SECOND, [1], context=[0]), end(1, 62 * SECOND, 0)]
    world = settled([*records, *readings(70 * SECOND, 400.0)], 70 * SECOND)
    _, minutes = run(world, until_ns=70 * SECOND)
    assert [minute.joules.measured for minute in minutes] == pytest.approx([24_000.0, 4_000.0], abs=0.1)
    busy = [minute.joules.prefill + minute.joules.decode for minute in minutes]
    assert busy == pytest.approx([800.0, 800.0], abs=1.0)
    assert [minute.prefill_steps.seconds for minute in minutes] == pytest.approx([2.0, 2.0])
    assert [minute.prefill_steps.steps for minute in minutes] == pytest.approx([0.5, 0.5])
    assert [minute.load.busy_seconds for minute in minutes] == [0.0, 0.0]  # it tells no gauges
    assert [minute.tokens.prefill for minute in minutes] == [0, 1]


def test_minutes_are_closed_while_it_runs() -> None:
    """Two seconds after their end, when all of them is accounted."""
    until_ns = 64 * SECOND
    world = settled([*at_work(until_ns), *readings(until_ns, 300.0)], until_ns)
    pipeline = Pipeline(None, Scope(all_gpus=True), wall=WallAnchor(0, 0), minutes=True)
    closed_at = []
    for item in world:
        if isinstance(item, int):
            pipeline.settle(item)
            closed_at += [item for _ in pipeline.drain_minutes()]
        elif isinstance(item, GpuReading):
            pipeline.read([item])
        else:
            pipeline.take(0, [item])  # type: ignore[list-item]
    assert len(closed_at) == 1
    assert 62 * SECOND <= closed_at[0] <= 63 * SECOND


def test_an_open_minute_can_be_looked_at() -> None:
    """As it would be if it were closed now; it stays open, and looking changes nothing."""
    until_ns = 30 * SECOND
    world = settled([*at_work(until_ns), *readings(until_ns, 300.0)], until_ns)
    pipeline = Pipeline(None, Scope(all_gpus=True), wall=WallAnchor(0, 0), minutes=True)
    for item in world:
        if isinstance(item, int):
            pipeline.settle(item)
            seen = pipeline.open_minutes(item)
        elif isinstance(item, GpuReading):
            pipeline.read([item])
        else:
            pipeline.take(0, [item])  # type: ignore[list-item]
    pipeline.finish(until_ns)
    (closed,) = pipeline.drain_minutes()
    assert seen[0].end_wall_seconds == pytest.approx(30.0, abs=0.3)
    assert 8_000.0 < seen[0].joules.measured < closed.joules.measured
    assert pipeline.open_minutes(until_ns) == []
    assert closed.joules.measured == pytest.approx(9000.0)


def test_what_comes_late_is_one_more_minute() -> None:
    """A GPU whose readings hang is not waited for longer than twice the longest wait; its joules count."""
    until_ns = 90 * SECOND
    engine = [hello(gpus=(GPU, "GPU-late")), *at_work(until_ns)[1:]]
    punctual = settled([*engine, *readings(until_ns, 300.0)], until_ns)
    late = [each for each in readings(until_ns, 100.0, gpu="GPU-late") if each.time_ns <= 50 * SECOND]
    rest = [each for each in readings(until_ns, 100.0, gpu="GPU-late") if each.time_ns > 50 * SECOND]
    world = [*sorted([*punctual, *late], key=moment), *rest, until_ns]
    pipeline, minutes = run(world, until_ns=until_ns)
    first = [minute for minute in minutes if minute.start_wall_seconds < 60.0]
    assert [minute.joules.measured for minute in first] == pytest.approx([23_000.0, 1_000.0], rel=1e-3)
    assert pipeline.accountant.minutes is not None
    assert pipeline.accountant.minutes.late == 1
    assert merge(minutes)[0].joules.measured == pytest.approx(90 * 400.0, rel=1e-3)


def test_what_no_engine_had_is_the_minutes_of_no_engine() -> None:
    """Joules before the first engine came are kept apart, and not lost."""
    until_ns = 20 * SECOND
    engine = [hello(10 * SECOND), start(1, 10 * SECOND), step(0, 10 * SECOND, 20 * SECOND, [1])]
    _, minutes = run(settled([*engine, *readings(until_ns, 100.0)], until_ns), until_ns=until_ns)
    by_engine = {minute.kind.engine: minute for minute in minutes}
    assert by_engine[""].joules.unattributed == pytest.approx(1000.0, rel=0.03)
    assert by_engine["tiny-0"].start_wall_seconds == 10.0
    assert sum(minute.joules.measured for minute in minutes) == pytest.approx(2000.0)


def test_an_engine_that_becomes_another_has_two_minutes() -> None:
    """Another model under the same label: nobody adds up the two."""
    until_ns = 20 * SECOND
    other = wire.EngineFacts(model="org/tiny", dtype="fp8", instance_id="j", gpus=[GPU], cost=worlds.COST)
    engine = [
        *at_work(10 * SECOND),
        wire.Bye(session=0, time_ns=10 * SECOND),
        wire.Hello(session=1, time_ns=12 * SECOND, engine=other),
    ]
    _, minutes = run(settled([*engine, *readings(until_ns, 100.0)], until_ns), until_ns=until_ns)
    named = [minute for minute in minutes if minute.kind.engine]
    assert [minute.kind.dtype for minute in named] == ["", "fp8"]
    assert [(minute.start_wall_seconds, minute.end_wall_seconds) for minute in named] == [(0, 10), (12, 20)]


def test_a_gpu_that_is_named_later_makes_no_second_minute() -> None:
    """More is known of the engine then; it is no other."""
    pipeline = Pipeline(None, Scope(all_gpus=True), window_ns=200 * MS, wall=WallAnchor(0, 0), minutes=True)
    for record in at_work(10 * SECOND):
        pipeline.take(0, [record])
    pipeline.gpus_found([GpuInfo(GPU, name="H100", power_limit_watts=700.0)])
    pipeline.read(readings(10 * SECOND, 300.0))
    pipeline.finish(10 * SECOND)
    (minute,) = pipeline.drain_minutes()
    assert minute.kind.gpu_name == "H100"
    assert (minute.load.requests_started, minute.joules.measured) == (1, pytest.approx(3000.0))


@pytest.mark.parametrize("tells", [True, False])
def test_an_idle_engine_has_minutes_too(tells: bool) -> None:
    """Without any sensor: that it ran nothing is known, by its silence or its word; its joules are not."""
    world: list[object] = [hello(capabilities=["progress"] if tells else [])]
    for at in range(SECOND, 151 * SECOND, SECOND):
        world += [wire.Progress(session=0, time_ns=at), at] if tells else [at]
    _, minutes = run(world, until_ns=150 * SECOND)
    assert [minute.load.seconds for minute in minutes] == [60.0, 60.0, 30.0]
    assert {minute.load.busy_seconds for minute in minutes} == {0.0}
    assert {minute.gpu.seconds for minute in minutes} == {0.0}


def test_gauges_are_summed_over_time() -> None:
    """Means are what the engine told; a full cache and a queue are told by their seconds."""
    gauges = {"running": 4, "waiting": 2, "kv_usage_ratio": 0.97}
    records = at_work(60 * SECOND, **gauges)
    _, minutes = run(settled([*records, *readings(90 * SECOND, 300.0)], 90 * SECOND), until_ns=90 * SECOND)
    load = minutes[0].load
    assert (load.seconds, load.busy_seconds, load.queued_seconds) == pytest.approx((60.0, 60.0, 60.0))
    assert (load.running_seconds, load.waiting_seconds) == pytest.approx((240.0, 120.0))
    assert (load.kv_usage_seconds, load.kv_known_seconds) == pytest.approx((58.2, 60.0))
    assert load.kv_full_seconds == pytest.approx(60.0)
    idle = minutes[1].load
    assert (idle.seconds, idle.busy_seconds, idle.kv_full_seconds) == (30.0, 0.0, 0.0)


def test_clocks_and_throttling_are_summed_over_time() -> None:
    """What a status says holds since the one before; what it does not say has no seconds."""
    until_ns = 61 * SECOND
    told = {
        "sm_clock_hertz": 1.5e9,
        "power_limit_watts": 350.0,
        "sm_active_ratio": 0.5,
        "throttle_reasons": frozenset({"power_cap", "reliability"}),
    }
    world = settled([*at_work(until_ns), *readings(until_ns, 300.0, **told)], until_ns)
    _, minutes = run(world)
    gpu = merge(minutes)[0].gpu
    assert gpu.seconds == pytest.approx(61.0)
    assert gpu.sm_clock_known_seconds == pytest.approx(61.0, abs=1.0)
    assert gpu.sm_clock_hertz_seconds == pytest.approx(1.5e9 * gpu.sm_clock_known_seconds)
    assert gpu.sm_active_seconds == pytest.approx(0.5 * gpu.sm_active_known_seconds)
    assert gpu.power_limit_joules == pytest.approx(350.0 * gpu.power_limit_known_seconds)
    assert (gpu.memory_clock_known_seconds, gpu.dram_active_known_seconds) == (0.0, 0.0)
    assert gpu.throttled_power_seconds == gpu.throttled_other_seconds == gpu.throttle_known_seconds
    assert gpu.throttled_thermal_seconds == 0.0


def test_two_gpus_have_the_same_steps_and_joules_of_their_own() -> None:
    """A step of a tensor-parallel engine counts once, its bytes and joules are those of all GPUs."""
    until_ns = 30 * SECOND
    facts = wire.EngineFacts(
        model="org/tiny", instance_id="i", gpus=["GPU-a", "GPU-b"], tensor_parallel=2, cost=worlds.COST
    )
    records = [wire.Hello(session=0, time_ns=0, engine=facts), *at_work(until_ns)[1:]]
    sensors = [each for gpu in ("GPU-a", "GPU-b") for each in readings(until_ns, 200.0, gpu=gpu)]
    _, (minute,) = run(settled([*records, *sensors], until_ns), until_ns=until_ns)
    assert minute.kind.gpu_count == 2
    assert minute.joules.measured == pytest.approx(12_000.0)
    assert minute.decode_steps.steps == pytest.approx(600.0)
    assert minute.decode_steps.seconds == pytest.approx(60.0)
    assert minute.decode_steps.weight_bytes == pytest.approx(600 * 16e9)


def test_finished_requests_are_in_cells_of_their_lengths() -> None:
    """With their joules and how long they took."""
    until_ns = 10 * SECOND
    _, minutes = run(settled([*at_work(until_ns), *readings(until_ns, 300.0)], until_ns), until_ns=until_ns)
    (cell,) = minutes[0].tasks
    assert (cell.task, cell.prompt_bin, cell.output_bin) == ("", 6, 15)
    assert (cell.requests, cell.prompt_tokens, cell.output_tokens, cell.aborted) == (1, 10, 200, 0)
    assert cell.joules == pytest.approx(3000.0, rel=0.01)
    assert (cell.seconds, cell.first_token_seconds) == pytest.approx((10.0, 0.05))
    assert minutes[0].finish_reasons == (("length", 1),)


def test_laws_are_those_of_the_cost_model() -> None:
    """None before anything was learned; then all that it takes to foresee a step."""
    until_ns = 30 * SECOND
    _, minutes = run(settled([*at_work(until_ns), *readings(until_ns, 300.0)], until_ns), until_ns=until_ns)
    laws = minutes[0].laws
    assert laws is not None
    assert laws.cost.weight_bytes == worlds.COST.weight_bytes
    assert (len(laws.time_coefficients), len(laws.energy_coefficients)) == (5, 5)
    assert len(laws.time_covariance) == len(laws.energy_covariance) == 5
    assert laws.idle_watts > 0.0
    _, idle = run([hello(), *range(0, 30 * SECOND, SECOND)], until_ns=30 * SECOND)
    assert idle[0].laws is None
