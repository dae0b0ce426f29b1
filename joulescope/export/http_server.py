"""An HTTP server in a background thread that no client can hold up, with TLS and passwords if wanted."""

from __future__ import annotations

import errno
import logging
import socket
import threading

import uvicorn
from starlette.types import ASGIApp

from joulescope.clock import Clock, SystemClock, WallAnchor
from joulescope.errors import ConfigError
from joulescope.export.http_counts import HttpCounts
from joulescope.export.http_guard import MAX_HEAD_BYTES, Guard
from joulescope.export.http_protocol import Crowd, House, protocol
from joulescope.export.web_config_report import warnings
from joulescope.export.web_config_rules import WebRules
from joulescope.export.web_config_users import Passwords
from joulescope.serving_model import ServingTotals

CLIENT_TIMEOUT_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 5
MAX_CONNECTIONS = 128
BACKLOG = 1024
"""Connections that may wait in the kernel."""

ACCEPTS_IN_A_TURN = 8
"""Of the event loop. asyncio takes as many as may wait: a crowd would push each other out before the
handshake of any of them had a turn."""

MAX_PORT = 65535
FORCED_SHARE = 0.75
"""Share of the time to stop after which connections are no longer waited for."""

_logger = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """Says when it is up, or that it never will be."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        for sock in sockets or ():
            sock.listen(BACKLOG)  # asyncio has set it to what it takes in a turn
        self.settled.set()

    def serve_in_thread(self, sock: socket.socket) -> None:
        try:
            self.run(sockets=[sock])
        finally:
            self.settled.set()


class HttpServer:
    """Serves ``app`` on ``host:port``; port 0 takes a free one.

    All of ``app`` stands behind ``rules``: its connections behind their TLS, its pages behind their
    passwords. Without rules, nobody is asked for anything.
    """

    def __init__(
        self,
        host: str,
        port: int,
        app: ASGIApp,
        *,
        rules: WebRules | None = None,
        clock: Clock | None = None,
        client_timeout_seconds: float = CLIENT_TIMEOUT_SECONDS,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        clock = clock or SystemClock()
        self._host = host
        self._port = port
        self._bound = (host, port)
        self._counts = HttpCounts()
        self._rules = rules or WebRules(None, clock)
        self._app = Guard(app, self._rules, Passwords(clock), self._counts, clock)
        self._house = House(
            self._rules, Crowd(max_connections, self._counts), self._counts, client_timeout_seconds
        )
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> tuple[str, int]:
        """Listens, and returns the bound host and port once requests are answered.

        Raises:
            ConfigError: if the address cannot be listened on; the message says how to mend it.
        """
        for warning in warnings(self._rules.last, WallAnchor.now().wall_ns / 1e9):
            _logger.warning("web configuration: %s", warning)
        sock = _listen(self._host, self._port)
        bound = sock.getsockname()
        self._serve(sock)
        self._bound = str(bound[0]), int(bound[1])
        return self._bound

    def _serve(self, sock: socket.socket) -> None:
        config = uvicorn.Config(
            self._app,
            http=protocol(self._house),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="error",  # a client that sends nonsense is counted, and fills no log
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            backlog=ACCEPTS_IN_A_TURN,
        )
        server = self._server = _Server(config)
        self._thread = threading.Thread(
            target=server.serve_in_thread, args=(sock,), name="joulescope-http", daemon=True
        )
        self._thread.start()
        server.settled.wait()

    @property
    def url(self) -> str:
        """Where its pages are, by the scheme that holds now."""
        scheme = "http" if self._rules.last.context is None else "https"
        host, port = self._bound
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def totals(self) -> ServingTotals:
        """How it fares; may be called from any thread."""
        certificate = self._rules.last.certificate
        return ServingTotals(
            responses=dict(self._counts.responses),
            refused_connections=dict(self._counts.refused_connections),
            config_usable=self._rules.usable,
            config_failures=self._rules.failures,
            certificate_not_after_seconds=None if certificate is None else certificate.not_after_seconds,
        )

    def stop(self, timeout_seconds: float = 1.0) -> None:
        """Lets answers under way finish, then closes; returns after the time at the latest. A second call,
        from any thread, does no harm."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        server.should_exit = True
        thread.join(timeout_seconds * FORCED_SHARE)
        if thread.is_alive():
            server.force_exit = True
            thread.join(timeout_seconds * (1 - FORCED_SHARE))
        self._server = self._thread = None


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= MAX_PORT:  # getaddrinfo would take it modulo 65536
        raise ConfigError(f"cannot listen on {host}:{port}: a port is a number from 0 to {MAX_PORT}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error}; give an address of this machine"
        ) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {_advice(error, port)}") from error
    return sock


def _advice(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} is in use; stop the program that holds it, or choose another port (0: a free one)"
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges; choose one above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address; try 0.0.0.0 or 127.0.0.1"
    return str(error)
