"""Simulated runs as traces, through the file and through the accounting."""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path

import pytest

from joulescope.hook.wire import AnyRecord, Bye, Gpu, GpuStatus, Hello, RequestEnd, Sample, Step, TraceHeader
from joulescope.ingest.trace import TraceReader, TraceWriter
from joulescope.replay import Replay
from joulescope.sensors.simulated import PROFILES
from joulescope.simulation.comparison import compare
from joulescope.simulation.polling import EXACT_POLLING, Polling
from joulescope.simulation.scheduler import EngineLimits
from joulescope.simulation.steady import SteadyLoad, steady_trace
from joulescope.simulation.traces import START_NS, SimulatedRun, simulate_trace


def test_a_trace_tells_things_in_a_recorders_order() -> None:
    """Header, GPU, status and sample come before the hello, samples never run back, a bye ends it."""
    records = list(simulate_trace(3.0, seed=4))
    assert [type(record) for record in records[:5]] == [TraceHeader, Gpu, GpuStatus, Sample, Hello]
    assert isinstance(records[-1], Bye)
    samples = [record for record in records if isinstance(record, Sample)]
    assert all(
        earlier.time_ns < later.time_ns and (earlier.energy_joules or 0) <= (later.energy_joules or 0)
        for earlier, later in pairwise(samples)
    )
    assert {record.session for record in records if isinstance(record, (Hello, Step, RequestEnd))} == {1}


def test_a_trace_follows_from_its_seed() -> None:
    """The same seed writes the same trace to the last byte's worth, another seed another one."""
    assert list(simulate_trace(2.0, seed=4)) == list(simulate_trace(2.0, seed=4))
    assert list(simulate_trace(2.0, seed=4)) != list(simulate_trace(2.0, seed=5))


def test_a_trace_survives_the_file(tmp_path: Path) -> None:
    """Written and read again, every record is the same, and no line is rejected."""
    records: list[AnyRecord] = list(simulate_trace(2.0, seed=4))
    writer = TraceWriter(tmp_path / "run.jsonl.gz")
    writer.write(records)
    writer.close()
    with TraceReader(tmp_path / "run.jsonl.gz") as reader:
        assert list(reader)[1:] == records
        assert not reader.rejected


def test_the_accounting_of_a_simulated_run_is_exact_in_sum_and_near_in_shares() -> None:
    """All joules are accounted for, requests and idle meet the truth in sum, and shares beat simple rules."""
    run = SimulatedRun(12.0, seed=2, rate_per_second=20.0)
    replay = Replay(run.records())
    finished = list(replay)
    assert replay.snapshot is not None
    (gpu,) = replay.snapshot.gpus
    truth = run.truth.true_joules()
    assert gpu.residual_joules == 0.0
    assert {request.request_id for request in finished} == set(truth)
    assert gpu.attributed_joules == pytest.approx(sum(truth.values()), rel=0.01)
    assert not sum(gpu.unattributed_joules.values())
    everyone = compare(finished, run.truth)[-1]
    assert everyone.requests > 0.9 * len(finished)
    assert everyone.error("attributed") < everyone.error("by_tokens") < everyone.error("by_output")


def test_recomputation_is_told_apart_as_in_the_truth() -> None:
    """Joules that a preemption wasted come out as overhead, within a tenth of what they truly were."""
    run = SimulatedRun(14.0, seed=2, rate_per_second=12.0, limits=EngineLimits(kv_cache_tokens=20_000))
    replay = Replay(run.records())
    finished = list(replay)
    assert replay.snapshot is not None
    accounts = [run.truth.get(request.request_id) for request in finished]
    recomputed = sum(account.recompute_joules for account in accounts if account is not None)
    overhead = replay.snapshot.gpus[0].overhead_joules["preemption"]
    assert recomputed > 0
    assert overhead == pytest.approx(recomputed, rel=0.1)


def test_polls_are_spread_and_their_stamps_are_late() -> None:
    """Samples lie within the first fifth of each period, most on time, a few some milliseconds late."""
    samples = [
        record for record in SimulatedRun(10.0, seed=4, truth=False).records() if isinstance(record, Sample)
    ]
    late_ns = [(sample.time_ns - START_NS) % 50_000_000 for sample in samples[1:]]
    assert max(late_ns) < 10_000_000 + 6_000_000
    assert 4_000_000 < sum(late_ns) / len(late_ns) < 6_000_000
    exact = SimulatedRun(3.0, seed=4, polling=EXACT_POLLING, truth=False).records()
    assert not any((record.time_ns - START_NS) % 50_000_000 for record in exact if isinstance(record, Sample))
    stalls = Polling(delay_mean_seconds=0.0, stall_ratio=1.0, stall_seconds=0.04)
    stamps = [
        record.time_ns
        for record in SimulatedRun(5.0, seed=4, polling=stalls, truth=False).records()
        if isinstance(record, Sample)
    ]
    assert stamps == sorted(stamps)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_part_can_be_accounted_for(profile: str) -> None:
    """Whatever a part shows, the account of it closes, and its joules are the true ones but for the gain."""
    run = SimulatedRun(10.0, seed=2, rate_per_second=8.0, sensor=PROFILES[profile], truth=False)
    replay = Replay(run.records())
    finished = list(replay)
    assert replay.snapshot is not None
    (gpu,) = replay.snapshot.gpus
    (truth,) = run.balances()
    assert gpu.residual_joules == 0.0
    assert gpu.counter_resets == (1 if profile == "resets" else 0)
    lost = 0.15 if profile == "resets" else 0.06
    assert gpu.measured_joules == pytest.approx(truth.drawn_joules, rel=lost)
    assert all(request.energy_source == gpu.info.energy_source for request in finished)


def test_the_regular_engine_is_regular() -> None:
    """Each request of the cheap generator computes its prompt and all but its last token, exactly."""
    load = SteadyLoad(requests=60, admitted_per_step=2, output_tokens=10, prompt_tokens=7)
    records = list(steady_trace(load))
    steps = [record for record in records if isinstance(record, Step)]
    assert len(steps) == load.steps
    assert max(len(step.request) for step in steps) == load.batch
    computed = dict.fromkeys(range(1, 61), 0)
    for step in steps:
        for handle, context, scheduled in zip(step.request, step.context, step.scheduled, strict=True):
            assert context == computed[handle]
            computed[handle] += scheduled
    assert set(computed.values()) == {7 + 10 - 1}
    ends = [record for record in records if isinstance(record, RequestEnd)]
    assert sorted(end.request for end in ends) == list(range(1, 61))


def test_the_regular_engine_can_be_accounted_for() -> None:
    """Its trace replays without a rejected record, a request left open, or a residual."""
    load = SteadyLoad(requests=200, output_tokens=20)
    replay = Replay(steady_trace(load))
    finished = list(replay)
    assert replay.snapshot is not None
    assert len(finished) == 200
    assert all(request.complete and request.output_tokens == 20 for request in finished)
    assert not replay.snapshot.sidecar.rejected_records
    assert replay.snapshot.gpus[0].residual_joules == 0.0
    steady = [request.attributed_joules or 0.0 for request in finished[60:120]]
    assert max(steady) == pytest.approx(min(steady), rel=0.25)


def test_traces_are_made_as_they_are_asked_for() -> None:
    """A trace of a million requests begins at once: it is a stream, not a list."""
    assert len(list(islice(steady_trace(SteadyLoad(requests=1_000_000)), 100))) == 100
