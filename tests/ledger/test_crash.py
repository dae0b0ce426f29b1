"""Crashes: a process killed at any instant, a disk that fills up, a folder that goes away."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import pytest

from joulescope.clock import ManualClock
from joulescope.ledger.files import Files
from joulescope.ledger.read import open_ledger
from joulescope.ledger.recovery import recover
from joulescope.ledger.tables import MINUTES, REQUESTS
from joulescope.ledger.writer import LedgerWriter, Rotation
from tests.examples import examples
from tests.ledger.broken import BreakableFiles, until_killed
from tests.ledger.rows import DAY_SECONDS, NOON, minute, minute_row, request
from tests.ledger.test_ledger import rows

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

KILLS = examples(20)


def numbers(folder: Path) -> list[int]:
    with open_ledger(folder) as ledger:
        found = sorted(int(row["request_id"].removeprefix("request-")) for row in rows(ledger))
        assert [reason for _, reason in ledger.rejected if "not written whole" not in reason] == []
    return found


def minute_joules(folder: Path) -> list[tuple[int, float]]:
    with open_ledger(folder) as ledger:
        return [(each.tokens.decode, each.joules.measured) for each in ledger.minutes()]


def test_killed_at_random_instants_what_was_flushed_is_read(quick_path: Path) -> None:
    """Real processes, each SIGKILLed and each taking over what the one before left: every row whose flush had
    returned is there once, and after the last takeover nothing is left over."""
    chance = random.Random(5)
    promised: list[range] = []
    begun = 0
    command = [sys.executable, "-m", "tests.ledger.crashing", str(quick_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True, bufsize=1) as maker:
        assert maker.stdin is not None
        assert maker.stdout is not None
        for _ in range(KILLS):
            maker.stdin.write(f"{begun}\n")
            pid = int(maker.stdout.readline())
            flushed = begun
            for _ in range(chance.randrange(8)):
                flushed = int(maker.stdout.readline().split()[1])
            time.sleep(chance.uniform(0.0, 0.01))
            os.kill(pid, signal.SIGKILL)
            while (line := maker.stdout.readline()) != "dead\n":
                if line.startswith("flushed ") and line.endswith("0\n"):
                    flushed = int(line.split()[1])
            promised.append(range(begun, flushed))
            begun = flushed + 1000
            assert_there(quick_path, promised[-1:])
        maker.stdin.close()
    recover(Files(), quick_path)
    assert_there(quick_path, promised)
    assert sum(map(len, promised)) > 40 * KILLS
    assert [path for path in quick_path.rglob("*") if path.name.endswith((".segment", ".part"))] == []
    joules = minute_joules(quick_path)
    assert len(joules) == len(dict(joules)), "a minute in progress is there beside the whole one"


def assert_there(folder: Path, promised: list[range]) -> None:
    found = numbers(folder)
    assert len(found) == len(set(found)), "a row is there twice"
    assert set(found) >= {number for each in promised for number in each}, "a promised row is missing"


def steps(writer: LedgerWriter, clock: ManualClock, promised: list[int]) -> None:
    """A short life of a writer over a midnight, with what each flush promises."""
    for number in range(0, 6, 2):
        writer.add(REQUESTS, [request(number, number * 0.3 * DAY_SECONDS), request(number + 1)])
        in_progress = [minute_row(minute(number + 1, joules=0.5))]
        writer.add(MINUTES, [minute_row(minute(number, joules=1.0))], in_progress)
        writer.flush()
        promised += [number, number + 1]
        clock.advance(20.0)
        writer.rotate()


def test_killed_between_any_two_calls_nothing_is_lost_or_twice(quick_path: Path) -> None:
    """Before each single call to the file system, of the writer and of the takeover after it."""
    at = 1
    finished = False
    while not finished:
        folder = quick_path / str(at)
        folder.mkdir()
        files, clock, promised = BreakableFiles(), ManualClock(), []
        files.fails_at = at
        writer = LedgerWriter(folder, clock, NOON, Rotation(seconds=30.0), files)
        finished = until_killed(lambda w=writer, c=clock, p=promised: steps(w, c, p))  # type: ignore[misc]
        release(writer)
        rest = BreakableFiles()
        rest.fails_at = 1 + at % 12
        until_killed(lambda f=folder, r=rest: recover(r, f))  # type: ignore[misc]
        assert_promised(folder, promised)
        recover(Files(), folder)
        assert_promised(folder, promised)
        assert list(folder.glob("open/**/*.segment")) == []
        at += 1
    assert at > 60


def assert_promised(folder: Path, promised: list[int]) -> None:
    found = numbers(folder)
    assert len(found) == len(set(found))
    assert set(found) >= set(promised)
    joules = dict(minute_joules(folder))
    assert all(joules[number] == 1.0 for number in promised if number % 2 == 0)
    assert len(joules) == len(minute_joules(folder))


def release(writer: LedgerWriter) -> None:
    """What the kernel does for a dead process: its locks go. Nothing is written."""
    for file in Path("/proc/self/fd").iterdir():
        try:
            path = os.readlink(file)
        except OSError:
            continue
        if str(writer.folder) + os.sep in path:
            os.close(int(file.name))


def test_a_living_writer_is_left_alone(quick_path: Path) -> None:
    """However long it writes nothing; when it is gone its segments are taken."""
    writer = LedgerWriter(quick_path, ManualClock(), NOON, Rotation())
    writer.add(REQUESTS, [request(1)])
    writer.flush()
    assert recover(Files(), quick_path).segments == 0
    writer.add(REQUESTS, [request(2)])
    writer.close()
    recovered = recover(Files(), quick_path)
    assert (recovered.segments, recovered.rows["requests"]) == (1, 2)


def test_minutes_in_progress_of_a_dead_writer_are_kept(quick_path: Path) -> None:
    """As of its last flush; those that a later row voids are not, in whatever segment that is."""
    writer = LedgerWriter(quick_path, ManualClock(), NOON, Rotation())
    writer.add(MINUTES, [minute_row(minute(0, joules=1.0))], [minute_row(minute(1, joules=0.25))])
    writer.flush()
    writer.add(MINUTES, [], [minute_row(minute(1, joules=0.5))])
    writer.flush()
    release(writer)
    assert recover(Files(), quick_path).rows["minutes"] == 2
    assert minute_joules(quick_path) == [(0, 1.0), (1, 0.5)]
    moved = LedgerWriter(quick_path, ManualClock(), NOON, Rotation())
    moved.add(MINUTES, [], [minute_row(minute(600, joules=0.5))])
    moved.flush()
    moved.add(MINUTES, [], [minute_row(minute(719, joules=0.75))])
    moved.flush()
    release(moved)
    assert recover(Files(), quick_path).rows["minutes"] == 1
    assert minute_joules(quick_path) == [(0, 1.0), (1, 0.5), (719, 0.75)]
    late = LedgerWriter(quick_path, ManualClock(), NOON, Rotation())
    late.add(
        MINUTES, [], [minute_row(minute(719, "e1", joules=0.5)), minute_row(minute(720, "e1", joules=0.5))]
    )
    late.flush()
    late.add(MINUTES, [minute_row(minute(719, "e1", joules=2.0))], [])
    late.flush()
    release(late)
    recover(Files(), quick_path)
    assert sorted(minute_joules(quick_path)) == [(0, 1.0), (1, 0.5), (719, 0.75), (719, 2.0)]


def test_minutes_in_progress_outlive_the_rotation_of_their_segment(quick_path: Path) -> None:
    """They were written to the one that became Parquet: they are written to the next before it goes."""
    clock = ManualClock()
    writer = LedgerWriter(quick_path, clock, NOON, Rotation(seconds=60.0))
    writer.add(MINUTES, [minute_row(minute(0, joules=1.0))], [minute_row(minute(1, joules=0.25))])
    writer.flush()
    clock.advance(61.0)
    assert writer.rotate() == 1
    assert minute_joules(quick_path) == [(0, 1.0), (1, 0.25)]
    release(writer)
    recover(Files(), quick_path)
    assert minute_joules(quick_path) == [(0, 1.0), (1, 0.25)]


@contextmanager
def suppress_full_disk() -> Iterator[None]:
    """Lets no other error pass."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def goes_on(writer: LedgerWriter) -> bool:
    """Flushes and rotates; whether the rows of the flush are promised. Only a full disk is expected."""
    flushed = False
    with suppress_full_disk():
        writer.flush()
        flushed = True
        writer.rotate()
    return flushed


