"""An engine over two nodes: what another node's clock and a slow or broken link do to the accounts."""

from __future__ import annotations

from functools import cache
from itertools import pairwise, takewhile

import numpy as np
import pytest

from joulescope.attribution.policy import Policy
from joulescope.attribution.uncertainty import Measured, clock_std_seconds
from joulescope.hook import wire
from joulescope.model import FinishedRequest, GpuTotals, Snapshot
from joulescope.pipeline import Pipeline, Scope
from joulescope.replay import Replay
from joulescope.simulation.far_node import FarLink, over_a_link
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.worlds import WORLDS
from tests.worlds import SECOND

pytestmark = pytest.mark.slow

TENSOR, PIPELINE = "tensor-parallel-2", "pipeline-parallel-2"
BREAK = ((8.0, 18.0),)


@cache
def simulated(world: str) -> tuple[SimulatedRun, list[wire.AnyRecord]]:
    run = SimulatedRun(30.0, seed=7, rate_per_second=4.0, world=WORLDS[world])
    return run, list(run.records())


@cache
def replayed(
    world: str, link: FarLink | None, policy: Policy | None = None
) -> tuple[dict[str, FinishedRequest], Snapshot]:
    """The accounts where the second GPU stands in another node; ``None``: in the same."""
    run, records = simulated(world)
    told = records if link is None else over_a_link(records, {run.gpus[1].uuid}, link)
    replay = Replay(told, policy or Policy())
    requests = {request.request_id: request for request in replay}
    assert replay.snapshot is not None
    return requests, replay.snapshot


def far_gpu(world: str, snapshot: Snapshot) -> GpuTotals:
    (found,) = [gpu for gpu in snapshot.gpus if gpu.info.gpu == simulated(world)[0].gpus[1].uuid]
    return found


def coverage(world: str, requests: dict[str, FinishedRequest]) -> float:
    """Part of the whole requests whose true joules lie within the stated interval."""
    held = []
    for request in requests.values():
        account = simulated(world)[0].truth.get(request.request_id)
        low, high = request.attributed_low_joules, request.attributed_high_joules
        if request.complete and account is not None and low is not None and high is not None:
            held.append(low <= account.joules - account.recompute_joules <= high)
    assert len(held) > 50
    return float(np.mean(held))


def widths(requests: dict[str, FinishedRequest]) -> dict[str, float]:
    return {
        name: (each.attributed_high_joules or 0.0) - (each.attributed_low_joules or 0.0)
        for name, each in requests.items()
    }


@pytest.mark.parametrize("world", [TENSOR, PIPELINE])
@pytest.mark.parametrize(
    "link",
    [
        pytest.param(FarLink(error_seconds=0.05, told_seconds=0.05), id="late"),
        pytest.param(FarLink(error_seconds=-0.05, told_seconds=0.05), id="early"),
        pytest.param(FarLink(jitter_seconds=0.05, told_seconds=0.05), id="jitter"),
    ],
)
def test_intervals_hold_as_many_truths_as_without_the_link(world: str, link: FarLink) -> None:
    """Where the clock is as wrong as the link says, its part of the width makes up for it."""
    near, _ = replayed(world, None)
    far, snapshot = replayed(world, link)
    assert coverage(world, far) > coverage(world, near) - 0.03
    untold, _ = replayed(world, FarLink(link.error_seconds, jitter_seconds=link.jitter_seconds))
    assert coverage(world, untold) < coverage(world, far)
    assert {gpu.residual_joules for gpu in snapshot.gpus} == {0.0}


def test_an_interval_widens_with_the_error_of_the_clock() -> None:
    """Of nearly every request, though nothing was in fact wrong; an error of 0 is that of a local GPU."""
    near, _ = replayed(TENSOR, None)
    wide = [widths(replayed(TENSOR, FarLink(told_seconds=told))[0]) for told in (0.0, 0.02, 0.1)]
    assert wide[0] == widths(near)
    for narrow, wider in pairwise(wide):
        assert np.mean([wider[name] > narrow[name] for name in narrow]) > 0.95


def test_a_recorded_trace_keeps_the_clock_s_error() -> None:
    """The instants and their error stand in the samples: two replays are alike to the last digit."""
    link = FarLink(error_seconds=0.01, told_seconds=0.02, delay_seconds=0.2)
    assert replayed(PIPELINE, link) == replayed.__wrapped__(PIPELINE, link)


