"""The times of single requests, where a source has them: a trace or a ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from joulescope.cli.minutes_source import policy_of_settings
from joulescope.clock import WallAnchor
from joulescope.errors import TraceError
from joulescope.ingest.trace import TraceReader
from joulescope.insight.compare.samples import sample
from joulescope.insight.compare.values import Sample
from joulescope.ledger.read import open_ledger
from joulescope.model import FinishedRequest
from joulescope.replay import Replay
from joulescope.units import seconds_from_ns

MOST_SAMPLES = 500_000
"""Of a ledger: more are thinned out evenly."""
_COLUMNS = ("engine", "task", "start_unix_ns", "first_token_unix_ns", "end_unix_ns", "output_tokens")


def read_samples(source: str, path: str) -> list[Sample] | None:
    """All finished requests; ``None`` if the source knows minutes only (a sidecar, a file of minutes).

    ``path``: what they are said to be of.
    """
    if source.startswith(("http://", "https://")) or source == "-":
        return None
    if "://" in source or Path(source).is_dir():
        return list(_of_ledger(source, path))
    return _of_trace(Path(source), path)


def _of_trace(file: Path, path: str) -> list[Sample] | None:
    """Replays it; a file of which no line can be used holds minutes and no trace."""
    try:
        with TraceReader(file) as reader:
            replay = Replay(reader, policy_of_settings())  # of the tasks of the minutes
            return [_sample(request, replay.wall or WallAnchor(0, 0), path) for request in replay]
    except TraceError:
        return None


def _of_ledger(root: str, path: str) -> Iterator[Sample]:
    """Of very many requests, every second or tenth: quantiles need no more."""
    import fsspec
    import pyarrow.parquet as parquet

    with open_ledger(root) as ledger:
        files = ledger.files("requests")
        rows = 0
        for name in files:
            with fsspec.open(name) as file:
                rows += parquet.ParquetFile(file).metadata.num_rows
        stride = max(-(-rows // MOST_SAMPLES), 1)
        for name in files:
            with fsspec.open(name) as file:
                found = parquet.ParquetFile(file)
                columns = [column for column in _COLUMNS if column in found.schema_arrow.names]
                table = found.read(columns=columns)
            for row in table.take(list(range(0, table.num_rows, stride))).to_pylist():
                yield _sample_of_row(row, path)


def _sample_of_row(row: dict[str, Any], path: str) -> Sample:
    first = row.get("first_token_unix_ns")
    return sample(
        path,
        row["engine"],
        row.get("task") or "",
        seconds_from_ns(row["start_unix_ns"]),
        None if first is None else seconds_from_ns(first),
        seconds_from_ns(row["end_unix_ns"]),
        row.get("output_tokens") or 0,
    )


def _sample(request: FinishedRequest, wall: WallAnchor, path: str) -> Sample:
    first = request.first_token_ns
    return sample(
        path,
        request.engine,
        request.task,
        seconds_from_ns(wall.wall_of(request.start_ns)),
        None if first is None else seconds_from_ns(wall.wall_of(first)),
        seconds_from_ns(wall.wall_of(request.end_ns)),
        request.output_tokens,
    )