def test_a_flush_that_fails_at_midnight_brings_no_minute_twice(quick_path: Path) -> None:
    """Minutes of the old day are written, the new day finds no room, and the old day's segment is turned into
    Parquet: what was in progress is among the minutes that were written, and is not written again."""

    class NoNewDay(BreakableFiles):
        def make_one_folder(self, path: Path) -> None:
            if path.name == "date=2026-02-01" and "make_folder" in self.errors:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            Files.make_one_folder(self, path)

    files, clock = NoNewDay(), ManualClock()
    writer = LedgerWriter(quick_path, clock, NOON, Rotation(seconds=30.0), files)
    writer.add(MINUTES, [], [minute_row(minute(717, joules=0.5))])
    writer.flush()
    files.errors["make_folder"] = errno.ENOSPC
    closed = [minute_row(minute(717, joules=1.0)), minute_row(minute(719, joules=1.0))]
    writer.add(MINUTES, closed, [minute_row(minute(720, joules=0.5))])
    with pytest.raises(OSError, match="No space"):
        writer.flush()
    clock.advance(31.0)
    writer.rotate()
    assert dict(minute_joules(quick_path)) == {717: 1.0}
    assert len(minute_joules(quick_path)) == 1
    files.errors.clear()
    writer.flush()
    assert sorted(minute_joules(quick_path)) == [(717, 1.0), (719, 1.0), (720, 0.5)]
    writer.close()


