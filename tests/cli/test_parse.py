"""`joulescope parse`: shows what is there, stops at what is not, and says at which byte."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
import zstandard
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from joulescope.cli.parse import TYPES, command
from joulescope.errors import ProtocolError
from joulescope.hook.wire import MAX_FRAME_BYTES, AnyRecord, Hello, Progress, Step, encode_frame
from joulescope.ingest.frames import FrameDecoder
from tests.examples import examples

RECORDS: list[AnyRecord] = [
    Hello(time_ns=1, pid=7),
    Step(
        step=1,
        schedule_start_ns=1,
        schedule_end_ns=2,
        output_start_ns=3,
        output_end_ns=4,
        request=[1, 2],
        context=[0, 9],
    ),
    Progress(time_ns=5),
]
FRAME = encode_frame(RECORDS, msgspec.msgpack.Encoder())
LINES = msgspec.json.Encoder().encode_lines(RECORDS)


def _invoke(data: bytes, *arguments: str) -> Result:
    with tempfile.NamedTemporaryFile() as capture:
        capture.write(data)
        capture.flush()
        return CliRunner().invoke(command, [capture.name, *arguments])


def _parse(data: bytes, *arguments: str) -> list[dict[str, object]]:
    result = _invoke(data, *arguments)
    if result.exception is not None:
        raise result.exception
    return [json.loads(line) for line in result.stdout.splitlines()]


def _problem(data: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        _parse(data)
    return str(caught.value)


def _frame_of(value: object) -> bytes:
    payload = msgspec.msgpack.encode(value)
    return len(payload).to_bytes(4, "big") + payload


def test_frames_and_lines_of_the_same_records_print_alike() -> None:
    """Two frames print their records in order; a trace of the same records prints the same lines."""
    assert _parse(FRAME + FRAME) == _parse(LINES + LINES)
    assert [record["type"] for record in _parse(FRAME)] == ["hello", "step", "progress"]


@pytest.mark.parametrize("data", [FRAME, LINES], ids=["frames", "lines"])
def test_compression_is_seen_from_the_bytes(data: bytes) -> None:
    """gzip and zstd are recognised whatever the file is called, several members of them too."""
    assert _parse(gzip.compress(data)) == _parse(zstandard.compress(data)) == _parse(data)
    assert _parse(gzip.compress(data) * 2) == _parse(zstandard.compress(data) * 2) == _parse(data * 2)


def test_standard_input_is_read_as_a_file_is() -> None:
    """- reads a pipe, compressed or not, and its errors say so."""
    for data in (FRAME, gzip.compress(LINES), FRAME[:-1]):
        result = subprocess.run(
            [sys.executable, "-m", "joulescope.cli.main", "parse", "-"],
            input=data,
            capture_output=True,
            timeout=60,
            check=False,
        )
        if data == FRAME[:-1]:
            assert (result.returncode, result.stdout) == (4, b"")
            assert result.stderr.startswith(b"joulescope: standard input: byte 0: the stream ends within")
        else:
            assert (result.returncode, result.stdout.count(b"\n")) == (0, len(RECORDS))


def test_only_the_types_asked_for_are_printed() -> None:
    """--type may be given several times; a type that does not exist is a usage error."""
    assert [record["type"] for record in _parse(FRAME, "--type", "step")] == ["step"]
    both = _parse(LINES, "--type", "step", "--type", "progress")
    assert [record["type"] for record in both] == ["step", "progress"]
    assert _invoke(FRAME, "--type", "stpe").exit_code == 2
    assert {"hello", "step", "sample", "trace"} <= set(TYPES)


def test_what_this_version_does_not_know_is_shown_as_it_came() -> None:
    """Unknown types, unknown fields and msgpack extensions are printed, not dropped."""
    newer = {"type": "quark", "colour": ["red"]}
    assert _parse(_frame_of([newer])) == [newer]
    assert _parse(b'{"type":"step","flavour":1}\n') == [{"type": "step", "flavour": 1}]
    extension = _parse(_frame_of([{"type": "x", "blob": msgspec.msgpack.Ext(5, b"ab")}]))
    assert extension == [{"type": "x", "blob": {"ext": 5, "data": "YWI="}}]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (FRAME + FRAME[:-1], f": byte {len(FRAME)}: the stream ends within a frame"),
        (FRAME + b"\0\0", f"byte {len(FRAME)}: the stream ends within a frame, 2 bytes into it"),
        (b"GET / HTTP/1.1\r\n", "byte 0: neither a trace nor a frame"),
        (FRAME + b"\xff\xff\xff\xff", f"byte {len(FRAME)}: neither a trace nor a frame"),
        (FRAME + b"\0\0\0\x02\xc1\xc1", f"byte {len(FRAME)}: the frame's 2 bytes are no msgpack"),
        (_frame_of({"type": "step"}), "byte 0: the frame holds dict, not an array of records"),
        (_frame_of([1]), "byte 0: a record is a map with names as keys, not '1'"),
        (_frame_of([{1: 2}]), "byte 0: a record is a map with names as keys"),
        (LINES + b'{"type":\n', f"byte {len(LINES)}: "),
        (LINES[:-5], "the file ends within a line: "),
        (LINES + b"7\n", f"byte {len(LINES)}: a record is a map with names as keys, not '7'"),
        (gzip.compress(LINES)[:-9], "cannot be read: Compressed file ended"),
        (zstandard.compress(LINES)[:4] + b"garbage-garbage", "byte 0: cannot be read: "),
    ],
)
def test_what_cannot_be_read_is_named_by_its_byte(data: bytes, words: str) -> None:
    """Truncated and foreign input ends with an error at the uncompressed offset of frame or line."""
    assert words in _problem(data)


def test_what_comes_before_the_damage_is_still_printed() -> None:
    """Whole frames ahead of a truncated one reach the output."""
    result = _invoke(FRAME + FRAME[:9])
    assert isinstance(result.exception, ProtocolError)
    assert result.stdout.count("\n") == len(RECORDS)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A missing file and a directory are refused by name."""
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ProtocolError, match=f"{path}: cannot be read: "):
            CliRunner().invoke(command, [str(path)], catch_exceptions=False)


def test_nothing_prints_nothing() -> None:
    """An empty capture is no error."""
    assert _parse(b"") == []


def test_no_frame_can_be_taken_for_anything_else() -> None:
    """The longest frame's first byte is below those by which the other formats are known."""
    assert (MAX_FRAME_BYTES.to_bytes(4, "big"))[0] < min(0x1F, 0x28, ord("{"))
    assert not MAX_FRAME_BYTES.to_bytes(4, "big")[:1].isspace()


@settings(max_examples=examples(200), deadline=None)
@given(data=st.one_of(st.binary(max_size=60), st.binary(max_size=20).map(lambda tail: FRAME + tail)))
def test_any_bytes_print_or_are_refused_cleanly(data: bytes) -> None:
    """Whatever the input, the command prints JSON lines or raises ProtocolError, nothing else."""
    result = _invoke(data)
    assert result.exception is None or isinstance(result.exception, ProtocolError)
    for line in result.stdout.splitlines():
        json.loads(line)


def test_it_reads_what_ingest_reads() -> None:
    """Frames that the sidecar's own decoder accepts print as the same records."""
    printed = [msgspec.convert(record, AnyRecord) for record in _parse(FRAME)]
    assert printed == FrameDecoder().feed(FRAME)
