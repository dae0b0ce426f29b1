"""An HTTP server in a background thread that no client can hold up."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from joulescope.errors import ConfigError

CLIENT_TIMEOUT_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 5
MAX_CONNECTIONS = 64
BACKLOG = 128
MAX_PORT = 65535
FORCED_SHARE = 0.75
"""Share of the time to stop after which connections are no longer waited for."""


def _protocol(timeout_seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's h11 protocol, with a deadline for the client to ask and for it to take the answer.

    uvicorn itself waits for ever for a request's head, and for a client that does not read.
    """

    class DeadlineProtocol(H11Protocol):
        deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            super().connection_made(transport)
            self.set_deadline()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.set_deadline()

        def connection_lost(self, exc: Exception | None) -> None:
            self.drop_deadline()
            super().connection_lost(exc)

        def set_deadline(self) -> None:
            self.drop_deadline()
            self.deadline = self.loop.call_later(timeout_seconds, self.transport.abort)

        def drop_deadline(self) -> None:
            if self.deadline is not None:
                self.deadline.cancel()

    return DeadlineProtocol


class _Server(uvicorn.Server):
    """Says when it is up, or that it never will be."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.settled.set()

    def serve_in_thread(self, sock: socket.socket) -> None:
        try:
            self.run(sockets=[sock])
        finally:
            self.settled.set()


class HttpServer:
    """Serves ``app`` on ``host:port``; port 0 takes a free one."""

    def __init__(
        self, host: str, port: int, app: ASGIApp, *, client_timeout_seconds: float = CLIENT_TIMEOUT_SECONDS
    ) -> None:
        self._host = host
        self._port = port
        self._app = app
        self._client_timeout_seconds = client_timeout_seconds
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> tuple[str, int]:
        """Listens, and returns the bound host and port once requests are answered.

        Raises:
            ConfigError: if the address cannot be listened on; the message says how to mend it.
        """
        sock = _listen(self._host, self._port)
        bound = sock.getsockname()
        self._serve(sock)
        return str(bound[0]), int(bound[1])

    def _serve(self, sock: socket.socket) -> None:
        config = uvicorn.Config(
            self._app,
            http=_protocol(self._client_timeout_seconds),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            backlog=BACKLOG,
        )
        server = self._server = _Server(config)
        self._thread = threading.Thread(
            target=server.serve_in_thread, args=(sock,), name="joulescope-http", daemon=True
        )
        self._thread.start()
        server.settled.wait()

    def stop(self, timeout_seconds: float = 1.0) -> None:
        """Lets answers under way finish, then closes; returns after the time at the latest."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(timeout_seconds * FORCED_SHARE)
        if self._thread.is_alive():
            self._server.force_exit = True
            self._thread.join(timeout_seconds * (1 - FORCED_SHARE))
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
