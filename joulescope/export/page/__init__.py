"""The live page of the sidecar: its routes, its files, and the minutes that it can look back on.

``/`` is drawn by the server (:mod:`joulescope.export.landing`) and taken over by the modules in ``static``
where a browser runs scripts. They ask for ``api/snapshot``, ``api/history``, ``api/requests`` and
``-/ready``, all relative, and for nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from joulescope.export.landing import render_landing
from joulescope.export.page.assets import CONTENT_SECURITY_POLICY, Assets, compressed
from joulescope.export.page.history import History
from joulescope.model import Snapshot

Make = Callable[[Request], Response]
Endpoint = Callable[[Request], Awaitable[Response]]

NO_STORE = {"Cache-Control": "no-store"}
IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable"}
HARDENING = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def page_routes(
    get_snapshot: Callable[[Request], Snapshot], history: History, bounded: Callable[[Make], Endpoint]
) -> list[Route]:
    """``/``, ``/api/history`` and ``/assets/<digest>/…``.

    ``get_snapshot`` gives what the one who asks may see; ``bounded`` makes an endpoint of a function, within
    the limit on pages in the making. Files need no such limit: they are read and compressed once, here.
    """
    assets = Assets.load()

    def page(request: Request) -> Response:
        body = render_landing(get_snapshot(request), assets.folder, assets.modules).encode()
        return compressed(request, body, "text/html; charset=utf-8", {**NO_STORE, **HARDENING})

    def past(request: Request) -> Response:
        since = request.query_params.get("since", "0")
        try:
            body = history.encode(float(since))
        except ValueError:
            return PlainTextResponse(
                "since: not a number; give the time of your last point\n",
                400,
                NO_STORE,
            )
        return compressed(request, body, "application/json", NO_STORE)

    async def asset(request: Request) -> Response:
        return assets.answer(request, {**IMMUTABLE, **HARDENING})

    return [
        Route("/", bounded(page)),
        Route("/api/history", bounded(past)),
        Route("/assets/{digest}/{name:path}", asset),
    ]
