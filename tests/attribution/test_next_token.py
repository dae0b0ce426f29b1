"""The price of the next token: by the formula, against simulated truth, and absent where it is not known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from joulescope.attribution.cost import SAVED, CostModel
from joulescope.attribution.next_token import next_token_joules
from joulescope.hook import wire
from joulescope.model import CostFacts, EngineInfo, EngineTotals, StepDone
from joulescope.pipeline import Pipeline, Scope
from joulescope.replay import Replay
from joulescope.simulation.group import law_of
from joulescope.simulation.parts import World
from joulescope.simulation.physics import features_of
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.worlds import WORLDS
from tests.attribution.test_cost import FACTS, MIXTURE, H, columns_of
from tests.worlds import MS, SECOND, hello, start, step

SETTLED_NS = 10 * SECOND
EVERY_NS = SECOND // 4


def model_seconds(model: CostModel, contexts: list[int]) -> float:
    """What the model itself takes a decode step to last."""
    figures = model.price(columns_of((contexts, [1] * len(contexts), 1.0))).steps[:, :4]
    return float(model.duration().value(figures)[0])


@pytest.mark.parametrize("facts", [FACTS, MIXTURE])
@pytest.mark.parametrize("gpus", [1, 2])
def test_it_is_what_the_last_one_to_come_would_save(facts: CostFacts, gpus: int) -> None:
    """Marginal joules of a request in a step, seen from before it came: the same figure by another way."""
    model, contexts = CostModel(facts, gpus, H), [100, 300, 500]
    with_it = [*contexts, 301]
    seconds = model_seconds(model, with_it)
    saved = model.price(columns_of((with_it, [1] * 4, seconds))).rows[SAVED, -1]
    assert model.next_token_joules(columns_of((contexts, [1] * 3, 1.0))) == pytest.approx(gpus * saved)


def test_a_token_is_dearer_where_arithmetic_or_the_power_limit_binds() -> None:
    """Beside a large prefill the next token's arithmetic takes time; in a small batch reading hides it."""
    model = CostModel(FACTS, 1, H)
    alone = model.next_token_joules(columns_of(([500] * 8, [1] * 8, 0.01)))
    beside = model.next_token_joules(columns_of(([0, *[500] * 8], [8000, *[1] * 8], 0.3)))
    assert beside > 1.1 * alone
    capped = CostModel(FACTS, 1, replace(H, limit_watts=250.0))
    assert capped.next_token_joules(columns_of(([500] * 8, [1] * 8, 0.01))) > 1.1 * alone


def moments(world: World) -> Iterator[tuple[wire.Step, EngineTotals]]:
    """The latest step and the engine's totals, now and then, once the fit has settled."""
    run = SimulatedRun(20.0, seed=5, rate_per_second=8.0, truth=False, world=world)
    pipeline, replay = Pipeline(scope=Scope(all_gpus=True)), Replay([])
    last, settled_ns = None, 0
    for record in run.records():
        time_ns = replay.feed(pipeline, record)
        last = record if isinstance(record, wire.Step) else last
        if time_ns - settled_ns > EVERY_NS:
            settled_ns = time_ns
            pipeline.settle(time_ns)
            if last is not None and time_ns > SETTLED_NS:
                yield last, pipeline.snapshot(time_ns).engines[0]


@pytest.mark.parametrize("name", ["calibrated", "low-cap", "moe", "tensor-parallel-2"])
def test_it_is_near_the_truth_of_simulated_worlds(name: str) -> None:
    """What the world's own law charges for one more request in the very same step: 5 % in the mean."""
    law = law_of(WORLDS[name])
    ours, true = [], []
    for last, totals in moments(WORLDS[name]):
        if totals.next_token_joules is None:
            continue
        context = np.array(last.context)
        scheduled, sampled = (np.array(told or [1] * len(context)) for told in (last.scheduled, last.sampled))
        sums = features_of(context, scheduled, sampled).sum(axis=1)
        mean = np.array([(context + scheduled).mean()])
        more = features_of(mean, np.array([1]), np.array([1]))[:, 0]
        ours.append(totals.next_token_joules)
        true.append(float(law.energy_joules(sums + more) - law.energy_joules(sums)))
    assert len(ours) > 30
    assert sum(ours) == pytest.approx(sum(true), rel=0.05)


def done(**more: object) -> StepDone:
    ones = np.ones(2, dtype=np.int64)
    return StepDone("e", 0, 0, 0, 10 * MS, 10 * MS, [1, 2], 100 * ones, ones, ones, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "info",
    [
        EngineInfo("e"),
        EngineInfo("e", cost=replace(FACTS, source="work")),
        EngineInfo("e", cost=FACTS, unit="image"),
        EngineInfo("e", cost=FACTS, work_unit="denoising step"),
    ],
)
def test_where_little_is_known_no_price_is_named(info: EngineInfo) -> None:
    """No facts of the model, or something else than tokens: absent is not zero."""
    assert next_token_joules(CostModel(info.cost, 1, H), info, done()) is None


def test_it_is_absent_when_nothing_runs() -> None:
    """Before the first step, and two seconds after the last, there is no batch to join."""
    pipeline = Pipeline(scope=Scope(all_gpus=True))
    pipeline.take(0, [hello(), start(1)])
    seen = [pipeline.snapshot(0).engines[0]]
    pipeline.take(0, [step(0, 0, 20 * MS, [1], scheduled=[10], sampled=[1])])
    for time_ns in (100 * MS, 10 * SECOND):
        pipeline.settle(time_ns)
        seen.append(pipeline.snapshot(time_ns).engines[0])
    assert [engine.batch_tokens for engine in seen] == [None, 10, 0]
    assert [engine.next_token_joules is None for engine in seen] == [True, False, True]