def test_a_delay_alone_changes_no_figure() -> None:
    """The accounts wait for the far GPU: what is learned comes a little later."""
    near, at_once = replayed(PIPELINE, None)
    far, late = replayed(PIPELINE, FarLink(delay_seconds=0.2, delay_jitter_seconds=0.1))
    assert sorted(far) == sorted(near)
    for name, request in far.items():
        assert request.attributed_joules == pytest.approx(near[name].attributed_joules, rel=0.02)
        assert request.complete == near[name].complete
    assert far_gpu(PIPELINE, late).measured_joules == far_gpu(PIPELINE, at_once).measured_joules


@pytest.mark.parametrize("keeps", [True, False])
def test_a_link_that_breaks_for_ten_seconds_loses_no_joule(keeps: bool) -> None:
    """What the far GPU drew meanwhile is measured by its counter, whether or not its samples were kept."""
    _, whole = replayed(TENSOR, None)
    requests, snapshot = replayed(TENSOR, FarLink(broken=BREAK, keeps=keeps))
    before, after = far_gpu(TENSOR, whole), far_gpu(TENSOR, snapshot)
    assert after.measured_joules == pytest.approx(before.measured_joules, rel=1e-6)
    assert after.residual_joules == 0.0
    assert len(requests) == len(replayed(TENSOR, None)[0])


def test_a_link_that_breaks_for_longer_than_anybody_waits() -> None:
    """Requests are handed out without the far GPU's joules and say so; what comes too late is nobody's."""
    impatient = Policy(max_lag_ns=2 * SECOND)
    _, whole = replayed(TENSOR, None, impatient)
    requests, snapshot = replayed(TENSOR, FarLink(broken=BREAK, keeps=True), impatient)
    before, after = far_gpu(TENSOR, whole), far_gpu(TENSOR, snapshot)
    assert after.measured_joules == before.measured_joules
    assert after.residual_joules == 0.0
    lost_seconds = 10.0 - 2 * 2.0
    watts = after.unattributed_joules["records_lost"] / lost_seconds
    assert 300.0 < watts < 700.0
    (near,) = [gpu for gpu in snapshot.gpus if gpu is not after]
    assert "records_lost" not in near.unattributed_joules
    start_ns, at = simulated(TENSOR)[0].start_ns, {True: 0, False: 0}
    for request in requests.values():
        begin, end = ((time_ns - start_ns) / SECOND for time_ns in (request.start_ns, request.end_ns))
        if end < 7.5 or begin > 14.5:
            assert request.complete
            at[True] += 1
        elif begin < 13.0 and end > 8.5:
            assert not request.complete
            at[False] += 1
    assert min(at.values()) > 5


def test_the_far_gpu_stalls_no_other() -> None:
    """While nothing comes of it the local GPU is accounted for, and requests wait at most twice the lag."""
    run, records = simulated(TENSOR)
    pipeline = Pipeline(Policy(max_lag_ns=2 * SECOND), Scope(all_gpus=True))
    replay = Replay(())
    told = over_a_link(records, {run.gpus[1].uuid}, FarLink(broken=((8.0, 60.0),)))
    for record in takewhile(lambda each: _time(each) < run.start_ns + 20 * SECOND, told):
        replay.feed(pipeline, record)
    pipeline.settle(run.start_ns + 20 * SECOND)
    handed = len(pipeline.drain_finished())
    ended = sum(
        1
        for each in records
        if isinstance(each, wire.RequestEnd) and each.time_ns < run.start_ns + 15 * SECOND
    )
    near = pipeline.accountant.gpu_state(run.gpus[0].uuid)
    assert near.settled_ns > run.start_ns + 19 * SECOND
    assert handed >= ended > 0


def _time(record: wire.AnyRecord) -> int:
    return getattr(record, "time_ns", 0)


def test_clock_errors_that_cannot_be_do_not_break_a_figure() -> None:
    """A link that says it may be off by a year: the interval is wide, and no more than that."""
    requests, _ = replayed(TENSOR, FarLink(told_seconds=3e7))
    for request in requests.values():
        high = request.attributed_high_joules
        assert high is None or np.isfinite(high)


def test_the_standard_deviation_is_that_of_an_even_spread() -> None:
    """Anywhere within the bound, all places alike."""
    draws = np.random.default_rng(1).uniform(-0.03, 0.03, 100_000)
    assert clock_std_seconds(0.03) == pytest.approx(draws.std(), rel=0.01)
    assert Measured(1.0, 1.0).clock_std_seconds == 0.0
