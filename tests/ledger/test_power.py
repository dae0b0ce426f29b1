"""The power goes at any instant: whatever the disk made of what nobody waited for, what was promised is
there."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import get_args

import pytest

from joulescope.clock import ManualClock
from joulescope.ledger.compaction import Compaction, compact
from joulescope.ledger.files import Files
from joulescope.ledger.place import Place
from joulescope.ledger.recovery import recover
from joulescope.ledger.tables import MINUTES, REQUESTS
from joulescope.ledger.writer import LedgerWriter, Rotation
from tests.ledger.broken import BreakableFiles, until_killed
from tests.ledger.power import PoweredFiles, Rest
from tests.ledger.rows import NOON, request
from tests.ledger.test_compaction import FOR_EVER, fill, rows
from tests.ledger.test_crash import assert_promised, release, steps

pytestmark = pytest.mark.slow

RESTS: tuple[Rest, ...] = get_args(Rest)


def test_whatever_was_flushed_outlives_a_loss_of_power(quick_path: Path) -> None:
    """Before each single call to the file system, with each sort of disk in turn, and whatever that call was:
    rows are there once, minutes have their joules, and the takeover goes through."""
    chance, at, finished = random.Random(3), 1, False
    while not finished:
        folder = quick_path / "live"
        folder.mkdir()
        files, clock, promised = PoweredFiles(folder), ManualClock(), []
        files.fails_at = at
        writer = LedgerWriter(folder, clock, NOON, Rotation(seconds=30.0), files)
        finished = until_killed(lambda w=writer, c=clock, p=promised: steps(w, c, p))  # type: ignore[misc]
        back = files.after_power_loss(quick_path / "back", RESTS[at % 3], chance)
        release(writer)
        assert_promised(back, promised)
        recover(Files(), back)
        assert_promised(back, promised)
        shutil.rmtree(folder)
        shutil.rmtree(back)
        at += 1
    assert at > 60


def test_a_disk_that_loses_names_would_be_found_out(quick_path: Path) -> None:
    """The check above can fail: without the sync of a folder a flushed row is gone."""

    class Forgetful(PoweredFiles):
        """Believes that names need no sync."""

        def sync_folder(self, path: Path) -> None:
            pass

    folder = quick_path / "live"
    folder.mkdir()
    files = Forgetful(folder)
    writer = LedgerWriter(folder, ManualClock(), NOON, Rotation(), files)
    writer.add(REQUESTS, [request(0)])
    writer.flush()
    back = files.after_power_loss(quick_path / "back", "nothing", random.Random(1))
    writer.close()
    with pytest.raises(AssertionError):
        assert_promised(back, [0])


def test_a_compaction_outlives_a_loss_of_power(quick_path: Path) -> None:
    """No row is lost, and none is there twice."""
    chance, at, finished = random.Random(4), 1, False
    fill(quick_path / "full", days=2, writers=2)
    shutil.rmtree(quick_path / "full" / MINUTES)
    before = rows(quick_path / "full")
    while not finished:
        folder = shutil.copytree(quick_path / "full", quick_path / "live")
        files = PoweredFiles(folder)
        files.fails_at = at
        work = Compaction(Place(str(folder)), REQUESTS, FOR_EVER, files=files)
        finished = until_killed(lambda w=work: w.run())  # type: ignore[misc]
        back = files.after_power_loss(quick_path / "back", RESTS[at % 3], chance)
        assert rows(back) == before
        compact(str(back), FOR_EVER)
        assert rows(back) == before
        shutil.rmtree(folder)
        shutil.rmtree(back)
        at += 1
    assert at > 15


def test_the_order_of_what_is_written(quick_path: Path) -> None:
    """A new folder's name is on the disk before a file is in it; a file's bytes before its name, its name
    before it counts; and what it takes the place of goes last."""
    files, clock = BreakableFiles(), ManualClock()
    writer = LedgerWriter(quick_path, clock, NOON, Rotation(seconds=30.0), files)
    writer.add(REQUESTS, [request(1)])
    writer.flush()
    made = ["make_folder", "sync_folder"]
    segment = ["create", "write", "sync", "rename", "sync_folder"]
    assert files.told == [*made * 3, *segment, "write", "sync"]
    files.told.clear()
    clock.advance(31.0)
    writer.rotate()
    parquet = ["remove", "create", "write", "sync", "rename", "sync_folder", "remove"]
    assert files.told == [*made * 2, *parquet]
