"""Single requests as JSON for ``/api/requests``, and back: what ``joulescope top`` and the live page read.

The object is ``{"joulescope_version", "time_ns", "wall_seconds", "open_total", "open", "finished"}``.
``open`` holds :class:`joulescope.model.OpenRequest`, costliest first; ``finished`` holds
:class:`joulescope.model.FinishedRequest`, latest first; both mirror their types field by field. Instants
(``_ns``) are of the sidecar's CLOCK_MONOTONIC, as is ``time_ns``: ages are differences to it.

Request ids stand here and in no label of a metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from joulescope import __version__
from joulescope.export.snapshot_json import plain
from joulescope.model import FinishedRequest, OpenRequest, Snapshot

MAX_REQUESTS = 256
"""Most requests of either kind in one answer, and the number without a limit in the query."""

LIMITS = ("open", "finished")
"""Parameters of the query that ask for fewer."""


@dataclass(frozen=True, slots=True)
class RequestsView:
    """One answer: requests that run and requests that ended of late."""

    time_ns: int
    wall_seconds: float
    open_total: int
    """Open requests in all, those that are not listed included."""
    open: tuple[OpenRequest, ...] = ()
    finished: tuple[FinishedRequest, ...] = ()

    @classmethod
    def of(
        cls, snapshot: Snapshot, open_requests: Sequence[OpenRequest], finished: Sequence[FinishedRequest]
    ) -> RequestsView:
        """``open_requests`` costliest first, ``finished`` oldest first."""
        return cls(
            time_ns=snapshot.time_ns,
            wall_seconds=snapshot.wall_seconds,
            open_total=max(sum(engine.requests_open for engine in snapshot.engines), len(open_requests)),
            open=tuple(open_requests),
            finished=tuple(reversed(finished)),
        )


def limits_of(query: Mapping[str, str]) -> dict[str, int]:
    """How many requests of each kind a query asks for.

    Raises:
        ValueError: if one of :data:`LIMITS` is not a whole number from 0 to :data:`MAX_REQUESTS`.
    """
    limits = {}
    for name in LIMITS:
        text = query.get(name, str(MAX_REQUESTS))
        if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= MAX_REQUESTS):
            raise ValueError(f"{name} is a whole number from 0 to {MAX_REQUESTS}")
        limits[name] = int(text)
    return limits


def encode_requests(view: RequestsView, limits: Mapping[str, int] | None = None) -> bytes:
    """JSON of a view, with at most so many of ``open`` and ``finished``."""
    limits = limits or {}
    envelope: dict[str, Any] = {
        "joulescope_version": __version__,
        "time_ns": view.time_ns,
        "wall_seconds": view.wall_seconds,
        "open_total": view.open_total,
        "open": view.open[: limits.get("open", MAX_REQUESTS)],
        "finished": view.finished[: limits.get("finished", MAX_REQUESTS)],
    }
    try:
        return msgspec.json.encode(envelope)
    except UnicodeEncodeError:  # half a character in a name: dear to look for each time
        return msgspec.json.encode({name: plain(value) for name, value in envelope.items()})


def decode_requests(body: bytes) -> RequestsView:
    """The view that :func:`encode_requests` wrote; fields that this version does not know are skipped.

    Raises:
        ValueError: if the body is not such an object; the message names the field.
    """
    return msgspec.json.decode(body, type=RequestsView)
