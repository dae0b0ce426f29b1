"""Parameters as a file: printed whole, read back to the same, refused by place and word."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from joulescope.errors import ConfigError
from joulescope.insight.estimate.distributions import Exponential, Fixed, parse_distribution
from joulescope.insight.estimate.document import EMPTY, from_document, to_document
from joulescope.insight.estimate.files import read_document, read_points, write_document
from joulescope.insight.estimate.parameters import Lever, Model, Parameters, Query, Scenario, changed
from joulescope.insight.estimate.presets import PRESETS
from joulescope.insight.estimate.throughput import Law, Point, Table
from tests.examples import examples

DISTRIBUTIONS = st.sampled_from(
    [
        "1.2",
        "uniform(1, 2.5)",
        "lognormal(p5=1.05, p95=1.4)",
        "exponential(median=300)",
        "empirical(values=[1, 2.5], weights=[0.25, 0.75])",
    ]
).map(lambda text: parse_distribution(text, "test"))
NAMES = st.from_regex(r"[a-z][a-z0-9.-]{0,6}", fullmatch=True)
NUMBERS = st.floats(0.0, 1e12)
THROUGHPUTS = st.one_of(
    st.builds(Law, st.floats(-5, 15), st.tuples(st.floats(-2, 2)), scatter=st.floats(0, 1), source=NAMES),
    st.just(Law(9.0, (-0.2, -0.9), (2000.0,), (0.3,), (), 4000.0, 0.1, (1.0, 9.0), (2.0, 8.0), "here")),
    st.just(Table((1.0, 2.0), (3.0,), ((4.0,), (5.0,)), 0.2, "there")),
)
MODELS = st.builds(Model, NAMES, NUMBERS, DISTRIBUTIONS, THROUGHPUTS, st.integers(1, 72))
QUERIES = st.builds(Query, NAMES, NUMBERS, DISTRIBUTIONS, DISTRIBUTIONS)
LEVERS = st.builds(Lever, NAMES, DISTRIBUTIONS, st.lists(NAMES, max_size=2).map(tuple))


def unique(parts: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(parts, max_size=3, unique_by=lambda part: part.name).map(tuple)


PARAMETERS = st.builds(
    Parameters,
    models=unique(MODELS),
    queries=unique(QUERIES),
    preset=st.sampled_from(["", "v1", "v2"]),
    pue=DISTRIBUTIONS,
    node_power_ratio=DISTRIBUTIONS,
    trim_quantiles=st.sampled_from([None, (0.14, 0.86)]),
    queries_per_day=NUMBERS,
    fleet_factors=st.dictionaries(NAMES, NUMBERS, max_size=2).map(lambda found: tuple(found.items())),
    carbon_grams_per_kwh=st.none() | DISTRIBUTIONS,
    price_per_kwh=st.none() | DISTRIBUTIONS,
    currency=NAMES,
    scenarios=unique(st.builds(Scenario, NAMES, unique(LEVERS))),
    samples=st.integers(100, 10**6),
    seed=st.integers(0, 10**9),
)


NAN = math.nan


def law(**changes: object) -> dict[str, object]:
    return {"models": {"x": {"node_max_watts": 1, "throughput": {"intercept": 1, **changes}}}}


def table(**changes: object) -> dict[str, object]:
    cells = {"input_tokens": [1], "output_tokens": [1], "tokens_per_second": [[1]], **changes}
    return {"models": {"x": {"node_max_watts": 1, "throughput": cells}}}


@settings(max_examples=examples(40))
@given(PARAMETERS)
def test_whatever_is_written_reads_back_to_the_same(parameters: Parameters) -> None:
    """Through YAML, to the last digit: a file reproduces a run."""
    text = write_document(to_document(parameters))
    assert from_document(yaml.safe_load(text), "file") == parameters
    assert from_document(yaml.safe_load(text), "file", EMPTY) == parameters


def test_what_a_file_leaves_out_is_as_in_its_preset() -> None:
    """Also within a kind of query or a model; those that are not named are not there."""
    made = from_document({"preset": "v1", "queries": {"long": {"weight": 1}}, "pue": 1.1}, "file")
    assert made.preset == "v1"
    assert made.pue == Fixed(1.1)
    (long,) = made.queries
    assert long.output_tokens == Exponential(5000.0)
    assert made.models == PRESETS["v1"].parameters.models
    model = {"llama-3.1-405b": {"throughput": 2000}}
    (only,) = from_document({"preset": "v2", "models": model}, "file").models
    assert only.node_max_watts == Fixed(10_200.0)
    assert only.throughput.rates(*2 * [parse_distribution("9", "").sample(None, 1)])[0] == pytest.approx(
        2000.0
    )


def test_a_lever_may_be_a_factor_alone() -> None:
    """The short form."""
    made = from_document({"preset": "v1", "levers": {"mine": {"fp8": "uniform(1.1, 1.5)"}}}, "file")
    assert [lever.name for lever in made.scenarios[0].levers] == ["fp8"]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([1], "a mapping of names to values is expected"),
        ({"preset": "v3"}, "file: preset: 'v3' is not known; there is v1, v2"),
        ({"puee": 1}, "file: puee is not known; there is preset, samples"),
        ({"fleet": {"size": 1}}, "file: fleet.size is not known"),
        ({"samples": 1.5}, "file: samples: 1.5 is no whole number"),
        ({"samples": True}, "file: samples: True is no number"),
        ({"pue": "uniform(1)"}, "file: pue: uniform(1): high is missing"),
        ({"currency": 3}, "file: currency: 3 is no text"),
        ({"trim_quantiles": 0.5}, "is no list of numbers"),
        ({"trim_quantiles": [0.5]}, "two quantiles are expected"),
        ({"queries": {"x": {"weight": 1}}}, "file: queries.x: input_tokens, output_tokens is missing"),
        ({"queries": {"x": {"tokens": 1}}}, "file: queries.x.tokens is not known"),
        ({"preset": "v1", "queries": {"long": {"paired": 1}}}, "paired: 1 is neither true nor false"),
        ({"models": {"x": {"throughput": 1}}}, "file: models.x: node_max_watts is missing"),
        ({"models": {"x": {"node_max_watts": 1, "throughput": -1}}}, "are not above 0"),
        (
            {"models": {"x": {"node_max_watts": 1, "throughput": NAN}}},
            "file: models.x.throughput: nan tokens",
        ),
        ({"models": {"x": {"gpus_per_node": NAN}}}, "file: models.x: node_max_watts, throughput is missing"),
        ({"samples": NAN}, "file: samples: nan is no whole number"),
        ({"seed": math.inf}, "file: seed: inf is no whole number"),
        (law(input_slopes=1), "file: models.x.throughput.input_slopes: 1 is no list of numbers"),
        (law(intercept=None), "file: models.x.throughput.intercept: None is no number"),
        (law(input_range=[5]), "input_range takes the fewest tokens and the most"),
        (law(most_tokens_per_second=NAN), "most_tokens_per_second is to be above 0"),
        (law(input_slopes=[1, 2], input_knots=[NAN]), "input_knots are to rise"),
        (table(input_tokens=[1, NAN], tokens_per_second=[[1], [2]]), "input_tokens are to rise"),
        (table(input_tokens=5), "file: models.x.throughput.input_tokens: 5 is no list of numbers"),
        (table(scatter=-3), "the scatter is to be 0 or above"),
        (table(scatter=NAN), "the scatter is to be 0 or above"),
        ({"models": {"x": {"node_max_watts": 1, "throughput": {}}}}, "file: models.x.throughput: "),
        ({"models": {"x": {"node_max_watts": 1, "throughput": {"slope": 1}}}}, "not known to a law"),
        (
            {"models": {"x": {"node_max_watts": 1, "throughput": {"tokens_per_second": 3}}}},
            "models.x.throughput.tokens_per_second: 3 is no list of rows",
        ),
        (
            {"models": {"x": {"node_max_watts": 1, "throughput": {"intercept": 1, "input_slopes": [1, 2]}}}},
            "input_slopes takes one more value than input_knots",
        ),
        ({"levers": {"s": {"l": {"queries": ["x"]}}}}, "file: levers.s.l: factor is missing"),
        ({"levers": {"s": {"l": {"factor": 1, "queries": "x"}}}}, "is no list of names"),
        ({"fleet": {"factors": {"x": "y"}}}, "file: fleet.factors.x: 'y' is no number"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_place(document: object, told: str) -> None:
    """Key and value."""
    with pytest.raises(ConfigError) as refused:
        from_document(document, "file")
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "not YAML: while parsing"),
        ("pue: 2026-13-45", "not YAML: month must be in 1..12"),
        pytest.param("a: " + "[" * 5000, "not YAML: maximum recursion", id="too deep"),
        ("- 1", "a mapping of parameters is expected"),
        ("", "a mapping"),
    ],
)
def test_a_file_that_is_no_yaml(tmp_path: Path, text: str, told: str) -> None:
    """Or no mapping."""
    path = tmp_path / "parameters.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_document(path)


BENCHMARK = '{"completed": 10, "duration": 5.0, "total_input_tokens": 5000, "total_output_tokens": 2000}'
HUGE = BENCHMARK.replace("10,", f"1{'0' * 400},")


@pytest.mark.parametrize("text", [BENCHMARK, f"[{BENCHMARK}]", f"{BENCHMARK}\n{BENCHMARK}\n"])
def test_results_of_benchmarks_are_points(tmp_path: Path, text: str) -> None:
    """One, a list, or one a line: mean lengths, and tokens by the duration."""
    path = tmp_path / "result.json"
    path.write_text(text)
    assert set(read_points(path)) == {Point(500.0, 200.0, 400.0)}


def test_a_mark_before_the_first_column_does_not_matter(tmp_path: Path) -> None:
    """Spreadsheets write it."""
    path = tmp_path / "points.csv"
    path.write_text("\ufeffinput_tokens,output_tokens,tokens_per_second\n500,300,2000\n")
    assert read_points(path) == [Point(500.0, 300.0, 2000.0)]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        pytest.param("a.csv", f"input_tokens\n{'1' * 200_000}\n", "after line 1: not CSV", id="wide"),
        ("a.csv", "input_tokens;output_tokens\n", "the heading lacks .* columns are parted by commas"),
        pytest.param("a.json", "[" * 100_000, "neither JSON nor JSON lines", id="too deep"),
        pytest.param("a.json", HUGE, "result 1: a number in it is too large", id="huge"),
    ],
)
def test_points_that_no_program_reads_are_refused(tmp_path: Path, name: str, text: str, told: str) -> None:
    """With the file."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=told) as refused:
        read_points(path)
    assert str(path) in str(refused.value)


