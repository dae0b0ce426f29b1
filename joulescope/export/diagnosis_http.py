"""``GET /api/v1/diagnosis``: why joules per token changed, as ``joulescope diagnose --json`` tells it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from joulescope.units import seconds_of_stretch

PATH = "/api/v1/diagnosis"

_PARAMETERS = ("last", "before", "engine", "closed_loop")
_YES_OR_NO = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Question:
    """Which diagnosis is asked for."""

    last_seconds: float
    """Length of each window."""
    before_seconds: float
    """How long before the last minutes those are that they are compared with."""
    engine: str | None = None
    """Its label; ``None``: the only one."""
    closed_loop: bool | None = None
    """Whether clients wait for answers; ``None``: as the windows look."""


Answer = Callable[[Question], bytes]
"""JSON of a diagnosis."""


class Refusal(Exception):
    """There is no diagnosis. ``status`` is that of HTTP, ``retry_seconds`` when to ask again."""

    def __init__(self, status: int, message: str, retry_seconds: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_seconds = status, retry_seconds


def diagnosis_page(answer: Answer, last: float, before: float) -> Callable[[Request], Response]:
    """The page; it holds labels, settings of engines and sums, nothing of single requests.

    Args:
        last, before: what holds where the query does not say, seconds.
    """

    def page(request: Request) -> Response:
        try:
            body = answer(asked(request.query_params, last, before))
        except Refusal as refusal:
            headers = {"Cache-Control": "no-store"}
            if refusal.retry_seconds is not None:
                headers["Retry-After"] = str(math.ceil(refusal.retry_seconds))
            return PlainTextResponse(f"{refusal}\n", refusal.status, headers)
        return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})

    return page


def asked(query: Mapping[str, str], last: float, before: float) -> Question:
    """What is asked for.

    Args:
        last, before: what holds where the query does not say, seconds.

    Raises:
        Refusal: for what is not known or makes no sense; the message says what would.
    """
    for name in query:
        if name not in _PARAMETERS:
            raise Refusal(400, f"no parameter is called {name[:40]!r}; there are {', '.join(_PARAMETERS)}")
    found = {"last": last, "before": before}
    for name in found:
        if name in query:
            try:
                found[name] = seconds_of_stretch(query[name])
            except ValueError as error:
                raise Refusal(400, f"{name}: {error}") from None
    return Question(found["last"], found["before"], query.get("engine"), _closed_loop(query))


def _closed_loop(query: Mapping[str, str]) -> bool | None:
    text = query.get("closed_loop")
    if text is None:
        return None
    if text not in _YES_OR_NO:
        raise Refusal(400, f"closed_loop: {text[:40]!r} is neither true nor false")
    return _YES_OR_NO[text]
