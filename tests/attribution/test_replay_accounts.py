"""The accounting rule on worlds small enough to check by hand, through the very pipeline of `serve`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from joulescope.attribution.policy import Policy
from joulescope.hook import wire
from joulescope.model import FinishedRequest, GpuTotals
from joulescope.replay import Replay
from tests import worlds
from tests.worlds import GPU, MS, SECOND, end, hello, start, step


def account(
    records: Sequence[wire.AnyRecord], policy: Policy | None = None
) -> tuple[dict[str, FinishedRequest], GpuTotals, Replay]:
    replay = Replay(records, policy or Policy())
    finished = {request.request_id: request for request in replay}
    assert replay.snapshot is not None
    (gpu,) = replay.snapshot.gpus
    assert gpu.residual_joules == 0
    return finished, gpu, replay


def back_to_back(requests: Sequence[int], until_ns: int, every_ns: int = 20 * MS) -> list[wire.AnyRecord]:
    return [
        step(number, at, at + every_ns, requests) for number, at in enumerate(range(0, until_ns, every_ns))
    ]


def test_equal_requests_pay_equally() -> None:
    """Two requests that do the same in every step share the whole measured energy evenly."""
    steps = back_to_back([1, 2], SECOND)
    records = worlds.by_time(
        [hello(), start(1), start(2)],
        steps,
        [end(1, SECOND, 49), end(2, SECOND, 49)],
        worlds.samples(SECOND, 400.0),
    )
    finished, gpu, _ = account(records)
    assert gpu.measured_joules == pytest.approx(400.0)
    assert gpu.attributed_joules == pytest.approx(400.0)
    assert finished["r1"].attributed_joules == pytest.approx(200.0, abs=1e-4)
    assert finished["r2"].attributed_joules == pytest.approx(200.0, abs=1e-4)
    assert finished["r1"].complete


def test_own_bytes_are_paid_by_their_owner() -> None:
    """A request with a long context pays for its KV reads; the fixed part stays shared equally."""
    steps = [
        step(number, at, at + 20 * MS, [1, 2], context=[100, 50_000])
        for number, at in enumerate(range(0, SECOND, 20 * MS))
    ]
    records = worlds.by_time(
        [hello(), start(1), start(2)],
        steps,
        [end(1, SECOND, 49), end(2, SECOND, 49)],
        worlds.samples(SECOND, 400.0),
    )
    finished, _, _ = account(records)
    short, long = finished["r1"], finished["r2"]
    assert short.attributed_joules is not None
    assert long.attributed_joules is not None
    assert 1.5 < long.attributed_joules / short.attributed_joules < 3
    assert long.attributed_joules + short.attributed_joules == pytest.approx(400.0)
    assert short.marginal_joules is not None
    assert long.marginal_joules is not None
    assert short.marginal_joules / short.attributed_joules < long.marginal_joules / long.attributed_joules < 1


def test_what_caches_spared_is_told_by_where_the_tokens_were() -> None:
    """The first tokens of a prompt were in the engine's own cache, the next came from elsewhere; each of two
    requests is told of both, and the counters of both by reason."""
    steps = [
        step(0, 0, 20 * MS, [1], context=[1500], cached=[(1, 1000, 500)]),
        step(1, 20 * MS, 40 * MS, [2], context=[1000], cached=[(2, 1000, 0)]),
        step(2, 40 * MS, SECOND, [1, 2]),
    ]
    records = worlds.by_time(
        [hello(), start(1, prompt=2000), start(2, prompt=2000)],
        steps,
        [end(1, SECOND, 2), end(2, SECOND, 2)],
        worlds.samples(SECOND, 400.0),
    )
    finished, _, replay = account(records)
    assert replay.snapshot is not None
    (engine,) = replay.snapshot.engines
    both, local = finished["r1"].avoided_joules, finished["r2"].avoided_joules
    assert both is not None
    assert local is not None
    assert 0 < local < both
    assert engine.avoided_joules == {
        "local_cache": pytest.approx(2 * local),
        "external_cache": pytest.approx(both - local),
    }


def test_idle_time_is_nobodys() -> None:
    """What the GPU draws while no request runs is idle, and a later request does not pay for it."""
    low, high = 100.0, 500.0
    readings = [
        wire.Sample(
            gpu=GPU,
            time_ns=at,
            energy_joules=low * min(at, 5 * SECOND) / SECOND + high * max(at - 5 * SECOND, 0) / SECOND,
        )
        for at in range(0, 6 * SECOND + 1, 100 * MS)
    ]
    steps = [
        step(number, at, at + 20 * MS, [1])
        for number, at in enumerate(range(5 * SECOND, 6 * SECOND, 20 * MS))
    ]
    records = worlds.by_time([hello()], [start(1, 5 * SECOND)], steps, [end(1, 6 * SECOND, 49)], readings)
    finished, gpu, _ = account(records)
    assert gpu.idle_joules == pytest.approx(500.0)
    assert finished["r1"].attributed_joules == pytest.approx(500.0)


def test_energy_without_an_engine_is_unattributed_with_its_reason() -> None:
    """Before the hello nobody knows who used the GPU, and the ledger says so."""
    records = worlds.by_time(
        [hello(2 * SECOND), start(1, 2 * SECOND)],
        [step(0, 2 * SECOND, 3 * SECOND, [1])],
        [end(1, 3 * SECOND, 0)],
        worlds.samples(3 * SECOND, 300.0),
    )
    finished, gpu, _ = account(records)
    assert gpu.unattributed_joules == {"no_engine": pytest.approx(600.0)}
    assert finished["r1"].attributed_joules == pytest.approx(300.0)


def test_an_engine_on_a_mig_instance_gets_no_invented_joules() -> None:
    """The whole GPU is measured and published, with the reason why nobody pays; the request says nothing."""
    records = worlds.by_time(
        [wire.Gpu(gpu=GPU, instances=["MIG-1", "MIG-2"])],
        [hello(gpus=["MIG-2"]), start(1)],
        [step(0, 0, 2 * SECOND, [1]), *(step(k, k * SECOND, (k + 1) * SECOND, [1]) for k in range(2, 30))],
        [end(1, 3 * SECOND, 2)],
        worlds.samples(30 * SECOND, 300.0),
    )
    finished, gpu, _ = account(records)
    assert gpu.measured_joules == pytest.approx(9000.0)
    assert gpu.unattributed_joules == {"mig_instance": pytest.approx(9000.0)}
    assert finished["r1"].attributed_joules is None
    assert finished["r1"].energy_source == ""


def test_a_worker_before_its_engine_is_startup_overhead() -> None:
    """Model load and graph capture are overhead: a worker holds the GPU, no engine is ready yet."""
    worker = wire.Hello(
        session=5, time_ns=0, role="worker", worker=wire.WorkerFacts(instance_id="i", gpu=GPU)
    )
    records = worlds.by_time([worker, hello(2 * SECOND, gpus=())], worlds.samples(3 * SECOND, 300.0))
    _, gpu, _ = account(records)
    assert gpu.overhead_joules == {"startup": pytest.approx(600.0)}
    assert gpu.idle_joules == pytest.approx(300.0)


def test_a_gap_is_unattributed_and_marks_the_request() -> None:
    """Joules of a stretch whose records were lost go to nobody, and who was open then is not whole."""
    records = worlds.by_time(
        [hello(), start(1)],
        [step(0, 0, SECOND, [1])],
        [wire.Gap(start_ns=SECOND, end_ns=2 * SECOND, dropped=7)],
        [step(8, 2 * SECOND, 3 * SECOND, [1]), end(1, 3 * SECOND, 8)],
        worlds.samples(3 * SECOND, 300.0),
    )
    finished, gpu, _ = account(records)
    assert gpu.unattributed_joules["records_lost"] == pytest.approx(300.0, rel=0.2)
    assert not finished["r1"].complete


def preempted_world() -> list[wire.AnyRecord]:
    steps = [
        step(0, 0, SECOND, [1], context=[0], scheduled=[10], sampled=[1]),
        step(1, SECOND, 2 * SECOND, [2], context=[0], scheduled=[10], preempted=[1]),
        step(2, 2 * SECOND, 3 * SECOND, [1], context=[0], scheduled=[11]),
    ]
    ends = [end(2, 2 * SECOND, 1), end(1, 3 * SECOND, 2)]
    return worlds.by_time([hello(), start(1), start(2)], steps, ends, worlds.samples(3 * SECOND, 330.0))


def test_recompute_after_preemption_is_overhead_by_default() -> None:
    """Ten of the eleven tokens of the resumed step were computed before: the system pays for them."""
    finished, gpu, _ = account(preempted_world())
    assert gpu.overhead_joules["preemption"] == pytest.approx(300.0, rel=0.02)
    assert finished["r1"].recomputed_tokens == 10
    assert finished["r1"].preemptions == 1
    assert finished["r1"].attributed_joules == pytest.approx(360.0, rel=0.02)


def test_recompute_may_be_charged_to_the_victim() -> None:
    """The documented option: the same joules, now the request's own and counted as wasted."""
    finished, gpu, _ = account(preempted_world(), Policy(recompute_to="request"))
    assert "preemption" not in gpu.overhead_joules
    assert finished["r1"].attributed_joules == pytest.approx(660.0, rel=0.02)
    assert finished["r1"].wasted_joules == pytest.approx(300.0, rel=0.02)


