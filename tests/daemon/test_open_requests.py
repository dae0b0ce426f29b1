"""Requests that are still open, as exporters see them: what they are at, what they have cost so far."""

from __future__ import annotations

from joulescope.model import GpuInfo, GpuReading
from joulescope.pipeline import Pipeline
from tests import worlds
from tests.worlds import GPU, SECOND


def pipeline_with(*records: object, until_ns: int) -> Pipeline:
    """A pipeline that took these records of one engine and a steady counter of 300 W."""
    pipeline = Pipeline()
    pipeline.gpus_found([GpuInfo(GPU, power_limit_watts=700.0)])
    pipeline.take(1, [worlds.hello(), *records])  # type: ignore[list-item]
    for time_ns in range(0, until_ns + 1, SECOND // 10):
        pipeline.read([GpuReading(GPU, time_ns, energy_joules=300.0 * time_ns / SECOND)])
    pipeline.settle(until_ns)
    return pipeline


def test_a_request_is_seen_from_the_queue_to_its_last_joule() -> None:
    """It waits, computes its prompt, generates, and is ended until its joules are divided."""
    start, prefill = worlds.start(1, prompt=100), worlds.step(0, 0, SECOND, [1], context=[0], scheduled=[60])
    decode = worlds.step(1, SECOND, 2 * SECOND, [1], context=[60], scheduled=[40], sampled=[1])
    seen = [
        pipeline_with(start, until_ns=0),
        pipeline_with(start, prefill, until_ns=SECOND),
        pipeline_with(start, prefill, decode, until_ns=2 * SECOND),
        pipeline_with(start, prefill, decode, worlds.end(1, 2 * SECOND, 2), until_ns=2 * SECOND),
    ]
    assert [pipeline.open_requests().costliest(9)[0].phase for pipeline in seen] == [
        "waiting", "prefill", "decode", "ended",
    ]  # fmt: skip


def test_joules_so_far_are_those_of_the_account() -> None:
    """Nothing measured yet is not zero; afterwards the parts of all open requests are what was attributed."""
    start = [worlds.start(1, prompt=10), worlds.start(2, prompt=10), worlds.start(3, prompt=10)]
    steps = [worlds.step(0, 0, 2 * SECOND, [1, 2], context=[0, 900], scheduled=[10, 1])]
    pipeline = pipeline_with(*start, *steps, until_ns=3 * SECOND)
    first, second, third = pipeline.open_requests().costliest(9)
    assert third.request_id == "r3"
    assert third.attributed_joules is None
    joules = (first.attributed_joules or 0.0) + (second.attributed_joules or 0.0)
    (gpu,) = pipeline.snapshot(3 * SECOND).gpus
    assert abs(joules - gpu.attributed_joules) < 1e-9
    assert (first.attributed_joules or 0.0) >= (second.attributed_joules or 0.0)
    assert [each.request_id for each in pipeline.open_requests().costliest(1)] == [first.request_id]


def test_a_view_does_not_change_when_the_account_goes_on() -> None:
    """Two readers of one view see the same, whatever came in between."""
    pipeline = pipeline_with(worlds.start(1), until_ns=0)
    view = pipeline.open_requests()
    before = view.costliest(9)
    pipeline.take(1, [worlds.start(2), worlds.step(0, 0, SECOND, [1, 2], context=[0, 0], scheduled=[10, 10])])
    assert view.costliest(9) == before
    assert view.total == 1
    assert pipeline.open_requests().total == 2


def test_requests_are_found_by_either_id() -> None:
    """The client's id may stand for several of the engine's requests, as with n > 1."""
    starts = [worlds.start(1, external_id="cmpl-7"), worlds.start(2, external_id="cmpl-7"), worlds.start(3)]
    view = pipeline_with(*starts, until_ns=0).open_requests()
    assert [each.request_id for each in view.of("cmpl-7")] == ["r1", "r2"]
    assert [each.request_id for each in view.of("r3")] == ["r3"]
    assert view.of("") == view.of("nobody") == []


def test_a_preempted_request_waits_until_it_runs_again() -> None:
    """Its recompute is prefill once more, though its prompt was computed before."""
    starts = [worlds.start(1, prompt=10), worlds.start(2, prompt=10)]
    both = worlds.step(0, 0, SECOND, [1, 2], context=[0, 0], scheduled=[10, 10], sampled=[1, 1])
    without = worlds.step(1, SECOND, 2 * SECOND, [1], context=[10], scheduled=[1], preempted=[2])
    again = worlds.step(2, 2 * SECOND, 3 * SECOND, [1, 2], context=[11, 0], scheduled=[1, 4])
    waiting = pipeline_with(*starts, both, without, until_ns=2 * SECOND).open_requests()
    running = pipeline_with(*starts, both, without, again, until_ns=3 * SECOND).open_requests()
    assert waiting.of("r2")[0].phase == "waiting"
    assert running.of("r2")[0].phase == "prefill"
    assert running.of("r2")[0].preemptions == 1
    other = worlds.step(3, 3 * SECOND, 4 * SECOND, [1], context=[12], scheduled=[1])
    between = pipeline_with(*starts, both, without, again, other, until_ns=4 * SECOND).open_requests()
    assert between.of("r2")[0].phase == "prefill"  # batches take turns on the stages of a pipeline
