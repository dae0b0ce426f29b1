"""What the pipeline says of the meters behind its figures: live and in a replay alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.clock import WallAnchor
from joulescope.errors import TraceError
from joulescope.export.records import finished_line
from joulescope.export.span_attributes import attributes_of
from joulescope.gpu_records import gpu_record, sample_record
from joulescope.hook import wire
from joulescope.ingest.trace import TraceReader, TraceWriter
from joulescope.model import GpuInfo, GpuReading, GpuTotals, Snapshot
from joulescope.pipeline import Pipeline, Scope
from joulescope.replay import Replay
from joulescope.simulation.traces import SimulatedRun
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


def read(trace: Path) -> list[wire.AnyRecord]:
    with TraceReader(trace) as reader:
        return list(reader)


def replayed(trace: Path) -> Snapshot:
    replay = Replay(read(trace))
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


CALIBRATED = GpuInfo(GPU, power_limit_watts=700.0, calibration_factor=1.055)


def parts(gpu: GpuTotals) -> list[float]:
    return [
        gpu.measured_joules,
        gpu.attributed_joules,
        gpu.idle_joules,
        *gpu.overhead_joules.values(),
        *gpu.unattributed_joules.values(),
    ]


def test_calibration_is_applied_once_to_all_that_is_measured() -> None:
    """Joules, shares, watts and the compared sums have the factor in them once; the ratio has it not."""
    plain = only(live(GpuInfo(GPU, power_limit_watts=700.0), readings(30, shown_watts=290.0), work(20)))
    gpu = only(live(CALIBRATED, readings(30, shown_watts=290.0), work(20)))
    assert parts(gpu) == pytest.approx([1.055 * joules for joules in parts(plain)], rel=1e-6)
    assert gpu.measured_joules == pytest.approx(1.055 * 9000)
    assert gpu.residual_joules == 0
    assert gpu.reading is not None
    assert gpu.reading.power_watts == pytest.approx(1.055 * 290)
    assert gpu.info.calibration_factor == 1.055
    assert gpu.comparison is not None
    assert plain.comparison is not None
    assert gpu.comparison.counter_joules == pytest.approx(1.055 * plain.comparison.counter_joules)
    assert gpu.comparison.ratio == pytest.approx(plain.comparison.ratio)


@given(
    factor=st.floats(0.5, 2.0),
    millijoules=st.lists(st.integers(0, 70_000), min_size=2, max_size=60),
    source=st.sampled_from(["counter", "power"]),
)
def test_conservation_is_exact_under_any_calibration(
    factor: float, millijoules: list[int], source: str
) -> None:
    """Whatever the factor, the parts are whole microjoules and sum to what was measured, without a rest."""
    info = GpuInfo(GPU, power_limit_watts=700.0, energy_source=source, calibration_factor=factor)
    totals = [sum(millijoules[:count]) for count in range(len(millijoules))]
    polls = [
        GpuReading(GPU, 100 * MS * k, total / 1000, millijoules[k] / 100) for k, total in enumerate(totals)
    ]
    snapshot = live(info, polls, work(2))
    gpu = only(snapshot)
    measured_uj, *parts_uj = (round(joules * 1e6) for joules in parts(gpu))
    assert sum(parts_uj) == measured_uj
    assert gpu.residual_joules == 0


def test_a_replay_comes_to_the_calibrated_figures(tmp_path: Path) -> None:
    """The trace keeps readings as shown and the factor beside them: same snapshot, same requests."""
    path = tmp_path / "trace.jsonl"
    gpu = only(live(CALIBRATED, readings(30), work(20), path))
    records = read(path)
    (described,) = [record for record in records if isinstance(record, wire.Gpu)]
    last = [record for record in records if isinstance(record, wire.Sample)][-1]
    assert (described.calibration_factor, last.energy_joules, last.power_watts) == (1.055, 9000.0, 300.0)
    again = only(replayed(path))
    assert parts(again) == parts(gpu)
    assert again.comparison == gpu.comparison
    assert again.info.calibration_factor == 1.055


def test_a_replay_may_be_calibrated_anew(tmp_path: Path) -> None:
    """Factors given to a replay stand in the place of the trace's, not on top of them."""
    path = tmp_path / "trace.jsonl"
    live(CALIBRATED, readings(30), work(20), path)
    replay = Replay(read(path), calibration={GPU: 1.1}.__getitem__)
    list(replay)
    assert replay.snapshot is not None
    assert only(replay.snapshot).measured_joules == pytest.approx(1.1 * 9000)


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_a_trace_with_an_impossible_factor_is_refused(factor: float) -> None:
    """A factor that cannot be one would falsify every figure: the replay says so and ends."""
    with pytest.raises(TraceError, match="GPU-0 the calibration_factor"):
        list(Replay([wire.Gpu(gpu=GPU, calibration_factor=factor)]))


