"""Minutes by name: whatever a command is given as their source."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner

from joulescope.cli.minutes_source import read_minutes, split_span
from joulescope.cli.replay import command as replay_command
from joulescope.clock import ManualClock
from joulescope.errors import JoulescopeError, MinuteError
from joulescope.ledger.tables import MINUTES
from joulescope.ledger.writer import LedgerWriter, Rotation
from joulescope.minute_model import EngineMinute, Joules, Kind
from joulescope.minutes import json_line, merge
from tests.cli.test_replay import trace
from tests.ledger.rows import NOON, minute_row
from tests.ledger.rows import minute as ledger_minute

HOUR = [
    EngineMinute(Kind("e"), 60.0 * at, 60.0 * (at + 1), joules=Joules(measured=float(at))) for at in range(60)
]


def written(directory: Path, name: str = "hour.jsonl") -> Path:
    path = directory / name
    path.write_text("".join(map(json_line, HOUR)))
    return path


def gzipped(path: Path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data))


def zstandarded(path: Path, data: bytes) -> None:
    path.write_bytes(zstandard.ZstdCompressor().compress(data))


def test_a_file_of_minutes_is_read_in_order(tmp_path: Path) -> None:
    """Whatever order its lines have."""
    path = tmp_path / "mixed.jsonl"
    path.write_text("".join(map(json_line, reversed(HOUR))))
    assert read_minutes(str(path)) == HOUR


@pytest.mark.parametrize(("suffix", "write"), [(".gz", gzipped), (".zst", zstandarded)])
def test_a_compressed_file_is_read(tmp_path: Path, suffix: str, write: Callable[[Path, bytes], None]) -> None:
    """As traces are, by the end of the name."""
    path = tmp_path / f"hour.jsonl{suffix}"
    write(path, written(tmp_path).read_bytes())
    assert read_minutes(str(path)) == HOUR
    path.write_bytes(b"garbage")
    with pytest.raises(MinuteError, match="cannot read"):
        read_minutes(str(path))


@pytest.mark.parametrize(
    ("span", "first", "last"),
    [
        ("1970-01-01T00:10:00Z..1970-01-01T00:20:00Z", 10, 19),
        ("1970-01-01T00:10..", 10, 59),
        ("..1970-01-01T01:20+01:00", 0, 19),
        ("-30m..", 30, 59),
        ("-0.5h..-600s", 30, 49),
        ("..", 0, 59),
    ],
)
def test_a_span_takes_the_minutes_that_begin_in_it(tmp_path: Path, span: str, first: int, last: int) -> None:
    """Its begin is in it and its end is not, so that two spans that meet share no minute."""
    found = read_minutes(f"{written(tmp_path)}@{span}")
    assert (found[0], found[-1]) == (HOUR[first], HOUR[last])


def test_a_name_may_hold_an_at_sign(tmp_path: Path) -> None:
    """Only what looks like a span is one; a URL's user is none."""
    assert read_minutes(str(written(tmp_path, "a@b.jsonl"))) == HOUR
    assert split_span("https://me:pass@host:1/..")[1] is None
    source, span = split_span("https://me:pass@host:1@-2h..")
    assert (source, span is not None) == ("https://me:pass@host:1", True)


def test_a_trace_is_replayed(tmp_path: Path) -> None:
    """It comes to what ``replay --minutes`` writes."""
    path, out = trace(tmp_path), tmp_path / "minutes.jsonl"
    result = CliRunner().invoke(replay_command, [str(path), "--minutes", str(out)])
    assert result.exit_code == 0
    assert read_minutes(str(path)) == read_minutes(str(out))
    assert merge(read_minutes(str(path)))[0].joules.measured == pytest.approx(600.0)


def test_a_trace_that_was_cut_off_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, for whoever would take its half for the whole; what can be read is used."""
    path = trace(tmp_path)
    whole = read_minutes(str(path))
    assert capsys.readouterr().err == ""
    path.write_bytes(path.read_bytes()[:-20])
    assert [each.kind for each in read_minutes(str(path))] == [each.kind for each in whole]
    assert f"{path}: not used: truncated_line 1; first: line " in capsys.readouterr().err


def test_standard_output_can_take_the_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And standard input gives them: what is said beside them goes to standard error."""
    result = CliRunner().invoke(replay_command, [str(trace(tmp_path)), "--minutes", "-"])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(result.stdout_bytes)))
    assert read_minutes("-") == read_minutes(str(tmp_path / "trace.jsonl"))
    assert "measured 600.000 J" in result.stderr


