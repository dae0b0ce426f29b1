"""The formula: its units and limits, what draws leave uncertain, levers and fleets."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulescope.errors import ConfigError
from joulescope.insight.estimate.distributions import Exponential, Fixed
from joulescope.insight.estimate.draws import draw
from joulescope.insight.estimate.estimate import MIX, Estimate, estimate
from joulescope.insight.estimate.parameters import Lever, Model, Parameters, Query, Scenario
from joulescope.insight.estimate.spread import spread
from joulescope.insight.estimate.throughput import Law, constant
from tests.insight.estimate.made import distribution, plain

FACTORS = st.floats(1.0, 20.0)
FEW = settings(max_examples=25)


def median(parameters: Parameters, query: str = "q") -> float:
    return next(part for part in estimate(parameters).queries if part.query == query).joules.median


def spread_out(**changes: object) -> Parameters:
    """Everything spread, as in the presets."""
    return plain(
        output="exponential(median=300)",
        prompt="lognormal(p5=100, p95=2000)",
        pue=distribution("lognormal(p5=1.05, p95=1.4)"),
        node_power_ratio=distribution("lognormal(p5=0.4, p95=0.9)"),
        throughput=Law(9.0, (-0.5,), (), (0.2,)),
        **changes,  # type: ignore[arg-type]
    )


def test_the_formula_by_hand() -> None:
    """7 kW, half of it drawn, PUE 1.2, 400 tokens at 2,000 a second: 840 J, which is 0.233 Wh."""
    parameters = plain(pue=Fixed(1.2), node_power_ratio=Fixed(0.5))
    assert median(parameters) == pytest.approx(1.2 * 0.5 * 7000.0 * 400.0 / 2000.0)
    # The paper's form of it: kilowatts, watt hours, and 3.6 between them.
    assert median(parameters) / 3600.0 == pytest.approx(1.2 * 3.5 * 400.0 / (3.6 * 2000.0))


@FEW
@given(factor=FACTORS)
def test_joules_are_linear_in_pue_power_and_length(factor: float) -> None:
    """At a fixed throughput; each by itself, spread or not."""
    once = median(plain())
    assert median(plain(pue=Fixed(factor))) == pytest.approx(factor * once)
    assert median(plain(watts=factor * 7000.0)) == pytest.approx(factor * once)
    assert median(plain(node_power_ratio=Fixed(1.0 / factor))) == pytest.approx(once / factor)
    assert median(plain(output=factor * 400.0)) == pytest.approx(factor * once)
    whole = spread_out()
    scaled = replace(whole, models=(replace(whole.models[0], node_max_watts=Fixed(factor * 7000.0)),))
    assert median(scaled) == pytest.approx(factor * median(whole))


@FEW
@given(factor=st.floats(1.01, 20.0))
def test_more_throughput_costs_fewer_joules(factor: float) -> None:
    """In inverse proportion."""
    assert median(plain(tokens_per_second=2000.0 * factor)) == pytest.approx(median(plain()) / factor)


@FEW
@given(one=st.floats(0.0, 1e5), more=st.floats(1.0, 1e5), slope=st.floats(-2.0, 0.9))
def test_a_longer_answer_never_costs_less(one: float, more: float, slope: float) -> None:
    """As long as throughput grows less than in proportion to its length."""
    law = Law(7.0, output_slopes=(slope,))
    assert median(plain(output=one, throughput=law)) <= median(plain(output=one + more, throughput=law))


def test_no_output_costs_nothing() -> None:
    """The formula counts output tokens alone: a limit of the method, and no division by zero."""
    found = estimate(plain(output=0.0, queries_per_day=1e6))
    assert found.queries[0].joules.median == 0.0
    assert found.fleets[0].joules == 0.0
    assert found.queries[0].tokens_per_second == 0.0


@FEW
@given(queries=st.floats(0.5, 1e12), beta=st.floats(1.0, 3.0))
def test_a_fleet_is_so_many_queries(queries: float, beta: float) -> None:
    """Mean joules of a query, times queries, times the factors of a fleet; the day has 86,400 seconds."""
    parameters = spread_out(queries_per_day=queries, fleet_factors=(("a", beta), ("b", 1.1)))
    found = estimate(parameters)
    (fleet,) = found.fleets
    assert fleet.joules == pytest.approx(found.queries[0].joules.mean * queries * beta * 1.1)
    assert fleet.watts == pytest.approx(fleet.joules / 86400.0)


def test_nodes_that_a_fleet_keeps_busy() -> None:
    """A query of 400 tokens at 2,000 a second takes a fifth of a second: 432,000 a day are one node."""
    (fleet,) = estimate(plain(queries_per_day=432_000.0)).fleets
    assert fleet.busy_nodes == pytest.approx(1.0)


def test_carbon_and_price_of_a_fleet() -> None:
    """A query takes 1,400 J; a million are 388.9 kWh."""
    parameters = plain(
        queries_per_day=1e6,
        carbon_grams_per_kwh=distribution("uniform(0, 200)"),
        price_per_kwh=distribution(0.25),
    )
    (fleet,) = estimate(parameters).fleets
    kwh = 1400.0 * 1e6 / 3.6e6
    assert fleet.carbon_kilograms == pytest.approx((kwh * 0.01, kwh * 0.1, kwh * 0.19))
    assert fleet.price == pytest.approx((kwh * 0.25,) * 3)
    (other,) = estimate(plain(queries_per_day=1e6)).fleets
    assert other.carbon_kilograms is None
    assert other.price is None


def test_the_same_seed_gives_the_same_figures() -> None:
    """To the last bit; another seed gives others."""
    first, again = (estimate(spread_out(seed=3)).queries for _ in range(2))
    assert first == again
    assert estimate(spread_out(seed=4)).queries != first


def test_a_change_of_one_parameter_leaves_the_draws_of_others() -> None:
    """Lengths are drawn by a stream of their own."""
    before, after = (draw(each)["q"][0] for each in (spread_out(), spread_out(seed=1)))
    other = draw(replace(spread_out(), pue=Fixed(1.1)))["q"][0]
    np.testing.assert_array_equal(before.joules, after.joules)
    np.testing.assert_array_equal(before.output_tokens, other.output_tokens)
    assert (before.pue != other.pue).all()


@pytest.mark.parametrize("trim", [None, (0.14, 0.86)])
def test_the_stated_error_of_the_median_is_its_scatter_over_seeds(trim: tuple[float, float] | None) -> None:
    """Two models and two kinds of query in strata, tails left out or not: over 100 seeds they agree."""
    models = (Model("a", 2.0, Fixed(5e3), constant(1e3)), Model("b", 1.0, Fixed(9e3), constant(2e3)))
    queries = (
        Query("x", 3.0, Fixed(1.0), Exponential(300.0)),
        Query("y", 1.0, Fixed(1.0), Exponential(3000.0)),
    )
    found = [
        estimate(Parameters(models, queries, seed=seed, samples=1000, trim_quantiles=trim)).queries[-1].joules
        for seed in range(100)
    ]
    stated = float(np.mean([each.median_error for each in found]))
    assert float(np.std([each.median for each in found])) == pytest.approx(stated, rel=0.25)
    mean_stated = float(np.mean([each.mean_error for each in found]))
    assert float(np.std([each.mean for each in found])) == pytest.approx(mean_stated, rel=0.25)


def test_an_exponential_keeps_its_closed_form() -> None:
    """Joules in proportion to an exponential length: median and quartiles are known."""
    found = estimate(plain(output="exponential(median=300)", samples=200_000)).queries[0].joules
    scale = 7000.0 / 2000.0 * 300.0
    assert found.median == pytest.approx(scale, abs=5.0 * found.median_error)
    assert found.lower_quartile == pytest.approx(scale * math.log(4 / 3) / math.log(2), rel=0.02)
    assert found.upper_quartile == pytest.approx(2.0 * scale, rel=0.02)
    assert found.mean == pytest.approx(scale / math.log(2), abs=5.0 * found.mean_error)


def mixed(share: float) -> Estimate:
    queries = (Query("x", 1.0 - share, Fixed(1.0), Fixed(100.0)), Query("y", share, Fixed(1.0), Fixed(900.0)))
    return estimate(replace(plain(queries_per_day=1e6), queries=queries))


@FEW
@given(share=st.floats(0.0, 1.0))
def test_a_mix_is_the_mean_of_its_kinds(share: float) -> None:
    """By their shares, in mean joules, tokens and the fleet; the throughput is tokens by seconds."""
    found = mixed(share)
    one, other, mix = found.queries
    assert mix.query == MIX
    assert mix.joules.mean == pytest.approx((1.0 - share) * one.joules.mean + share * other.joules.mean)
    assert found.fleets[0].joules == pytest.approx(1e6 * mix.joules.mean)
    assert mix.tokens_per_second == pytest.approx(2000.0)


def test_the_median_of_a_mix_is_that_of_most() -> None:
    """Two values: the one that more than half have."""
    one, other = (mixed(share).queries for share in (0.3, 0.7))
    assert one[-1].joules.median == pytest.approx(one[0].joules.median)
    assert other[-1].joules.median == pytest.approx(other[1].joules.median)


@FEW
@given(factors=st.lists(st.floats(0.5, 10.0), min_size=1, max_size=4))
def test_levers_multiply(factors: list[float]) -> None:
    """Joules are divided by the product; the fleet's too."""
    levers = tuple(Lever(f"l{at}", Fixed(factor)) for at, factor in enumerate(factors))
    found = estimate(spread_out(queries_per_day=1e6, scenarios=(Scenario("s", levers),)))
    product = math.prod(factors)
    whole = [each for each in found.levers if not each.lever] or found.levers
    assert whole[0].factor.median == pytest.approx(product)
    assert whole[0].joules.median == pytest.approx(found.queries[0].joules.median / product)
    plain_fleet, pulled = found.fleets
    assert pulled.joules == pytest.approx(plain_fleet.joules / product)
    assert pulled.busy_nodes is None


