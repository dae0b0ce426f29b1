"""What is kept is bounded, what is given up is counted, and an object store gets each file once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from joulescope.clock import ManualClock
from joulescope.ledger.files import Files
from joulescope.ledger.place import Place
from joulescope.ledger.read import open_ledger
from joulescope.ledger.recovery import recover
from joulescope.ledger.retention import Bounds, bound
from joulescope.ledger.tables import MINUTES, REQUESTS
from joulescope.ledger.upload import Uploaded, upload
from joulescope.ledger.writer import LedgerWriter, Rotation
from tests.ledger.rows import DAY_SECONDS, NOON, minute, minute_row, request

TODAY = date(2026, 2, 9)
DAYS = 10


def ten_days(folder: Path) -> None:
    """A file of each table for each of ten days, up to today."""
    for day in range(DAYS):
        writer = LedgerWriter(folder, ManualClock(), NOON + day * DAY_SECONDS, Rotation())
        writer.add(REQUESTS, [request(day, day * DAY_SECONDS)])
        writer.add(MINUTES, [minute_row(minute(day * 1440))])
        writer.close()
    recover(Files(), folder)


def days_of(folder: Path, table: str = REQUESTS) -> list[str]:
    return sorted(path.parent.name for path in folder.glob(f"{table}/*/*.parquet"))


def test_files_go_when_they_are_too_old(tmp_path: Path) -> None:
    """By the day on which their rows ended; their folders go with them."""
    ten_days(tmp_path)
    kept = bound(Files(), tmp_path, Bounds(days=3.0), TODAY)
    assert (
        days_of(tmp_path) == days_of(tmp_path, MINUTES) == [f"date=2026-02-{day:02d}" for day in (6, 7, 8, 9)]
    )
    assert kept.evicted_files == {"age": 12}
    assert kept.files == 8
    assert sorted(path.name for path in (tmp_path / REQUESTS).iterdir()) == days_of(tmp_path)


def test_the_oldest_go_when_there_are_too_many_bytes(tmp_path: Path) -> None:
    """As few as will do, and never a segment that is open."""
    ten_days(tmp_path)
    sizes = [path.stat().st_size for path in tmp_path.rglob("*.parquet")]
    writer = LedgerWriter(tmp_path, ManualClock(), NOON, Rotation())
    writer.add(REQUESTS, [request(99)])
    writer.flush()
    most = sum(sizes) // 2
    kept = bound(Files(), tmp_path, Bounds(bytes=most), TODAY)
    left = list(tmp_path.rglob("*.parquet"))
    assert kept.parquet_bytes == sum(path.stat().st_size for path in left)
    assert most - 2 * max(sizes) < kept.parquet_bytes + kept.open_bytes <= most
    assert kept.evicted_bytes["size"] == sum(sizes) - kept.parquet_bytes
    assert days_of(tmp_path)[-1] == "date=2026-02-09"
    assert bound(Files(), tmp_path, Bounds(bytes=0), TODAY).parquet_bytes == 0
    with open_ledger(tmp_path) as ledger:
        assert len(ledger.files(REQUESTS)) == 1
    writer.close()


def test_damaged_segments_are_bounded_too(tmp_path: Path) -> None:
    """They are kept to be looked at, not for ever."""
    folder = tmp_path / "open" / REQUESTS / "date=2026-01-01"
    folder.mkdir(parents=True)
    (folder / "20260101T000000-00000000-000001.segment.damaged").write_bytes(b"x" * 100)
    assert bound(Files(), tmp_path, Bounds(), TODAY).evicted_bytes == {}
    assert bound(Files(), tmp_path, Bounds(days=30.0), TODAY).evicted_bytes == {"age": 100}
    assert not folder.exists()


def test_strangers_do_not_stop_what_bounds_the_folder(tmp_path: Path) -> None:
    """A file named as a day, a folder named as a file, and a link to a folder elsewhere stay; all else is
    bounded as ever, and what the link leads to is not touched."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "ledger"
    elsewhere.mkdir()
    (elsewhere / "20250101T000000-00000000-000001.parquet").write_bytes(b"not of this ledger")
    folder.mkdir()
    ten_days(folder)
    for table in (REQUESTS, f"open/{MINUTES}"):
        (folder / table / "date=2025-01-01").write_bytes(b"a file")
        (folder / table / "date=2025-01-02").symlink_to(elsewhere)
        (folder / table / "date=2025-01-03" / "a-000001.parquet").mkdir(parents=True)
    kept = bound(Files(), folder, Bounds(days=3.0), TODAY)
    assert kept.failure is None
    assert kept.evicted_files == {"age": 12}
    assert len(list(elsewhere.iterdir())) == 1
    assert recover(Files(), folder).segments == 0


def test_a_file_that_cannot_be_removed_does_not_save_the_others(tmp_path: Path) -> None:
    """It is told of, and still counts among what is there."""

    class Holding(Files):
        def remove(self, path: Path) -> None:
            if path.parent.name == "date=2026-01-31":
                raise PermissionError(1, "Operation not permitted", str(path))
            super().remove(path)

    ten_days(tmp_path)
    kept = bound(Holding(), tmp_path, Bounds(days=3.0, bytes=0), TODAY)
    assert str(kept.failure).startswith("[Errno 1] Operation not permitted")
    assert days_of(tmp_path) == days_of(tmp_path, MINUTES) == ["date=2026-01-31"]
    assert (kept.files, kept.evicted_files) == (2, {"age": 10, "size": 8})
    assert kept.parquet_bytes == sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))


