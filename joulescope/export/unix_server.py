"""The HTTP server on a Unix socket."""

from __future__ import annotations

import socket

from starlette.types import ASGIApp

from joulescope.export.http_server import HttpServer


class UnixServer(HttpServer):
    """Serves ``app`` on a Unix socket that is bound already; whoever may open it may ask.

    The same deadlines and bounds hold as on the sidecar's address.
    """

    def __init__(self, sock: socket.socket, app: ASGIApp) -> None:
        super().__init__("", 0, app)
        self._sock = sock

    def start(self) -> tuple[str, int]:
        """Returns once requests are answered; the path stands for the host."""
        path = str(self._sock.getsockname())
        self._serve(self._sock)
        return path, 0