def speculative_world() -> list[wire.AnyRecord]:
    """Of four tokens computed in the second step, three drafted ones were wrong."""
    steps = [
        step(0, 0, SECOND, [1], context=[0], scheduled=[10], sampled=[1]),
        step(1, SECOND, 2 * SECOND, [1], context=[10], scheduled=[4], sampled=[1], drafted=[(1, 3)]),
    ]
    return worlds.by_time(
        [hello(), start(1)], steps, [end(1, 2 * SECOND, 2)], worlds.samples(2 * SECOND, 400.0)
    )


def test_rejected_drafts_are_their_requests_by_default() -> None:
    """The request pays for what it drafted in vain, and it is counted as wasted."""
    finished, gpu, _ = account(speculative_world())
    assert "rejected_draft" not in gpu.overhead_joules
    assert finished["r1"].attributed_joules == pytest.approx(800.0, rel=0.01)
    assert finished["r1"].wasted_joules == pytest.approx(300.0, rel=0.05)


def test_rejected_drafts_may_be_the_systems() -> None:
    """The documented option: the same joules as overhead, still counted as wasted by the engine."""
    finished, gpu, replay = account(speculative_world(), Policy(rejected_to="overhead"))
    assert gpu.overhead_joules["rejected_draft"] == pytest.approx(300.0, rel=0.05)
    assert finished["r1"].wasted_joules == 0.0
    assert finished["r1"].attributed_joules == pytest.approx(500.0, rel=0.05)
    assert replay.snapshot is not None
    assert replay.snapshot.engines[0].wasted_joules["rejected_draft"] == pytest.approx(300.0, rel=0.05)