def test_a_lever_may_act_on_one_kind_alone() -> None:
    """The other kind keeps its joules, and the mix has some of it."""
    queries = (Query("x", 0.5, Fixed(1.0), Fixed(100.0)), Query("y", 0.5, Fixed(1.0), Fixed(900.0)))
    levers = (Lever("short", Fixed(2.0), ("x",)), Lever("long", Fixed(4.0), ("y",)))
    made = replace(plain(queries_per_day=1e6), queries=queries, scenarios=(Scenario("s", levers),))
    found = estimate(made)
    by = {(each.lever, each.query): each.joules.mean for each in found.levers}
    assert by.keys() == {("short", "x"), ("long", "y"), ("", MIX)}
    assert by["short", "x"] == pytest.approx(found.queries[0].joules.mean / 2.0)
    assert found.fleets[1].joules == pytest.approx(1e6 * by["", MIX])


def test_trimmed_medians_leave_out_tails_and_means_do_not() -> None:
    """The quartiles move in, the median stays, the mean is that of all."""
    whole, cut = spread_out(samples=20_000), spread_out(samples=20_000, trim_quantiles=(0.14, 0.86))
    before, after = (estimate(each).queries[0].joules for each in (whole, cut))
    assert after.median == pytest.approx(before.median, rel=0.02)
    assert before.lower_quartile < after.lower_quartile < after.upper_quartile < before.upper_quartile
    assert after.mean == before.mean


