"""The ledger as a part of the daemon: it is written while accounting goes on, whatever disk or store do."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pyarrow.parquet as pq
import pytest

from joulescope.clock import ManualClock, WallAnchor
from joulescope.daemon.daemon import Daemon
from joulescope.daemon.ledger_keeper import LOOK_SECONDS, RETRY_SECONDS, LedgerKeeper, LedgerPart
from joulescope.errors import ConfigError
from joulescope.ledger.place import Place
from joulescope.ledger.read import open_ledger
from joulescope.ledger.retention import Bounds
from joulescope.ledger.writer import Rotation
from joulescope.minutes import merge
from joulescope.model import GpuInfo
from joulescope.sampling.sampler import SensorOpened
from tests.daemon.test_daemon import Bench, Sink, life, reading, settings_in
from tests.ledger.broken import BreakableFiles
from tests.ledger.rows import NOON, finished_request, minute
from tests.worlds import GPU, MS, SECOND

ANCHOR = WallAnchor(0, int(NOON) * 10**9)


def request_ids(folder: Path | str, **more: Any) -> list[str]:
    with open_ledger(folder, **more) as ledger:
        found = [fsspec.open(path).open() for path in ledger.files("requests")]
        return sorted(row["request_id"] for each in found for row in pq.read_table(each).to_pylist())


def keeper_in(folder: Path, clock: ManualClock, **more: Any) -> LedgerKeeper:
    more.setdefault("rotation", Rotation(seconds=60.0))
    return LedgerKeeper(folder, clock, ANCHOR, **more)


def test_what_has_finished_is_there_after_the_next_step(tmp_path: Path) -> None:
    """Requests, whole minutes and those in progress; hours later they are Parquet, and old ones gone."""
    clock = ManualClock()
    folder = tmp_path / "var" / "ledger"
    keeper = keeper_in(folder, clock, bounds=Bounds(bytes=0))
    keeper.export([finished_request(1), finished_request(2)])
    keeper.take([minute(0)])
    keeper.turn(lambda now_ns: [minute(1)])
    assert keeper.step() == 10.0
    assert request_ids(folder) == ["request-1", "request-2"]
    with open_ledger(folder) as ledger:
        assert [each.tokens.decode for each in ledger.minutes()] == [0, 1]
    totals = keeper.totals()
    assert totals.rows == {"requests": 2, "minutes": 1}
    assert totals.flushed_wall_seconds == NOON
    assert totals.open_bytes is not None
    assert totals.open_bytes > 0
    clock.advance(61.0)
    keeper.step()
    totals = keeper.totals()
    assert totals.parquet_bytes == 0
    assert totals.evicted_bytes["size"] > 0
    assert keeper.counts() == {"written": 2, "dropped": 0}
    keeper.close(1.0)
    keeper.close(1.0)


def test_a_disk_that_takes_nothing_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Accounting goes on, failures are counted, and what waited is there when it works again."""
    caplog.set_level(logging.INFO)
    clock, files = ManualClock(), BreakableFiles()
    keeper = keeper_in(tmp_path, clock, files=files)
    files.errors["write"] = errno.ENOSPC
    for number in range(5):
        keeper.export([finished_request(number)])
        keeper.step()
        clock.advance(10.0)
    assert keeper.totals().failures["flush"] == 5
    assert keeper.totals().flushed_wall_seconds is None
    assert [record.message for record in caplog.records] == [
        f"the ledger in {tmp_path} cannot be written: No space left on device; rows wait in memory while "
        "there is room; accounting goes on, and it is tried again"
    ]
    files.errors.clear()
    keeper.step()
    assert caplog.records[-1].message == "the ledger: flush works again"
    assert request_ids(tmp_path) == [f"request-{number}" for number in range(5)]
    keeper.close(1.0)
    keeper.export([finished_request(9)])
    assert keeper.totals().lost_rows["requests"] == {"no_room": 1}
    assert keeper.counts() == {"written": 5, "dropped": 1}


def test_a_segment_that_cannot_become_parquet_is_tried_again_later(tmp_path: Path) -> None:
    """After a pause: reading it over and over would cost more than it is worth."""
    clock, files = ManualClock(), BreakableFiles()
    keeper = keeper_in(tmp_path, clock, files=files)
    keeper.export([finished_request(1)])
    keeper.step()
    clock.advance(61.0)
    files.errors["rename"] = errno.EIO
    keeper.step()
    clock.advance(0.5 * RETRY_SECONDS)
    keeper.step()
    assert keeper.totals().failures["rotate"] == 1
    files.errors.clear()
    assert request_ids(tmp_path) == ["request-1"]
    clock.advance(0.5 * RETRY_SECONDS)
    keeper.step()
    assert list(tmp_path.glob("requests/*/*.parquet"))
    assert request_ids(tmp_path) == ["request-1"]
    keeper.close(1.0)


