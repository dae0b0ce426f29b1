"""The times of single requests, where a source has them: a trace or a ledger."""

from __future__ import annotations

from pathlib import Path

from joulescope.clock import WallAnchor
from joulescope.errors import TraceError
from joulescope.ingest.trace import TraceReader
from joulescope.insight.compare.samples import sample
from joulescope.insight.compare.values import Sample
from joulescope.model import FinishedRequest
from joulescope.replay import Replay
from joulescope.units import seconds_from_ns


def read_samples(source: str, path: str) -> list[Sample] | None:
    """All finished requests; ``None`` if the source knows minutes only (a sidecar, a file of minutes).

    ``path``: what they are said to be of.
    """
    if "://" in source or source == "-" or Path(source).is_dir():
        return None
    return _of_trace(Path(source), path)


def _of_trace(file: Path, path: str) -> list[Sample] | None:
    """Replays it; a file of which no line can be used holds minutes and no trace."""
    try:
        with TraceReader(file) as reader:
            replay = Replay(reader)
            return [_sample(request, replay.wall or WallAnchor(0, 0), path) for request in replay]
    except TraceError:
        return None


def _sample(request: FinishedRequest, wall: WallAnchor, path: str) -> Sample:
    first = request.first_token_ns
    return sample(
        path,
        request.engine,
        getattr(request, "task", ""),
        seconds_from_ns(wall.wall_of(request.start_ns)),
        None if first is None else seconds_from_ns(wall.wall_of(first)),
        seconds_from_ns(wall.wall_of(request.end_ns)),
        request.output_tokens,
    )
