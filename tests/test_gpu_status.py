"""What is read of a GPU beside its energy, on its way through the pipeline, the trace and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from joulescope.clock import WallAnchor
from joulescope.hook import wire
from joulescope.ingest.trace import TraceReader, TraceWriter
from joulescope.model import GpuInfo, GpuReading, GpuStatus, GpuTotals, Snapshot
from joulescope.pipeline import Pipeline, Scope
from joulescope.replay import Replay
from joulescope.simulation.comparison import compare
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.worlds import WORLDS
from tests import worlds

GPU = "GPU-0"
SECOND = 10**9
LIMITS = (700.0, 700.0, 450.0)


def statuses() -> list[GpuStatus]:
    """The limit was lowered between the second and the third second."""
    return [GpuStatus(GPU, at * SECOND, power_limit_watts=watts) for at, watts in enumerate(LIMITS)]


def readings() -> list[GpuReading]:
    told = statuses()
    return [
        GpuReading(GPU, at * SECOND // 10, 30.0 * at, 300.0, status=told[min(at // 10, 2)])
        for at in range(40)
    ]


def only(snapshot: Snapshot | None) -> GpuTotals:
    assert snapshot is not None
    (gpu,) = snapshot.gpus
    return gpu


def live(path: Path) -> GpuTotals:
    """The readings through a pipeline that records them."""
    pipeline = Pipeline(scope=Scope(all_gpus=True), wall=WallAnchor(0, 0), recorder=TraceWriter(path))
    pipeline.gpus_found([GpuInfo(GPU, power_limit_watts=LIMITS[0])])
    for reading in readings():
        pipeline.read([reading])
    pipeline.flush_recording()
    return only(pipeline.snapshot(4 * SECOND))


def test_a_changed_power_limit_holds_from_then_on(tmp_path: Path) -> None:
    """The GPU is shown with the limit that was last read, and with its status."""
    gpu = live(tmp_path / "trace.jsonl")
    assert gpu.info.power_limit_watts == 450.0
    assert gpu.reading is not None
    assert gpu.reading.status == statuses()[2]


def test_the_trace_has_each_status_once_and_the_replay_comes_to_the_same(tmp_path: Path) -> None:
    """One record for each time that it was read; a replay shows the same limit and status."""
    path = tmp_path / "trace.jsonl"
    gpu = live(path)
    records = list(TraceReader(path))
    told = [record for record in records if isinstance(record, wire.GpuStatus)]
    assert [(record.time_ns, record.power_limit_watts) for record in told] == [
        (at * SECOND, watts) for at, watts in enumerate(LIMITS)
    ]
    replay = Replay(records, scope=Scope(all_gpus=True))
    list(replay)
    again = only(replay.snapshot)
    assert again.info.power_limit_watts == gpu.info.power_limit_watts
    assert again.reading is not None
    assert again.reading.status == statuses()[2]


def test_requests_are_charged_under_the_new_limit() -> None:
    """When the power limit is lowered in the midst of a service, knowing it makes the division truer."""
    run = SimulatedRun(16.0, seed=5, rate_per_second=30.0, world=WORLDS["cap-change"])
    records = list(run.records())
    deaf = [record for record in records if not isinstance(record, wire.GpuStatus)]
    told, untold = (compare(Replay(each), run.truth)[-1].error("attributed") for each in (records, deaf))
    assert told < 0.6 * untold


def replayed(path: Path) -> GpuTotals:
    replay = Replay(list(TraceReader(path)))
    list(replay)
    return only(replay.snapshot)


def test_a_limit_that_was_raised_while_nobody_read_holds(tmp_path: Path) -> None:
    """A sensor that is opened anew describes the GPU with the limit that holds now. Without power readings,
    which would raise the bound, what it draws above the old limit would be taken for a leap of the counter,
    whether or not a status tells the limit too; and a replay knows as much."""
    for told in (None, 700.0):
        path = tmp_path / f"{told}.jsonl"
        pipeline = Pipeline(scope=Scope(all_gpus=True), wall=WallAnchor(0, 0), recorder=TraceWriter(path))
        for begin, limit_watts in ((0, 300.0), (5, 700.0)):
            pipeline.sensor_down()
            pipeline.gpus_found([GpuInfo(GPU, power_limit_watts=limit_watts)])
            status = GpuStatus(GPU, begin * SECOND, power_limit_watts=told and limit_watts)
            for at in range(begin, begin + 5):
                joules = 100.0 * min(at, 5) + 650.0 * max(at - 5, 0)
                pipeline.read([GpuReading(GPU, at * SECOND, joules, status=status)])
        pipeline.finish(10 * SECOND)
        gpu = only(pipeline.snapshot(10 * SECOND))
        assert (gpu.measured_joules, gpu.rejected_intervals) == (500.0 + 4 * 650.0, 0)
        assert replayed(path).measured_joules == gpu.measured_joules


def test_a_replay_takes_a_status_for_the_samples_after_it_only(tmp_path: Path) -> None:
    """A sampler sends several samples of a GPU in one batch: a limit that was lowered in its midst must not
    judge what was drawn before."""
    path = tmp_path / "trace.jsonl"
    pipeline = Pipeline(wall=WallAnchor(0, 0), recorder=TraceWriter(path))
    pipeline.take(1, [worlds.hello(gpus=[GPU])])
    facts = wire.SamplerFacts(instance_id="i")
    pipeline.take(2, [wire.Hello(time_ns=0, role="sampler", sampler=facts)])
    first = wire.GpuStatus(gpu=GPU, time_ns=0, power_limit_watts=700.0)
    lowered = wire.GpuStatus(gpu=GPU, time_ns=9 * SECOND, power_limit_watts=300.0)
    before = [wire.Sample(gpu=GPU, time_ns=at * SECOND, energy_joules=690.0 * at) for at in range(10)]
    last = wire.Sample(gpu=GPU, time_ns=10 * SECOND, energy_joules=690.0 * 9 + 200.0)
    pipeline.take(2, [wire.Gpu(gpu=GPU), first, *before, lowered, last])
    pipeline.finish(10 * SECOND)
    live_joules = only(pipeline.snapshot(10 * SECOND)).measured_joules
    assert live_joules == 690.0 * 9 + 200.0
    assert replayed(path).measured_joules == live_joules


def test_a_replay_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    """A GPU that no engine named for more than a minute begins anew when one does, live and in the replay,
    also if its limit was changed before."""
    path = tmp_path / "trace.jsonl"
    pipeline = Pipeline(wall=WallAnchor(0, 0), recorder=TraceWriter(path))
    pipeline.gpus_found([GpuInfo(GPU, power_limit_watts=500.0)])
    pipeline.take(1, [worlds.hello(gpus=[GPU])])
    status = GpuStatus(GPU, 0, power_limit_watts=400.0)
    for at in range(300):
        if at == 20:
            pipeline.close_session(1, at * SECOND, "closed")
        if at == 200:
            pipeline.take(2, [worlds.hello(gpus=[GPU], instance="j")])
        pipeline.read([GpuReading(GPU, at * SECOND, 300.0 * at, status=status)])
        pipeline.settle(at * SECOND)
    pipeline.finish(300 * SECOND)
    gpu = only(pipeline.snapshot(300 * SECOND))
    assert gpu.measured_joules == pytest.approx(300.0 * (79 + 99), abs=600.0)
    again = replayed(path)
    assert (again.measured_joules, again.intervals) == (gpu.measured_joules, gpu.intervals)


def test_a_limit_that_cannot_be_read_any_more_bounds_still() -> None:
    """The description of a sensor that was opened anew lacks it: the last one that was known holds."""
    pipeline = Pipeline(scope=Scope(all_gpus=True), wall=WallAnchor(0, 0))
    for begin, limit_watts in ((0, 300.0), (5, None)):
        pipeline.gpus_found([GpuInfo(GPU, power_limit_watts=limit_watts)])
        for at in range(begin, begin + 5):
            leap_joules = 5_000.0 if at >= 7 else 0.0
            pipeline.read([GpuReading(GPU, at * SECOND, 100.0 * at + leap_joules)])
    pipeline.finish(10 * SECOND)
    gpu = only(pipeline.snapshot(10 * SECOND))
    assert (gpu.measured_joules, gpu.rejected_intervals) == (800.0, 1)
    assert gpu.info.power_limit_watts is None
