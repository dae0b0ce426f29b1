"""``GET /api/v1/minutes``: what engines did in the last day, minute by minute, as JSON lines."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from joulescope.clock import utc_instant
from joulescope.export.minute_ring import MinuteRing

PATH = "/api/v1/minutes"
MEDIA_TYPE = "application/x-ndjson"

MAX_PAGE_BYTES = 4 << 20
"""A page is about so long at most; whoever wants more asks again, from the last end."""

SEQUENCE_HEADER = "Joulescope-Sequence"
"""Of the answer: what to ask with next, as ``since_sequence``."""

_PARAMETERS = ("since", "engine", "since_sequence")


def minutes_page(ring: MinuteRing) -> Callable[[Request], Response]:
    """The page of a ring. It holds labels and sums, nothing of single requests."""

    def page(request: Request) -> Response:
        headers = {"Cache-Control": "no-store"}
        try:
            since, engine = asked(request.query_params)
            sequence = request.query_params.get("since_sequence")
            if sequence is None:
                lines = list(ring.lines(since, engine, MAX_PAGE_BYTES))
            else:
                lines, headers[SEQUENCE_HEADER] = ring.after(sequence, since, engine, MAX_PAGE_BYTES)
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", 400)
        return Response(b"".join(lines), media_type=MEDIA_TYPE, headers=headers)

    return page


def asked(query: Mapping[str, str]) -> tuple[float, str | None]:
    """After when minutes are to end, in seconds since the epoch, and of which engine; ``None``: of all.

    Raises:
        ValueError: for what is not known or makes no sense; the message says what would.
    """
    for name in query:
        if name not in _PARAMETERS:
            raise ValueError(f"no parameter is called {name[:40]!r}; there are {', '.join(_PARAMETERS)}")
    return _instant(query.get("since", "0")), query.get("engine")


def _instant(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
        with contextlib.suppress(ValueError, OverflowError):
            seconds = utc_instant(text.replace(" ", "+")).timestamp()
    if not math.isfinite(seconds):
        raise ValueError(
            f"since is seconds since the epoch, or an instant such as 2026-11-27T16:00:00Z, not {text[:40]!r}"
        )
    return seconds
