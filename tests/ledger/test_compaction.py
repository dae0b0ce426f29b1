"""Many small files become few large ones: no row is changed, lost or there twice, whatever happens."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from subprocess import PIPE
from typing import Any
from uuid import uuid4

import fsspec
import pyarrow.parquet as pq
import pytest

from joulescope.cli.main import main
from joulescope.clock import ManualClock
from joulescope.errors import LedgerError
from joulescope.ledger.compaction import Compacted, Compaction, compact
from joulescope.ledger.files import Files
from joulescope.ledger.holding import PATIENCE_TRIES, alone_at_work
from joulescope.ledger.place import Place
from joulescope.ledger.read import open_ledger
from joulescope.ledger.recovery import recover
from joulescope.ledger.tables import MINUTES, REQUESTS
from joulescope.ledger.upload import Uploaded, upload
from joulescope.ledger.writer import LedgerWriter, Rotation
from joulescope.minutes import json_line, merge
from tests.ledger.broken import BreakableFiles, until_killed
from tests.ledger.rows import DAY_SECONDS, NOON, minute, minute_row, request

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

WRITERS = 3
DAYS = 3
LAST_DAY = date(2026, 2, 2)
FOR_EVER = date.max


def fill(folder: Path, days: int = DAYS, writers: int = WRITERS) -> None:
    """A file of each table for each day and writer; each has two rows."""
    folder.mkdir(exist_ok=True)
    for number in range(writers):
        writer = LedgerWriter(folder, ManualClock(), NOON, Rotation())
        for day in range(days):
            first = 2 * (number * days + day)
            writer.add(REQUESTS, [request(first + at, day * DAY_SECONDS) for at in range(2)])
            writer.add(
                MINUTES,
                [minute_row(minute(day * 1440 + at, f"e{number}", first / 7 + at)) for at in range(2)],
            )
        writer.close()
    recover(Files(), folder)


def rows(root: Path | str, **more: Any) -> list[dict[str, Any]]:
    """Each row of ``requests``, all its columns."""
    found = []
    with open_ledger(root, **more) as ledger:
        for path in ledger.files(REQUESTS):
            with fsspec.open(path) as file:
                found += pq.read_table(file).to_pylist()
        assert ledger.rejected == []
    return sorted(found, key=lambda row: row["request_id"])


def lines(root: Path | str) -> list[str]:
    with open_ledger(root) as ledger:
        return sorted(map(json_line, ledger.minutes()))


def plain(folder: Path, table: str) -> int:
    """Rows that a reader sees who knows nothing of a ledger."""
    return sum(pq.read_metadata(path).num_rows for path in folder.glob(f"{table}/*/*.parquet"))


def names(folder: Path, table: str = REQUESTS) -> list[str]:
    return sorted(path.parent.name + "/" + path.name for path in folder.glob(f"{table}/*/*"))


def test_each_day_that_is_over_becomes_one_file(tmp_path: Path) -> None:
    """With every value of every row, and every joule to the last bit; the present day is left alone."""
    fill(tmp_path)
    before, minutes_before = rows(tmp_path), lines(tmp_path)
    with open_ledger(tmp_path) as ledger:
        sums = merge(ledger.minutes())
    done = compact(str(tmp_path), LAST_DAY)
    assert rows(tmp_path) == before
    assert lines(tmp_path) == minutes_before
    with open_ledger(tmp_path) as ledger:
        assert sorted(merge(ledger.minutes()), key=str) == sorted(sums, key=str)
    assert len(names(tmp_path)) == len(names(tmp_path, MINUTES)) == (DAYS - 1) + WRITERS
    assert plain(tmp_path, REQUESTS) == plain(tmp_path, MINUTES) == 2 * WRITERS * DAYS
    assert (done[REQUESTS].files_before, done[REQUESTS].files_after, done[REQUESTS].days) == (6, 2, 2)
    assert done[REQUESTS].rows == 12
    assert all(path.stat().st_mode & 0o777 & ~0o640 == 0 for path in tmp_path.glob("*/*/*.parquet"))


def test_what_is_compact_is_left_alone_until_more_comes(tmp_path: Path) -> None:
    """And then becomes one with it."""
    fill(tmp_path)
    compact(str(tmp_path), FOR_EVER)
    found = names(tmp_path)
    assert compact(str(tmp_path), FOR_EVER) == {REQUESTS: Compacted(3), MINUTES: Compacted(3)}
    assert names(tmp_path) == found
    late = LedgerWriter(tmp_path, ManualClock(), NOON, Rotation())
    late.add(REQUESTS, [request(900)])
    late.close()
    recover(Files(), tmp_path)
    assert compact(str(tmp_path), FOR_EVER)[REQUESTS].files_before == 2
    assert len(names(tmp_path)) == DAYS
    assert [row["request_id"] for row in rows(tmp_path)].count("request-900") == 1
    assert len(rows(tmp_path)) == plain(tmp_path, REQUESTS) == 2 * WRITERS * DAYS + 1


def test_files_grow_up_to_a_size(tmp_path: Path) -> None:
    """Those above half of it stay as they are."""
    fill(tmp_path, days=1, writers=5)
    sizes = [path.stat().st_size for path in tmp_path.glob("requests/*/*")]
    place, target = Place(str(tmp_path)), 2 * max(sizes) + 1
    Compaction(place, REQUESTS, FOR_EVER, target).run()
    assert len(names(tmp_path)) == 3
    assert plain(tmp_path, REQUESTS) == 10
    found = names(tmp_path)
    assert Compaction(place, REQUESTS, FOR_EVER, min(sizes)).run() == Compacted(3)
    assert names(tmp_path) == found


def test_files_of_other_columns_are_put_together_apart(tmp_path: Path) -> None:
    """A column that a newer version added is not lost, and one that an older lacked not made up."""
    fill(tmp_path, days=1, writers=4)
    for path in sorted(tmp_path.glob("requests/*/*"))[:2]:
        table = pq.read_table(path, partitioning=None)
        pq.write_table(
            table.append_column("later", table["prompt_tokens"]), path.with_name(f"x{path.stem}.parquet")
        )
        path.unlink()
    for path in tmp_path.glob("requests/*/x*"):
        path.rename(path.with_name(path.name.split(".")[0] + ".parquet"))
    compact(str(tmp_path), FOR_EVER)
    columns = sorted(len(pq.read_schema(path)) for path in tmp_path.glob("requests/*/*"))
    assert len(columns) == 2
    assert columns[1] == columns[0] + 1
    assert plain(tmp_path, REQUESTS) == 8


def test_killed_before_any_call_nothing_is_lost_or_twice(quick_path: Path) -> None:
    """Whatever is there then; the next run makes it whole, for readers too that know nothing of a ledger."""
    at, finished = 1, False
    fill(quick_path / "full", days=2, writers=2)
    shutil.rmtree(quick_path / "full" / MINUTES)
    before = rows(quick_path / "full")
    while not finished:
        folder = shutil.copytree(quick_path / "full", quick_path / str(at))
        files = BreakableFiles()
        files.fails_at = at
        work = Compaction(Place(str(folder)), REQUESTS, FOR_EVER, files=files)
        finished = until_killed(lambda w=work: w.run())  # type: ignore[misc]
        assert rows(folder) == before
        compact(str(folder), FOR_EVER)
        assert rows(folder) == before
        assert plain(folder, REQUESTS) == len(before)
        assert all(name.split("/")[1].startswith("compact-") for name in names(folder))
        at += 1
    assert at > 15


def test_killed_at_random_instants_nothing_is_lost_or_twice(quick_path: Path) -> None:
    """Real processes, each SIGKILLed, each going on where the one before was."""
    fill(quick_path, days=8, writers=2)
    before = rows(quick_path)
    chance = random.Random(7)
    command = [sys.executable, "-m", "tests.ledger.compacting", str(quick_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True, bufsize=1) as maker:
        assert maker.stdin is not None
        assert maker.stdout is not None
        told: list[str] = []
        while "done\n" not in told and len(told) < 10:
            maker.stdin.write("go\n")
            pid = int(maker.stdout.readline())
            time.sleep(chance.uniform(0.0, 0.06))
            kill(pid)
            told.append(maker.stdout.readline())
            assert rows(quick_path) == before
        maker.stdin.close()
    compact(str(quick_path), FOR_EVER)
    assert told.count("dead\n") >= 3
    assert rows(quick_path) == before
    assert plain(quick_path, REQUESTS) == len(before)
    assert len(list(quick_path.rglob("*.*"))) == 2 * 8


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_a_live_writer_goes_on(tmp_path: Path) -> None:
    """Its segments are left alone, and become Parquet beside."""
    fill(tmp_path)
    clock = ManualClock()
    writer = LedgerWriter(tmp_path, clock, NOON, Rotation(seconds=60.0))
    writer.add(REQUESTS, [request(900)])
    writer.flush()
    compact(str(tmp_path), FOR_EVER)
    writer.add(REQUESTS, [request(901)])
    writer.flush()
    clock.advance(61.0)
    assert writer.rotate() == 1
    assert len(rows(tmp_path)) == plain(tmp_path, REQUESTS) == 2 * WRITERS * DAYS + 2


def test_a_segment_that_came_back_is_done_with(tmp_path: Path) -> None:
    """As after a loss of power, when its removal was not on the disk and that of its Parquet file was."""
    writer = LedgerWriter(tmp_path, ManualClock(), NOON, Rotation())
    writer.add(REQUESTS, [request(1)])
    writer.close()
    (segment,) = tmp_path.glob("open/requests/*/*.segment")
    data = segment.read_bytes()
    fill(tmp_path)
    compact(str(tmp_path), FOR_EVER)
    before = rows(tmp_path)
    segment.parent.mkdir(parents=True, exist_ok=True)
    segment.write_bytes(data)
    assert rows(tmp_path) == before
    recover(Files(), tmp_path)
    assert not segment.exists()
    assert rows(tmp_path) == before
    assert plain(tmp_path, REQUESTS) == len(before)


def test_nothing_goes_while_somebody_reads(tmp_path: Path) -> None:
    """The files that a reader was told are there until it is closed."""
    fill(tmp_path)
    before = rows(tmp_path)
    reader = open_ledger(tmp_path)
    paths = reader.files(REQUESTS)
    waited = []

    def pause() -> None:
        waited.append(sum(pq.read_metadata(path).num_rows for path in paths))
        if len(waited) == 3:
            reader.close()

    Compaction(Place(str(tmp_path)), REQUESTS, FOR_EVER, pause=pause).run()
    assert waited == [len(before)] * 3
    assert rows(tmp_path) == before
    assert len(names(tmp_path)) == DAYS


def test_a_reader_that_never_ends_is_told(tmp_path: Path) -> None:
    """And nothing is left behind."""
    fill(tmp_path)
    found = names(tmp_path)
    tries: list[None] = []
    with open_ledger(tmp_path) as reader:
        reader.files(REQUESTS)
        work = Compaction(Place(str(tmp_path)), REQUESTS, FOR_EVER, pause=lambda: tries.append(None))
        with pytest.raises(LedgerError, match="reads the ledger all the time"):
            work.run()
    assert len(tries) == PATIENCE_TRIES
    assert names(tmp_path) == found


def test_two_do_not_compact_one_folder(tmp_path: Path) -> None:
    """The second is told."""
    fill(tmp_path)
    with (
        alone_at_work(tmp_path / REQUESTS),
        pytest.raises(LedgerError, match="another compaction is at work"),
    ):
        compact(str(tmp_path), FOR_EVER)


def test_damage_is_named_and_left_where_it_is(tmp_path: Path) -> None:
    """The others are put together."""
    fill(tmp_path, days=1)
    path = sorted(tmp_path.glob("requests/*/*"))[0]
    data = path.read_bytes()
    path.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    (path.parent / "notes.txt").write_text("hello")
    done = compact(str(tmp_path), FOR_EVER)[REQUESTS]
    assert [(name.rpartition("/")[2], reason[:10]) for name, reason in done.left_out] == [
        (path.name, "is damaged")
    ]
    assert len(names(tmp_path)) == 3
    (compacted,) = tmp_path.glob("requests/*/compact-*")
    compacted.write_bytes(compacted.read_bytes()[:-1])
    with open_ledger(tmp_path) as ledger:
        assert ledger.files(REQUESTS) == []
        assert len(ledger.rejected) == 3


def test_a_disk_that_is_full_is_an_error(tmp_path: Path) -> None:
    """What was there is as it was."""
    fill(tmp_path)
    found, files = names(tmp_path), BreakableFiles()
    files.room_bytes = 2000
    with pytest.raises(LedgerError, match=r"No space left on device; nothing is lost"):
        Compaction(Place(str(tmp_path)), REQUESTS, FOR_EVER, files=files).run()
    assert names(tmp_path) == found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """A store of fsspec's own, in memory, with the files of all days."""
    url = f"memory://bucket-{uuid4().hex}/ledger"
    fill(tmp_path / "spool")
    upload(Files(), tmp_path / "spool", Place(url), Uploaded())
    yield url
    fsspec.filesystem("memory").store.clear()