def test_a_gpu_that_comes_back_without_its_counter_is_measured_by_power(tmp_path: Path) -> None:
    """When a sensor is opened again and finds no counter, power is used from then on, in the replay too."""
    path = tmp_path / "trace.jsonl"
    pipeline = Pipeline(scope=Scope(all_gpus=True), wall=WALL, recorder=TraceWriter(path))
    polls = readings(20)
    pipeline.gpus_found([GpuInfo(GPU)])
    for poll in polls[:100]:
        pipeline.read([poll])
    pipeline.gpus_found([GpuInfo(GPU, energy_source="power")])
    for poll in polls[100:]:
        pipeline.read([replace(poll, energy_joules=None)])
    pipeline.finish(20 * SECOND)
    gpu = only(pipeline.snapshot(20 * SECOND))
    assert gpu.info.energy_source == "power"
    assert gpu.measured_joules == pytest.approx(6000 - 30)  # but for the poll in between
    assert parts(only(replayed(path))) == parts(gpu)


def test_requests_say_which_meter_their_joules_come_from() -> None:
    """On a GPU without a counter every request's energy_source is power; with one it is counter."""
    for source in ("counter", "power"):
        info = GpuInfo(GPU, energy_source=source)
        records = by_time([gpu_record(info)], work(3), [sample_record(poll) for poll in readings(3)])
        (request,) = list(Replay(records))
        assert request.energy_source == source
        assert request.attributed_joules == pytest.approx(900, rel=0.05)


def without_counter(records: Iterable[wire.AnyRecord]) -> list[wire.AnyRecord]:
    """A trace as a GPU without an energy counter would have given it."""
    kept = list(records)
    for record in kept:
        if isinstance(record, wire.Gpu):
            record.energy_source = "power"
        elif isinstance(record, wire.Sample):
            record.energy_joules = None
    return kept


def test_a_power_only_gpu_is_accounted_from_end_to_end() -> None:
    """A simulated service on a GPU without a counter: every request, its log line and its span say power,
    nothing is lost, and the joules are near what the counter would have told."""
    counted = Replay(SimulatedRun(12.0, seed=3, truth=False).records())
    list(counted)
    replay = Replay(without_counter(SimulatedRun(12.0, seed=3, truth=False).records()))
    finished = list(replay)
    assert finished
    assert {request.energy_source for request in finished} == {"power"}
    assert all(json.loads(finished_line(request, WALL))["energy_source"] == "power" for request in finished)
    assert all(attributes_of(each)["joulescope.request.energy_source"] == "power" for each in finished)
    assert replay.snapshot is not None
    assert counted.snapshot is not None
    gpu = only(replay.snapshot)
    assert (gpu.info.energy_source, gpu.residual_joules, gpu.comparison) == ("power", 0, None)
    assert gpu.measured_joules == pytest.approx(only(counted.snapshot).measured_joules, rel=0.05)


def test_a_request_measured_by_both_meters_says_so() -> None:
    """Where the counter goes away in the middle of a request, its joules come from a mixture."""
    halves = [sample_record(poll) for poll in readings(10)]
    for sample in halves[50:]:
        sample.energy_joules = None
    change = gpu_record(GpuInfo(GPU, energy_source="power"))
    first, second = by_time(work(10)[:102], halves[:50]), by_time(work(10)[102:], halves[50:])
    (request,) = list(Replay([*first, change, *second]))
    assert request.energy_source == "mixed"
