"""From steps and readings to the bill: what the accountant measured is what the lines add up to."""

from __future__ import annotations

from pathlib import Path

import pytest

from joulescope.clock import ManualClock, WallAnchor
from joulescope.export.records import finished_line
from joulescope.ingest.trace import TraceReader, TraceWriter
from joulescope.insight.queries import balance, chargeback, coverage
from joulescope.insight.queries.ledger import open_root
from joulescope.ledger.writer import LedgerWriter, Rotation
from joulescope.minute_model import EngineMinute
from joulescope.minutes import json_line
from joulescope.replay import Replay
from joulescope.simulation.traces import SimulatedRun


@pytest.fixture(scope="module")
def accounted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, int]:
    """A simulated run through the pipeline into a ledger: where it is, measured microjoules, requests."""
    folder = tmp_path_factory.mktemp("run")
    trace, root = folder / "run.jsonl", folder / "ledger"
    root.mkdir()
    writer = TraceWriter(trace)
    writer.write(list(SimulatedRun(45.0, truth=False).records()))
    writer.close()
    minutes: list[EngineMinute] = []
    lines: list[tuple[bytes, float]] = []
    with TraceReader(trace) as reader:
        replay = Replay(reader, on_minute=minutes.append)
        for request in replay:
            wall = replay.wall or WallAnchor(0, 0)
            lines.append((finished_line(request, wall)[:-1], wall.wall_of(request.end_ns) / 1e9))
    ledger = LedgerWriter(root, ManualClock(), lines[0][1], Rotation(seconds=3600.0))
    ledger.add("requests", lines)
    ledger.add("minutes", [(json_line(minute)[:-1].encode(), minute.end_wall_seconds) for minute in minutes])
    ledger.flush()
    ledger.close()
    snapshot = replay.snapshot
    assert snapshot is not None
    return root, sum(round(gpu.measured_joules * 1e6) for gpu in snapshot.gpus), len(lines)


@pytest.mark.parametrize(
    ("by", "spread"), [((), "apart"), (("tenant",), "attributed"), (("engine", "lora", "hour"), "attributed")]
)
def test_the_bill_is_what_the_gpus_measured(
    accounted: tuple[Path, int, int], by: tuple[str, ...], spread: str
) -> None:
    """To the microjoule, and every finished request is on it once."""
    root, measured_uj, requests = accounted
    with open_root(str(root)) as opened:
        rows = opened.tables.rows(chargeback(opened.tables, by, spread))
    assert sum(row["joules_uj"] for row in rows) == measured_uj > 0
    assert sum(row["requests"] for row in rows) == requests > 5


def test_parts_are_those_of_the_accountant(accounted: tuple[Path, int, int]) -> None:
    """No residual, and finished requests have drawn no more than was attributed."""
    root, measured_uj, _ = accounted
    with open_root(str(root)) as opened:
        rows = opened.tables.rows(balance(opened.tables))
        known = coverage(opened.tables)
    assert sum(row["measured_uj"] for row in rows) == measured_uj
    assert all(row["residual_uj"] == 0 for row in rows)
    assert 0 < known["requests_uj"] <= known["attributed_uj"]
