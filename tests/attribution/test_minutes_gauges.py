"""A hook tells its queues with the last step of what it sends at once; minutes know of the others too, and of
no more time than the engine was heard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from joulescope.hook import wire
from joulescope.hook.wire import AnyRecord, Step
from joulescope.minute_model import EngineMinute
from joulescope.replay import Replay
from joulescope.simulation.traces import SimulatedRun
from tests.attribution.test_minutes_filled import at_work, readings, run, settled
from tests.worlds import MS, SECOND, hello

TOLD_EVERY = 5


def minutes_of(records: Iterable[AnyRecord]) -> list[EngineMinute]:
    found: list[EngineMinute] = []
    for _ in Replay(records, on_minute=found.append):
        pass
    return [minute for minute in found if minute.kind.engine]


def seldom_told(records: Iterable[AnyRecord]) -> Iterator[AnyRecord]:
    """The same records, in which only every fifth step tells its gauges."""
    steps = 0
    for record in records:
        if isinstance(record, Step):
            steps += 1
            if steps % TOLD_EVERY:
                record.running = record.waiting = record.kv_usage_ratio = None
        yield record


def test_busy_time_and_batch_do_not_need_every_step_to_tell() -> None:
    records = list(SimulatedRun(70.0, seed=4, rate_per_second=2.0, truth=False).records())
    told = minutes_of(records)
    seldom = minutes_of(seldom_told(records))
    assert len(told) == len(seldom)
    for one, other in zip(told, seldom, strict=True):
        assert other.load.busy_seconds == pytest.approx(one.load.busy_seconds, rel=0.02)
        assert other.load.seconds == pytest.approx(one.load.seconds, rel=0.02)
        assert other.load.running_seconds == pytest.approx(one.load.running_seconds, rel=0.1)
        steps = one.decode_steps.seconds + one.prefill_steps.seconds
        assert other.load.busy_seconds > 0.95 * steps


@pytest.mark.parametrize("every", [1, 5, 41])
def test_gauges_that_are_told_now_and_then_hold_for_the_steps_between(every: int) -> None:
    """As the hook tells them, with the last step of each batch of records: all of the time is known, busy is
    all of the time in which steps ran, and a mean is that of what was told."""
    gauges = {"running": 4, "waiting": 2, "kv_usage_ratio": 0.97}
    records = at_work(60 * SECOND, **gauges)
    steps = [each for each in records if isinstance(each, wire.Step)]
    for number, each in enumerate(steps, 1):
        if number % every:
            each.running = each.waiting = each.kv_usage_ratio = None
    _, minutes = run(settled([*records, *readings(90 * SECOND, 300.0)], 90 * SECOND), until_ns=90 * SECOND)
    load, unknown = minutes[0].load, every * 0.05  # before the first is told nothing is known
    assert load.busy_seconds == pytest.approx(60.0, abs=unknown)
    assert load.seconds == load.busy_seconds == load.queued_seconds == load.kv_known_seconds
    told = load.seconds / every  # a silent step says by itself that it had one request
    assert load.running_seconds == pytest.approx(4.0 * told + (load.seconds - told), rel=0.02)
    assert load.kv_usage_seconds / load.kv_known_seconds == pytest.approx(0.97)


def test_what_a_hook_could_not_send_before_it_connected_is_no_time_of_this_engine() -> None:
    """A sidecar that is started anew hears of a gap that ends as it comes; from then on all is known."""
    gap = wire.Gap(session=0, start_ns=-70 * SECOND, end_ns=20 * SECOND - MS)
    silence = [wire.Progress(session=0, time_ns=at) for at in range(21 * SECOND, 51 * SECOND, SECOND)]
    world = [hello(time_ns=20 * SECOND), gap, *silence, 50 * SECOND]
    _, minutes = run(world, until_ns=50 * SECOND)
    assert [minute.load.seconds for minute in minutes] == [pytest.approx(30.0)]
