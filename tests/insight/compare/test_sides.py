"""Minutes become sides: operating points by batch, ramps left out, names made of what differs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from joulescope.engine_model import CostFacts
from joulescope.insight.compare.from_minutes import NO_TASK, sources_of
from joulescope.insight.compare.samples import sample
from joulescope.insight.compare.sides import sides_of
from joulescope.insight.compare.values import Side
from joulescope.minute_model import EngineMinute, GpuSums, Joules, Laws, Load
from tests.insight.compare.made import (
    BEGIN,
    H100,
    IDLE_WATTS,
    cell,
    kind_of,
    minute,
    stretch,
)
from tests.made_minutes import minutes as any_minutes


def one(minutes: list[EngineMinute]) -> Side:
    (source,) = sources_of(minutes, "run.jsonl")
    (side,) = sides_of([("", source)])
    return side


def test_a_point_has_the_figures_of_the_law() -> None:
    """Minutes at each of three batches: joules, power, throughput and times are those they were made of."""
    side = one(stretch([16.0, 24.0, 36.0], each=5))
    assert [point.where for point in side.points] == ["batch 16", "batch 24", "batch 36"]
    for batch, point in zip((16.0, 24.0, 36.0), side.points, strict=True):
        per_token, itl = H100.per_token(batch), H100.itl(batch)
        assert point.value("joules_per_unit") == pytest.approx(per_token, rel=0.005)
        assert point.value("itl") == pytest.approx(itl, rel=1e-6)
        assert point.value("watts") == pytest.approx(per_token * batch / itl, rel=0.005)
        assert point.value("units_per_second") == pytest.approx(batch / itl, rel=1e-3)
        assert point.value("ttft") == pytest.approx(0.05)
        assert point.value("joules_per_request") == pytest.approx(per_token * 400, rel=0.005)


def test_idle_is_in_one_definition_and_not_in_the_other() -> None:
    """An engine that works a quarter of the time pays 45 s of idle power a minute in "all in" only."""
    side = one([minute(2.0, number, busy=0.25) for number in range(3)])
    point = side.points[0]
    tokens = (point.units or 0) / 3
    assert point.value("joules_per_unit") == pytest.approx(H100.per_token(2.0), rel=1e-6)
    assert point.value("joules_per_unit_all") == pytest.approx(
        H100.per_token(2.0) + 45.0 * IDLE_WATTS / tokens, rel=1e-6
    )


def test_evidence_is_what_stands_behind_a_point() -> None:
    side = one(stretch([16.0], each=6))
    (point,) = side.points
    assert point.parts == 6
    assert point.gpu_hours == pytest.approx(6 / 60)
    assert side.whole.gpu_hours == pytest.approx(6 / 60)
    assert side.whole.requests == 6 * (round(60.0 / H100.itl(16.0) * 16.0) // 400)


def test_minutes_in_which_the_load_begins_or_ends_are_of_no_point() -> None:
    """A drained minute holds all batches from 64 to 0; its mean batch of 20 is no operating point."""
    told = [minute(64.0, number) for number in range(4)] + [minute(20.0, 4)]
    side = one(told)
    assert [point.where for point in side.points] == ["batch 64"]
    assert side.points[0].parts == 4
    assert side.whole.parts == 5


def test_where_all_are_ramps_they_are_used_and_it_is_said() -> None:
    side = one([minute(64.0)])
    assert [point.where for point in side.points] == ["batch 64"]
    assert "began or ended in every minute" in side.quality.remarks[0]


def test_a_light_load_has_no_ramps() -> None:
    """Below four requests at a time neighbours differ by chance, and nothing is left out."""
    side = one([minute(batch, number) for number, batch in enumerate((1.0, 2.5, 1.0, 3.0))])
    assert sum(point.parts for point in side.points) == 4


def test_what_came_late_is_added_to_its_minute() -> None:
    """A second row of a minute holds a late joule; it is no minute of its own, and no point."""
    told = stretch([16.0], each=4)
    late = EngineMinute(
        told[1].kind, told[1].start_wall_seconds, told[1].end_wall_seconds, joules=Joules(10.0, 10.0)
    )
    side = one([*told, late])
    assert side.whole.parts == 4
    plain = one(told)
    gained = (side.whole.value("watts_all") or 0) - (plain.whole.value("watts_all") or 0)
    assert gained == pytest.approx(10.0 / 240.0)


def test_joules_of_half_measured_minutes_are_left_out_with_their_output() -> None:
    """A minute measured for 30 s only must not halve the joules by token."""
    told = stretch([16.0], each=5)
    told[2] = replace(told[2], gpu=GpuSums(seconds=30.0), joules=Joules(measured=1.0, decode=1.0))
    side = one(told)
    assert side.points[0].value("joules_per_unit") == pytest.approx(H100.per_token(16.0), rel=0.02)
    assert side.quality.remarks == (
        "1 of 5 minutes were not measured to 98%: their joules are left out, with the output that goes "
        "with them",
    )


def test_replicas_are_one_side_and_different_setups_are_several() -> None:
    """Engines of one setup add up; another precision or GPU count is another side, named by what differs."""
    told = [
        *stretch([16.0], each=4),
        *stretch([16.0], kind=kind_of(engine="llama/1"), each=4),
        *stretch([16.0], kind=kind_of(engine="fp8/0", quantization="fp8"), each=4),
        *stretch([16.0], kind=kind_of(engine="two/0", gpu_count=2, tensor_parallel=2), each=4),
    ]
    sides = sides_of([("", source) for source in sources_of(told, "run.jsonl")])
    assert {side.name for side in sides} == {"BF16 1 GPU ?", "FP8 1 GPU ?", "BF16 2 GPUs TP2"}
    assert [side.whole.parts for side in sides if side.name == "BF16 1 GPU ?"] == [8]


def test_given_names_are_kept_and_extended_only_where_they_have_to_be() -> None:
    sources = sources_of(stretch([16.0]), "a.jsonl")
    several = sources_of([*stretch([16.0]), *stretch([16.0], kind=kind_of(quantization="fp8"))], "b.jsonl")
    sides = sides_of([("old", sources[0]), *(("new", each) for each in several)])
    assert [side.name for side in sides] == ["old", "new BF16", "new FP8"]


def test_tasks_are_sides_with_the_joules_that_were_charged_to_them() -> None:
    """A reasoning answer of 4000 tokens and a chat of 400: 25 times the joules a request."""
    tasks = (cell("chat", 90, 0.01, 90 * 40.0), cell("reason", 10, 0.01, 10 * 1000.0, answer=4000))
    told = [minute(16.0, number, tasks=tasks) for number in range(4)]
    sides = {
        each.setup.task: each for each in sides_of([("", s) for s in sources_of(told, "", by_task=True)])
    }
    chat, reason = sides["chat"].whole, sides["reason"].whole
    assert (reason.value("joules_per_request") or 0) / (
        chat.value("joules_per_request") or 1
    ) == pytest.approx(25)
    assert sides["chat"].origin.divided
    assert sides["chat"].whole.value("joules_per_unit_all") is None
    (chosen,) = sources_of(told, "", tasks=["reason"])
    assert chosen.setup.task == "reason"


def test_requests_without_a_task_have_a_side_too() -> None:
    (source,) = sources_of([minute(16.0)], "", by_task=True)
    assert source.setup.task == NO_TASK


def test_requests_give_quantiles_to_the_point_in_which_they_ended() -> None:
    """Ninety fast ones and ten slow ones: p50 and p95 of the point, and of no other."""
    (source,) = sources_of(stretch([16.0, 30.0], each=4), "run")
    samples = tuple(
        sample("run", "llama/0", "", end - 2.0, end - (1.0 if number % 10 == 0 else 1.9), end, 101)
        for number in range(200)
        for end in (BEGIN + 70.0 + number / 10,)
    )
    (side,) = sides_of([("", replace(source, samples=samples))])
    first, second = side.points
    assert first.value("ttft_p50") == pytest.approx(0.1)
    assert first.value("ttft_p95") == pytest.approx(1.0)
    assert first.value("tpot_p50") == pytest.approx(0.019)
    assert "ttft_p50" not in second.figures
    assert side.whole.value("e2e_p99") == pytest.approx(2.0)


def test_joules_while_no_engine_had_the_gpus_are_of_no_side() -> None:
    assert sources_of([replace(minute(16.0), kind=kind_of(engine=""))], "") == []


def test_an_engine_that_did_nothing_has_no_figures_and_no_points() -> None:
    idle = EngineMinute(
        kind_of(),
        BEGIN,
        BEGIN + 60.0,
        joules=Joules(measured=6000.0, idle=6000.0),
        load=Load(60.0),
        gpu=GpuSums(60.0),
    )
    side = one([idle])
    assert side.points == ()
    assert side.whole.value("joules_per_unit") is None
    assert side.whole.value("watts_all") == pytest.approx(100.0)


@settings(
    max_examples=25,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.lists(any_minutes(), max_size=2))
def test_any_minutes_give_sides_with_finite_figures(told: list[EngineMinute]) -> None:
    """However odd: no figure is infinite or missing its value, and no crash."""
    sides = sides_of([("", source) for source in sources_of(told, "odd", by_task=bool(len(told) % 2))])
    for side in sides:
        for point in (side.whole, *side.points):
            assert all(math.isfinite(figure.value) for figure in point.figures.values())


def test_a_mixture_of_experts_says_that_it_follows_the_law_less() -> None:
    """Its weights grow with the batch; told by the laws of any minute."""
    told = stretch([16.0])
    experts = CostFacts(weight_bytes=60e9, expert_weight_bytes=50e9, expert_choice_ratio=0.06)
    told[1] = replace(told[1], laws=Laws(experts, (1.0,), (1.0,)))
    assert "mixture of experts" in one(told).quality.remarks[0]
    dense = [replace(each, laws=Laws(CostFacts(weight_bytes=16e9), (1.0,), (1.0,))) for each in told]
    assert one(dense).quality.remarks == ()