def mixed_world() -> list[wire.AnyRecord]:
    """Within two half seconds: a step of 300 ms, an empty one of 200 ms, 200 ms idle, 200 ms lost, a step."""
    steps = [step(0, 0, 300 * MS, [1], context=[0]), step(1, 900 * MS, 1000 * MS, [2], context=[0])]
    others: list[wire.AnyRecord] = [
        wire.Overhead(start_ns=300 * MS, end_ns=500 * MS, reason="dummy_batch"),
        wire.Gap(start_ns=700 * MS, end_ns=900 * MS, reason="queue_full"),
    ]
    ends = [end(1, 300 * MS, 0), end(2, 1000 * MS, 1)]
    return worlds.by_time(
        [hello(), start(1), start(2)], steps, others, ends, worlds.samples(SECOND, 400.0, every_ns=100 * MS)
    )


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        (Policy(), {"idle", "dummy_batch", "records_lost"}),
        (Policy(idle_to="request"), {"dummy_batch", "records_lost"}),
        (Policy(dummy_to="request"), {"idle", "records_lost"}),
        (Policy(lost_to="request"), {"idle", "dummy_batch"}),
        (Policy(idle_to="request", dummy_to="request", lost_to="request"), set()),
    ],
)
def test_what_ran_beside_requests_may_be_theirs(policy: Policy, left: set[str]) -> None:
    """Idle, empty and lost time of an interval goes to its requests if the operator wants it."""
    _, gpu, _ = account(mixed_world(), policy)
    books = {"idle": gpu.idle_joules, **gpu.overhead_joules, **gpu.unattributed_joules}
    assert {reason for reason, joules in books.items() if joules > 1.0} == left
    assert gpu.attributed_joules + sum(books.values()) == pytest.approx(gpu.measured_joules)
    assert gpu.residual_joules == 0
    if not left:
        assert gpu.attributed_joules == gpu.measured_joules


