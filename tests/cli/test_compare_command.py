"""`joulescope compare`, as it is called."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joulescope.cli.main import main
from joulescope.clock import ManualClock
from joulescope.insight.compare.compare import compare
from joulescope.insight.compare.from_minutes import sources_of
from joulescope.insight.compare.picture import drawn
from joulescope.insight.compare.sides import sides_of
from joulescope.ledger.writer import LedgerWriter, Rotation
from joulescope.minute_model import EngineMinute
from joulescope.minutes import json_line
from tests.insight.compare.benchmarks import guidellm_unversioned, leaderboard_3, mlenergy_run, vllm_serve
from tests.insight.compare.made import A100, BEGIN, H100, cell, kind_of, minute, stretch
from tests.ledger.rows import NOON, minute_row, request
from tests.requirements import need_package
from tests.simulated_ledger import simulate


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Calls the command; gives the exit code, what it printed and what it complained of."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(["compare", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def written(path: Path, minutes: Sequence[EngineMinute]) -> Path:
    path.write_text("".join(map(json_line, minutes)))
    return path


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """An H100 and an A100 under several loads."""
    a100 = kind_of(gpu_name="NVIDIA A100-SXM4-80GB")
    return (
        written(tmp_path / "h.jsonl", stretch([8.0, 15.0, 28.0, 50.0], H100)),
        written(tmp_path / "a.jsonl", stretch([12.0, 22.0, 40.0, 70.0], A100, kind=a100)),
    )


def test_tables_name_the_sides_by_what_differs_and_match_them(run: Any, two: tuple[Path, Path]) -> None:
    code, out, err = run(*two)
    assert (code, err) == (0, "")
    for text in (
        "Over everything",
        "At batch 16",
        "At batch 32",
        "Time–energy frontier",
        "J/token steady vs H100",
    ):
        assert text in out
    assert "1×H100" in out
    assert "1×A100" in out


def test_json_has_every_figure_with_its_interval_and_what_stands_behind(
    run: Any, two: tuple[Path, Path]
) -> None:
    code, out, _ = run("--json", "--match", "batch=32", "new=" + str(two[0]), "old=" + str(two[1]))
    told = json.loads(out)
    assert code == 0
    assert told["schema"] == "joulescope.compare/1"
    assert told["reference"] == "new"
    (match,) = told["matches"]
    old = match["sides"]["old"]
    assert old["figures"]["joules_per_unit"]["value"] == pytest.approx(A100.per_token(32.0), rel=0.01)
    assert old["figures"]["joules_per_unit"]["low"] < old["figures"]["joules_per_unit"]["value"]
    assert old["change"]["joules_per_unit"]["value"] == pytest.approx(
        A100.per_token(32.0) / H100.per_token(32.0) - 1, abs=0.02
    )
    assert [each["where"] for each in old["between"]] == ["batch 22", "batch 40"]
    assert all(each["gpu_hours"] > 0 and each["requests"] > 0 for each in old["between"])


def test_csv_has_a_row_for_every_side_point_and_match(run: Any, two: tuple[Path, Path]) -> None:
    code, out, _ = run("--csv", "--match", "batch=16,500", *two)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [row["row"] for row in rows] == [
        "whole",
        *["point"] * 4,
        "whole",
        *["point"] * 4,
        "match",
        "match",
    ]
    assert {row["matched_value"] for row in rows if row["row"] == "match"} == {"16.0"}
    assert float(rows[-1]["joules_per_unit"]) == pytest.approx(A100.per_token(16.0), rel=0.01)
    assert float(rows[-1]["itl_low"]) <= float(rows[-1]["itl"]) <= float(rows[-1]["itl_high"])


def test_markdown_has_the_tables_and_the_warnings(run: Any, two: tuple[Path, Path]) -> None:
    code, out, _ = run("--markdown", "--match", "batch=500", *two)
    assert code == 0
    assert "### At batch 500" in out
    assert "not observed there: 8 to 50" in out
    assert out.count("|---|") == 4


def test_the_picture_is_drawn(run: Any, two: tuple[Path, Path], tmp_path: Path) -> None:
    """Blue and vermilion, the colours of the two sides, are both in it."""
    code, _, _ = run(*two, "--image", tmp_path / "c.png")
    assert code == 0
    colours = {colour for _, colour in Image.open(tmp_path / "c.png").convert("RGB").getcolors(1 << 24) or []}
    assert {(0, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours


def test_the_picture_of_a_sweep_that_has_times_only_is_drawn_too(run: Any, tmp_path: Path) -> None:
    """There are no joules: throughput is drawn."""
    (tmp_path / "g.json").write_text(json.dumps(guidellm_unversioned()))
    code, _, _ = run(tmp_path / "g.json", "--image", tmp_path / "c.svg")
    assert code == 0
    assert "Throughput against time" in (tmp_path / "c.svg").read_text()


def test_runs_of_one_name_are_one_side(run: Any, tmp_path: Path) -> None:
    """Monday and Tuesday of one server: twice the hours."""
    monday = written(tmp_path / "m.jsonl", stretch([16.0]))
    tuesday = written(tmp_path / "t.jsonl", [minute(30.0, 1440 + number) for number in range(4)])
    code, out, _ = run("--json", f"a={monday}", f"a={tuesday}")
    (side,) = json.loads(out)["sides"]
    assert code == 0
    assert side["whole"]["parts"] == 8
    assert [point["where"] for point in side["points"]] == ["batch 16", "batch 30"]


def test_two_runs_of_one_setup_are_named_after_their_files(run: Any, tmp_path: Path) -> None:
    before = written(tmp_path / "before.jsonl", stretch([16.0]))
    after = written(tmp_path / "after.jsonl", stretch([16.0]))
    _, out, _ = run("--json", before, after)
    assert [side["name"] for side in json.loads(out)["sides"]] == ["before.jsonl", "after.jsonl"]


def test_a_span_cuts_a_run_in_two(run: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "run.jsonl", stretch([16.0, 24.0, 33.0]))
    _, out, _ = run("--json", f"early={path}@..-6m", f"late={path}@-6m..")
    assert [side["whole"]["parts"] for side in json.loads(out)["sides"]] == [6, 6]


def test_tasks_are_told_apart(run: Any, tmp_path: Path) -> None:
    """25 times the joules between a chat and a long thought, live from one run."""
    tasks = (cell("chat", 90, 0.01, 90 * 40.0), cell("reason", 10, 0.01, 10 * 1000.0, answer=4000))
    path = written(tmp_path / "run.jsonl", [minute(16.0, number, tasks=tasks) for number in range(6)])
    _, out, _ = run("--json", "--by", "task", path)
    told = json.loads(out)
    first, second = (side["whole"]["figures"]["joules_per_request"]["value"] for side in told["sides"])
    assert [side["name"] for side in told["sides"]] == ["chat", "reason"]
    assert second / first == pytest.approx(25.0)
    assert "tasks" in {each["code"] for each in told["warnings"]}
    code, _, err = run("--task", "code", path)
    assert code == 4
    assert "no request of code is in it; leave --task out" in err


def test_benchmarks_of_others_lie_beside_a_run(run: Any, two: tuple[Path, Path], tmp_path: Path) -> None:
    """ML.ENERGY, vLLM and GuideLLM in one table with a run, and what makes them unlike is said."""
    mlenergy_run(tmp_path / "ml", limit=8, joules=0.46)
    mlenergy_run(tmp_path / "ml", limit=64, joules=0.12)
    (tmp_path / "v.json").write_text(json.dumps(vllm_serve()))
    (tmp_path / "g.json").write_text(json.dumps(guidellm_unversioned()))
    code, out, err = run(
        "--json",
        f"mine={two[0]}",
        f"ml={tmp_path / 'ml'}",
        f"vllm={tmp_path / 'v.json'}",
        f"guide={tmp_path / 'g.json'}",
        "--match",
        "batch=32",
    )
    told = json.loads(out)
    assert (code, err) == (0, "")
    at = told["matches"][0]["sides"]
    assert at["ml"]["observed"]
    assert at["guide"]["observed"]
    codes = {(each["code"], each["sides"][-1]) for each in told["warnings"]}
    assert {("clock", "ml"), ("clock", "vllm"), ("definition", "vllm"), ("definition", "guide")} <= codes


def test_a_leaderboard_of_hundreds_is_narrowed(run: Any, tmp_path: Path) -> None:
    document = leaderboard_3()
    row = document["configurations"][0]
    document["configurations"] += [{**row, "model_id": f"org/m{number}"} for number in range(30)]
    (tmp_path / "l.json").write_text(json.dumps(document))
    code, _, err = run(tmp_path / "l.json")
    assert code == 4
    assert "31 sides are too many for a table; choose with --only" in err
    code, out, _ = run("--json", tmp_path / "l.json", "--only", "llama", "--only", "h100")
    assert [side["setup"]["model"].rpartition("/")[2] for side in json.loads(out)["sides"]] == [
        "Llama-3.1-8B-Instruct"
    ]
    code, _, err = run(tmp_path / "l.json", "--only", "b200")
    assert code == 4
    assert "nothing is left of 31 sides; there are" in err


def test_quantiles_of_a_task_are_of_its_own_requests(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests have the tasks of the settings as the minutes of the same trace have."""
    monkeypatch.setenv("JOULESCOPE_TASK_FROM", "lengths")
    monkeypatch.setenv("JOULESCOPE_TASK_LENGTHS", "long: prompt >= 1000")
    simulate(tmp_path, 60.0)
    code, out, _ = run("--json", "--by", "task", "--show", "ttft_p50", tmp_path / "run.jsonl")
    assert code == 0
    sides = {side["setup"]["task"]: side["whole"] for side in json.loads(out)["sides"]}
    medians = {task: whole["figures"]["ttft_p50"]["value"] for task, whole in sides.items()}
    assert medians["long"] > 1.5 * medians["none"]


