"""A simulated run through the whole pipeline into a ledger: steps and readings, an accountant, Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from joulescope.clock import ManualClock, WallAnchor
from joulescope.export.records import finished_line
from joulescope.ingest.trace import TraceReader, TraceWriter
from joulescope.ledger.writer import LedgerWriter, Rotation
from joulescope.minute_model import EngineMinute
from joulescope.minutes import json_line
from joulescope.replay import Replay
from joulescope.simulation.traces import SimulatedRun


@dataclass(frozen=True)
class Simulated:
    """Where the ledger is, and what the accountant measured: whole microjoules of all GPUs."""

    root: Path
    measured_uj: int
    requests: int


def simulate(folder: Path, seconds: float) -> Simulated:
    """Writes a trace and the ledger of it below ``folder``."""
    trace, root = folder / "run.jsonl", folder / "ledger"
    root.mkdir()
    writer = TraceWriter(trace)
    writer.write(list(SimulatedRun(seconds, truth=False).records()))
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
    return Simulated(root, sum(round(gpu.measured_joules * 1e6) for gpu in snapshot.gpus), len(lines))
