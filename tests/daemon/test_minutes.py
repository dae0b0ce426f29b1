"""Minutes on their way through a sidecar: from the socket and the sensor to the page and to sinks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from joulescope.clock import ManualClock, WallAnchor
from joulescope.daemon.daemon import Daemon
from joulescope.daemon.minute_keeper import MinuteKeeper
from joulescope.minute_model import EngineMinute
from joulescope.model import GpuInfo
from joulescope.pipeline import Pipeline, Scope
from joulescope.sampling.sampler import SensorOpened
from tests import worlds
from tests.daemon.test_daemon import Bench, Sink, reading, settings_in
from tests.worlds import GPU, MS, SECOND


class Kept:
    """A minute sink that keeps what it gets."""

    def __init__(self) -> None:
        self.minutes: list[EngineMinute] = []

    def take(self, minutes: Sequence[EngineMinute]) -> None:
        self.minutes += minutes


def test_minutes_go_from_the_socket_to_the_page(tmp_path: Path) -> None:
    """Whole ones while it runs, the last one when it ends."""
    clock, sink = ManualClock(), Sink()
    settings = settings_in(tmp_path)
    wall = WallAnchor(0, 1_800_000_000 * SECOND)
    daemon = Daemon(settings, open_sensor=None, clock=clock, sinks=[sink], wall=wall)
    bench = Bench(settings, daemon, clock, sink)
    daemon.deliver(SensorOpened(0, [GpuInfo(GPU, power_limit_watts=700.0)]))
    bench.tell([worlds.hello(), worlds.start(1)])
    for at in range(0, 70, 10):
        steps = [worlds.step(each, each * SECOND, (each + 1) * SECOND, [1]) for each in range(at, at + 10)]
        bench.tell(steps)
        bench.read([reading((10 * at + tenth) * 100 * MS) for tenth in range(1, 101)])
        bench.at((at + 10) * SECOND)
    (line,) = daemon._minutes.ring.lines(0.0, None, 1 << 20)
    bench.peer.close()
    daemon.close(0.1)
    lines = [json.loads(each) for each in daemon._minutes.ring.lines(0.0, None, 1 << 20)]
    assert json.loads(line) == lines[0]
    assert [each["start"][11:19] for each in lines] == ["08:00:00", "08:01:00"]
    assert [each["measured_joules"] for each in lines] == pytest.approx([18_000.0, 3_000.0], abs=50.0)


def test_every_sink_gets_every_minute(caplog: pytest.LogCaptureFixture) -> None:
    """And what came late is said once."""
    pipeline = Pipeline(scope=Scope(all_gpus=True), wall=WallAnchor(0, 0), minutes=True)
    sink = Kept()
    keeper = MinuteKeeper(pipeline, [sink])
    pipeline.take(0, [worlds.hello()])
    for at in (70, 130, 190):
        pipeline.settle(at * SECOND)
        pipeline.take(0, [worlds.start(at, time_ns=SECOND)])
        keeper.turn()
    pipeline.finish(200 * SECOND)
    keeper.turn()
    assert len(sink.minutes) == len(keeper.ring) == 6
    assert sum(minute.load.requests_started for minute in sink.minutes) == 3
    assert caplog.text.count("came after their minute was closed") == 1
