"""What is read of a GPU beside its energy, on its way through the pipeline, the trace and back."""

from __future__ import annotations

from pathlib import Path

from joulescope.clock import WallAnchor
from joulescope.hook import wire
from joulescope.ingest.trace import TraceReader, TraceWriter
from joulescope.model import GpuInfo, GpuReading, GpuStatus, GpuTotals, Snapshot
from joulescope.pipeline import Pipeline, Scope
from joulescope.replay import Replay
from joulescope.simulation.comparison import compare
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.worlds import WORLDS

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
