"""A hook tells its queues with the last step of what it sends at once; minutes know of the others too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from joulescope.hook.wire import AnyRecord, Step
from joulescope.minute_model import EngineMinute
from joulescope.replay import Replay
from joulescope.simulation.traces import SimulatedRun

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
    def run() -> SimulatedRun:
        return SimulatedRun(70.0, seed=4, rate_per_second=2.0, truth=False)

    told, seldom = minutes_of(run().records()), minutes_of(seldom_told(run().records()))
    assert len(told) == len(seldom)
    for one, other in zip(told, seldom, strict=True):
        assert other.load.busy_seconds == pytest.approx(one.load.busy_seconds, rel=0.02)
        assert other.load.seconds == pytest.approx(one.load.seconds, rel=0.02)
        assert other.load.running_seconds == pytest.approx(one.load.running_seconds, rel=0.1)
        steps = one.decode_steps.seconds + one.prefill_steps.seconds
        assert other.load.busy_seconds > 0.95 * steps