def test_both_cannot_go_to_standard_output(tmp_path: Path) -> None:
    """A reader could not tell requests from minutes."""
    result = CliRunner().invoke(replay_command, [str(trace(tmp_path)), "--minutes", "-", "--requests", "-"])
    assert result.exit_code == 2
    assert "cannot both go" in result.stderr


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """With the option that chose it."""
    result = CliRunner().invoke(
        replay_command, [str(trace(tmp_path)), "--minutes", str(tmp_path / "no" / "x")]
    )
    assert isinstance(result.exception, JoulescopeError)
    assert "choose another file with --minutes" in str(result.exception)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere.jsonl", "cannot read nowhere.jsonl: No such file"),
        ("x@yesterday..", "'yesterday' is no instant: give one such as"),
        ("@-1m..", "a source is missing before the @"),
        ("http://127.0.0.1:9@-1h..", "no sidecar answers at http://127.0.0.1:9"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, message: str) -> None:
    """With what would help."""
    with pytest.raises(JoulescopeError, match=message):
        read_minutes(text)


def test_a_span_without_minutes_tells_what_there_is(tmp_path: Path) -> None:
    """A wrong time zone is seen at once."""
    with pytest.raises(MinuteError, match=r"there is 1970-01-01T00:00:00Z\.\.1970-01-01T01:00:00Z"):
        read_minutes(f"{written(tmp_path)}@2026-01-01..")
    with pytest.raises(MinuteError, match="ends before it begins"):
        read_minutes(f"{written(tmp_path)}@-1m..-2m")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    """It may be any."""
    path = tmp_path / "empty.jsonl"
    path.touch()
    with pytest.raises(MinuteError, match="is empty"):
        read_minutes(str(path))


def test_a_line_that_is_wrong_is_named(tmp_path: Path) -> None:
    """A file of minutes is not read in part."""
    path = written(tmp_path)
    path.write_text(path.read_text() + json_line(replace(HOUR[0])).replace('"engine":"e"', '"engine":1'))
    with pytest.raises(MinuteError, match=r"hour\.jsonl:61: column engine: 1 is not of type str"):
        read_minutes(str(path))


def test_a_ledger_is_read_by_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What has become Parquet and what has not, in the order of begins; spans are taken, and what cannot be
    read is named."""
    clock = ManualClock()
    writer = LedgerWriter(tmp_path, clock, NOON, Rotation(seconds=60.0))
    writer.add(MINUTES, map(minute_row, map(ledger_minute, (1, 0, 1500))))
    writer.flush()
    clock.advance(61.0)
    writer.rotate()
    writer.add(MINUTES, [minute_row(ledger_minute(2))], [minute_row(ledger_minute(3))])
    writer.flush()
    assert [each.tokens.decode for each in read_minutes(str(tmp_path))] == [0, 1, 2, 3, 1500]
    assert [each.tokens.decode for each in read_minutes(f"{tmp_path}@..-23h")] == [0, 1, 2, 3]
    first_day = f"{tmp_path}@2026-01-31T12:01Z..2026-01-31T12:03Z"
    assert [each.tokens.decode for each in read_minutes(first_day)] == [1, 2]
    assert capsys.readouterr().err == ""
    (path,) = tmp_path.glob("minutes/date=2026-02-01/*.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    assert len(read_minutes(str(tmp_path))) == 4
    assert "is damaged" in capsys.readouterr().err
    with pytest.raises(MinuteError, match="there is no minute of an engine in it"):
        read_minutes(f"{tmp_path}@2020-01-01..2020-01-02")
    writer.close()


def test_tasks_of_a_trace_are_told_by_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a sidecar with these settings would have told them; without, they are not told apart."""
    path = str(trace(tmp_path))
    assert {cell.task for each in read_minutes(path) for cell in each.tasks} == {""}
    monkeypatch.setenv("JOULESCOPE_TASK_FROM", "lengths")
    monkeypatch.setenv("JOULESCOPE_TASK_LENGTHS", "short: prompt < 1000000")
    assert {cell.task for each in read_minutes(path) for cell in each.tasks} == {"short"}
    monkeypatch.setenv("JOULESCOPE_TASK_LENGTHS", "short")
    with pytest.raises(JoulescopeError, match="task_lengths"):
        read_minutes(path)