def test_a_store_is_compacted(store: str, tmp_path: Path) -> None:
    """A file that a sidecar sends once more, because it was killed before it removed it, is not counted, and
    goes with the next run."""
    system = fsspec.filesystem("memory")
    before = rows(store, verify=True)
    (again, *_) = sorted(path for path in system.find(store) if "/requests/" in path)
    data = system.cat_file(again)
    compact(store, FOR_EVER)
    assert rows(store, verify=True) == before
    assert len(system.find(f"{store}/requests")) == DAYS
    system.pipe_file(again, data)
    assert rows(store) == before
    assert compact(store, FOR_EVER)[REQUESTS].removed_files == 1
    assert not system.exists(again)
    assert rows(store) == before


def test_two_that_compact_one_store_lose_nothing(store: str) -> None:
    """A store has no locks. Who finds files of another beside its own gives way; and if it was killed before
    it could, its file does not count."""
    place, other = Place(store), Place(store)
    before = rows(store)
    stray: list[bytes] = []

    class Between:
        """Another compaction that saw one file less comes to its end before ours has put its own."""

        def __init__(self, system: Any) -> None:
            self.system = system

        def __getattr__(self, name: str) -> Any:
            return getattr(self.system, name)

        def put_file(self, local: str, path: str) -> None:
            if not stray:
                stray.append(Path(local).read_bytes())
                day = path.rpartition("/")[0].removeprefix("/")
                late = next(one for one in sorted(self.system.find(store)) if day in one)
                kept = self.system.cat_file(late)
                self.system.rm_file(late)
                Compaction(other, REQUESTS, FOR_EVER).run()
                self.system.pipe_file(late, kept)
            self.system.put_file(local, path)
            stray.append(path.encode())

    place.system = Between(place.system)
    with pytest.raises(LedgerError, match="let one run at a time"):
        Compaction(place, REQUESTS, FOR_EVER).run()
    assert rows(store) == before
    fsspec.filesystem("memory").pipe_file(stray[1].decode(), stray[0])
    with open_ledger(store) as ledger:
        found = []
        for path in ledger.files(REQUESTS):
            with fsspec.open(path) as file:
                found += pq.read_table(file)["request_id"].to_pylist()
        assert ["two compactions ran at once" in reason for _, reason in ledger.rejected] == [True]
    assert sorted(found) == [row["request_id"] for row in before]


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As text and as JSON; a dry run does nothing; a folder that is not there is an error."""

    def told(*arguments: str) -> str:
        assert main(["ledger", "compact", *arguments]) == 0
        return capsys.readouterr().out

    fill(tmp_path)
    found = names(tmp_path)
    dry = told(str(tmp_path), "--dry-run").splitlines()
    assert dry[0] == "requests: 9 files of 3 days would become 3"
    assert names(tmp_path) == found
    answer = json.loads(told(str(tmp_path), "--before", "2026-02-01", "--json"))
    assert answer["tables"]["minutes"]["files_before"] == 3
    assert answer["before"] == "2026-02-01"
    assert "minutes: 6 files of 2 days became 2, 12 rows" in told(str(tmp_path))
    assert told(str(tmp_path)) == "requests: nothing to put together\nminutes: nothing to put together\n"
    assert main(["ledger", "compact", str(tmp_path / "nowhere")]) == LedgerError.exit_code
    assert "there is no such folder" in capsys.readouterr().err