def test_what_another_left_is_taken_over(tmp_path: Path) -> None:
    """At the start, and later what died meanwhile; a neighbour at work is left alone."""
    clock = ManualClock()
    dead, neighbour = keeper_in(tmp_path, clock), keeper_in(tmp_path, clock)
    dead.export([finished_request(1)])
    dead.close(1.0)
    neighbour.export([finished_request(2)])
    neighbour.step()
    keeper = keeper_in(tmp_path, clock)
    keeper.step()
    assert neighbour.totals().recovered_rows == {"requests": 1}
    assert keeper.totals().recovered_rows == {}
    neighbour.close(1.0)
    clock.advance(LOOK_SECONDS)
    keeper.step()
    assert keeper.totals().recovered_rows == {"requests": 1}
    keeper.close(1.0)
    assert request_ids(tmp_path) == ["request-1", "request-2"]


def test_a_store_that_is_down_holds_nothing_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files wait in the spool, within its bounds; what has no room there is counted as not uploaded."""
    place = Place(f"memory://bucket-{uuid4().hex}")
    system = place.system

    class Down:
        """Answers nothing but an error."""

        def __getattr__(self, name: str) -> Any:
            raise ConnectionError("no route to host")

    clock = ManualClock()
    place.system = Down()
    keeper = keeper_in(tmp_path, clock, place=place, bounds=Bounds(bytes=1))
    keeper.export([finished_request(1)])
    keeper.step()
    clock.advance(61.0)
    keeper.step()
    keeper.export([finished_request(2)])
    keeper.step()
    clock.advance(61.0)
    assert keeper.step_upload() == RETRY_SECONDS
    assert keeper.totals().failures.get("upload", 0) == 0
    assert keeper.totals().evicted_bytes["not_uploaded"] > 0
    keeper.close(1.0)
    keeper = keeper_in(tmp_path, clock, place=place)
    keeper.step()
    keeper.step_upload()
    keeper.step_upload()
    assert keeper.totals().failures["upload"] == 2
    said = [record.message for record in caplog.records if "ledger's store" in record.message]
    assert len(said) == 1
    assert "no route to host" in said[0]
    place.system = system
    keeper.step_upload()
    assert keeper.totals().uploaded_bytes
    keeper.close(1.0)
    assert request_ids(place.root) == ["request-2"]


def test_the_whole_path_keeps_what_it_accounts(tmp_path: Path) -> None:
    """Requests of the ledger are those that sinks got, and joules of its minutes those of the account: of
    minutes in progress too, so that a kill takes no more than the time since the last flush."""
    clock, sink = ManualClock(), Sink()
    settings = settings_in(tmp_path, ledger=str(tmp_path / "ledger"))
    wall = WallAnchor(0, int(NOON) * 10**9)
    keeper = LedgerKeeper.build(settings, clock, wall)
    daemon = Daemon(
        settings, open_sensor=None, clock=clock, sinks=[sink], wall=wall, ledger=LedgerPart(keeper)
    )
    bench = Bench(settings, daemon, clock, sink)
    daemon.deliver(SensorOpened(0, [GpuInfo(GPU, power_limit_watts=700.0)]))
    bench.tell(life())
    bench.read([reading(at * 100 * MS) for at in range(120)])
    clock.time_ns = 12 * SECOND
    daemon.turn(0.0)
    keeper.step()
    snapshot = bench.at(12 * SECOND)
    assert request_ids(tmp_path / "ledger") == [request.request_id for request in sink.requests] == ["r1"]
    with open_ledger(tmp_path / "ledger") as ledger:
        (total,) = merge(each for each in ledger.minutes() if each.kind.engine)
        assert total.joules.measured == pytest.approx(snapshot.gpus[0].measured_joules)
        assert total.joules.measured > 300.0
        assert total.tasks[0].requests == 1
    assert snapshot.ledger.rows == {"requests": 1, "minutes": 0}
    assert snapshot.sidecar.exported["ledger", "written"] == 1
    bench.peer.close()
    final = daemon.close(0.5)
    with open_ledger(tmp_path / "ledger") as ledger:
        assert sum(each.joules.measured for each in ledger.minutes()) == pytest.approx(
            final.gpus[0].measured_joules
        )
        assert ledger.rejected == []
    assert keeper.totals().rows["minutes"] >= 1


def test_without_a_ledger_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    """Its packages take memory, and need not be installed."""
    code = (
        "import sys\n"
        "from joulescope.config import Settings\n"
        "from joulescope.daemon.daemon import Daemon\n"
        f"Daemon.build(Settings(socket={str(tmp_path / 's')!r}, sensor='none'), environ={{}})\n"
        "print(sorted({'pyarrow', 'fsspec'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_place_that_cannot_be_is_an_error_at_the_start(tmp_path: Path) -> None:
    """Not a warning each ten seconds."""
    settings = settings_in(tmp_path, ledger="nosuch://bucket", ledger_spool=str(tmp_path))
    with pytest.raises(ConfigError, match="nosuch"):
        Daemon.build(settings, clock=ManualClock(), environ={})
