"""A folder of baselines: which one an engine is compared with, and what becomes of bad files."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from joulescope.attribution.baseline import Baseline
from joulescope.attribution.efficiencies import Efficiencies
from joulescope.baselines.file import encode_baseline, read_baseline, write_baseline
from joulescope.baselines.store import BaselineFolder, choose
from joulescope.daemon.baseline_keeper import BaselineKeeper
from tests.baselines.samples import IDENTITY, baseline


def test_pinned_before_learned_own_version_before_others_newest_first() -> None:
    """The order in which an operator would choose."""
    learned = baseline(name="learned", created_wall_seconds=9.0)
    older = baseline(name="older", source="pinned", version="0.31.0", created_wall_seconds=1.0)
    newer = baseline(name="newer", source="pinned", version="0.33.0", created_wall_seconds=2.0)
    everything = [learned, older, newer]
    assert choose(everything, IDENTITY, "0.31.0") == older
    assert choose(everything, IDENTITY, "0.99.0") == newer
    assert choose([learned], IDENTITY, "0.99.0") == learned
    assert choose(everything, replace(IDENTITY, gpu_name="NVIDIA H200"), "0.31.0") is None


def test_changes_are_seen_and_bad_files_are_said_once(tmp_path: Path) -> None:
    """A new file, a changed one, one that became bad, one that went; other files are none of our business."""
    said: list[str] = []
    folder = BaselineFolder(tmp_path, log=said.append)
    assert folder.look() == ()
    path = tmp_path / "a.json"
    write_baseline(path, baseline())
    (tmp_path / "notes.txt").write_text("not ours")
    (tmp_path / "..data.json").write_text("a ConfigMap's own")
    assert folder.look() == (baseline(),)
    write_baseline(path, baseline(scale=2.0))
    os.utime(path, ns=(1, 1))
    assert folder.look() == (baseline(scale=2.0),)
    path.write_text("{}")
    assert folder.look() == folder.look() == ()
    (message,) = said
    assert str(path) in message
    assert "the file is not used" in message
    write_baseline(path, baseline())
    assert folder.look() == (baseline(),)
    path.unlink()
    assert folder.look() == ()


def test_a_folder_that_is_not_there_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    folder = BaselineFolder(tmp_path / "absent", log=said.append)
    assert folder.look() == folder.look() == ()
    assert not folder.keep(baseline())
    assert not folder.keep(baseline())
    assert len(said) == 2
    assert "learned again after a restart" in said[1]


def test_a_folder_that_cannot_be_read_for_a_while_takes_nothing_away(tmp_path: Path) -> None:
    """A mount that went and came back: engines go on with what was read, instead of learning anew."""
    said: list[str] = []
    place = tmp_path / "mount"
    place.mkdir()
    folder = BaselineFolder(place, log=said.append)
    write_baseline(place / "a.json", baseline())
    assert folder.look() == (baseline(),)
    place.rename(tmp_path / "away")
    assert folder.look() == folder.look() == (baseline(),)
    assert len(said) == 1
    (tmp_path / "away").rename(place)
    (place / "a.json").unlink()
    assert folder.look() == ()


def test_a_bad_file_is_read_again_until_it_is_good(tmp_path: Path) -> None:
    """Rights that are given later change neither size nor time."""
    folder = BaselineFolder(tmp_path, log=lambda text: None)
    path = tmp_path / "a.json"
    text = encode_baseline(baseline())
    for written, seen in ((b" " * len(text), ()), (text, (baseline(),))):
        path.write_bytes(written)
        os.utime(path, ns=(1, 1))
        assert folder.look() == seen


def test_a_learned_one_replaces_that_of_the_same_kind_of_engine(tmp_path: Path) -> None:
    """One file for each kind: restarts do not fill the folder."""
    folder = BaselineFolder(tmp_path)
    assert folder.keep(baseline())
    assert folder.keep(baseline(scale=2.0))
    assert folder.keep(baseline(identity=replace(IDENTITY, gpu_count=2)))
    assert len(folder.look()) == 2
    assert choose(folder.look(), IDENTITY, "0.32.0") == baseline(scale=2.0)


class Engines(Efficiencies):
    """Notes what the keeper asks for."""

    def __init__(self, *learned: object) -> None:
        super().__init__()
        self._learned = list(learned)  # type: ignore[arg-type]
        self.renewals = 0

    def renew(self) -> None:
        self.renewals += 1


def test_the_keeper_writes_what_was_learned_and_tells_of_what_is_new(tmp_path: Path) -> None:
    """Files are touched in the keeper's own thread (``look``) only; the accounting thread never waits."""
    keeper = BaselineKeeper(BaselineFolder(tmp_path))
    engines = Engines(baseline())
    keeper.turn(engines)
    assert os.listdir(tmp_path) == []
    keeper.look()
    assert len(os.listdir(tmp_path)) == 1
    keeper.turn(engines)
    assert engines.renewals == 1
    assert keeper.find(IDENTITY, "0.32.0") == baseline()
    write_baseline(tmp_path / "pinned.json", baseline(source="pinned"))
    keeper.look()
    keeper.turn(engines)
    keeper.turn(engines)
    assert engines.renewals == 2
    assert keeper.find(IDENTITY, "0.32.0") == baseline(source="pinned")


def test_what_was_learned_last_is_written_at_the_end(tmp_path: Path) -> None:
    keeper = BaselineKeeper(BaselineFolder(tmp_path))
    keeper.turn(Engines(baseline()))
    keeper.stop(1.0)
    (name,) = os.listdir(tmp_path)
    assert read_baseline(tmp_path / name) == baseline()


class SlowFolder(BaselineFolder):
    """A disk that does not answer before it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked, self.answer, self.kept = threading.Event(), threading.Event(), 0

    def keep(self, baseline: Baseline) -> bool:
        self.asked.set()
        self.answer.wait(10.0)
        self.kept += 1
        return True


def test_a_disk_that_does_not_answer_holds_nobody_up_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread that writes hangs: stopping does not write beside it, nor wait for it."""
    folder = SlowFolder(tmp_path)
    keeper = BaselineKeeper(folder)
    keeper.turn(Engines(baseline()))
    keeper.start()
    assert folder.asked.wait(10.0)
    keeper.stop(0.0)
    assert folder.kept == 0
    assert "does not answer" in caplog.text
    folder.answer.set()


def test_without_a_folder_nothing_is_written(caplog: pytest.LogCaptureFixture) -> None:
    keeper = BaselineKeeper(None)
    keeper.turn(Engines(baseline()))
    keeper.turn(None)
    keeper.look()
    keeper.stop(0.1)
    assert keeper.find(IDENTITY, "0.32.0") is None
