"""Damage: what was flushed and is whole is read, and the rest is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulescope.clock import ManualClock
from joulescope.ledger.files import Files
from joulescope.ledger.frames import MARKER, ROW, Damage, frame, header, read_frames
from joulescope.ledger.place import Place
from joulescope.ledger.read import open_ledger
from joulescope.ledger.recovery import recover
from joulescope.ledger.tables import REQUESTS, SCHEMA_KEY, TABLE_KEY
from joulescope.ledger.writer import LedgerWriter, Rotation
from tests.examples import examples
from tests.ledger.rows import NOON, request
from tests.ledger.test_ledger import ids, rows

COUNT = 5
WRITTEN = [f"request-{number}" for number in range(COUNT)]


def flushed(folder: Path) -> Path:
    """The segment of a dead writer."""
    writer = LedgerWriter(folder, ManualClock(), NOON, Rotation())
    writer.add(REQUESTS, [request(number) for number in range(COUNT)])
    writer.close()
    (path,) = folder.glob("open/requests/*/*.segment")
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return flushed(tmp_path_factory.mktemp("whole")).read_bytes()


def payloads(data: bytes) -> tuple[list[bytes], Damage]:
    damage = Damage()
    return [found.payload for found in read_frames(data, REQUESTS, damage)], damage


def test_cut_off_anywhere_the_rows_before_are_read(whole: bytes) -> None:
    """At every byte: each row that is whole is there, and a part of one is told."""
    all_rows, damage = payloads(whole)
    assert len(all_rows) == COUNT
    assert not damage
    ends = [len(header(REQUESTS))]
    for number, row in enumerate(all_rows):
        ends.append(ends[-1] + len(frame(ROW, number, row)))
    assert ends[-1] == len(whole)
    for size in range(len(whole)):
        found, damage = payloads(whole[:size])
        assert found == all_rows[: sum(size >= end for end in ends[1:])]
        assert damage.torn_bytes == (
            0 if size in (0, *ends) else size - max((e for e in ends if e <= size), default=0)
        )
        assert not damage.places


@settings(
    max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_flipped_bytes_cost_the_rows_that_they_are_in(whole: bytes, data: st.DataObject) -> None:
    """Whatever is written over, rows elsewhere are read, and none is read that was not written."""
    all_rows, _ = payloads(whole)
    changed = bytearray(whole)
    places = data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4, unique=True))
    for at in places:
        changed[at] ^= data.draw(st.integers(1, 255))
    found, damage = payloads(bytes(changed))
    at, untouched = len(header(REQUESTS)), []
    for number, row in enumerate(all_rows):
        end = at + len(frame(ROW, number, row))
        if not any(at <= place < end for place in places):
            untouched.append(row)
        at = end
    assert found == untouched
    assert damage
    touched = sum(length for _, length in damage.places) + damage.torn_bytes
    assert touched == len(whole) - sum(len(frame(ROW, 0, row)) for row in found) - (
        len(header(REQUESTS)) if changed.startswith(header(REQUESTS)) else 0
    )


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=200) | st.lists(st.sampled_from([MARKER, b"\x00", b"R", b"{}"])).map(b"".join))
def test_any_bytes_can_be_read(noise: bytes) -> None:
    """Without an error, and without a row."""
    for data in (noise, header(REQUESTS) + noise):
        found, damage = payloads(data)
        assert found == []
        assert bool(damage) == bool(data not in (b"", header(REQUESTS)))


@contextmanager
def rejecting(folder: Path, *wrong: tuple[str, str]) -> Iterator[list[str]]:
    """Reads all requests; afterwards files that end so must have been rejected for a reason that says so."""
    with open_ledger(folder) as ledger:
        found = ids(rows(ledger))
        yield found
        assert len(ledger.rejected) == len(wrong), ledger.rejected
        for (path, reason), (ends, says) in zip(ledger.rejected, sorted(wrong), strict=True):
            assert path.endswith(ends)
            assert says in reason


def test_a_damaged_segment_is_named_and_taken_over(tmp_path: Path) -> None:
    """Its rows but one are read, before and after; its file is kept to be looked at."""
    path = flushed(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(b"request-2")] ^= 1
    path.write_bytes(bytes(data))
    rest = [name for name in WRITTEN if name != "request-2"]
    with rejecting(tmp_path, (path.name, "damaged bytes")) as found:
        assert found == rest
    recovered = recover(Files(), tmp_path)
    assert (recovered.rows["requests"], recovered.segments) == (COUNT - 1, 1)
    assert recovered.damaged_bytes == len(frame(ROW, 0, request(2)[0]))
    with rejecting(tmp_path, (path.name + ".damaged", "was damaged")) as found:
        assert found == rest
    assert recover(Files(), tmp_path).segments == 0


def test_a_torn_row_is_named_until_it_is_given_up(tmp_path: Path) -> None:
    """A crash in the middle of a write is no damage: nothing is kept of it."""
    path = flushed(tmp_path)
    with path.open("ab") as file:
        file.write(frame(ROW, 9, b'{"request_id": "half"}')[:-3])
    with rejecting(tmp_path, (path.name, "not written whole")) as found:
        assert found == WRITTEN
    assert recover(Files(), tmp_path).rows["requests"] == COUNT
    with rejecting(tmp_path) as found:
        assert found == WRITTEN
    assert list(tmp_path.glob("open/**/*.*")) == []


def parquet_in(folder: Path) -> Path:
    """A ledger of one Parquet file."""
    flushed(folder)
    recover(Files(), folder)
    (path,) = folder.glob("requests/*/*.parquet")
    return path


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    """A cut, and a flipped byte wherever it is, by the checksum in its name."""
    path = parquet_in(tmp_path)
    data = path.read_bytes()
    for at in range(0, len(data), 97):
        path.write_bytes(data[:at])
        with rejecting(tmp_path, (path.name, "is damaged")) as found:
            assert found == []
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        with rejecting(tmp_path, (path.name, "is damaged")) as found:
            assert found == []
    path.write_bytes(data)
    with rejecting(tmp_path) as found:
        assert found == WRITTEN


def test_strangers_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    """Files of others, of other tables, of newer versions, and folders that are no days."""
    day = parquet_in(tmp_path).parent
    (day / "notes.txt").write_text("hello")
    (day / "other.parquet").write_bytes(b"PAR1 no such thing PAR1")
    plain = pa.table({"x": [1]})
    pq.write_table(plain, day / "plain.parquet")
    for name, version, table in (("newer", b"99", b"requests"), ("minutes", b"1", b"minutes")):
        schema = plain.schema.with_metadata({SCHEMA_KEY: version, TABLE_KEY: table})
        pq.write_table(plain.cast(schema), day / f"{name}.parquet")
    (tmp_path / "requests" / "date=2026-13-45").mkdir()
    (tmp_path / "open" / "requests" / day.name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "open" / "requests" / day.name / "left.tmp").write_bytes(b"x")
    wrong = (
        ("notes.txt", "no file of a ledger"),
        ("other.parquet", "no Parquet file"),
        ("plain.parquet", "not of a ledger"),
        ("newer.parquet", "use a newer joulescope"),
        ("minutes.parquet", "is of the table minutes"),
        ("date=2026-13-45", "no folder of a day"),
        ("left.tmp", "is no segment"),
    )
    with open_ledger(tmp_path) as ledger:
        assert ids(rows(ledger)) == WRITTEN
        told = {path.rpartition("/")[2]: reason for path, reason in ledger.rejected}
    assert set(told) == {name for name, _ in wrong}
    assert all(says in told[name] for name, says in wrong)


def test_a_parquet_file_without_a_checksum_is_read(tmp_path: Path) -> None:
    """Others may compact a ledger: what has the columns and the version counts."""
    path = parquet_in(tmp_path)
    path.rename(path.with_name("compacted.parquet"))
    with rejecting(tmp_path) as found:
        assert found == WRITTEN


def test_a_segment_counts_while_its_parquet_file_is_damaged(tmp_path: Path) -> None:
    """The two are there at once only if the process ended between."""
    segment = flushed(tmp_path)
    data = segment.read_bytes()
    recover(Files(), tmp_path)
    segment.parent.mkdir(parents=True, exist_ok=True)
    segment.write_bytes(data)
    with rejecting(tmp_path) as found:
        assert found == WRITTEN
    (path,) = tmp_path.glob("requests/*/*.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    with rejecting(tmp_path, (path.name, "is damaged")) as found:
        assert found == WRITTEN


def test_a_segment_whose_parquet_file_is_there_is_only_removed(tmp_path: Path) -> None:
    """Not turned into another one: plain readers of Parquet know nothing of stems."""
    segment = flushed(tmp_path)
    data = segment.read_bytes()
    recover(Files(), tmp_path)
    segment.parent.mkdir(parents=True, exist_ok=True)
    segment.write_bytes(data + frame(ROW, 99, request(99)[0]))
    recovered = recover(Files(), tmp_path)
    assert (recovered.segments, recovered.rows["requests"]) == (1, 0)
    assert not segment.exists()
    with rejecting(tmp_path) as found:
        assert found == WRITTEN


def test_rows_that_are_none_are_counted(tmp_path: Path) -> None:
    """A row with a value of another type does not cost the others."""
    writer = LedgerWriter(tmp_path, ManualClock(), NOON, Rotation())
    wrong: list[tuple[bytes, float]] = [
        (request(7)[0].replace(b'"steps":8', b'"steps":"many"'), NOON),
        (b"[]", NOON),
        (b'{"end_time": "yesterday"}', NOON),
    ]
    writer.add(REQUESTS, [request(0), *wrong, request(1)])
    writer.close()
    with open_ledger(tmp_path) as ledger:
        assert ids(rows(ledger)) == WRITTEN[:2]
        assert "3 rows are none of the table" in ledger.rejected[0][1]
    assert recover(Files(), tmp_path).invalid_rows["requests"] == 3


def test_no_row_is_too_large_to_be_told(tmp_path: Path) -> None:
    """A name of five megabytes is counted, and costs no other row."""
    writer = LedgerWriter(tmp_path, ManualClock(), NOON, Rotation())
    row: Any = (b'{"request_id": "' + b"x" * (5 << 20) + b'"}', NOON)
    writer.add(REQUESTS, [request(0), row])
    writer.close()
    assert writer.lost["requests", "too_large"] == 1
    with open_ledger(tmp_path) as ledger:
        assert ids(rows(ledger)) == WRITTEN[:1]


class Guarded:
    """A file system that does not show what lies in one folder."""

    def __init__(self, system: Any, folder: str) -> None:
        self.system, self.folder = system, folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.system, name)

    def ls(self, path: str, detail: bool) -> Any:
        if path.endswith(self.folder):
            raise PermissionError(13, "Permission denied", path)
        return self.system.ls(path, detail=detail)


def test_a_day_that_may_not_be_read_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    """Whoever asks for what is strange is told of it, as the reader is; for all others it is an error: a day
    that was passed over in silence would be missing from a compaction, or never reach the store."""
    flushed(tmp_path)
    recover(Files(), tmp_path)
    (tmp_path / REQUESTS / "date=2026-01-30").mkdir()
    (tmp_path / REQUESTS / "date=2026-01-29").symlink_to(tmp_path)
    place = Place(str(tmp_path))
    place.system = Guarded(place.system, "date=2026-01-30")
    told: dict[str, str] = {}
    assert len(list(place.stored(REQUESTS, strange=told.__setitem__))) == 1
    assert {Path(path).name: reason for path, reason in told.items()} == {
        "date=2026-01-29": "is named as the folder of a day, and is a file or a link: links are not followed",
        "date=2026-01-30": "cannot be read: Permission denied",
    }
    with pytest.raises(PermissionError, match="date=2026-01-30"):
        list(place.stored(REQUESTS))
