"""``joulescope diagnose``: two windows, one source with two windows, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.planted import Plant
from joulescope.cli.main import main
from joulescope.minute_model import EngineMinute
from joulescope.minutes import json_line
from tests.insight.diagnosis.windows import minutes


def _written(path: Path, window: Sequence[EngineMinute], later_seconds: float = 0.0) -> Path:
    moved = (
        replace(
            each,
            start_wall_seconds=each.start_wall_seconds + later_seconds,
            end_wall_seconds=each.end_wall_seconds + later_seconds,
        )
        for each in window
    )
    with path.open("a") as file:
        file.writelines(map(json_line, moved))
    return path


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


def test_nothing_so_long_ago(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says how much there is, and ends with the exit code of a source that does not serve."""
    a = _written(tmp_path / "a.jsonl", minutes())
    assert main(["diagnose", str(a)]) == 4
    assert "Give a shorter --before" in capsys.readouterr().err


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
