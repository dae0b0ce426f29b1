"""``joulescope diagnose``: two windows, one source with two windows, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from benchmarks.planted import Plant
from joulescope.cli.main import main
from joulescope.clock import ManualClock
from joulescope.ingest.trace import TraceWriter
from joulescope.ledger.writer import LedgerWriter
from joulescope.minute_model import EngineMinute
from joulescope.minutes import json_line
from joulescope.simulation.traces import SimulatedRun
from tests.insight.diagnosis.windows import later, minutes
from tests.ledger.rows import NOON, minute_row

WEEK_SECONDS = 7 * 86_400.0


def _written(path: Path, window: Sequence[EngineMinute], later_seconds: float = 0.0) -> Path:
    with path.open("a") as file:
        file.writelines(map(json_line, later(window, later_seconds)))
    return path


def _ledger(root: Path, *, closed: bool) -> Path:
    """Two windows of an engine in one ledger, a week apart, with another engine beside it all the time."""
    before, after = minutes(), minutes(Plant("batch", 8))
    moved = NOON - min(each.start_wall_seconds for each in before)
    told = [*later(before, moved), *later(after, moved + WEEK_SECONDS)]
    beside = [replace(each, kind=replace(each.kind, engine="beside")) for each in told]
    writer = LedgerWriter(root, ManualClock(), NOON)
    writer.add("minutes", [minute_row(each) for each in (*told, *beside)])
    writer.flush()
    if closed:
        writer.close()
    return root


def _span(root: Path, begin_seconds: float, minutes_long: float = 10.0) -> str:
    begin = datetime.fromtimestamp(begin_seconds, timezone.utc)
    return f"{root}@{begin:%Y-%m-%dT%H:%MZ}..{begin + timedelta(minutes=minutes_long):%Y-%m-%dT%H:%MZ}"


@pytest.mark.parametrize("closed", [True, False], ids=["Parquet", "still written"])
def test_two_spans_of_a_ledger(closed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A week apart, from files that are finished and from those that a sidecar still writes."""
    root = _ledger(tmp_path, closed=closed)
    engine = minutes()[0].kind.engine
    spans = _span(root, NOON), _span(root, NOON + WEEK_SECONDS)
    assert main(["diagnose", *spans, "--engine", engine, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first_cause"] == "batch_limit"
    assert found["engine"] == engine
    assert found["before"]["start_wall_seconds"] == pytest.approx(NOON)
    assert found["after"]["start_wall_seconds"] - found["before"]["start_wall_seconds"] == WEEK_SECONDS
    a = _written(tmp_path / "a.jsonl", minutes())
    b = _written(tmp_path / "b.jsonl", minutes(Plant("batch", 8)))
    assert main(["diagnose", str(a), str(b), "--json"]) == 0
    of_files = json.loads(capsys.readouterr().out)
    assert [(part["cause"], part["joules_per_token"]) for part in found["parts"]] == [
        (part["cause"], pytest.approx(part["joules_per_token"])) for part in of_files["parts"]
    ]


@pytest.mark.parametrize(
    ("options", "begin_seconds", "message"),
    [
        ((), NOON, "the source tells of several engines: name one with --engine"),
        (("--engine", "beside"), NOON + 3600.0, "there is no minute of an engine in it"),
    ],
    ids=["several engines", "empty span"],
)
def test_spans_of_a_ledger_that_do_not_serve(
    options: Sequence[str],
    begin_seconds: float,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 4, and what is missing."""
    root = _ledger(tmp_path, closed=True)
    spans = _span(root, begin_seconds), _span(root, NOON + WEEK_SECONDS)
    assert main(["diagnose", *spans, *options]) == 4
    assert message in capsys.readouterr().err


def test_clients_that_wait_for_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The flag decides what the load is, and the text says what was held."""
    a = _written(tmp_path / "a.jsonl", minutes())
    b = _written(tmp_path / "b.jsonl", minutes(Plant("batch", 8)))
    assert main(["diagnose", str(a), str(b), "--closed-loop"]) == 0
    assert "Clients wait for answers" in " ".join(capsys.readouterr().out.split())
    assert main(["diagnose", str(a), str(b), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["closed_loop"] is False


def test_two_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text for people, JSON for programs; both say the same first cause."""
    a = _written(tmp_path / "a.jsonl", minutes())
    b = _written(tmp_path / "b.jsonl", minutes(Plant("batch", 8)))
    assert main(["diagnose", str(a), str(b)]) == 0
    text = capsys.readouterr().out
    assert "batch limit" in text
    assert "raise max-num-seqs" in " ".join(text.split())
    assert main(["diagnose", str(a), str(b), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["first_cause"] == "batch_limit"


def test_one_source_now_against_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last minutes against as many an hour earlier."""
    both = _written(tmp_path / "both.jsonl", minutes())
    _written(both, minutes(Plant("batch", 8)), later_seconds=3600.0)
    arguments = ["diagnose", str(both), "--last", "2m", "--before", "1h", "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["before"]["name"], found["after"]["name"]) == ("before", "now")
    assert found["first_cause"] == "batch_limit"


def test_tasks_of_traces_are_told_apart_by_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As replay does; where minutes are made already the flags would do nothing, and that is said."""
    trace = tmp_path / "run.jstrace"
    writer = TraceWriter(trace)
    writer.write(list(SimulatedRun(20.0, rate_per_second=6.0, truth=False).records()))
    writer.close()
    flags = ["--task-from", "request_id", "--task-pattern", "(?P<task>[a-z]+)-"]
    assert main(["diagnose", str(trace), str(trace), *flags, "--json"]) == 0
    tasks = json.loads(capsys.readouterr().out)["before"]["latents"]["tasks"]
    assert {each["task"] for each in tasks} == {"chat", "rag", "summarise", "code"}
    made = _written(tmp_path / "made.jsonl", minutes())
    assert main(["diagnose", str(trace), str(made), *flags]) == 4
    assert "made.jsonl: no task is told apart in it" in capsys.readouterr().err
    assert main(["diagnose", str(trace), str(trace), "--task-from", "nonsense"]) == 2
    assert "'nonsense' is no source" in capsys.readouterr().err


def test_nothing_so_long_ago(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says how much there is, and ends with the exit code of a source that does not serve."""
    a = _written(tmp_path / "a.jsonl", minutes())
    assert main(["diagnose", str(a)]) == 4
    assert "Give a shorter --before" in capsys.readouterr().err


def test_windows_of_one_source_do_not_overlap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last two hours hold the window that ended an hour ago: what changed would be hidden."""
    both = _written(tmp_path / "both.jsonl", minutes())
    _written(both, minutes(Plant("batch", 8)), later_seconds=3600.0)
    assert main(["diagnose", str(both), "--last", "2h", "--before", "1h"]) == 4
    assert "give a --before that is as long as --last, or longer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.jsonl", "b.jsonl", "--last", "10m"], "--last and --before go with one source"),
        (["a.jsonl", "--last", "soon"], "is no stretch of time such as 10m"),
    ],
)
def test_a_command_line_that_makes_no_sense(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and what would make sense."""
    assert main(["diagnose", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_picture_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where matplotlib is there, by the ending of the name."""
    pytest.importorskip("matplotlib")
    a = _written(tmp_path / "a.jsonl", minutes())
    image = tmp_path / "why.png"
    assert main(["diagnose", str(a), str(a), "--image", str(image)]) == 0
    assert image.read_bytes().startswith(b"\x89PNG")
