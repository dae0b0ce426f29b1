"""An estimate beside a meter: the factor is the product of its causes, and each cause shows as itself."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulescope.errors import ConfigError, MinuteError
from joulescope.insight.estimate.distributions import Fixed
from joulescope.insight.estimate.estimate import MIX, estimate
from joulescope.insight.estimate.measured import Measured, measure, measured_lengths, measured_mixtures
from joulescope.insight.estimate.parameters import Model, Parameters, Query
from joulescope.insight.estimate.throughput import Law, constant
from joulescope.insight.estimate.versus import Versus, versus
from joulescope.minute_model import EngineMinute, Joules, Kind, Load, TaskSums, Tokens
from tests.insight.estimate.made import plain
from tests.made_minutes import minutes

GPUS, GPU_WATTS, TOKENS_PER_SECOND = 8, 500.0, 4000.0
PROMPT, OUTPUT, QUERIES = 600, 250, 1000


def minute(**changes: object) -> EngineMinute:
    """Eight GPUs drew 500 W each while 250,000 tokens were made at 4,000 a second, then idled a little."""
    tokens = OUTPUT * QUERIES
    busy = tokens / TOKENS_PER_SECOND
    serving = GPUS * GPU_WATTS * busy
    made = EngineMinute(
        kind=Kind("e", gpu_name="H100", gpu_count=GPUS),
        start_wall_seconds=0.0,
        end_wall_seconds=100.0,
        joules=Joules(
            measured=1.1 * serving, prefill=0.3 * serving, decode=0.7 * serving, idle=0.1 * serving
        ),
        tokens=Tokens(generated=tokens, decode=tokens),
        load=Load(seconds=100.0, busy_seconds=busy),
        tasks=(TaskSums("", 18, 15, requests=QUERIES, prompt_tokens=PROMPT * QUERIES, output_tokens=tokens),),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def same_as_measured(**changes: object) -> Parameters:
    """An estimate that is right in everything."""
    model = Model("m", 1.0, Fixed(GPUS * GPU_WATTS), constant(TOKENS_PER_SECOND), GPUS)
    query = Query("q", 1.0, Fixed(float(PROMPT)), Fixed(float(OUTPUT)))
    made = Parameters((model,), (query,), fleet_factors=(("idle", 1.1),), samples=1000)
    return replace(made, **changes)  # type: ignore[arg-type]


def laid(parameters: Parameters, **options: object) -> Versus:
    return versus(estimate(parameters), measure([minute()], "here"), **options)  # type: ignore[arg-type]


def parts(found: Versus) -> dict[str, float]:
    return {each.name: each.factor for each in found.factors}


def test_what_is_measured_by_hand() -> None:
    """A query: 250 tokens at 4,000 a second by 4 kW, and a tenth for idling."""
    found = measure([minute()], "here")
    assert found.joules_per_query == pytest.approx(1.1 * 4000.0 * 250.0 / 4000.0)
    assert found.gpu_watts == pytest.approx(GPU_WATTS)
    assert found.gpu_tokens_per_second == pytest.approx(TOKENS_PER_SECOND / GPUS)
    assert found.overhead_factor == pytest.approx(1.1)
    assert (found.input_lengths.mean, found.output_lengths.mean) == (PROMPT, OUTPUT)


def test_an_estimate_that_is_right_differs_in_nothing() -> None:
    """All factors are one."""
    found = laid(same_as_measured())
    assert found.factor == pytest.approx(1.0)
    assert all(factor == pytest.approx(1.0) for factor in parts(found).values())


PLANTED = {
    "pue": lambda made, by: replace(made, pue=Fixed(by)),
    "idle-and-overhead": lambda made, by: replace(made, fleet_factors=(("idle", 1.1 * by),)),
    "power": lambda made, by: replace(
        made, models=(replace(made.models[0], node_max_watts=Fixed(GPUS * GPU_WATTS * by)),)
    ),
    "output-length": lambda made, by: replace(
        made, queries=(replace(made.queries[0], output_tokens=Fixed(OUTPUT * by)),)
    ),
    "throughput": lambda made, by: replace(
        made, models=(replace(made.models[0], throughput=constant(TOKENS_PER_SECOND / by)),)
    ),
}


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("by", [1.7, 4.0])
def test_a_planted_difference_shows_as_itself(name: str, by: float) -> None:
    """And as nothing else."""
    found = laid(PLANTED[name](same_as_measured(), by))
    assert found.factor == pytest.approx(by)
    for each, factor in parts(found).items():
        assert factor == pytest.approx(by if each == name else 1.0), each


def test_lengths_act_on_throughput_too() -> None:
    """A law right at the measured lengths, asked at others: tokens, and their effect on throughput."""
    right = Law(math.log(TOKENS_PER_SECOND / math.sqrt(OUTPUT)), output_slopes=(0.5,))
    parameters = same_as_measured()
    model = replace(parameters.models[0], throughput=right)
    query = replace(parameters.queries[0], output_tokens=Fixed(4.0 * OUTPUT))
    found = parts(laid(replace(parameters, models=(model,), queries=(query,))))
    assert found["output-length"] == pytest.approx(4.0)
    assert found["throughput-by-length"] == pytest.approx(0.5)
    assert found["throughput"] == pytest.approx(1.0)


def test_nodes_of_other_sizes_are_laid_beside_by_gpu() -> None:
    """A node of 16 with twice the power and twice the tokens is no difference."""
    parameters = same_as_measured()
    double = Model("m", 1.0, Fixed(2 * GPUS * GPU_WATTS), constant(2 * TOKENS_PER_SECOND), 2 * GPUS)
    assert all(
        factor == pytest.approx(1.0) for factor in parts(laid(replace(parameters, models=(double,)))).values()
    )


def test_a_measured_pue_is_taken_out() -> None:
    """Then both sides are joules of the building."""
    found = laid(replace(same_as_measured(), pue=Fixed(1.3)), measured_pue=1.3)
    assert found.factor == pytest.approx(1.0)
    assert not any("no overhead of a building" in note for note in found.notes)
    assert any("no overhead of a building" in note for note in laid(same_as_measured()).notes)


@settings(max_examples=30)
@given(
    joules=st.floats(1.0, 1e9),
    share=st.floats(0.05, 1.0),
    busy=st.floats(0.01, 1e6),
    tokens=st.floats(1.0, 1e9),
    pue=st.none() | st.floats(1.0, 2.0),
    query=st.sampled_from(["q", MIX]),
)
def test_the_factors_multiply_to_the_whole(
    joules: float, share: float, busy: float, tokens: float, pue: float | None, query: str
) -> None:
    """Exactly, whatever was measured, and their logarithms sum up."""
    base = measure([minute()], "here")
    measured: Measured = replace(
        base, joules=joules, serving_joules=share * joules, busy_gpu_seconds=busy, output_tokens=tokens
    )
    parameters = plain(
        output="exponential(median=300)",
        prompt="uniform(100, 900)",
        throughput=Law(9.0, (-0.4,), (), (0.2,)),
        samples=500,
        fleet_factors=(("a", 1.33),),
    )
    found = versus(estimate(parameters), measured, query=query, measured_pue=pue)
    assert math.prod(each.factor for each in found.factors) == pytest.approx(found.factor, rel=1e-9)
    assert sum(each.log for each in found.factors) == pytest.approx(math.log(found.factor), abs=1e-8)


def test_a_kind_of_query_that_is_not_there() -> None:
    """There is q, and the mix."""
    with pytest.raises(ConfigError, match="'long' is not there; there is q, mix"):
        laid(same_as_measured(), query="long")


def test_queries_without_output_have_no_factor() -> None:
    """It would be zero, and its logarithm none."""
    query = replace(same_as_measured().queries[0], output_tokens=Fixed(0.0))
    with pytest.raises(ConfigError, match="no factor"):
        laid(same_as_measured(queries=(query,)))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"joules": Joules()}, "a joule of a GPU"),
        ({"tokens": Tokens()}, "an output token"),
        ({"load": Load(seconds=60.0)}, "time in which a request ran"),
        ({"tasks": ()}, "a finished request with tokens"),
        ({"kind": Kind("e", unit="image")}, "a joule of a GPU"),
        ({"tasks": (TaskSums("", 1, 1, output_tokens=5),)}, "a finished request with tokens"),
    ],
)
def test_what_a_measurement_lacks_is_said(changes: dict[str, object], told: str) -> None:
    """Absent is not zero."""
    with pytest.raises(MinuteError, match=told):
        measure([minute(**changes)], "here")


def test_mixtures_of_minutes() -> None:
    """A node of 16 such GPUs would make twice the tokens; minutes without a finished request say nothing."""
    (mixture,) = measured_mixtures([minute(), minute(tasks=())], 2 * GPUS, "here")
    assert (mixture.queries, mixture.input_tokens, mixture.output_tokens) == (QUERIES, PROMPT, OUTPUT)
    assert mixture.node_seconds == pytest.approx(QUERIES * OUTPUT / (2 * TOKENS_PER_SECOND))
    with pytest.raises(MinuteError, match="nothing to fit"):
        measured_mixtures([minute(tasks=())], 8, "here")
    with pytest.raises(MinuteError, match="lengths are not known"):
        measured_lengths([minute(tasks=())], "here")


@settings(max_examples=50)
@given(st.lists(minutes(), max_size=3))
def test_any_minutes_are_measured_or_refused(found: list[EngineMinute]) -> None:
    """With a message, never with another error."""
    for read in (measure, measured_lengths, lambda each, source: measured_mixtures(each, 8, source)):
        try:
            read(found, "here")
        except MinuteError as error:
            refused = str(error)
        else:
            refused = "here: "
        assert refused.startswith("here: ")
