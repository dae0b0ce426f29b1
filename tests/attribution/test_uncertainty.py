"""The stated intervals: they hold the truth as often as they say, and are wide where little is known."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from joulescope.attribution.uncertainty import NORMAL_90
from joulescope.hook import wire
from joulescope.model import FinishedRequest
from joulescope.replay import Replay
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.truth import TrueLedger
from joulescope.simulation.worlds import WORLDS


@cache
def finished(world: str) -> tuple[list[FinishedRequest], TrueLedger]:
    """Requests of a short run that were measured whole, in the order of their end."""
    run = SimulatedRun(30.0, seed=5, rate_per_second=8.0, world=WORLDS[world])
    requests = list(Replay(list(run.records())))
    return [each for each in requests if each.complete and not each.preemptions], run.truth


def widths(requests: list[FinishedRequest]) -> list[float]:
    """Half the interval as a part of the figure."""
    return [
        ((each.attributed_high_joules or 0) - (each.attributed_low_joules or 0)) / 2 / each.attributed_joules
        for each in requests
        if each.attributed_joules
    ]


def test_intervals_hold_most_truths_and_are_narrow() -> None:
    """Four truths of five at least, attributed and marginal, within a few percent of the figure."""
    requests, truth = finished("calibrated")
    held, held_marginal = [], []
    for request in requests:
        account = truth.get(request.request_id)
        assert account is not None
        low, high = request.attributed_low_joules, request.attributed_high_joules
        marginal_low, marginal_high = request.marginal_low_joules, request.marginal_high_joules
        assert low is not None
        assert high is not None
        assert marginal_low is not None
        assert marginal_high is not None
        held.append(low <= account.joules <= high)
        held_marginal.append(marginal_low <= account.marginal_joules <= marginal_high)
    assert len(held) > 150
    assert np.mean(held) > 0.8
    assert np.mean(held_marginal) > 0.8
    assert np.median(widths(requests)) < 0.05


def test_the_first_requests_are_less_sure() -> None:
    """Before the GPU's cost is learned the interval is wider than after."""
    requests, _ = finished("calibrated")
    assert np.median(widths(requests[:15])) > 1.2 * np.median(widths(requests[-60:]))


@pytest.mark.parametrize(
    "world", ["tensor-parallel-2", pytest.param("pipeline-parallel-2", marks=pytest.mark.slow)]
)
def test_what_is_learned_later_makes_earlier_figures_no_surer(world: str) -> None:
    """Requests of the first ten seconds were priced by a cold model, and their intervals say so."""
    missed = []
    for seed in (21, 22):
        run = SimulatedRun(10.0, seed=seed, rate_per_second=4.0, world=WORLDS[world])
        for each in Replay(list(run.records())):
            account = run.truth.get(each.request_id)
            low, high = each.attributed_low_joules, each.attributed_high_joules
            if account is None or low is None or high is None or each.attributed_joules is None:
                continue
            true_joules = account.joules - account.recompute_joules
            missed.append((each.attributed_joules - true_joules) / ((high - low) / 2.0))
    assert len(missed) > 15
    assert np.mean(np.square(missed)) ** 0.5 < 1.0 / NORMAL_90


def test_a_request_alone_is_sure_of_everything_but_the_edges() -> None:
    """Whoever is alone on the GPU gets all its joules, whatever the coefficients."""
    run = SimulatedRun(40.0, seed=2, rate_per_second=0.15)
    alone = [each for each in Replay(list(run.records())) if each.complete]
    assert alone
    assert min(widths(alone)) < 0.02


@pytest.mark.parametrize("source", ["unknown", "work"])
def test_where_nothing_is_known_of_the_cost_no_interval_is_stated(source: str) -> None:
    """A width that nothing stands behind is worse than none: the ends are absent, the joules are not."""
    records = list(SimulatedRun(6.0, seed=5, truth=False).records())
    for record in records:
        if isinstance(record, wire.Hello) and record.engine is not None:
            record.engine.cost = wire.CostFacts(source=source)
    requests = [each for each in Replay(records) if each.complete]
    assert requests
    assert all(each.attributed_joules and each.marginal_joules is not None for each in requests)
    ends = [(each.attributed_low_joules, each.marginal_high_joules) for each in requests]
    assert set(ends) == {(None, None)}