def test_lengths_beyond_what_was_observed_are_counted() -> None:
    """Half of the queries are longer than 300 tokens."""
    law = Law(7.0, input_range=(1.0, 1000.0), output_range=(0.0, 300.0))
    found = estimate(plain(output="exponential(median=300)", throughput=law, samples=10_000))
    assert found.queries[0].extrapolated == pytest.approx(0.5, abs=0.03)
    assert any("beyond those" in note for note in found.notes)
    assert estimate(plain(output=200.0, throughput=law)).notes == ()


def test_lengths_that_came_together_are_drawn_together() -> None:
    """Long prompts with short answers: apart, some would be long in both."""
    pairs = {
        "prompt": "empirical(values=[100, 5000], weights=[0.5, 0.5])",
        "output": "empirical(values=[900, 10], weights=[0.5, 0.5])",
        "throughput": Law(9.0, (-1.0,)),
    }
    apart = plain(**pairs)  # type: ignore[arg-type]
    together = replace(apart, queries=(replace(apart.queries[0], paired=True),))
    seconds = [each.queries[0].joules.mean / 7000.0 for each in map(estimate, (together, apart))]
    expected = 0.5 * (900 * 100 + 10 * 5000) / math.exp(9.0)
    assert seconds[0] == pytest.approx(expected, rel=0.05)
    assert seconds[1] > 10.0 * seconds[0]
    for other in (plain(), plain(prompt="empirical(values=[1, 2], weights=[1, 3])", output=pairs["output"])):  # type: ignore[arg-type]
        broken = replace(other, queries=(replace(other.queries[0], paired=True),))
        with pytest.raises(ConfigError, match=r"queries\.q\.paired: both lengths are to be empirical"):
            estimate(broken)