def test_a_table_of_points(tmp_path: Path) -> None:
    """Other columns do not matter."""
    path = tmp_path / "points.csv"
    path.write_text(
        "gpu,input_tokens,output_tokens,tokens_per_second,weight\nx,500,300,2000,2\nx,500,900,2500,\n"
    )
    assert read_points(path) == [Point(500.0, 300.0, 2000.0, 2.0), Point(500.0, 900.0, 2500.0)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n1,2\n", "the heading lacks input_tokens, output_tokens, tokens_per_second"),
        ("input_tokens,output_tokens,tokens_per_second\n", "no throughput in it"),
        ("input_tokens,output_tokens,tokens_per_second\n1,2,x\n", "line 2: a cell is no number"),
        ("input_tokens,output_tokens,tokens_per_second\n1,2\n", "line 2: a cell is no number"),
        ("input_tokens,output_tokens,tokens_per_second\n1,2,0\n", "line 2: tokens, seconds and rates"),
        ('{"completed": 1}', "result 1: not a result of vllm bench serve"),
        (BENCHMARK.replace("10", "0"), "result 1: tokens, seconds and rates"),
        ('{"a": 1}\n{', "neither JSON nor JSON lines"),
    ],
)
def test_points_that_cannot_be_used(tmp_path: Path, text: str, told: str) -> None:
    """With the line."""
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_points(path)
    assert told in str(refused.value)


def test_seed_and_samples_are_no_change_of_a_preset() -> None:
    """What moves figures is named, and nothing else."""
    one = PRESETS["v1"].parameters
    typical, long = one.queries
    assert changed(replace(one, seed=9, samples=1000), one) == ()
    assert changed(replace(one, pue=Fixed(1.1)), one) == ("pue",)
    assert changed(replace(one, queries=(typical, replace(long, weight=1.0))), one) == ("mix",)
    assert changed(replace(one, queries=(typical,)), one) == ("queries",)
