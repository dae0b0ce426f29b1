"""How often the accounts are settled is an accident of the moment and may not change a figure."""

from __future__ import annotations

import pytest

from joulescope.hook import wire
from joulescope.model import FinishedRequest
from joulescope.pipeline import Pipeline, Scope
from joulescope.replay import Replay
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.worlds import WORLDS
from tests.worlds import instant


def settled_at_every_record(records: list[wire.AnyRecord]) -> dict[str, FinishedRequest]:
    """The same records through the same pipeline, with no regard for cost."""
    pipeline = Pipeline(scope=Scope(all_gpus=True))
    replay = Replay([])
    now_ns = 0
    for record in records:
        replay.feed(pipeline, record)
        now_ns = max(now_ns, instant(record))
        pipeline.settle(now_ns)
    pipeline.finish(now_ns)
    return {request.request_id: request for request in pipeline.drain_finished()}


@pytest.mark.parametrize("world", ["calibrated", "tensor-parallel-2", "pipeline-parallel-2", "two-engines"])
def test_figures_do_not_depend_on_when_accounts_are_settled(world: str) -> None:
    """Settled at every record or four times a second: the same joules, on one GPU or two."""
    run = SimulatedRun(4.0, seed=3, rate_per_second=12.0, truth=False, world=WORLDS[world])
    records = list(run.records())
    seldom = {request.request_id: request for request in Replay(records)}
    often = settled_at_every_record(records)
    assert len(seldom) > 20
    assert seldom.keys() == often.keys()
    for request_id, request in seldom.items():
        assert often[request_id].attributed_joules == pytest.approx(request.attributed_joules, abs=1e-5)
        assert often[request_id].marginal_joules == pytest.approx(request.marginal_joules, abs=1e-5)
