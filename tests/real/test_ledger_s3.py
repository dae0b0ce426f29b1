"""A ledger in a real S3 server, by s3fs over HTTP: the store refuses, falls silent, is gone, and the sidecar
is killed meanwhile."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import fsspec
import psutil
import pyarrow.parquet as pq
import pytest

from joulescope.clock import ManualClock
from joulescope.daemon.ledger_keeper import LedgerKeeper
from joulescope.ledger.place import Place
from joulescope.ledger.read import Ledger, open_ledger
from joulescope.ledger.retention import Bounds
from joulescope.ledger.segment import read_segment
from joulescope.ledger.writer import Rotation
from tests.ledger.rows import ANCHOR, finished_request
from tests.real.object_store import Mood, ObjectStore
from tests.real.sidecar import Sidecar, wait_until
from tests.real.test_manners import Stage, busy, end

pytestmark = pytest.mark.real

FLUSH_SECONDS = 0.5
URL = f"s3://{ObjectStore.bucket}/ledger"


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with ObjectStore() as server:
        yield server


@pytest.fixture
def store(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """Empty and well, and found by this process too."""
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    server.door.be("well")
    yield server
    server.door.be("well")
    files = server.files()
    files.rm(files.find(server.bucket))
    clear_cache()


def clear_cache() -> None:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def stage(tmp_path: Path, store: ObjectStore) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(tmp_path, stack, environ=dict(store.environ))


def ids(ledger: Ledger) -> list[str]:
    found = []
    for path in ledger.files("requests"):
        with fsspec.open(path) as file:
            found += pq.read_table(file, columns=["request_id"])["request_id"].to_pylist()
    assert [reason for _, reason in ledger.rejected if "not written whole" not in reason] == []
    return found


def lives_on(sidecar: Sidecar) -> None:
    """It goes on to account and to write, and answers at once."""
    before = sidecar.snapshot().ledger.rows["requests"]
    wait_until(lambda: sidecar.snapshot().ledger.rows["requests"] > before + 50, "rows that go on", 20.0)
    begin = time.monotonic()
    assert sidecar.get("/metrics") is not None
    assert time.monotonic() - begin < 5.0


def waits_in(spool: Path) -> list[Path]:
    return sorted(spool.glob("requests/*/*.parquet"))


def stopped_in_a_segment(sidecar: Sidecar, spool: Path) -> bool:
    """Stops the process, and lets it go on if its last full segment has just become Parquet: a kill then
    would leave nothing to take over."""
    assert sidecar.process is not None
    process = psutil.Process(sidecar.process.pid)
    process.suspend()
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "the process to stop")
    segments = (spool / "open/requests").glob("*/*.segment")
    if any(read_segment(path, "requests").rows for path in segments):
        return True
    process.resume()
    return False


def test_a_killed_sidecar_and_a_store_that_fails_lose_nothing(stage: Stage, store: ObjectStore) -> None:
    """The store refuses, falls silent, and is gone; the sidecar is killed, starts beside a dead store, ends
    in its second; when the store is well again all of it is there, once."""
    spool = stage.folder / "spool"
    arguments = ("--ledger", URL, "--ledger-spool", str(spool), "--ledger-rotate-mebibytes", "1")
    arguments += ("--ledger-flush-seconds", str(FLUSH_SECONDS))
    sidecar = stage.sidecar(*arguments)
    stage.engine(batch=128, life_steps=8)
    busy(sidecar)
    wait_until(lambda: store.files().find(URL), "the first file in the store", 60.0)
    in_store = len(store.files().find(URL))
    moods: tuple[Mood, ...] = ("refusing", "silent")
    for mood in moods:
        refused = store.door.refused
        store.door.be(mood)
        wait_until(lambda before=refused: store.door.refused > before, f"a try while it is {mood}", 60.0)
        lives_on(sidecar)
        wait_until(lambda: sidecar.snapshot().ledger.failures.get("upload"), "the failure", 60.0)
    assert len(store.files().find(URL)) <= in_store + 2
    wait_until(lambda: waits_in(spool), "files that wait", 60.0)
    page = b"".join(filter(None, map(sidecar.get, ("/", "/metrics", "/api/snapshot")))).decode()
    finished = [line["request_id"] for line in sidecar.requests()]
    time.sleep(FLUSH_SECONDS)
    with open_ledger(spool) as ledger:
        wait_until(lambda: set(finished[:-1]) - set(ids(ledger)) <= sent(store), "the flush", 20.0)
    wait_until(lambda: stopped_in_a_segment(sidecar, spool), "requests in a segment", 60.0)
    sidecar.kill()
    log = sidecar.log.read_text()
    store.door.be("gone")
    again = stage.sidecar(*arguments)
    wait_until(lambda: again.snapshot().ledger.recovered_rows.get("requests"), "the takeover")
    lives_on(again)
    assert end(again) == 0, again.log.read_text()
    log += again.log.read_text()
    store.door.be("well")
    last = stage.sidecar(*arguments)
    wait_until(lambda: last.snapshot().ledger.uploaded_bytes, "the upload", 60.0)
    wait_until(lambda: not waits_in(spool), "the spool to empty", 60.0)
    last.kill()
    with open_ledger(URL, spool=spool, verify=True) as ledger:
        found = Counter(ids(ledger))
    assert not set(finished[:-1]) - found.keys()
    assert max(found.values()) == 1
    assert "does not take files" in log
    assert "Traceback" not in log
    for secret in (name for key, name in store.environ.items() if "KEY" in key):
        assert secret not in page + log + last.log.read_text()


def sent(store: ObjectStore) -> set[str]:
    """Requests that the store has, seen past the door."""
    files = store.files()
    found: set[str] = set()
    for path in files.find(f"{URL}/requests"):
        with files.open(path) as file:
            found |= set(pq.read_table(file, columns=["request_id"])["request_id"].to_pylist())
    return found


@pytest.mark.parametrize("mood", ["refusing", "gone"])
def test_a_spool_before_a_store_that_fails_is_bounded(tmp_path: Path, store: ObjectStore, mood: Mood) -> None:
    """The oldest files go, and are counted; the rest is sent when the store is well again."""
    clock, most = ManualClock(), 60_000
    keeper = LedgerKeeper(
        tmp_path, clock, ANCHOR, place=Place(URL), rotation=Rotation(seconds=60.0), bounds=Bounds(bytes=most)
    )
    store.door.be(mood)
    for turn in range(8):
        keeper.export([finished_request(turn * 100 + at) for at in range(100)])
        keeper.step()
        clock.advance(61.0)
        keeper.step()
        keeper.step_upload() if turn % 4 == 0 else None
        assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= most
    assert keeper.totals().failures["upload"] == 2
    assert keeper.totals().evicted_bytes["not_uploaded"] > 0
    store.door.be("well")
    keeper.step_upload()
    keeper.close(1.0)
    assert waits_in(tmp_path) == []
    with open_ledger(URL) as ledger:
        kept = ids(ledger)
    assert 0 < len(kept) < 800
    assert {f"request-{700 + at}" for at in range(100)} <= set(kept)