def test_prefill_and_decode_are_told_apart() -> None:
    """A prompt in two chunks is prefill, what follows is decode, and both make the whole."""
    steps = [
        step(0, 0, SECOND, [1], context=[0], scheduled=[6], sampled=[0]),
        step(1, SECOND, 2 * SECOND, [1], context=[6], scheduled=[4]),
        step(2, 2 * SECOND, 3 * SECOND, [1], context=[10]),
    ]
    records = worlds.by_time(
        [hello(), start(1)], steps, [end(1, 3 * SECOND, 2)], worlds.samples(3 * SECOND, 300.0)
    )
    finished, _, replay = account(records)
    request = finished["r1"]
    assert request.prefill_joules is not None
    assert request.decode_joules is not None
    assert request.prefill_joules + request.decode_joules == pytest.approx(
        request.attributed_joules, abs=1e-9
    )
    assert request.decode_joules == pytest.approx(300.0, rel=0.05)
    assert replay.snapshot is not None
    tokens = replay.snapshot.engines[0].tokens
    assert (tokens["prefill"], tokens["decode"], tokens["generated"]) == (10, 1, 2)


def test_an_aborted_request_is_wasted() -> None:
    """What an aborted request cost stays its own and is counted as wasted."""
    records = worlds.by_time(
        [hello(), start(1)],
        [step(0, 0, SECOND, [1])],
        [end(1, SECOND, 0, reason="abort")],
        worlds.samples(SECOND, 250.0),
    )
    finished, _, replay = account(records)
    assert finished["r1"].wasted_joules == finished["r1"].attributed_joules == pytest.approx(250.0)
    assert replay.snapshot is not None
    assert replay.snapshot.engines[0].wasted_joules["abort"] == pytest.approx(250.0)


def test_a_queued_request_that_never_ran_costs_nothing() -> None:
    """It caused nothing, so it is charged exactly 0 J and is nevertheless reported."""
    records = worlds.by_time(
        [hello(), start(1), end(1, SECOND, reason="abort")], worlds.samples(2 * SECOND, 100.0)
    )
    finished, gpu, _ = account(records)
    assert finished["r1"].attributed_joules == 0.0
    assert gpu.idle_joules == pytest.approx(200.0)


def test_a_late_step_of_a_stopped_request_is_still_paid_by_it() -> None:
    """Asynchronous scheduling runs one more step; the account stays open until that step is in."""
    records = worlds.by_time(
        [hello(), start(1)],
        [step(0, 0, SECOND, [1]), end(1, SECOND, 1, reason="stop")],
        [step(1, SECOND, 2 * SECOND, [1], sampled=[0])],
        worlds.samples(2 * SECOND, 250.0),
    )
    finished, _, _ = account(records)
    assert finished["r1"].attributed_joules == pytest.approx(500.0)
    assert finished["r1"].steps == 2


