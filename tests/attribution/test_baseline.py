"""A baseline says what the same work should cost, whatever clients ask for, until the work gets dearer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest

from joulescope.attribution.baseline import Baseline, Identity
from joulescope.attribution.efficiencies import Efficiencies
from joulescope.attribution.reference import reference_steps
from joulescope.model import BaselineTotals, Snapshot
from joulescope.replay import Replay
from joulescope.simulation.parts import World
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.workload import CHAT, CODE, MIXED, RAG, SUMMARISE, RequestClass
from joulescope.simulation.worlds import H100_LLAMA_8B

LEARN_SECONDS = 60.0

DEARER = replace(
    H100_LLAMA_8B.hardware,
    joules_per_byte=1.2 * H100_LLAMA_8B.hardware.joules_per_byte,
    joules_per_flop=1.2 * H100_LLAMA_8B.hardware.joules_per_flop,
    active_watts=1.2 * H100_LLAMA_8B.hardware.active_watts,
)

LONG_PROMPTS = (replace(CHAT, weight=0.2), replace(SUMMARISE, weight=0.7), replace(RAG, weight=0.1))


def learn(seconds: float = 70.0, seed: int = 1) -> list[Baseline]:
    """Baselines of the usual simulated service."""
    efficiencies = Efficiencies(learn_seconds=LEARN_SECONDS)
    list(Replay(SimulatedRun(seconds, seed=seed, truth=False).records(), efficiencies=efficiencies))
    return efficiencies.drain_learned()


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    (learned,) = learn()
    return learned


@cache
def compare(
    baseline: Baseline,
    seconds: float = 25.0,
    *,
    rate: float = 8.0,
    classes: Sequence[RequestClass] = MIXED,
    world: World = H100_LLAMA_8B,
) -> tuple[BaselineTotals, Snapshot]:
    """How a run fares against a kept baseline."""
    run = SimulatedRun(seconds, seed=7, rate_per_second=rate, classes=classes, world=world, truth=False)
    replay = Replay(run.records(), efficiencies=Efficiencies(lambda identity, version: baseline))
    list(replay)
    assert replay.snapshot is not None
    totals = replay.snapshot.engines[0].baseline
    assert totals is not None
    return totals, replay.snapshot


def index_of(totals: BaselineTotals) -> float:
    assert totals.actual_joules is not None
    assert totals.expected_joules is not None
    return totals.actual_joules / totals.expected_joules


@pytest.mark.parametrize(
    ("rate", "classes"),
    [
        pytest.param(8.0, MIXED, id="as-usual"),
        pytest.param(2.0, MIXED, id="quarter"),
        pytest.param(16.0, MIXED, id="double", marks=pytest.mark.slow),
        pytest.param(8.0, (CHAT,), id="chat", marks=pytest.mark.slow),
        pytest.param(4.0, (SUMMARISE,), id="summarise", marks=pytest.mark.slow),
        pytest.param(8.0, (RAG,), id="rag", marks=pytest.mark.slow),
        pytest.param(16.0, (CODE,), id="code", marks=pytest.mark.slow),
        pytest.param(5.0, LONG_PROMPTS, id="long-prompts"),
    ],
)
def test_load_and_mix_leave_the_index_at_one(
    baseline: Baseline, rate: float, classes: Sequence[RequestClass]
) -> None:
    """Joules per token differ by a factor of six among these; what the work costs does not."""
    totals, _ = compare(baseline, rate=rate, classes=classes)
    assert index_of(totals) == pytest.approx(1.0, abs=0.02)


def test_work_that_costs_a_fifth_more_shows_as_that(baseline: Baseline) -> None:
    """Static power, bytes and FLOPs all dearer by 20 %: the index says so, beyond its stated error."""
    totals, _ = compare(baseline, world=replace(H100_LLAMA_8B, hardware=DEARER))
    assert index_of(totals) == pytest.approx(1.2, abs=0.02)
    assert totals.error_ratio is not None
    assert index_of(totals) - 1.0 > 3.0 * totals.error_ratio


def test_slower_kernels_show_though_joules_per_token_fall(baseline: Baseline) -> None:
    """Slower steps gather larger batches, so joules per token may even fall; the same steps cost more."""
    hardware = H100_LLAMA_8B.hardware
    slow = replace(
        hardware,
        bytes_per_second=hardware.bytes_per_second / 1.5,
        flops_per_second=hardware.flops_per_second / 1.5,
    )
    usual, before = compare(baseline)
    slower, after = compare(baseline, world=replace(H100_LLAMA_8B, hardware=slow))
    assert index_of(slower) > index_of(usual) + 0.08
    assert _joules_per_token(after) < _joules_per_token(before)


def test_a_lost_prefix_cache_shows(baseline: Baseline) -> None:
    """Each prompt has a prefix of its own, so that all lengths of prompts find less than they used to."""
    strange = tuple(replace(each, prefixes=10**6) for each in MIXED)
    totals, _ = compare(baseline, 90.0, classes=strange)
    assert index_of(totals) > 1.05


def test_the_compared_joules_are_measured_ones(baseline: Baseline) -> None:
    """They are part of what was attributed or overhead, and in a busy run nearly all of it."""
    totals, snapshot = compare(baseline)
    (gpu,) = snapshot.gpus
    measured = gpu.attributed_joules + sum(gpu.overhead_joules.values())
    assert totals.actual_joules is not None
    assert 0.9 * measured < totals.actual_joules <= measured + 1e-6


def test_the_same_run_teaches_the_same(baseline: Baseline) -> None:
    """A replay comes to the same baseline, to the last digit."""
    assert learn() == [baseline]


def test_nothing_is_expected_before_there_is_a_baseline() -> None:
    """Absent is not zero: until then only the progress is known, and it stays below 1."""
    replay = Replay(SimulatedRun(20.0, truth=False).records(), efficiencies=Efficiencies(learn_seconds=100.0))
    list(replay)
    assert replay.snapshot is not None
    totals = replay.snapshot.engines[0].baseline
    assert totals is not None
    assert (totals.actual_joules, totals.expected_joules, totals.error_ratio) == (None, None, None)
    assert 0.1 < totals.learned_ratio < 0.3
    assert totals.source == ""


def test_without_learning_and_without_a_kept_one_nothing_is_said() -> None:
    replay = Replay(SimulatedRun(5.0, truth=False).records(), efficiencies=Efficiencies(learn_seconds=0.0))
    list(replay)
    assert replay.snapshot is not None
    assert replay.snapshot.engines[0].baseline is None


def test_counters_do_not_fall_when_the_cache_finds_more(baseline: Baseline) -> None:
    """What prompts owe is taken off what is expected next, and never makes the counter go back."""
    run = SimulatedRun(30.0, seed=9, classes=[replace(each, prefixes=10**6) for each in MIXED], truth=False)
    efficiencies = Efficiencies(lambda identity, version: baseline)
    replay = Replay(run.records(), efficiencies=efficiencies)
    seen = [(0.0, 0.0)]
    for request in replay:
        totals = efficiencies.totals(request.engine)
        assert totals is not None
        seen.append((totals.actual_joules or 0.0, totals.expected_joules or 0.0))
    assert all(later[0] >= earlier[0] and later[1] >= earlier[1] for earlier, later in pairwise(seen))


def test_an_engine_of_other_facts_is_not_compared(baseline: Baseline) -> None:
    """A model that weighs half is another model, whatever its name: its work is learned anew."""
    other = replace(baseline, cost=replace(baseline.cost, weight_bytes=baseline.cost.weight_bytes / 2))
    efficiencies = Efficiencies(lambda identity, version: other)
    replay = Replay(SimulatedRun(5.0, truth=False).records(), efficiencies=efficiencies)
    list(replay)
    (engine,) = (totals.info.engine for totals in replay.snapshot.engines) if replay.snapshot else ()
    assert efficiencies.current().get(engine) is None


def test_another_baseline_is_taken_up_and_one_taken_away_is_learned_anew(baseline: Baseline) -> None:
    """The operator pins, and unpins; what was compared before stays counted."""
    kept: list[Baseline | None] = [baseline]
    efficiencies = Efficiencies(lambda identity, version: kept[0])
    engine = ""
    for number, request in enumerate(
        Replay(SimulatedRun(12.0, truth=False).records(), efficiencies=efficiencies)
    ):
        engine = request.engine
        if number == 20:
            kept[0] = replace(baseline, name="pinned", source="pinned")
            efficiencies.renew()
            found = efficiencies.current().get(engine)
            assert found is not None
            assert found.name == "pinned"
        if number == 40:
            before = efficiencies.totals(engine)
            kept[0] = None
            efficiencies.renew()
            after = efficiencies.totals(engine)
            assert before is not None
            assert after is not None
            assert after.actual_joules == before.actual_joules
            assert after.learned_ratio < 1.0
    assert efficiencies.current().get(engine) is None


def test_identity_names_what_must_be_the_same(baseline: Baseline) -> None:
    """The version of the software is not in it, since an upgrade is what is to be judged."""
    assert baseline.identity == Identity(
        model="meta-llama/Llama-3.1-8B-Instruct",
        dtype="bfloat16",
        quantization="",
        tensor_parallel=1,
        pipeline_parallel=1,
        gpu_name="NVIDIA H100 80GB HBM3 (simulated)",
        gpu_count=1,
    )
    assert baseline.version == "simulated"


def test_reference_steps_come_near_to_what_is_published(baseline: Baseline) -> None:
    """ML.ENERGY v3, Llama-3.1-8B on one H100: 0.119 J a token at a batch of 64, 0.077 at 256."""
    joules = {
        step.requests: step.joules_per_token for step in reference_steps(baseline) if step.context == 1024
    }
    assert joules[64] == pytest.approx(0.119, rel=0.15)
    assert joules[256] == pytest.approx(0.077, rel=0.15)


def _joules_per_token(snapshot: Snapshot) -> float:
    (engine,) = snapshot.engines
    return sum(engine.attributed_joules.values()) / engine.tokens["generated"]