@pytest.fixture
def store() -> Iterator[str]:
    """A store of fsspec's own, in memory."""
    url = f"memory://bucket-{uuid4().hex}/ledger"
    yield url
    fsspec.filesystem("memory").store.clear()


def test_a_store_gets_each_file_once(tmp_path: Path, store: str) -> None:
    """Under the same name; the spool is empty afterwards, and the reader finds all of it, open segments
    too."""
    ten_days(tmp_path)
    writer = LedgerWriter(tmp_path, ManualClock(), NOON, Rotation())
    writer.add(REQUESTS, [request(99)])
    writer.flush()
    uploaded = Uploaded()
    (first, *_) = sorted(tmp_path.glob("requests/*/*.parquet"))
    name, data = str(first.relative_to(tmp_path)), first.read_bytes()
    upload(Files(), tmp_path, Place(store), uploaded)
    assert (uploaded.files, days_of(tmp_path)) == (2 * DAYS, [])
    first.parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(data)  # the process had ended before it was removed
    with open_ledger(store, spool=tmp_path, verify=True) as ledger:
        paths = ledger.files(REQUESTS)
        assert len(paths) == DAYS + 1
        assert sum(path.startswith("memory://") for path in paths) == DAYS
        assert len(list(ledger.minutes())) == DAYS
        assert ledger.rejected == []
    upload(Files(), tmp_path, Place(store), uploaded)
    assert (uploaded.files, days_of(tmp_path)) == (2 * DAYS + 1, [])
    with open_ledger(store) as ledger:
        assert len(ledger.files(REQUESTS)) == DAYS
    writer.close()


def test_what_is_sent_while_a_reader_looks_is_not_missed(tmp_path: Path) -> None:
    """All goes from the spool to the store between its looks at the two."""

    class Sending(MemoryFileSystem):
        protocol = "sending"
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]
        looked = False

        def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
            found = super().ls(path, detail, **options) if self.exists(path) else []
            if path.endswith(REQUESTS) and not self.looked:
                Sending.looked = True
                upload(Files(), tmp_path, Place("sending://bucket/ledger"), Uploaded())
            return found

    fsspec.register_implementation("sending", Sending, clobber=True)
    ten_days(tmp_path)
    with open_ledger("sending://bucket/ledger", spool=tmp_path) as ledger:
        paths = ledger.files(REQUESTS)
    assert Sending.looked
    assert days_of(tmp_path) == []
    assert len(paths) == DAYS


def test_a_store_with_folders_gets_them_made(tmp_path: Path) -> None:
    """As SFTP is; buckets have none."""
    spool, far = tmp_path / "spool", tmp_path / "far"
    spool.mkdir()
    ten_days(spool)
    far.mkdir()
    upload(Files(), spool, Place(f"local://{far}"), Uploaded())
    assert len(days_of(far)) == len(days_of(far, MINUTES)) == DAYS
    with open_ledger(far) as ledger:
        assert len(ledger.files(REQUESTS)) == DAYS


def test_damage_in_a_store_is_named(tmp_path: Path, store: str) -> None:
    """A file whose end is gone at once, another when every byte is asked for."""
    ten_days(tmp_path)
    upload(Files(), tmp_path, Place(store), Uploaded())
    system = fsspec.filesystem("memory")
    cut, flipped = sorted(path for path in system.find(store) if "/requests/" in path)[:2]
    system.pipe_file(cut, system.cat_file(cut)[:-4])
    data = bytearray(system.cat_file(flipped))
    data[100] ^= 1
    system.pipe_file(flipped, bytes(data))
    with open_ledger(store) as ledger:
        assert len(ledger.files(REQUESTS)) == DAYS - 1
        assert [path for path, _ in ledger.rejected] == [f"memory://{cut}"]
    with open_ledger(store, verify=True) as ledger:
        assert len(ledger.files(REQUESTS)) == DAYS - 2
        assert [path for path, _ in ledger.rejected] == [f"memory://{cut}", f"memory://{flipped}"]


def test_a_store_that_breaks_off_has_what_it_took(tmp_path: Path, store: str) -> None:
    """The file under way stays in the spool, whatever sort of error the store raises."""
    ten_days(tmp_path)
    place = Place(store)

    class Breaking:
        """Takes three files, then raises an error of its own; or says that it has half a file."""

        def __init__(self, system: Any) -> None:
            self.system, self.left = system, 3

        def __getattr__(self, name: str) -> Any:
            return getattr(self.system, name)

        def put_file(self, local: str, path: str) -> None:
            if self.left == 0:
                raise RuntimeError("503 SlowDown")
            self.left -= 1
            self.system.put_file(local, path)

    place.system = Breaking(place.system)
    uploaded = Uploaded()
    with pytest.raises(OSError, match="503 SlowDown"):
        upload(Files(), tmp_path, place, uploaded)
    assert uploaded.files == 3
    assert len(list(tmp_path.rglob("*.parquet"))) == 2 * DAYS - 3
    place.system.info = lambda path: {"size": 7}
    place.system.left = 1
    with pytest.raises(OSError, match="has 7 bytes after"):
        upload(Files(), tmp_path, place, uploaded)
    upload(Files(), tmp_path, Place(store), uploaded)
    with open_ledger(store) as ledger:
        assert len(ledger.files(REQUESTS)) == DAYS