def test_rejected_drafts_are_the_requests_own_waste() -> None:
    """Three of five speculative tokens were rejected: paid by the request, counted as wasted."""
    records = worlds.by_time(
        [hello(), start(1)],
        [step(0, 0, SECOND, [1], scheduled=[5], sampled=[2], drafted=[(1, 4)])],
        [end(1, SECOND, 0)],
        worlds.samples(SECOND, 250.0),
    )
    finished, _, _ = account(records)
    assert finished["r1"].attributed_joules == pytest.approx(250.0)
    assert finished["r1"].wasted_joules == pytest.approx(150.0)
    assert (finished["r1"].drafted_tokens, finished["r1"].accepted_tokens) == (4, 1)


def test_an_engine_without_sensor_has_requests_without_joules() -> None:
    """Absent is not zero: with nothing measured the figures are None."""
    replay = Replay([hello(gpus=()), start(1), step(0, 0, SECOND, [1]), end(1, SECOND, 0)])
    (request,) = list(replay)
    assert request.attributed_joules is None
    assert not request.complete


def test_two_engines_on_one_gpu_share_its_joules() -> None:
    """Both engines' steps overlap in time; what they paid sums to what was measured."""
    records = worlds.by_time(
        [hello(), hello(session=2, instance="j"), start(1), start(1, session=2)],
        back_to_back([1], SECOND),
        [step(n, at, at + 20 * MS, [1], session=2) for n, at in enumerate(range(0, SECOND, 20 * MS))],
        [end(1, SECOND, 49), end(1, SECOND, 49, session=2)],
        worlds.samples(SECOND, 400.0),
    )
    replay = Replay(records)
    finished = list(replay)
    assert {request.engine for request in finished} == {"tiny-0", "tiny-0#2"}
    assert sum(request.attributed_joules or 0 for request in finished) == pytest.approx(400.0)


def test_an_engine_that_died_has_its_open_requests_ended() -> None:
    """After the connection broke for good, open requests are ended as lost, with what they had cost."""
    records = worlds.by_time(
        [hello(), start(1)],
        [step(0, 0, SECOND, [1]), wire.Bye(time_ns=SECOND, reason="disconnected")],
        worlds.samples(30 * SECOND, 100.0),
    )
    finished, gpu, _ = account(records)
    assert finished["r1"].finish_reason == "engine_lost"
    assert finished["r1"].attributed_joules == pytest.approx(100.0)
    assert gpu.unattributed_joules["no_engine"] == pytest.approx(2900.0)


def test_an_engine_that_reconnects_goes_on_with_its_requests() -> None:
    """A broken connection is a gap, not an end: the same request is reported once, as incomplete."""
    records = worlds.by_time(
        [hello(), start(1)],
        [step(0, 0, SECOND, [1]), wire.Bye(time_ns=SECOND, reason="disconnected")],
        [hello(2 * SECOND, session=2), start(1, 2 * SECOND, session=2, resumed=True)],
        [step(1, 2 * SECOND, 3 * SECOND, [1], session=2), end(1, 3 * SECOND, 1, session=2)],
        worlds.samples(3 * SECOND, 100.0),
    )
    finished, gpu, _ = account(records)
    assert list(finished) == ["r1"]
    assert finished["r1"].attributed_joules == pytest.approx(200.0, rel=0.05)
    assert not finished["r1"].complete
    assert gpu.unattributed_joules["records_lost"] == pytest.approx(100.0, rel=0.1)


def test_a_request_that_runs_on_after_its_last_step_is_charged_whole() -> None:
    """A peer that names the wrong final step makes no joules vanish: the account waits for the true one."""
    steps = [step(n, 325 * MS + n * 100 * MS, 425 * MS + n * 100 * MS, [1], sampled=[0]) for n in range(1, 6)]
    told = [hello(), start(1), step(0, 0, 325 * MS, [1]), end(1, 325 * MS, 0)]
    records = worlds.by_time(told, steps, worlds.samples(2 * SECOND, 240.0))
    finished, gpu, _ = account(records)
    assert sum(request.attributed_joules or 0 for request in finished.values()) == pytest.approx(
        gpu.attributed_joules, abs=1e-9
    )
    assert finished["r1"].steps == 6
