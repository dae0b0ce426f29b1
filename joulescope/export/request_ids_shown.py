"""Who may see the ids of requests on the pages: they are names that clients chose, of anybody's requests."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from starlette.requests import Request

from joulescope.export.http_guard import IDENTIFIED


def ids_shown_to(choice: str, host: str) -> Callable[[Request], bool]:
    """Whether the one who asks may see them.

    Args:
        choice: the setting: ``shown`` to all who may read pages, ``hidden`` from all, or ``auto``: shown to
            whoever has shown a password or a client certificate, and to all where nobody else can ask.
        host: what the pages are served on; of a loopback address it is this machine alone who asks.
    """
    if choice != "auto":
        return lambda request: choice == "shown"
    alone = _is_loopback(host)
    return lambda request: alone or bool(request.scope.get(IDENTIFIED, False))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
