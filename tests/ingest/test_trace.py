"""Trace files: written and read back whole, and honest about what could not be read."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulescope.errors import TraceError
from joulescope.hook.wire import AnyRecord, Progress, Record, TraceHeader
from joulescope.ingest.trace import TraceReader, TraceWriter, read_trace
from tests import worlds
from tests.examples import examples

RECORDS: list[AnyRecord] = [worlds.hello(), worlds.start(1), worlds.step(0, 5, 9, [1]), worlds.end(1, 9, 0)]


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.jsonl.zst"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    """Plain, gzip and zstd traces hold the same records, header first."""
    path = tmp_path / name
    writer = TraceWriter(path, note="hello")
    writer.write(RECORDS)
    writer.close()
    writer.close()
    header, *rest = read_trace(path)
    assert isinstance(header, TraceHeader)
    assert header.note == "hello"
    assert rest == RECORDS


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.jsonl.zst"])
def test_a_truncated_file_yields_what_is_whole(tmp_path: Path, name: str) -> None:
    """After a crash the last line may be cut: all before it is used, the cut is counted."""
    path = tmp_path / name
    writer = TraceWriter(path)
    for number in range(2000):
        writer.write([Progress(time_ns=number)])
        if number % 100 == 0:
            writer.flush()  # as the daemon does twice a second
    writer.close()
    path.write_bytes(path.read_bytes()[:-20])
    with TraceReader(path) as reader:
        records = list(reader)
    assert 0 < len(records) < 2001
    assert sum(reader.rejected.values()) >= 1
    assert reader.first_rejected


def test_bad_lines_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    """The reader goes on behind a bad line and tells which was the first, and what was wrong."""
    path = tmp_path / "t.jsonl"
    lines = ['{"type":"trace"}', "{oops", "", '{"type":"tomorrow"}', '{"type":"progress","time_ns":3}']
    path.write_text("\n".join(lines) + "\n")
    with TraceReader(path) as reader:
        assert list(reader) == [TraceHeader(), Progress(time_ns=3)]
    assert reader.rejected == {"malformed_record": 1, "unknown_type": 1}
    assert reader.first_rejected.startswith("line 2: ")


def test_a_file_that_is_no_trace_says_so(tmp_path: Path) -> None:
    """Nothing usable at all is an error that names the file and where to look."""
    path = tmp_path / "notes.txt"
    path.write_text("dear diary\n")
    with pytest.raises(TraceError, match=r"notes\.txt is not a joulescope trace: line 1.*trace-format"):
        list(read_trace(path))


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A trace from the future would be misread: it is refused with the way out."""
    path = tmp_path / "t.jsonl"
    path.write_text('{"type":"trace","format":99}\n')
    with pytest.raises(TraceError, match=r"format 99.*newer joulescope"):
        list(read_trace(path))


def test_missing_and_unwritable_files_are_named(tmp_path: Path) -> None:
    """Opening errors carry the path and the system's reason."""
    with pytest.raises(TraceError, match=r"cannot open trace .*none\.jsonl: No such file"):
        TraceReader(tmp_path / "none.jsonl")
    with pytest.raises(TraceError, match="cannot open trace"):
        TraceWriter(tmp_path / "no" / "folder.jsonl")


def test_a_full_disk_is_an_error_of_the_trace() -> None:
    """Writing to a full device raises the trace's own error, which the daemon survives."""
    writer = TraceWriter(Path("/dev/full"))
    with pytest.raises(TraceError, match="No space left"):
        writer.flush()


@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=400), name=st.sampled_from(["f.jsonl", "f.jsonl.gz", "f.jsonl.zst"]))
def test_no_content_makes_the_reader_raise_a_foreign_error(tmp_path: Path, content: bytes, name: str) -> None:
    """Fuzz: any bytes give records, counts, or a TraceError; never another exception."""
    path = tmp_path / name
    path.write_bytes(b'{"type":"sample","gpu":"g","time_ns":1}\n' + content)
    with contextlib.suppress(TraceError), TraceReader(path) as reader:
        assert all(isinstance(record, Record) for record in reader)
