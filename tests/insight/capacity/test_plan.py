"""Plans of an engine with known laws: intervals, ranges, goals, power caps and what-ifs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from joulescope.errors import PlanError
from joulescope.insight.capacity.curves import batch_curve, frontier, with_batch, with_rate
from joulescope.insight.capacity.forecast import Forecaster
from joulescope.insight.capacity.goals import Goal, answer
from joulescope.insight.capacity.observed import Span
from joulescope.insight.capacity.plan import Asked, plan
from joulescope.insight.capacity.power_cap import Cap, under_cap
from joulescope.insight.capacity.told import told
from joulescope.insight.capacity.what_if import WhatIf, as_it_is, setting_of, shape_of
from joulescope.insight.steady import steady_state
from joulescope.simulation.parts import Parallel
from joulescope.simulation.worlds import H100_LLAMA_8B
from tests.insight.capacity.observed_engines import observed_engine
from tests.insight.steady.services import service_of

OBSERVED = observed_engine()
SETTING = as_it_is(OBSERVED)
FORECASTER = Forecaster(OBSERVED)
WORKLOAD = OBSERVED.workload


def test_joules_per_token_fall_with_the_batch_and_latency_rises() -> None:
    points = batch_curve(FORECASTER, SETTING, WORKLOAD)
    joules = [point.forecast.figures["joules_per_token"].value for point in points]
    times = [point.forecast.figures["inter_token_seconds"].value for point in points]
    assert joules == sorted(joules, reverse=True)
    assert times == sorted(times)
    assert points[-1].load == 256.0
    assert len(frontier(points)) == len(points)


def test_an_interval_holds_its_value_and_widens_away_from_what_was_seen() -> None:
    widths = []
    for batch in (16.0, 64.0, 256.0):
        figure = FORECASTER.of(with_batch(WORKLOAD, batch), SETTING).figures["joules_per_token"]
        assert figure.low < figure.value < figure.high
        widths.append(figure.high / figure.low)
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_coefficients_that_are_less_sure_widen_the_interval() -> None:
    laws = OBSERVED.service.laws
    unsure = tuple(tuple(100.0 * each for each in row) for row in laws.energy_covariance)
    service = replace(OBSERVED.service, laws=replace(laws, energy_covariance=unsure))
    other = replace(OBSERVED, service=service)
    load = with_batch(WORKLOAD, 16.0)
    sure = FORECASTER.of(load, SETTING).figures
    wide = Forecaster(other).of(load, as_it_is(other)).figures
    assert wide["joules_per_token"].high > 1.05 * sure["joules_per_token"].high
    assert wide["inter_token_seconds"].high == pytest.approx(sure["inter_token_seconds"].high, rel=0.01)


def test_what_lies_beyond_is_named_and_what_lies_too_far_is_refused() -> None:
    seen = FORECASTER.of(with_batch(WORKLOAD, 16.0), SETTING).support
    beyond = FORECASTER.of(with_batch(WORKLOAD, 128.0), SETTING).support
    assert (seen.verdict, seen.notes) == ("seen", ())
    assert beyond.verdict == "beyond"
    assert "batch 128 was not seen (seen 8 to 32)" in beyond.notes[0]
    narrow = replace(OBSERVED, seen=replace(OBSERVED.seen, batch=Span(1.0, 1.5)))
    refused = Forecaster(narrow).of(with_batch(WORKLOAD, 256.0), SETTING)
    assert refused.support.verdict == "refused"
    assert refused.figures == {}


def test_the_largest_loads_that_keep_a_goal_just_keep_it() -> None:
    goal = Goal("inter_token_seconds", 0.020)
    found = answer(FORECASTER, SETTING, WORKLOAD, (goal,))
    for met, at in ((found.batch, with_batch), (found.rate, with_rate)):
        assert met.load is not None
        assert met.sure_load is not None
        assert met.sure_load < met.load
        kept = steady_state(at(WORKLOAD, met.load), SETTING.service).inter_token_seconds
        broken = steady_state(at(WORKLOAD, 1.02 * met.load), SETTING.service).inter_token_seconds
        assert kept <= 0.020 < broken
        assert met.limited_by == "inter_token_seconds"


def test_the_largest_rate_that_keeps_a_percentile_just_keeps_it() -> None:
    """A percentile binds before the mean of the same length does."""
    goals = (Goal("inter_token_seconds", 0.020, 95.0), Goal("first_token_seconds", 0.5, 99.0))
    found = answer(FORECASTER, SETTING, WORKLOAD, goals).rate
    means = answer(FORECASTER, SETTING, WORKLOAD, tuple(replace(each, percent=None) for each in goals)).rate
    assert found.load is not None
    assert found.sure_load is not None
    assert means.load is not None
    assert found.sure_load < found.load < means.load
    assert found.limited_by in {"inter_token_seconds_p95", "first_token_seconds_p99"}
    bounds = {goal.name: goal.seconds for goal in goals}
    assert all(found.percentiles[name].value <= bound for name, bound in bounds.items())
    beyond = FORECASTER.percentiles(with_rate(WORKLOAD, 1.03 * found.load), SETTING)
    assert any(beyond[name].value > bound for name, bound in bounds.items())


def test_percentiles_have_intervals_and_none_of_the_first_token_where_the_cache_fills() -> None:
    told = FORECASTER.percentiles(with_rate(WORKLOAD, 8.0), SETTING)
    assert len(told) == 8
    assert all(each.low < each.value < each.high for each in told.values())
    limits = replace(SETTING.service.limits, kv_cache_tokens=4_500)
    full = replace(SETTING, service=replace(SETTING.service, limits=limits))
    few = FORECASTER.percentiles(with_rate(WORKLOAD, 8.0), full)
    assert {name.partition("_p")[0] for name in few} == {"inter_token_seconds"}
    met = answer(FORECASTER, full, WORKLOAD, (Goal("first_token_seconds", 60.0, 99.0),)).rate
    assert met.load is None or met.load < 8.0


def test_a_goal_that_nothing_keeps_is_said_so() -> None:
    found = answer(FORECASTER, SETTING, WORKLOAD, (Goal("inter_token_seconds", 0.001),))
    assert found.batch.load is None
    assert found.rate.load is None
    assert found.rate.limited_by == "inter_token_seconds"


def test_a_goal_that_all_keep_is_bounded_by_capacity() -> None:
    found = answer(FORECASTER, SETTING, WORKLOAD, (Goal("inter_token_seconds", 10.0),))
    assert found.batch.load == pytest.approx(256.0)
    assert found.rate.limited_by == "capacity"


def test_every_way_keeps_the_power_cap() -> None:
    found = under_cap(FORECASTER, SETTING, WORKLOAD, Cap(4300.0, "node", 8, host_watts=500.0))
    assert found.engines == 8
    assert {way.binding for way in found.ways} >= {"power"}
    for way in found.ways:
        assert way.watts <= 3800.0 * 1.0001, way.name
        assert way.tokens_per_second.low < way.tokens_per_second.value < way.tokens_per_second.high
    tokens = [way.tokens_per_second.value for way in found.ways]
    assert tokens == sorted(tokens, reverse=True)


def test_a_cap_that_never_binds_leaves_the_capacity() -> None:
    found = under_cap(FORECASTER, SETTING, WORKLOAD, Cap(8000.0, "node", 8))
    full = steady_state(with_batch(WORKLOAD, math.inf), SETTING.service)
    assert found.ways[0].name == "all engines serve"
    assert found.ways[0].binding == "capacity"
    assert found.ways[0].tokens_per_second.value == pytest.approx(8 * full.tokens_per_second, rel=0.01)


@pytest.mark.parametrize(
    ("cap", "message"),
    [(Cap(700.0, "node", 8), "at rest"), (Cap(5000.0, "node", 0), "an engine has 1 GPUs, and there are 0")],
)
def test_a_cap_under_which_nothing_runs_is_refused(cap: Cap, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        under_cap(FORECASTER, SETTING, WORKLOAD, cap)


def test_a_goal_that_no_rate_keeps_leaves_no_way_under_a_cap() -> None:
    """That is an answer, which names the goal; what else was asked for is answered too."""
    goals = (Goal("inter_token_seconds", 0.001),)
    found = under_cap(FORECASTER, SETTING, WORKLOAD, Cap(5000.0, "node", 8), goals)
    assert (found.ways, found.unmet, found.engines) == ((), "inter_token_seconds", 8)


def test_a_power_limit_that_breaks_a_goal_is_no_way() -> None:
    """Slower clocks do not keep it; fewer engines at full clocks do."""
    alone = FORECASTER.of(with_batch(WORKLOAD, 1.0), SETTING).figures["inter_token_seconds"].value
    goals = (Goal("inter_token_seconds", 1.05 * alone),)
    found = under_cap(FORECASTER, SETTING, WORKLOAD, Cap(8 * 260.0, "node", 8), goals)
    assert found.ways
    assert found.unmet is None
    assert not any(way.name.startswith("power limit") for way in found.ways)
    assert any(
        way.name.startswith("power limit")
        for way in under_cap(FORECASTER, SETTING, WORKLOAD, Cap(8 * 260.0, "node", 8)).ways
    )


def test_layers_and_width_are_inferred_from_flops() -> None:
    layers, width = shape_of(OBSERVED.service.laws)
    assert layers == pytest.approx(32, rel=0.15)
    assert width == pytest.approx(4096, rel=0.15)


def test_two_gpus_are_foreseen_as_a_world_with_two_has_it() -> None:
    setting = setting_of(WhatIf(gpus=2), OBSERVED)
    limits = replace(H100_LLAMA_8B.limits, kv_cache_tokens=setting.service.limits.kv_cache_tokens or 0)
    world = replace(H100_LLAMA_8B, parallel=Parallel(tensor=2), limits=limits)
    true = service_of(world)
    load = with_batch(WORKLOAD, 32.0)
    one, two = steady_state(load, setting.service), steady_state(load, true)
    assert setting.service.gpu_count == 2
    assert setting.service.laws.energy_coefficients == pytest.approx(true.laws.energy_coefficients)
    # The true laws leave the talking out: what is foreseen has it on top.
    assert one.inter_token_seconds > two.inter_token_seconds
    assert setting.service.link.seconds_per_step == pytest.approx(2 * 32 * 12e-6, rel=0.15)
    assert setting.speculative


def test_more_gpus_leave_more_memory_to_the_kv_cache() -> None:
    service = OBSERVED.service
    setting = setting_of(WhatIf(gpus=2), OBSERVED)
    tokens, more = service.limits.kv_cache_tokens, setting.service.limits.kv_cache_tokens
    assert tokens is not None
    assert more is not None
    weights = service.laws.cost.weight_bytes / service.laws.cost.kv_bytes_per_token
    assert more == pytest.approx(2 * tokens + weights, rel=1e-4)


def test_fewer_bits_cost_less_by_physics_and_more_by_what_was_measured_elsewhere() -> None:
    setting = setting_of(WhatIf(precision="fp8"), OBSERVED)
    load = with_batch(WORKLOAD, 8.0)
    figure = FORECASTER.of(load, setting).figures["joules_per_token"]
    now = FORECASTER.of(load, SETTING).figures["joules_per_token"]
    assert figure.value < 0.8 * now.value
    assert figure.high > 1.2 * now.value
    assert any("FP8" in assumption for assumption in setting.assumptions)


def test_a_lower_power_limit_makes_steps_longer_only_where_it_binds() -> None:
    setting = setting_of(WhatIf(power_limit_watts=500.0), OBSERVED)
    for batch, binds in ((1.0, False), (64.0, True)):
        load = with_batch(WORKLOAD, batch)
        now, then = (FORECASTER.of(load, each) for each in (SETTING, setting))
        longer = then.figures["inter_token_seconds"].value / now.figures["inter_token_seconds"].value
        assert (longer > 1.01) == binds
        assert then.figures["watts"].value <= 500.0 * 1.001


@pytest.mark.parametrize(
    ("what_if", "dtype", "message"),
    [
        (WhatIf(power_limit_watts=150.0), "bfloat16", "hardly more than"),
        (WhatIf(precision="fp8"), "", "the engine's own is not known"),
        (WhatIf(gpus=1000), "bfloat16", "1000 GPUs cannot share each layer"),
    ],
)
def test_what_cannot_be_is_refused(what_if: WhatIf, dtype: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        setting_of(what_if, observed_engine(dtype=dtype))


def test_weights_that_do_not_fit_are_refused() -> None:
    service = replace(
        OBSERVED.service, gpu_count=4, limits=replace(OBSERVED.service.limits, kv_cache_tokens=1000)
    )
    with pytest.raises(PlanError, match="do not fit on 1"):
        setting_of(WhatIf(gpus=1), replace(OBSERVED, service=service))


def test_a_plan_is_told_as_json_without_anything_json_lacks() -> None:
    asked = Asked(
        goals=(Goal("inter_token_seconds", 0.03), Goal("first_token_seconds", 1.0)),
        cap=Cap(5000.0, "node", 8),
        what_ifs=(WhatIf(gpus=2),),
        rate=9.0,
    )
    text = json.dumps(told(plan(OBSERVED, asked)), allow_nan=False)
    read = json.loads(text)
    assert [each["name"] for each in read["alternatives"]] == ["as observed", "gpus=2"]
    assert read["rate_per_second"] == 9.0
    first = read["alternatives"][0]
    assert first["by_batch"][0]["at"] == {"batch": 1.0}
    parts = first["at_load"]["joules_per_token_parts"]
    assert sum(parts.values()) == pytest.approx(first["at_load"]["joules_per_token"]["value"])
    assert first["goals"]["requests_per_second"]["load"] > 0.0
