"""Who is compared with a baseline and who is not: engines that share, that change, that say little."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from joulescope.attribution.accountant import Accountant
from joulescope.attribution.baseline import Baseline
from joulescope.attribution.cost import CostModel
from joulescope.attribution.efficiencies import Efficiencies
from joulescope.attribution.efficiency import Efficiency
from joulescope.attribution.prior import expectation_of
from joulescope.baselines.store import BaselineFolder
from joulescope.daemon.baseline_keeper import BaselineKeeper
from joulescope.hook import wire
from joulescope.model import (
    MIG_GPM,
    BaselineTotals,
    EnergyInterval,
    EngineInfo,
    FinishedRequest,
    GpuInfo,
    RequestStarted,
    StepDone,
)
from joulescope.replay import Replay
from joulescope.simulation.traces import SimulatedRun
from tests.baselines.samples import IDENTITY, baseline
from tests.worlds import GPU, MS, SECOND, by_time, end, hello, samples, start, step


def engine_steps(session: int, gpus: list[str], seconds: int, *, after_ns: int = 0) -> list[wire.AnyRecord]:
    """An engine that decodes one request, a step every 10 ms."""
    steps = [
        step(
            number + 1,
            after_ns + number * 10 * MS,
            after_ns + (number + 1) * 10 * MS,
            [1],
            context=[100 + number],
            session=session,
            scheduled=[1],
            sampled=[1],
        )
        for number in range(100 * seconds)
    ]
    return [
        hello(after_ns, gpus=gpus, session=session, instance=f"i{session}"),
        start(1, after_ns, session=session),
        *steps,
        end(1, after_ns + seconds * SECOND, 100 * seconds, session=session),
    ]


def totals_of(records: list[wire.AnyRecord], efficiencies: Efficiencies) -> list[BaselineTotals | None]:
    replay = Replay(records, efficiencies=efficiencies)
    list(replay)
    assert replay.snapshot is not None
    return [totals.baseline for totals in replay.snapshot.engines]


def test_an_engine_alone_on_its_gpu_learns() -> None:
    """The story of the tests below, without what keeps it from learning."""
    records = by_time(
        [wire.Gpu(gpu="GPU-0", name="H100")], samples(21 * SECOND, 400.0), engine_steps(1, ["GPU-0"], 20)
    )
    efficiencies = Efficiencies(learn_seconds=9.0)
    totals_of(records, efficiencies)
    (learned,) = efficiencies.drain_learned()
    assert learned.identity.gpu_name == "H100"


def test_two_engines_on_one_gpu_learn_nothing_of_each_other() -> None:
    """What each of them drew is a division by the model; half of the time of each is not its own alone."""
    records = by_time(
        [wire.Gpu(gpu="GPU-0", name="H100")],
        samples(21 * SECOND, 400.0),
        engine_steps(1, ["GPU-0"], 20),
        engine_steps(2, ["GPU-0"], 20),
    )
    efficiencies = Efficiencies(learn_seconds=4.0)
    found = totals_of(records, efficiencies)
    assert efficiencies.drain_learned() == []
    assert [each and each.learned_ratio for each in found] == [pytest.approx(0.0, abs=0.1)] * 2


@pytest.mark.parametrize(("source", "learns"), [("counter", True), ("power", True), (MIG_GPM, False)])
def test_a_share_of_a_split_gpu_teaches_nothing(source: str, learns: bool) -> None:
    """What a MIG instance drew follows what its neighbours did, and nobody knows how far that is off."""
    assert bool(learned_of(40_000_000, source)) is learns


def test_a_meter_that_shows_nothing_teaches_nothing() -> None:
    """No factor leads from what is expected to nothing at all."""
    assert learned_of(0, "power") == []


def learned_of(interval_uj: int, source: str) -> list[Baseline]:
    """What is learned of five seconds of steps, with so much energy in each tenth of a second."""
    efficiencies = Efficiencies(learn_seconds=3.0)
    accountant = Accountant(efficiencies=efficiencies)
    accountant.gpu_found(GpuInfo(GPU, name="H100"))
    accountant.engine_up(EngineInfo("a", model="m", gpus=(GPU,), cost=baseline().cost), 0)
    accountant.request_started(RequestStarted("a", 1, "r", 0))
    one = np.ones(1, dtype=np.int64)
    for number in range(500):
        begin_ns, end_ns = number * 10 * MS, (number + 1) * 10 * MS
        accountant.step_done(
            StepDone("a", number, begin_ns, begin_ns, end_ns, end_ns, [1], number * one, one, one)
        )
        if number % 10 == 9:
            accountant.interval(EnergyInterval(GPU, end_ns - 100 * MS, end_ns, interval_uj, source=source))
    accountant.settle(5 * SECOND)
    return efficiencies.drain_learned()


def test_gpus_of_two_names_under_one_engine_are_one_identity() -> None:
    """Every interval comes from one GPU or the other: none of them makes the engine another engine."""
    gpus = ["GPU-0", "GPU-1"]
    told = hello(0, gpus=gpus, session=1, instance="i1")
    facts = msgspec.structs.replace(told.engine, tensor_parallel=2)  # type: ignore[type-var]
    story = engine_steps(1, gpus, 20)
    story[0] = msgspec.structs.replace(told, engine=facts)
    records = by_time(
        [wire.Gpu(gpu="GPU-0", name="H100 PCIe"), wire.Gpu(gpu="GPU-1", name="H100 NVL")],
        samples(21 * SECOND, 400.0),
        samples(21 * SECOND, 300.0, gpu="GPU-1"),
        story,
    )
    efficiencies = Efficiencies(learn_seconds=9.0)
    totals_of(records, efficiencies)
    (learned,) = efficiencies.drain_learned()
    assert learned.identity.gpu_name == "H100 NVL + H100 PCIe"
    assert learned.identity.gpu_count == 2


def told_less(records: Iterator[wire.AnyRecord], cost: wire.CostFacts) -> Iterator[wire.AnyRecord]:
    """The same records of an engine with these facts."""
    for record in records:
        if isinstance(record, wire.Hello) and record.engine is not None:
            engine = msgspec.structs.replace(record.engine, cost=cost)
            yield msgspec.structs.replace(record, engine=engine)
        else:
            yield record


@pytest.mark.parametrize(
    "cost",
    [wire.CostFacts(), wire.CostFacts(source="work", flops_per_token=1e13)],
    ids=["unknown", "by-work"],
)
def test_engines_that_do_not_say_what_steps_take_are_not_compared(cost: wire.CostFacts) -> None:
    """By such facts another mix alone makes an index of 1.5 or 3. Nothing is learned, and no progress told;
    nor is a kept one taken, be its facts as empty."""
    records = list(told_less(SimulatedRun(8.0, truth=False).records(), cost))
    efficiencies = Efficiencies(learn_seconds=3.0)
    assert totals_of(records, efficiencies) == [None]
    assert efficiencies.drain_learned() == []


def simulated_baseline() -> Baseline:
    efficiencies = Efficiencies(learn_seconds=12.0)
    list(Replay(SimulatedRun(18.0, truth=False).records(), efficiencies=efficiencies))
    (learned,) = efficiencies.drain_learned()
    return learned


def test_a_kept_baseline_taken_away_where_none_is_learned_ends_the_comparison() -> None:
    """Learning is off: what was compared stays counted, and no progress is told of what does not go on."""
    kept: list[Baseline | None] = [replace(simulated_baseline(), source="pinned")]
    efficiencies = Efficiencies(lambda identity, version: kept[0], learn_seconds=0.0)
    replay = Replay(SimulatedRun(12.0, truth=False).records(), efficiencies=efficiencies)
    for number, request in enumerate(replay):
        if number == 20:
            kept[0] = None
            efficiencies.renew()
            before = efficiencies.totals(request.engine)
    assert before is not None
    assert before.learned_ratio is None
    assert before.actual_joules
    assert replay.snapshot is not None
    assert replay.snapshot.engines[0].baseline == before
    assert efficiencies.drain_learned() == []


def test_a_pinned_baseline_ends_the_learning_for_good() -> None:
    """Nothing is taught any more beside the fit that divides joules."""
    kept: list[Baseline | None] = [None]
    efficiencies = Efficiencies(lambda identity, version: kept[0], learn_seconds=100.0)
    replay = Replay(SimulatedRun(12.0, truth=False).records(), efficiencies=efficiencies)
    models = []

    class Model(replay.make_model):  # type: ignore[name-defined,misc]
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            models.append(self)

    replay.make_model = Model
    pupils = []
    for number, _ in enumerate(replay):
        if number == 20:
            pupils.append(models[-1].pupil)
            kept[0] = replace(simulated_baseline(), source="pinned")
            efficiencies.renew()
    assert pupils[0] is not None
    assert models[-1].pupil is None


def test_a_power_limit_that_changes_while_a_baseline_is_learned_holds_for_it_too() -> None:
    """By the limit that is gone, steps that it stretches would teach what they should not."""
    model, pupil = (CostModel(baseline().cost, 1, expectation_of("H100", 700.0)) for _ in range(2))
    model.pupil = pupil
    model.set_limit(400.0)
    assert pupil.expectation.limit_watts == 400.0


def test_replicas_on_like_gpus_share_what_the_first_has_learned(tmp_path: Path) -> None:
    """One file: the second, half way through its own learning, is compared with it from then on."""
    keeper = BaselineKeeper(BaselineFolder(tmp_path))
    efficiencies = Efficiencies(keeper.find, learn_seconds=6.0)

    def look(_count: int) -> None:
        keeper.turn(efficiencies)
        keeper.look()

    gpus = [wire.Gpu(gpu="GPU-0", name="H100"), wire.Gpu(gpu="GPU-1", name="H100")]
    records = by_time(
        gpus,
        samples(21 * SECOND, 400.0),
        samples(21 * SECOND, 400.0, gpu="GPU-1"),
        engine_steps(1, ["GPU-0"], 20),
        engine_steps(2, ["GPU-1"], 16, after_ns=4 * SECOND),
    )
    replay = Replay(records, efficiencies=efficiencies, on_progress=look)
    list(replay)
    first, second = efficiencies.current().values()
    assert first == second
    assert len(list(tmp_path.iterdir())) == 1


# ------------------------------------------------------------------------------- prompts and their cache


def comparing() -> Efficiency:
    """Compares with a baseline of which half of the prompts' tokens used to be cached."""
    info = EngineInfo("a", model="org/model", cost=baseline().cost)
    return Efficiency(info, IDENTITY, baseline(), learn_seconds=0.0, wall_seconds=float)


