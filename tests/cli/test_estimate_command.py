"""`joulescope estimate`: through the real command line."""

from __future__ import annotations

import io
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from joulescope.cli.estimate import command
from joulescope.cli.estimate_text import show
from joulescope.cli.main import main
from joulescope.ingest.trace import TraceWriter
from joulescope.insight.estimate.distributions import Fixed
from joulescope.insight.estimate.estimate import estimate
from joulescope.insight.estimate.measured import measure
from joulescope.insight.estimate.presets import PRESETS
from joulescope.insight.estimate.sensitivity import sensitivity
from joulescope.insight.estimate.versus import versus
from joulescope.minute_model import EngineMinute
from joulescope.minutes import json_line
from joulescope.simulation.traces import SimulatedRun
from tests.insight.estimate.made import distribution
from tests.insight.estimate.test_versus import OUTPUT, PROMPT, minute
from tests.requirements import need_package
from tests.simulated_ledger import simulate

PRESET = ("--preset", "v2", "--samples", "2000")


ONE = ("--node-max-watts", "10200", "--input-tokens", "500", "--output-tokens", "300")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(each) for each in arguments], catch_exceptions=False)


def told(*arguments: object) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(run(*arguments, "--json").output)
    return document


def query(document: dict[str, Any], name: str = "typical") -> dict[str, Any]:
    return next(each for each in document["queries"] if each["query"] == name)


def minutes_file(path: Path, *minutes: EngineMinute) -> Path:
    path.write_text("".join(f"{json_line(each)}\n" for each in minutes))
    return path


def test_the_text_says_what_people_ask() -> None:
    """A query, what is published beside it, levers, a fleet; and what the figures rest on."""
    text = run(*PRESET, "--carbon", "uniform(300, 500)", "--price", "0.1", "--currency", "EUR").output
    for words in (
        "estimated, not measured",
        "arXiv 2509.20241 v2",
        "watt hours (± from the draws)",
        "Beside what v2 publishes",
        "line-of-sight: all together",
        "1e+09 queries a day",
        "CO₂e a day",
        "Carbon and money of the mean query",
        "EUR a day",
        "the law is a guess",
        "v2: the program published with v2",
    ):
        assert words in text


def test_a_narrow_terminal_cuts_no_figure() -> None:
    """Columns are left out in place of digits."""
    lines: list[str] = []
    for width in (80, 140):
        console = Console(width=width, file=io.StringIO(), force_terminal=False)
        parameters = replace(PRESETS["v1"].parameters, samples=1000, price_per_kwh=Fixed(0.1))
        found = estimate(replace(parameters, carbon_grams_per_kwh=distribution("uniform(300, 500)")))
        measured = measure([minute()], "here")
        swings = sensitivity(parameters)
        show(console, found, versus=versus(found, measured), swings=swings, notes=())
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert "…" not in text
        lines.append(text)
    assert "busy nodes" not in lines[0]
    assert "busy nodes" in lines[1]


def test_json_is_whole_and_reproducible() -> None:
    """Twice the same; joules and their errors, and the parameters as a document."""
    first, again = (told(*PRESET) for _ in range(2))
    assert first == again
    joules = query(first)["joules"]
    assert joules["lower_quartile"] < joules["median"] < joules["upper_quartile"]
    assert 0.0 < joules["median_error"] < 0.05 * joules["median"]
    assert first["parameters"]["pue"] == "lognormal(p5=1.05, p95=1.6)"
    assert first["fleets"][0]["joules_per_day"] > 0.0


def test_show_prints_a_file_that_reproduces_the_run(tmp_path: Path) -> None:
    """Flags included: the file alone gives the same figures."""
    flags = (*PRESET, "--pue", "uniform(1.1, 1.3)", "--mix", "typical=0.8,long=0.2", "--seed", 7)
    path = tmp_path / "run.yaml"
    path.write_text(run(*flags, "--show").output)
    assert told("--parameters", path) == told(*flags)


