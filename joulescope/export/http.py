"""The pages that the sidecar serves, as an ASGI application. Nothing is measured while one is made."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from joulescope.export.diagnosis_http import PATH as DIAGNOSIS_PATH
from joulescope.export.http_guard import TRUSTED
from joulescope.export.minute_ring import MinuteRing
from joulescope.export.minutes_http import PATH as MINUTES_PATH
from joulescope.export.minutes_http import minutes_page
from joulescope.export.page import page_routes
from joulescope.export.page.history import History
from joulescope.export.prometheus import Exposition, without_exemplars
from joulescope.export.requests_json import RequestsView, encode_requests, limits_of, without_ids
from joulescope.export.snapshot_json import encode_snapshot
from joulescope.model import FinishedRequest, OpenRequest, Snapshot

GetSnapshot = Callable[[], Snapshot]
GetReady = Callable[[], tuple[bool, str]]
GetRequests = Callable[[], tuple[Sequence[OpenRequest], Sequence[FinishedRequest]]]
Endpoint = Callable[[Request], Awaitable[Response]]

MAX_CONCURRENT_SCRAPES = 8

NO_STORE = {"Cache-Control": "no-store"}


def create_app(
    get_snapshot: GetSnapshot,
    get_ready: GetReady,
    *,
    get_requests: GetRequests = lambda: ((), ()),
    shows_ids: Callable[[Request], bool] = lambda request: True,
    get_baselines: Callable[[], bytes] = lambda: b"{}",
    max_concurrent_scrapes: int = MAX_CONCURRENT_SCRAPES,
    process_metrics: bool = True,
    exemplars: bool = True,
    history: History | None = None,
    minutes: MinuteRing | None = None,
    diagnosis: Callable[[Request], Response] | None = None,
    routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """``/metrics``, ``/api/snapshot``, ``/api/requests``, ``/api/baselines``, ``/api/v1/minutes``, the live
    page at ``/``, health and readiness, and ``routes`` beside them.

    ``get_snapshot`` is called once a page, from a worker thread; ``get_ready`` returns whether the sidecar
    can account for energy now, and a sentence that says why; ``get_requests`` open requests, costliest
    first, and finished ones, oldest first, from a worker thread; ``shows_ids`` whether the one who asks may
    see their ids, traces and tenants; ``get_baselines`` what engines are compared with, as JSON;
    ``exemplars`` whether ``/metrics`` names traces; ``history`` is what the live page can look back on,
    ``minutes`` what is remembered of engines; ``diagnosis`` makes the page ``/api/v1/diagnosis``. Beyond
    ``max_concurrent_scrapes`` pages in the making, or three quarters of that for one address, the answer is
    503; health and readiness are always answered.
    """
    exposition = Exposition(get_snapshot, process_metrics=process_metrics, exemplars=exemplars)
    slots = Slots(max_concurrent_scrapes)

    def metrics(request: Request) -> Response:
        headers = request.headers
        page = exposition.render(headers.get("accept", ""), headers.get("accept-encoding", ""))
        return Response(page.body, headers={**page.headers, **NO_STORE})

    def told(request: Request) -> Snapshot:
        return get_snapshot() if shows_ids(request) else without_exemplars(get_snapshot())

    def snapshot(request: Request) -> Response:
        return Response(encode_snapshot(told(request)), media_type="application/json", headers=NO_STORE)

    def baselines(request: Request) -> Response:
        return Response(get_baselines(), media_type="application/json", headers=NO_STORE)

    app = Starlette(
        routes=[
            *page_routes(told, history or History(), lambda make: _bounded(make, slots)),
            Route("/metrics", _bounded(metrics, slots)),
            Route("/api/snapshot", _bounded(snapshot, slots)),
            Route("/api/requests", _bounded(_requests_page(get_snapshot, get_requests, shows_ids), slots)),
            Route("/api/baselines", _bounded(baselines, slots)),
            Route(MINUTES_PATH, _bounded(minutes_page(MinuteRing() if minutes is None else minutes), slots)),
            Route("/-/healthy", healthy),
            Route("/-/ready", ready_page(get_ready)),
            *(() if diagnosis is None else (Route(DIAGNOSIS_PATH, _bounded(diagnosis, slots)),)),
            *routes,
        ]
    )
    app.router.redirect_slashes = False  # the redirect would repeat whatever host the client named
    return app


async def healthy(request: Request) -> Response:
    return PlainTextResponse("joulescope is healthy\n")


def ready_page(get_ready: GetReady) -> Endpoint:
    async def ready(request: Request) -> Response:
        is_ready, reason = get_ready()
        if not request.scope.get(TRUSTED, True):
            reason = "ready" if is_ready else "not ready; the reason is told to users with a password"
        return PlainTextResponse(f"{reason}\n", status_code=200 if is_ready else 503)

    return ready


def _requests_page(
    get_snapshot: GetSnapshot, get_requests: GetRequests, shows_ids: Callable[[Request], bool]
) -> Callable[[Request], Response]:
    key = secrets.token_bytes(16)

    def requests(request: Request) -> Response:
        try:
            limits = limits_of(request.query_params)
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", 400)
        view = RequestsView.of(get_snapshot(), *get_requests())
        body = encode_requests(view if shows_ids(request) else without_ids(view, key), limits)
        return Response(body, media_type="application/json", headers=NO_STORE)

    return requests


class Slots:
    """How many pages may be in the making, and how many of them for one address, so that others have a turn.

    Taken and given back by the thread of the event loop alone.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_of_one = (3 * most + 3) // 4
        self._taken: Counter[str] = Counter()

    def take(self, peer: str) -> bool:
        """Whether there was one for this address."""
        if self._taken.total() >= self._most or self._taken[peer] >= self._most_of_one:
            return False
        self._taken[peer] += 1
        return True

    def give_back(self, peer: str) -> None:
        """Ends what :meth:`take` began."""
        self._taken[peer] -= 1
        if not self._taken[peer]:
            del self._taken[peer]


def _bounded(make: Callable[[Request], Response], slots: Slots) -> Endpoint:
    """Makes a page in a worker thread, so that health is answered meanwhile, or refuses it at once."""

    async def endpoint(request: Request) -> Response:
        peer = "" if request.client is None else request.client.host
        if not slots.take(peer):
            return PlainTextResponse(
                "too many pages are being made at once; try again\n", 503, {"Retry-After": "1"}
            )
        try:
            return await run_in_threadpool(make, request)
        finally:
            slots.give_back(peer)

    return endpoint
