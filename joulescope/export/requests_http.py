"""``GET /v1/requests/{id}``: the joules of one request, final or so far, as JSON."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from joulescope.clock import WallAnchor
from joulescope.errors import FetchError
from joulescope.export.estimate import Estimator, Work
from joulescope.export.records import iso_time
from joulescope.export.request_lookup import Found, Lookup
from joulescope.export.waiters import Waiters
from joulescope.label_model import clean
from joulescope.model import METHOD, METHOD_VERSION, FinishedRequest, OpenRequest

_logger = logging.getLogger(__name__)

PATH = "/v1/requests/{id:path}"
MAX_ID_CHARACTERS = 256
"""What is longer was cut when it came in, so that nothing is kept under it."""

MAX_WAIT_SECONDS = 5.0
"""Well below the time after which the server hangs up on a client."""

TOKEN_HEADER = "X-Joulescope-Token"
"""Takes the token where ``Authorization`` has to hold the user and password of the whole server."""

COUNTS_HEADER = "X-Joulescope-Answers"
"""How answers fared, as each middleware tells of all of its own: ``5f0c…;estimated=12,late=1``."""

MAX_SENDERS = 512
"""Middlewares that are told apart: each process of each API server is one. Beyond, one that was forgotten and
comes back would count anew: there is room for more than can be at work at once."""

OUTCOMES = ("estimated", "unknown", "late", "unreachable", "skipped")
"""Of an answer that was to carry a figure: it did; no figure was to be had; the sidecar did not answer in
time; it could not be reached; it was not asked, since it had failed before or too many asked at once."""

Routes = Sequence[Route]
_NOTHING_TOLD = Work()
_WHOLE_NUMBERS = ("prompt_tokens", "cached_tokens", "output_tokens", "since_ns", "until_ns")
_encoder = msgspec.json.Encoder()


class AnswerCounts:
    """What middlewares told of their answers; a :class:`joulescope.export.RequestSink` that takes nothing."""

    name = "answer"

    def __init__(self) -> None:
        self._gone: Counter[str] = Counter()
        self._told: dict[str, Counter[str]] = {}

    def take(self, text: str) -> None:
        """Keeps what a middleware says of itself; what makes no sense is passed over.

        Of a sender that has not been heard of for the longest time only the sum is remembered.
        """
        sender, _, counts = text.partition(";")
        told = Counter(self._told.get(sender, {}))
        for part in counts.split(",")[: len(OUTCOMES)]:
            outcome, _, count = part.strip().partition("=")
            if outcome in OUTCOMES and count.isascii() and count.isdigit() and len(count) <= 9:
                told[outcome] = max(told[outcome], int(count))
        if not told or len(sender) > 64:
            return
        all_told = {name: each for name, each in self._told.items() if name != sender}
        if len(all_told) >= MAX_SENDERS:
            self._gone = self._gone + all_told.pop(next(iter(all_told)))
        self._told = {**all_told, sender: told}  # another thread may be reading the one before

    def export(self, requests: Sequence[FinishedRequest]) -> None:
        """Nothing: answers tell of themselves."""

    def counts(self) -> Mapping[str, int]:
        told = (self._gone, *self._told.values())
        return {outcome: sum(each[outcome] for each in told) for outcome in OUTCOMES}

    def close(self, timeout_seconds: float) -> None:
        """Nothing to flush."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a client asks beside the id."""

    wait_seconds: float = 0.0
    since_ns: int | None = None
    work: Work = _NOTHING_TOLD
    brief: bool = False
    """Figures only, no accounts."""

    @classmethod
    def of(cls, parameters: QueryParams) -> Query:
        """Reads the parameters.

        Raises:
            ValueError: for one that is not known or makes no sense; the message says what would.
        """
        known = {"wait", "instance", "brief", *_WHOLE_NUMBERS}
        for name in parameters:
            if name not in known:
                raise ValueError(f"no parameter is called {name!r}; there are {', '.join(sorted(known))}")
        number = {name: _whole(name, parameters.get(name)) for name in _WHOLE_NUMBERS}
        return cls(
            wait_seconds=_wait_seconds(parameters.get("wait", "0")),
            since_ns=number["since_ns"],
            work=Work(
                number["prompt_tokens"],
                number["cached_tokens"],
                number["output_tokens"],
                number["until_ns"],
                parameters.get("instance", "")[:MAX_ID_CHARACTERS],
            ),
            brief=parameters.get("brief", "") in ("1", "true"),
        )