def test_the_files_on_the_page_work(tmp_path: Path) -> None:
    """Every YAML block of docs/estimate.md makes an estimate."""
    page = (Path(__file__).parents[2] / "docs" / "estimate.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        path = tmp_path / "page.yaml"
        path.write_text(block)
        assert query(told("--parameters", path, "--samples", 500), "mix" if "agent" in block else "q")


def test_files_and_flags_lie_over_a_preset(tmp_path: Path) -> None:
    """Preset, then files in their order, then flags; what differs from the preset is named."""
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("pue: 1.2\nnode_power_ratio: 0.5\nsamples: 1000\n")
    two.write_text("preset: v1\npue: 1.3\n")
    document = told("--parameters", one, "--parameters", two, "--node-power-ratio", 0.6)
    assert (document["parameters"]["pue"], document["parameters"]["node_power_ratio"]) == (1.3, 0.6)
    assert document["preset"] == "v1"
    assert document["changed_from_preset"] == ["pue", "node_power_ratio"]


def test_everything_may_be_given_by_flags() -> None:
    """Without a preset: 7 kW, half of it, 400 tokens at 2,000 a second."""
    document = told(
        *("--node-max-watts", 7000, "--node-power-ratio", 0.5, "--tokens-per-second", 2000),
        *("--input-tokens", 500, "--output-tokens", 400, "--samples", 1000),
        *("--queries-per-day", 1e6, "--beta", 1.5, "--lever", "fp8=2", "--carbon", "uniform(0, 200)"),
    )
    assert document["preset"] is None
    assert query(document, "query")["joules"]["median"] == pytest.approx(700.0)
    carbon = query(document, "query")["carbon_grams_mean"]
    assert carbon == pytest.approx({"p5": 700.0 / 3.6e5, "mean": 700.0 / 3.6e4, "p95": 700.0 / 3.6e6 * 190.0})
    assert query(document, "query")["price_mean"] is None
    fleet, pulled = document["fleets"]
    assert fleet["joules_per_day"] == pytest.approx(1.05e9)
    assert pulled["joules_per_day"] == pytest.approx(1.05e9 / 2.0)


def test_lengths_of_one_kind() -> None:
    """KIND=DISTRIBUTION changes that kind alone; without a kind, all."""
    document = told(
        *PRESET, "--output-tokens", "long=fixed(9000)", "--input-tokens", "lognormal(p5=1, p95=2)"
    )
    queries = document["parameters"]["queries"]
    assert queries["long"]["output_tokens"] == 9000.0
    assert queries["typical"]["output_tokens"] == "exponential(median=300)"
    assert {each["input_tokens"] for each in queries.values()} == {"lognormal(p5=1, p95=2)"}


def test_without_trim_the_quartiles_are_those_of_all() -> None:
    """They move out."""
    cut, whole = (query(told(*PRESET, flag))["joules"] for flag in ("--trim", "--no-trim"))
    assert whole["upper_quartile"] > cut["upper_quartile"]
    assert whole["mean"] == cut["mean"]


def test_a_throughput_fitted_from_minutes_and_their_lengths(tmp_path: Path) -> None:
    """Of a node of eight such GPUs: 4,000 tokens a second, at the lengths that were seen."""
    source = minutes_file(tmp_path / "minutes.jsonl", minute())
    document = told(
        *("--throughput", source, "--lengths", source, "--node-max-watts", 4000, "--samples", 1000)
    )
    found = query(document, "measured")
    assert found["node_tokens_per_second"] == pytest.approx(4000.0)
    assert found["output_tokens_mean"] == pytest.approx(OUTPUT)
    assert document["parameters"]["queries"]["measured"]["input_tokens"].startswith(
        f"empirical(values=[{PROMPT}]"
    )
    assert any("0 of 2 slopes" in note for note in document["notes"])


def test_a_throughput_fitted_from_a_table_with_a_knot(tmp_path: Path) -> None:
    """Two pieces that were planted, and the coefficients in the document."""
    lengths = [(one, two) for one in (100, 400, 1000, 4000, 9000) for two in (100, 500)]
    rows = [f"{one},{two},{1e6 / one if one > 1000 else 1000}" for one, two in lengths]
    table = tmp_path / "points.csv"
    table.write_text("input_tokens,output_tokens,tokens_per_second\n" + "\n".join(rows))
    document = told(*PRESET, "--throughput", table, "--knot", "input=1000", "--node-max-watts", 9000)
    law = document["parameters"]["models"]["fitted"]["throughput"]
    assert law["input_slopes"] == pytest.approx([0.0, -1.0], abs=1e-9)
    assert law["most_tokens_per_second"] == 1000.0


def test_a_measurement_beside_the_estimate(tmp_path: Path) -> None:
    """The factor and its parts; they multiply."""
    source = minutes_file(tmp_path / "minutes.jsonl", minute())
    beside = told(*PRESET, "--measured", source, "--query", "typical")["versus"]
    product = 1.0
    for each in beside["factors"]:
        product *= each["factor"]
    assert beside["factor"] == pytest.approx(product)
    assert beside["measured_joules"] == pytest.approx(275.0)
    text = run(*PRESET, "--measured", source, "--measured-pue", 1.2).output
    for words in (
        "Beside a meter: e on H100, 1000 queries",
        "throughput-by-length",
        "ln factor",
    ):
        assert words in text


def test_a_trace_beside_the_estimate(tmp_path: Path) -> None:
    """Replayed on the spot, as with every command that reads minutes."""
    path = tmp_path / "run.jsonl.gz"
    writer = TraceWriter(path)
    writer.write(list(SimulatedRun(20.0, truth=False).records()))
    writer.close()
    beside = told(*PRESET, "--measured", path)["versus"]
    assert beside["measured"]["queries"] > 20
    assert beside["factor"] > 1.0


def test_a_law_fitted_from_a_ledger_beside_what_the_ledger_measured(tmp_path: Path) -> None:
    """A simulated server that is kept busy, by its own lengths and throughput: what is left of the factor is
    what was given wrong, the watts, and what a law of mean lengths cannot know of single ones."""
    root = simulate(tmp_path, 40.0).root
    given = ("--throughput", root, "--lengths", root, "--node-max-watts", 700, "--gpus-per-node", 1)
    document = told(*given, "--measured", root, "--samples", 20_000)
    beside = document["versus"]
    factors = {each["name"]: each for each in beside["factors"]}
    assert document["parameters"]["models"]["fitted"]["throughput"]["source"] == str(root)
    assert factors["power"]["estimated"] == pytest.approx(700.0)
    assert 400.0 < factors["power"]["measured"] < 700.0
    assert factors["pue"]["factor"] == 1.0
    assert factors["output-length"]["factor"] == pytest.approx(1.0, abs=0.05)
    for name in ("throughput", "throughput-by-length"):
        assert factors[name]["factor"] == pytest.approx(1.0, abs=0.1)
    measured = beside["measured"]
    assert beside["measured_joules"] == pytest.approx(
        measured["joules"] / measured["output_tokens"] * measured["output_tokens_mean"]
    )
    product = math.prod(each["factor"] for each in factors.values())
    assert beside["estimated_joules"] / beside["measured_joules"] == pytest.approx(product)


def test_a_factor_that_changes_over_the_day(tmp_path: Path) -> None:
    """Carbon and price by the hour are distributions: with the queries of each hour as weights, the mean is
    that of the queries."""
    hours = tmp_path / "day.csv"
    hours.write_text(
        "grams,price\n" + "".join(f"{100 + 20 * hour},{0.1 + 0.01 * hour}\n" for hour in range(24))
    )
    given = ("--node-max-watts", 3600, "--tokens-per-second", 1, "--input-tokens", 1, "--output-tokens", 1000)
    found = query(
        told(
            *given,
            "--carbon",
            f"empirical({hours}, column=grams)",
            "--price",
            f"empirical({hours}, column=price)",
        ),
        "query",
    )
    assert found["carbon_grams_mean"]["mean"] == pytest.approx(330.0)
    assert found["price_mean"]["mean"] == pytest.approx(0.215)
    busy = "empirical(values=[100, 500], weights=[1, 3])"
    assert query(told(*given, "--carbon", busy), "query")["carbon_grams_mean"]["mean"] == pytest.approx(400.0)


def test_the_tornado() -> None:
    """In text and JSON."""
    assert "What moves the median most" in run(*PRESET, "--sensitivity").output
    swings = told(*PRESET, "--sensitivity")["sensitivity"]
    assert swings[0]["parameter"] == "output_tokens"


def test_without_matplotlib_the_line_that_brings_it_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """And nothing is written."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    path = tmp_path / "estimate.png"
    assert main(["estimate", *PRESET, "--image", str(path)]) == 69
    assert "pip install 'joulescope-inference[analysis]'" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture(tmp_path: Path, ending: str) -> None:
    """In the format that its ending says, and not empty."""
    need_package("matplotlib")
    path = tmp_path / f"estimate.{ending}"
    run(*PRESET, "--image", path)
    assert path.read_bytes()[:8].lstrip(b"\x89<?").startswith({"png": b"PNG", "svg": b"xml"}[ending])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "models: there is none; name a preset"),
        (
            ("--preset", "v1", "--preset", "v2"),
            "presets are not mixed: --preset v1 names v1, --preset v2 names v2",
        ),
        (("--preset", "v3"), "'v3' is not known; there is v1, v2"),
        (("--preset", "v1", "--pue", "about 1"), "--pue: 'about 1' is neither a number nor"),
        (("--preset", "v1", "--pue", "0.5"), "pue: 0.5: its P5 is 0.5; it is to be 1 or above"),
        (
            ("--preset", "v1", "--mix", "short=1"),
            "--mix: there is no kind of query short; there is typical, long",
        ),
        (("--preset", "v1", "--mix", "long"), "--mix: 'long' is not KIND=SHARE"),
        (
            ("--preset", "v1", "--output-tokens", "short=1"),
            "--output-tokens: there is no kind of query short",
        ),
        (("--preset", "v1", "--tokens-per-second", "9"), "say with --node-max-watts what the node can draw"),
        (("--preset", "v1", "--tokens-per-second", "0"), "--tokens-per-second: it is to be above 0"),
        (("--preset", "v1", "--tokens-per-second", "9", "--throughput", "x"), "say the same: give one"),
        (("--preset", "v1", "--knot", "input=9"), "knots are of a fit"),
        (("--preset", "v1", "--lever", "2"), "--lever: '2' is not NAME=DISTRIBUTION"),
        (("--preset", "v1", "--measured-pue", "1.2"), "--measured says of what it is"),
        (("--preset", "v1", "--samples", "1"), "samples: 1 is not from 100"),
        (("--preset", "v1", "--image", "/nowhere/x.png", "--samples", "200"), "/nowhere/x.png: the picture"),
        ((*ONE, "--tokens-per-second", "nan"), "--tokens-per-second: it is to be above 0, and finite"),
        ((*ONE, "--tokens-per-second", "inf"), "--tokens-per-second: it is to be above 0, and finite"),
        ((*PRESET, "--measured", "x", "--measured-pue", "nan"), "--measured-pue: it is to be 1 or above"),
        ((*PRESET, "--measured", "x", "--measured-pue", "inf"), "--measured-pue: it is to be 1 or above"),
        ((*PRESET, "--lever", "x=2", "--lever", "x=3"), "--lever: x comes twice"),
        ((*PRESET, "--mix", "long=1,long=2"), "--mix: long comes twice"),
        ((*PRESET, "--pue", "lognormal(p49=1e-300, p50=1e300)"), "its quantiles lie too far apart"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, with exit code 2."""
    if "--image" in arguments:
        need_package("matplotlib")
    assert main(["estimate", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_presets_are_not_mixed_through_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flag and a file, or two files."""
    path = tmp_path / "mine.yaml"
    path.write_text("preset: v2\n")
    assert main(["estimate", "--preset", "v1", "--parameters", str(path)]) == 2
    assert f"--preset v1 names v1, {path} names v2" in capsys.readouterr().err


def test_a_measurement_that_lacks_something(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named, with the exit code of minutes."""
    source = minutes_file(tmp_path / "minutes.jsonl", replace(minute(), tasks=()))
    assert main(["estimate", *PRESET, "--measured", str(source)]) == 4
    assert "it lacks a finished request with tokens" in capsys.readouterr().err


def test_levers_of_flags_stand_beside_those_of_a_file(tmp_path: Path) -> None:
    """In one scenario; a flag wins over a lever of the same name, and --show keeps them all."""
    path = tmp_path / "mine.yaml"
    path.write_text(run(*PRESET, "--lever", "a=2", "--lever", "b=3", "--show").output)
    flags = ("--parameters", path, "--lever", "b=4", "--lever", "c=5")
    document = told(*flags)
    given = document["parameters"]["levers"]["given"]
    assert {name: lever["factor"] for name, lever in given.items()} == {"a": 2.0, "b": 4.0, "c": 5.0}
    path.write_text(run(*flags, "--show").output)
    assert told("--parameters", path) == document


def test_a_swing_without_a_ratio_is_null_in_json() -> None:
    """A kind of query whose P5 writes nothing."""
    flags = (*ONE[:4], "--tokens-per-second", 2000, "--output-tokens", "empirical(values=[0, 100])")
    (swing,) = told(*flags, "--sensitivity")["sensitivity"]
    assert (swing["low_joules"], swing["ratio"]) == (0.0, None)
