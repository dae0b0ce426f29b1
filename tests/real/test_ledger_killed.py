"""A real sidecar with a ledger is killed: what had finished before the last flush is there after it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from joulescope.ledger.read import open_ledger
from tests.real.sidecar import Sidecar, wait_until
from tests.real.test_manners import Stage, busy

pytestmark = pytest.mark.real

FLUSH_SECONDS = 0.5
SLOW_DISK_SECONDS = 4.0
"""What a flush may take on a machine that does much else."""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(tmp_path, stack)


def kept(folder: Path) -> list[str]:
    with open_ledger(folder) as ledger:
        tables = [pq.read_table(path, columns=["request_id"]) for path in ledger.files("requests")]
        assert [reason for _, reason in ledger.rejected if "not written whole" not in reason] == []
    return [row["request_id"] for table in tables for row in table.to_pylist()]


def test_a_killed_sidecar_keeps_what_it_flushed(stage: Stage) -> None:
    """At any instant; joules of its minutes are there as far, and the next sidecar takes all over."""
    folder = stage.folder / "ledger"
    arguments = ("--ledger", str(folder), "--ledger-flush-seconds", str(FLUSH_SECONDS))
    sidecar = stage.sidecar(*arguments)
    stage.engine()
    busy(sidecar)
    time.sleep(random.uniform(0.0, 2 * FLUSH_SECONDS))
    finished = [line["request_id"] for line in sidecar.requests()]
    time.sleep(FLUSH_SECONDS)
    wait_until(lambda: set(kept(folder)) >= set(finished), "the flush", SLOW_DISK_SECONDS)
    last = sidecar.snapshot()
    time.sleep(random.uniform(0.0, FLUSH_SECONDS))
    sidecar.kill()
    found = kept(folder)
    assert len(found) == len(set(found))
    assert set(finished) <= set(found) <= {line["request_id"] for line in sidecar.requests()}
    with open_ledger(folder) as ledger:
        joules = sum(each.joules.measured for each in ledger.minutes())
    watts = 300.0
    late = watts * (FLUSH_SECONDS + SLOW_DISK_SECONDS)
    assert joules == pytest.approx(last.gpus[0].measured_joules, abs=late)
    assert joules > 0.5 * last.gpus[0].measured_joules
    again: Sidecar = stage.sidecar(*arguments)
    wait_until(lambda: again.snapshot().ledger.recovered_rows.get("requests") == len(found), "the takeover")
    assert list(folder.glob("requests/*/*.parquet"))
    assert set(kept(folder)) >= set(found)
    again.terminate()