def test_scatter_of_the_law_spreads_the_joules() -> None:
    """Its logarithm by as much."""
    found = estimate(plain(throughput=Law(7.0, scatter=0.3), samples=50_000)).queries[0].joules
    sigma = math.log(found.upper_quartile / found.lower_quartile) / (2 * 0.67449)
    assert sigma == pytest.approx(0.3, rel=0.03)


def test_the_mean_behind_a_lever_is_of_all_draws_as_that_before_it_is() -> None:
    """A lever that divides by one changes no figure; tails are left out of medians alone."""
    lever = Lever("none", Fixed(1.0))
    found = estimate(spread_out(trim_quantiles=(0.14, 0.86), scenarios=(Scenario("s", (lever,)),)))
    (query,), (lowered,) = found.queries, found.levers
    assert lowered.joules == query.joules
    assert query.joules.mean > 1.2 * estimate(spread_out(trim_quantiles=None)).queries[0].joules.median


def test_weights_of_strata_count_and_not_their_numbers() -> None:
    """A stratum of few draws weighs what it is said to."""
    found = spread([(3.0, np.zeros(10)), (1.0, np.ones(1000))])
    assert found.mean == pytest.approx(0.25)
    assert found.median == 0.0


OBSERVED = "empirical(values=[-9, 100], weights=[1, 99])"
"""One in a hundred was written down wrongly."""


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pue": Fixed(0.9)}, "pue: 0.9: its P5 is 0.9; it is to be 1 or above"),
        ({"node_power_ratio": Fixed(0.0)}, "node_power_ratio: 0: its P5 is 0; it is to be above 0"),
        ({"node_power_ratio": Fixed(70.0)}, "node_power_ratio: 70: its P95 is 70; it is to be 1 or below"),
        ({"watts": -1.0}, "models.m.node_max_watts: -1"),
        ({"watts": 1e31}, "models.m.node_max_watts: 1e+31: its mean is too large"),
        ({"pue": distribution("lognormal(median=1e9, sigma=50)")}, "its mean is too large to reckon with"),
        ({"throughput": Law(-1000.0)}, "no figure comes of a draw: look at the throughput"),
        ({"throughput": Law(1000.0)}, "which goes from inf to inf tokens a second"),
        ({"throughput": Law(5.0, scatter=1000.0)}, "queries.q, models.m: no figure comes of a draw"),
        ({"output": OBSERVED}, "queries.q.output_tokens: empirical(values=[-9, 100]"),
        ({"trim_quantiles": (0.5, 0.500001)}, "are to rise, from 0 to 1, by 0.05 or more"),
        ({"queries_per_day": 1e308}, "queries_per_day: 1e+308 is not 0 or above, or too large"),
        ({"output": -3.0}, "queries.q.output_tokens: -3"),
        ({"models": ()}, "models: there is none; name a preset"),
        ({"queries": ()}, "queries: there is none"),
        ({"trim_quantiles": (0.9, 0.1)}, "trim_quantiles"),
        ({"queries_per_day": -1.0}, "queries_per_day: -1.0 is not 0 or above"),
        ({"fleet_factors": (("x", 0.9),)}, "fleet.factors.x: 0.9 is below 1"),
        ({"carbon_grams_per_kwh": Fixed(-1.0)}, "carbon_grams_per_kwh: -1"),
        ({"scenarios": (Scenario("s", (Lever("l", Fixed(0.0)),)),)}, "levers.s.l: 0"),
        ({"scenarios": (Scenario("s", (Lever("l", Fixed(1.0), ("z",)),)),)}, "no query z; there is q"),
        ({"samples": 5}, "samples: 5 is not from 100"),
        ({"seed": -1}, "seed: -1 is below 0"),
    ],
)
def test_parameters_that_cannot_be_are_refused(changes: dict[str, object], told: str) -> None:
    """By name, with what would do."""
    with pytest.raises(ConfigError) as refused:
        estimate(plain(**changes))  # type: ignore[arg-type]
    assert told in str(refused.value)