def test_tokens_do_not_stand_under_a_heading_of_images(run: Any, tmp_path: Path) -> None:
    """Nor are joules of the one held against those of the other; watts and whole requests can be."""
    images = written(tmp_path / "i.jsonl", stretch([8.0], H100, kind=kind_of(unit="image")))
    tokens = written(tmp_path / "t.jsonl", stretch([8.0], H100))
    code, out, _ = run(f"painter={images}", f"writer={tokens}")
    assert code == 0
    assert "J/unit steady" in out
    assert "vs painter" not in out
    assert "J/image" not in out
    assert "J/token" not in out
    code, out, _ = run(f"painter={images}", f"writer={tokens}", "--json")
    (match,) = json.loads(out)["matches"]
    change = match["sides"]["writer"]["change"]
    assert {"watts", "joules_per_request", "itl"} <= change.keys()
    assert not {"joules_per_unit", "joules_per_unit_all", "units_per_second"} & change.keys()


def test_every_bar_has_a_name_and_no_figure_lies_on_an_error_bar() -> None:
    """A side without the times of the left half stands in the legend all the same."""
    need_package("matplotlib")
    no_times = [replace(each, tasks=()) for each in stretch([8.0], H100)]
    sources = [("a", *sources_of(no_times, "")), ("b", *sources_of(stretch([8.1], A100), ""))]
    comparison = compare(sides_of(sources))
    canvas = drawn(comparison)
    (legend,) = canvas.legends
    assert {text.get_text() for text in legend.get_texts()} >= {"a", "b"}
    (match,) = comparison.matches
    tops = [match.sides[name].figures["joules_per_unit"].high for name in ("a", "b")]
    assert [text.xy[1] for text in canvas.axes[1].texts] == pytest.approx(tops)


