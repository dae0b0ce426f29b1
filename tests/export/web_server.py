"""A real server on the loopback behind a web configuration, and clients that behave or do not."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.types import ASGIApp

from joulescope.clock import ManualClock
from joulescope.export.http import create_app
from joulescope.export.http_server import MAX_CONNECTIONS, HttpServer
from joulescope.export.web_config_rules import LOOK_SECONDS, WebRules
from tests.export.certificates import HOST, PASSWORD, USER
from tests.export.samples import rich_snapshot

PATIENCE_SECONDS = 20.0


def pages(ready: bool = True) -> ASGIApp:
    return create_app(rich_snapshot, lambda: (ready, "GPU-1 answers" if ready else "GPU-1 is lost"))


@dataclass
class Running:
    """A server, its address, and the clock by which it looks at its files."""

    server: HttpServer
    address: tuple[str, int]
    clock: ManualClock
    context: ssl.SSLContext | None = field(default=None)
    """How clients ask; ``None``: in the clear."""

    def look(self) -> None:
        """Lets the time pass after which files are looked at."""
        self.clock.advance(LOOK_SECONDS)

    def connect(
        self, context: ssl.SSLContext | None = None, source: str = "127.0.0.1"
    ) -> http.client.HTTPConnection:
        """A connection that is kept; ``context`` in place of the usual one."""
        context = context or self.context
        if context is None:
            return http.client.HTTPConnection(
                *self.address, timeout=PATIENCE_SECONDS, source_address=(source, 0)
            )
        return http.client.HTTPSConnection(
            HOST, self.address[1], timeout=PATIENCE_SECONDS, context=context, source_address=(source, 0)
        )

    def get(self, path: str, authorization: str = "", **options: object) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body of one request on a connection of its own."""
        connection = self.connect(**options)  # type: ignore[arg-type]
        try:
            return ask(connection, path, authorization)
        finally:
            connection.close()

    def knock(self) -> socket.socket:
        """A TCP connection that says nothing."""
        return socket.create_connection(self.address, PATIENCE_SECONDS)

    def refused(self, reason: str) -> int:
        return self.server.totals().refused_connections[reason]


def ask(
    connection: http.client.HTTPConnection, path: str, authorization: str = "", method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection that stays open."""
    connection.request(method, path, headers={"Authorization": authorization} if authorization else {})
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def basic(user: str = USER, password: str = PASSWORD) -> str:
    """The header of basic authentication."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread is about to do."""
    wait = threading.Event()
    for _ in range(round(PATIENCE_SECONDS / 0.01)):
        if condition():
            return
        wait.wait(0.01)
    raise AssertionError("it did not come about")


@contextmanager
def running(
    config: Path | None,
    app: ASGIApp | None = None,
    *,
    context: ssl.SSLContext | None = None,
    client_timeout_seconds: float = PATIENCE_SECONDS,
    max_connections: int = MAX_CONNECTIONS,
) -> Iterator[Running]:
    """A server for the length of a test."""
    clock = ManualClock(time_ns=1)
    server = HttpServer(
        "127.0.0.1",
        0,
        app or pages(),
        rules=WebRules(config, clock),
        clock=clock,
        client_timeout_seconds=client_timeout_seconds,
        max_connections=max_connections,
    )
    try:
        yield Running(server, server.start(), clock, context)
    finally:
        server.stop(PATIENCE_SECONDS)
