"""The request log."""

from __future__ import annotations

import json
import logging
import os
import resource
from dataclasses import fields
from pathlib import Path

import pytest

from joulescope.clock import WallAnchor
from joulescope.export import RequestSink
from joulescope.export.records import RequestLog, finished_line, iso_time
from joulescope.model import FinishedRequest
from tests.export.samples import finished

ANCHOR = WallAnchor(monotonic_ns=90_000_000_000, wall_ns=1_700_000_000_000_000_001)
FIRST_KEYS = [
    "request_id",
    "engine",
    "attributed_joules",
    "marginal_joules",
    "prefill_joules",
    "decode_joules",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
    "finish_reason",
]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ids(path: Path) -> list[object]:
    return [line["external_id"] for line in lines(path)]


def test_a_line_begins_with_the_promised_keys_and_leaves_nothing_out() -> None:
    """The documented keys come first; every field of the account follows, instants as wall time."""
    line = json.loads(finished_line(finished(), ANCHOR))
    assert list(line)[: len(FIRST_KEYS)] == FIRST_KEYS
    missing = {field.name for field in fields(FinishedRequest)} - set(line)
    assert missing == {"start_ns", "end_ns", "first_token_ns", "first_step_ns", "pauses_ns"}
    assert line["attributed_joules"] == 4.5


def test_instants_become_wall_time() -> None:
    """Monotonic instants leave the process as wall time: ISO 8601, and exact in nanoseconds."""
    line = json.loads(finished_line(finished(), ANCHOR))
    assert line["start_unix_ns"] == 1_700_000_000_000_000_001
    assert line["end_unix_ns"] == 1_700_000_002_000_000_006
    assert line["start_time"] == "2023-11-14T22:13:20.000000Z"
    assert line["first_token_time"] == "2023-11-14T22:13:20.250000Z"
    waits = {"first_step_ns": 90_050_000_000, "pauses_ns": ((1, 500_000_001), (10**9, 10**9 + 250_000_000))}
    line = json.loads(finished_line(finished(**waits), ANCHOR))
    assert line["first_step_time"] == "2023-11-14T22:13:20.050000Z"
    assert line["first_step_unix_ns"] == 1_700_000_000_050_000_001
    assert line["preempted_seconds"] == 0.75
    assert iso_time(1_700_000_000_999_999_999) == "2023-11-14T22:13:20.999999Z"


def test_unknown_is_null() -> None:
    """Joules that no sensor measured are null, not zero; so is the first token of one that had none."""
    unknown = finished(attributed_joules=None, attributed_low_joules=None, first_token_ns=None)
    line = json.loads(finished_line(unknown, ANCHOR))
    assert line["attributed_joules"] is None
    assert line["attributed_low_joules"] is None
    assert line["energy_source"] is None
    assert line["first_token_time"] is None
    assert line["first_token_unix_ns"] is None
    assert line["first_step_time"] is None
    assert line["first_step_unix_ns"] is None


def test_odd_text_stays_one_valid_line() -> None:
    """Newlines, quotes and lone surrogates in an id that a client chose break neither line nor encoding."""
    line = finished_line(finished(request_id='a\n"b\\\ud800é', external_id="\x00"), ANCHOR)
    assert line.count(b"\n") == 1
    assert json.loads(line)["request_id"] == 'a\n"b\\?é'


def test_lines_are_appended_and_there_at_once(tmp_path: Path) -> None:
    """After each batch its lines are in the file; a second log of the same path adds to it."""
    path = tmp_path / "requests.jsonl"
    log: RequestSink = RequestLog(str(path), ANCHOR)
    log.export([finished(1), finished(2)])
    assert ids(path) == ["cmpl-1-0", "cmpl-2-0"]
    log.close(1.0)
    second = RequestLog(str(path), ANCHOR)
    second.export([finished(3)])
    assert ids(path) == ["cmpl-1-0", "cmpl-2-0", "cmpl-3-0"]
    assert second.counts() == {"written": 1, "dropped": 0}


def test_the_log_is_not_for_everybody(tmp_path: Path) -> None:
    """The file is made without rights for others: it holds request ids."""
    path = tmp_path / "requests.jsonl"
    RequestLog(str(path), ANCHOR).export([finished()])
    assert path.stat().st_mode & 0o007 == 0


def test_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """The path ``-`` writes lines to standard output, and closing the log leaves that open."""
    log = RequestLog("-", ANCHOR)
    log.export([finished(1)])
    log.close(1.0)
    os.write(1, b"still open\n")
    first, last = capfdbinary.readouterr().out.splitlines()
    assert json.loads(first)["external_id"] == "cmpl-1-0"
    assert last == b"still open"