@pytest.mark.parametrize("room", [0, 10, 100, 700, 3000, 9000])
def test_a_full_disk_loses_nothing_that_was_flushed(quick_path: Path, room: int) -> None:
    """Rows wait in memory, and are written when there is room again; a write that stops in the middle is
    taken back."""
    files, clock = BreakableFiles(), ManualClock()
    writer = LedgerWriter(quick_path, clock, NOON, Rotation(seconds=30.0), files)
    writer.add(REQUESTS, [request(0)])
    writer.flush()
    files.room_bytes = room
    promised = [0]
    for number in range(1, 8):
        writer.add(REQUESTS, [request(number)])
        clock.advance(10.0)
        if goes_on(writer):
            promised = list(range(number + 1))
        assert set(numbers(quick_path)) >= set(promised)
    assert promised != list(range(8))
    files.room_bytes = None
    writer.flush()
    writer.rotate()
    assert numbers(quick_path) == list(range(8))
    assert writer.lost.total() == 0
    with open_ledger(quick_path) as ledger:
        rows(ledger)
        assert ledger.rejected == []


@pytest.mark.parametrize("call", ["make_folder", "create", "write", "sync", "sync_folder", "rename"])
def test_whatever_fails_works_again_later(quick_path: Path, call: str) -> None:
    """A read-only folder, an I/O error: rows wait, and beyond the room in memory are counted."""
    files, clock = BreakableFiles(), ManualClock()
    writer = LedgerWriter(quick_path, clock, NOON, Rotation(seconds=30.0), files, max_pending_bytes=4000)
    files.errors[call] = errno.EROFS
    writer.add(REQUESTS, [request(number) for number in range(10)])
    with pytest.raises(OSError, match="Read-only"):
        writer.flush()
    lost = writer.lost[REQUESTS, "no_room"]
    assert 0 < lost < 10
    files.errors.clear()
    writer.flush()
    clock.advance(31.0)
    files.errors[call] = errno.EIO
    if call not in ("sync_folder",):
        with pytest.raises(OSError, match="Input/output"):
            writer.rotate()
    files.errors.clear()
    writer.rotate()
    assert numbers(quick_path) == list(range(10 - lost))
    assert list(quick_path.glob("**/*.part")) == []


def test_a_folder_that_goes_away_is_not_made_anew(quick_path: Path) -> None:
    """It may be a volume that is to come back: writing below its mount point would fill another disk."""
    folder = quick_path / "ledger"
    folder.mkdir()
    writer = LedgerWriter(folder, ManualClock(), NOON, Rotation())
    writer.add(REQUESTS, [request(1)])
    writer.flush()
    folder.rename(quick_path / "away")
    writer.add(REQUESTS, [request(2)])
    with pytest.raises(FileNotFoundError):
        writer.flush()
    assert not folder.exists()
    folder.mkdir()
    writer.flush()
    assert numbers(folder) == [2]
    assert numbers(quick_path / "away") == [1]


@pytest.fixture
def small_disk(quick_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = quick_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root; the same is tested by an injected file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    """What was flushed is read; when something else makes room, the rest follows."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_000_000)
    clock = ManualClock()
    writer = LedgerWriter(small_disk, clock, NOON, Rotation(seconds=30.0))
    promised = 0
    failed = 0
    for number in range(60):
        writer.add(REQUESTS, [request(number)])
        clock.advance(1.0)
        if goes_on(writer):
            promised = number + 1
        else:
            failed += 1
        assert numbers(small_disk)[:promised] == list(range(promised))
    assert failed > 5
    ballast.unlink()
    writer.flush()
    writer.rotate()
    assert numbers(small_disk) == list(range(60))