def _whole(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise ValueError(f"{name} is a whole number, not {text[:40]!r}")
    return int(text)


def _wait_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= MAX_WAIT_SECONDS:
        raise ValueError(f"wait is a number of seconds from 0 to {MAX_WAIT_SECONDS:g}, not {text[:40]!r}")
    return seconds


class RequestsApi:
    """Answers for one server; each has its own, since those who wait belong to its event loop.

    Args:
        lookup: what is known of requests.
        estimator: what is to be expected of those that are not final.
        anchor: turns instants into wall time.
        token: asked anew each time, raises :class:`~joulescope.errors.FetchError`; ``None`` refuses all.
        trusted: no token is asked for: who may open the socket may read.
        counts: takes what middlewares tell; those on a trusted socket only.
    """

    def __init__(
        self,
        lookup: Lookup,
        estimator: Estimator,
        anchor: WallAnchor,
        *,
        token: Callable[[], str] | None = None,
        trusted: bool = False,
        counts: AnswerCounts | None = None,
    ) -> None:
        self._lookup, self._estimator, self._anchor = lookup, estimator, anchor
        self._token, self._trusted, self._counts = token, trusted, counts
        self._waiters = Waiters(lookup.store.subscribe)
        self._token_failed = False

    @property
    def route(self) -> Route:
        return Route(PATH, self._endpoint, methods=["GET"])

    def app(self) -> Starlette:
        """An application that answers this path and nothing else."""
        return Starlette(routes=[self.route])

    async def _endpoint(self, request: Request) -> Response:
        refusal = None if self._trusted else self._refusal(request.headers)
        if refusal is not None:
            return refusal
        if self._counts is not None and COUNTS_HEADER in request.headers:
            self._counts.take(request.headers[COUNTS_HEADER])
        name = request.path_params["id"]
        try:
            query = Query.of(request.query_params)
        except ValueError as problem:
            return _problem(400, str(problem))
        if not name or len(name) > MAX_ID_CHARACTERS:
            return _problem(400, f"an id has 1 to {MAX_ID_CHARACTERS} characters")
        found = await self._found(name, query)
        if not found and not query.work.is_told:
            return self._unknown()
        return self._tell(name, found, query)

    async def _found(self, name: str, query: Query) -> Found:
        def look() -> Found:
            return self._lookup.find(name).since(query.since_ns)

        found = look()
        if query.wait_seconds and not found.is_final:
            store = self._lookup.store
            await self._waiters.until(name, lambda: store.closed or look().is_final, query.wait_seconds)
            found = look()
        return found

    # ------------------------------------------------------------------------------------------- answers

    def _tell(self, name: str, found: Found, query: Query) -> Response:
        attributed = found.attributed_joules
        estimated = attributed
        if not found.is_final:
            estimated = self._estimator.estimate(query.work, found.open, found.finished)
        body: dict[str, Any] = {
            "id": name,
            "final": found.is_final,
            "attributed_joules": attributed,
            "estimated_joules": estimated,
            "method": METHOD,
            "method_version": METHOD_VERSION,
        }
        if not query.brief:
            lines = [msgspec.Raw(b'{"final":true,' + kept.line[1:]) for kept in found.finished]
            body["requests"] = [*lines, *(_open(request, self._anchor) for request in found.open)]
        return _json(200, body)

    def _unknown(self) -> Response:
        bounds, oldest = self._lookup.store.retention, self._lookup.store.oldest_seconds()
        held = "none is held now" if oldest is None else f"the oldest that is held is {oldest:.0f} s old"
        hint = (
            f"finished requests are held for {bounds.seconds:g} s, at most {bounds.count} of them in "
            f"{bounds.bytes >> 20} MiB; {held}. A request is heard of up to a second after it began: "
            f"ask again, or with ?wait={MAX_WAIT_SECONDS:g}"
        )
        return _problem(404, "no request with this id is known", hint)

    def _refusal(self, headers: Headers) -> Response | None:
        if self._token is None:
            return _problem(
                403,
                "single requests are not served at this address",
                "set request_api_token, or ask at the Unix socket that answer_socket names",
            )
        try:
            token = self._token()
        except FetchError as error:
            if not self._token_failed:
                self._token_failed = True
                _logger.warning("nobody can ask for requests: %s", error)
            return _problem(503, "the token of this server cannot be read; its log says why")
        self._token_failed = False
        if _same(token, _told_token(headers)):
            return None
        refusal = _problem(401, "this wants the header Authorization: Bearer TOKEN, or " + TOKEN_HEADER)
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal


def _told_token(headers: Headers) -> str:
    told = headers.get(TOKEN_HEADER)
    if told is not None:
        return told.strip()
    scheme, _, rest = headers.get("Authorization", "").partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else ""


def _same(token: str, told: str) -> bool:
    """In a time that says nothing of either."""
    one, other = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (token, told))
    return bool(told) and hmac.compare_digest(one, other)


def _open(request: OpenRequest, anchor: WallAnchor) -> dict[str, Any]:
    start_ns = anchor.wall_of(request.start_ns)
    return {
        "final": False,
        "request_id": clean(request.request_id),
        "engine": clean(request.engine),
        "phase": request.phase,
        "attributed_joules": request.attributed_joules,
        "marginal_joules": request.marginal_joules,
        "prefill_joules": request.prefill_joules,
        "prompt_tokens": request.prompt_tokens,
        "cached_tokens": request.cached_tokens,
        "output_tokens": request.output_tokens,
        "external_id": clean(request.external_id),
        "model": clean(request.model),
        "lora": clean(request.lora),
        "task": clean(request.task),
        "kind": clean(request.kind),
        "start_time": iso_time(start_ns),
        "start_unix_ns": start_ns,
        "preemptions": request.preemptions,
    }


def _problem(status: int, error: str, hint: str = "") -> Response:
    return _json(status, {"error": error, **({"hint": hint} if hint else {})})


def _json(status: int, body: Mapping[str, Any]) -> Response:
    return Response(
        _encoder.encode(body) + b"\n", status, {"Cache-Control": "no-store"}, media_type="application/json"
    )