def test_a_full_disk_is_counted_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """A full disk never raises: lines wait, one warning is written, and at the end they count as dropped."""
    log = RequestLog("/dev/full", ANCHOR)
    with caplog.at_level(logging.WARNING):
        log.export([finished(1)])
        log.export([finished(2)])
    assert len(caplog.records) == 1
    assert "/dev/full" in caplog.text
    assert log.counts() == {"written": 0, "dropped": 0}
    log.close(1.0)
    log.close(1.0)
    assert log.counts() == {"written": 0, "dropped": 2}


@pytest.mark.parametrize("has_reader", [False, True])
def test_a_pipe_that_nobody_reads_holds_nothing_up(tmp_path: Path, has_reader: bool) -> None:
    """Nobody has it open, or who has does not read: lines wait, and go out whole once they are read."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if has_reader else None
    log = RequestLog(str(path), ANCHOR)
    for number in range(100):
        log.export([finished(number)])
    assert log.counts()["written"] < 100
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if reader is None else reader
    assert_all_arrive(log, reader)


def test_standard_output_that_nobody_reads_holds_nothing_up(capfd: pytest.CaptureFixture[str]) -> None:
    """The same where it is a pipe that is shared with others, and has to stay as it is."""
    reader, writer = os.pipe()
    kept = os.dup(1)
    os.dup2(writer, 1)
    try:
        log = RequestLog("-", ANCHOR)
        for number in range(100):
            log.export([finished(number)])
        assert log.counts()["written"] < 100
        assert os.get_blocking(1)
        os.set_blocking(reader, False)
        assert_all_arrive(log, reader)
    finally:
        os.dup2(kept, 1)
        for each in (kept, reader, writer):
            os.close(each)


def assert_all_arrive(log: RequestLog, reader: int) -> None:
    """Reads a pipe by turns with the log's tries, until all hundred lines are through."""
    came = b""
    while log.counts()["written"] < 100:
        log.export([])
        came += os.read(reader, 1 << 16)
    assert [json.loads(line)["external_id"] for line in came.splitlines()] == [
        f"cmpl-{number}-0" for number in range(100)
    ]


def test_an_unwritable_path_is_tried_again(tmp_path: Path) -> None:
    """Lines that found no directory are written, in order, once it exists."""
    path = tmp_path / "later" / "requests.jsonl"
    log = RequestLog(str(path), ANCHOR)
    log.export([finished(1)])
    path.parent.mkdir()
    log.export([finished(2)])
    assert ids(path) == ["cmpl-1-0", "cmpl-2-0"]
    assert log.counts() == {"written": 2, "dropped": 0}


def test_what_waits_is_bounded(tmp_path: Path) -> None:
    """While the file cannot be written only so many bytes wait; the rest is dropped and counted."""
    size = len(finished_line(finished(1), ANCHOR))
    path = tmp_path / "later" / "requests.jsonl"
    log = RequestLog(str(path), ANCHOR, max_pending_bytes=2 * size)
    log.export([finished(1), finished(2), finished(3)])
    assert log.counts() == {"written": 0, "dropped": 1}
    path.parent.mkdir()
    log.export([])
    assert ids(path) == ["cmpl-1-0", "cmpl-2-0"]


def test_a_torn_write_is_resumed(tmp_path: Path) -> None:
    """A disk that fills up in the middle of a line costs nothing: the log goes on at that very byte."""
    path = tmp_path / "requests.jsonl"
    sent = [finished(number) for number in range(3)]
    expected = [finished_line(request, ANCHOR) for request in sent]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = RequestLog(str(path), ANCHOR)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(expected[0]) + 10, hard))
    try:
        log.export(sent)
        counts = log.counts()
        size = path.stat().st_size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (size, counts) == (len(expected[0]) + 10, {"written": 1, "dropped": 0})
    log.export([])
    assert path.read_bytes() == b"".join(expected)
    assert log.counts() == {"written": 3, "dropped": 0}


def test_a_line_torn_by_a_crash_spoils_only_itself(tmp_path: Path) -> None:
    """Where the file ends without a newline, the first new line does not join what is there."""
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b'{"request_id": "cut o')
    RequestLog(str(path), ANCHOR).export([finished(1)])
    torn, whole = path.read_bytes().splitlines()
    assert torn == b'{"request_id": "cut o'
    assert json.loads(whole)["external_id"] == "cmpl-1-0"


def test_rotation(tmp_path: Path) -> None:
    """A file that was moved away is left alone, and the next batch goes to a new one."""
    path, old = tmp_path / "requests.jsonl", tmp_path / "requests.jsonl.1"
    log = RequestLog(str(path), ANCHOR)
    log.export([finished(1)])
    path.rename(old)
    log.export([finished(2)])
    assert (ids(old), ids(path)) == (["cmpl-1-0"], ["cmpl-2-0"])


def test_after_closing_nothing_is_written(tmp_path: Path) -> None:
    """A batch that comes after the end is dropped and counted, not lost in silence."""
    path = tmp_path / "requests.jsonl"
    log = RequestLog(str(path), ANCHOR)
    log.close(1.0)
    log.export([finished(1)])
    assert log.counts() == {"written": 0, "dropped": 1}
