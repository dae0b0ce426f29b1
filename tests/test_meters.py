"""What the pipeline says of the meters behind its figures: live and in a replay alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from joulescope.clock import WallAnchor
from joulescope.hook import wire
from joulescope.ingest.trace import TraceReader, TraceWriter
from joulescope.model import GpuInfo, GpuReading, GpuTotals, Snapshot
from joulescope.pipeline import Pipeline, Scope
from joulescope.replay import Replay
from tests.worlds import GPU, MS, SECOND, by_time, end, hello, start, step

WALL = WallAnchor(0, 0)


def readings(
    seconds: float, *, watts: float = 300.0, shown_watts: float | None = None, counter: bool = True
) -> list[GpuReading]:
    """Ten polls a second of a GPU that draws ``watts``."""
    shown = watts if shown_watts is None else shown_watts
    times = range(0, round(seconds * SECOND) + 1, 100 * MS)
    return [GpuReading(GPU, time, watts * time / SECOND if counter else None, shown) for time in times]


def work(seconds: int) -> list[wire.AnyRecord]:
    """An engine that serves one request all the time."""
    steps = [step(k, k * 50 * MS, (k + 1) * 50 * MS, [1]) for k in range(seconds * 20)]
    return by_time([hello(0), start(1, 0)], steps, [end(1, seconds * SECOND, len(steps) - 1)])


def live(
    info: GpuInfo, polls: Sequence[GpuReading], engine: Iterable[wire.AnyRecord], trace: Path | None = None
) -> Snapshot:
    """The live path: a sensor's readings as they come, and an engine's records, recorded to ``trace``."""
    pipeline = Pipeline(
        scope=Scope(all_gpus=True), wall=WALL, recorder=None if trace is None else TraceWriter(trace)
    )
    pipeline.gpus_found([info])
    for record in engine:
        pipeline.take(record.session, [record])
    for poll in polls:
        pipeline.read([poll])
    now_ns = polls[-1].time_ns
    pipeline.finish(now_ns)
    return pipeline.snapshot(now_ns)


def replayed(trace: Path) -> Snapshot:
    with TraceReader(trace) as reader:
        replay = Replay(reader)
        list(replay)
    assert replay.snapshot is not None
    return replay.snapshot


def only(snapshot: Snapshot) -> GpuTotals:
    (gpu,) = snapshot.gpus
    return gpu


def test_counter_and_power_are_compared_live_and_in_a_replay(tmp_path: Path) -> None:
    """A counter that shows 5 % more than power shows so, the same from the trace as it did live."""
    path = tmp_path / "trace.jsonl"
    gpu = only(live(GpuInfo(GPU), readings(30, watts=315.0, shown_watts=300.0), work(30), path))
    assert gpu.comparison is not None
    assert gpu.comparison.ratio == pytest.approx(1.05)
    assert gpu.comparison.counter_joules == pytest.approx(29.9 * 315)
    assert only(replayed(path)).comparison == gpu.comparison


def test_a_gpu_without_a_counter_is_measured_by_power_and_says_so(tmp_path: Path) -> None:
    """Its joules are the integral of power, divided without a rest, and no comparison is claimed."""
    path = tmp_path / "trace.jsonl"
    info = GpuInfo(GPU, energy_source="power")
    gpu = only(live(info, readings(30, counter=False), work(30), path))
    assert gpu.info.energy_source == "power"
    assert gpu.measured_joules == pytest.approx(9000)
    assert gpu.attributed_joules == pytest.approx(9000)
    assert gpu.residual_joules == 0
    assert gpu.comparison is None
    assert only(replayed(path)).info.energy_source == "power"


def test_what_a_gpu_is_measured_by_is_what_was_used_not_what_was_announced() -> None:
    """One that is said to have a counter and never shows it is measured by power, and its info says power."""
    gpu = only(live(GpuInfo(GPU, energy_source="counter"), readings(10, counter=False), work(10)))
    assert gpu.info.energy_source == "power"
    assert gpu.measured_joules == pytest.approx(3000)