def test_files_of_one_name_are_told_apart_by_their_folders(run: Any, tmp_path: Path) -> None:
    for folder in ("monday", "tuesday"):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder / "run.jsonl", stretch([8.0], H100))
    code, out, _ = run(tmp_path / "monday" / "run.jsonl", tmp_path / "tuesday" / "run.jsonl", "--json")
    assert code == 0
    assert [side["name"] for side in json.loads(out)["sides"]] == ["monday", "tuesday"]


def test_names_in_the_legend_are_not_cut_off() -> None:
    """Names made of all that differs are long."""
    need_package("matplotlib")
    names = [
        f"Llama-3.1-405B-Instruct-FP8 FP8 8 GPUs TP8 vllm 0.32.0, number {number}" for number in range(4)
    ]
    canvas = drawn(compare(sides_of([(name, *sources_of(stretch([8.0], H100), "")) for name in names])))
    canvas.canvas.draw()
    (legend,) = canvas.legends
    assert legend.get_window_extent().x1 <= canvas.bbox.x1


def test_a_run_in_which_nothing_came_out_says_so(run: Any, tmp_path: Path) -> None:
    idle = replace(minute(BEGIN, 0.0), tasks=())
    idle = replace(idle, tokens=replace(idle.tokens, generated=0))
    code, out, _ = run(written(tmp_path / "idle.jsonl", [idle]))
    assert code == 0
    assert "nothing came out in it: there is no figure by what came out" in out