def request(**more: object) -> FinishedRequest:
    """Of 200 prompt tokens, none of them cached."""
    base = FinishedRequest(
        request_id="r",
        external_id="",
        engine="a",
        model="",
        lora="",
        kind="generate",
        start_ns=0,
        end_ns=SECOND,
        first_step_ns=1,
        first_token_ns=2,
        finish_reason="stop",
        prompt_tokens=200,
        cached_tokens=0,
        output_tokens=10,
        scheduled_tokens=210,
        recomputed_tokens=0,
        drafted_tokens=0,
        accepted_tokens=0,
        preemptions=0,
        steps=10,
        attributed_joules=1.0,
        marginal_joules=1.0,
        prefill_joules=0.5,
        decode_joules=0.5,
        wasted_joules=0.0,
        complete=True,
        trace_parent="",
    )
    return replace(base, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "owes"),
    [
        ({}, True),
        ({"finish_reason": "abort", "steps": 0, "scheduled_tokens": 0, "output_tokens": 0}, False),
        ({"finish_reason": "abort", "steps": 1, "scheduled_tokens": 100, "output_tokens": 0}, False),
        ({"complete": False}, False),
    ],
    ids=["computed", "hung up while it waited", "hung up half way", "seen in part"],
)
def test_only_prompts_that_were_computed_tell_of_the_cache(more: dict[str, object], owes: bool) -> None:
    """Clients that hang up in the queue found nothing in the cache, and nothing was computed for them."""
    efficiency = comparing()
    for _ in range(300):
        efficiency.finished(request(**more))
    assert (owed_joules(efficiency) > 0.0) is owes


def owed_joules(efficiency: Efficiency) -> float:
    assert efficiency._comparing is not None
    return efficiency._comparing._owed_joules


def test_prompts_owe_for_what_is_compared_and_no_more() -> None:
    """Where most intervals are not compared, all that prompts computed more cannot be taken off the rest."""
    whole, tenth = comparing(), comparing()
    for _ in range(300):
        assert tenth._comparing is not None
        tenth._comparing.passed(9.0, 1.0)
        for efficiency in (whole, tenth):
            efficiency.finished(request())
    assert owed_joules(tenth) == pytest.approx(owed_joules(whole) / 10.0)