def test_quantiles_need_single_requests_and_it_is_said(run: Any, two: tuple[Path, Path]) -> None:
    code, out, _ = run(*two, "--match", "ttft_p90=50ms")
    assert code == 0
    assert "not known of it" in out
    assert "sources without single requests, so without quantiles: give a trace or a ledger" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing.jsonl"], 4, "cannot read nothing.jsonl"),
        (["nothing.json"], 4, "nothing.json: cannot be read: No such file"),
        (["--match", "joy=3", "x.json"], 4, "joy cannot be matched on; choose one of batch"),
        (["--show", "joy", "x.json"], 2, "joy"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_cannot_be_done_ends_with_a_code_and_says_why(
    run: Any, arguments: list[str], code: int, message: str
) -> None:
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert message in err


def test_a_picture_of_an_unknown_kind_is_refused(run: Any, two: tuple[Path, Path], tmp_path: Path) -> None:
    code, _, err = run(*two, "--image", tmp_path / "c.xls")
    assert code == 4
    assert "choose a name that ends in .png, .svg, .pdf" in err
    code, _, err = run(*two, "--image", tmp_path / "no" / "c.png")
    assert code == 4
    assert "cannot be written: No such file or directory" in err


def test_on_a_narrow_terminal_sides_are_columns(run: Any, two: tuple[Path, Path], monkeypatch: Any) -> None:
    """A pipe has room for all; whoever sets COLUMNS=80 on a terminal gets figures as rows."""
    from joulescope.cli import compare as module

    monkeypatch.setattr(module, "_WIDTH", 80)
    _, out, _ = run(*two)
    assert max(map(len, out.splitlines())) <= 110
    assert any(line.strip().startswith("J/token steady ") for line in out.splitlines())


def test_a_picture_of_nothing_says_so(run: Any, tmp_path: Path) -> None:
    """One run of vLLM's benchmark without any times: neither joules nor a place to draw throughput at."""
    (tmp_path / "v.json").write_text(json.dumps(vllm_serve(mean_itl_ms=0, mean_ttft_ms=0)))
    code, _, _ = run(tmp_path / "v.json", "--image", tmp_path / "c.svg")
    assert code == 0
    assert "no joules and no throughput to draw" in (tmp_path / "c.svg").read_text()


def test_a_ledger_gives_minutes_and_quantiles_of_its_requests(run: Any, tmp_path: Path) -> None:
    """Both tables, what is not yet Parquet included; requests of other times are of no point."""
    writer = LedgerWriter(tmp_path, ManualClock(), NOON, Rotation())
    moved = NOON - BEGIN
    told = [
        replace(
            each,
            start_wall_seconds=each.start_wall_seconds + moved,
            end_wall_seconds=each.end_wall_seconds + moved,
        )
        for each in stretch([16.0], kind=kind_of(engine="e0"))
    ]
    writer.add("minutes", [minute_row(each) for each in told])
    writer.add("requests", [request(number, 60.0 + number / 10) for number in range(200)])
    writer.add("requests", [request(number, 9_000.0) for number in range(200, 230)])
    writer.close()
    code, out, _ = run("--json", "--show", "e2e_p50", f"mine={tmp_path}")
    (side,) = json.loads(out)["sides"]
    assert code == 0
    assert side["whole"]["parts"] == 4
    assert side["points"][0]["figures"]["e2e_p50"]["value"] == pytest.approx(1.5)
    assert side["origin"]["path"] == str(tmp_path)
