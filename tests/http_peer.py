"""A real HTTP server on the loopback that answers as a test says, also badly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """What the server sends; ``length`` lies about the body's, ``drip`` never comes to an end."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    drip: bool = False
    raw: bytes | None = None
    """Sent in place of everything."""


class Peer:
    """The server, what it was asked (paths, and headers in lower case), and what it answers to the next."""

    def __init__(self) -> None:
        self.answer: Answer | Callable[[str], Answer] = Answer()
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.was_asked = threading.Event()
        self.closing = threading.Event()
        self.url = ""

    def answer_to(self, path: str) -> Answer:
        return self.answer(path) if callable(self.answer) else self.answer


@contextmanager
def http_peer() -> Iterator[Peer]:
    """A server for the length of a test."""
    peer = Peer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            peer.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            peer.was_asked.set()
            _send(self, peer, peer.answer_to(self.path))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    peer.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        peer.closing.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def _send(handler: BaseHTTPRequestHandler, peer: Peer, answer: Answer) -> None:
    try:
        if answer.raw is not None:
            handler.wfile.write(answer.raw)
            return
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if not answer.drip:
            length = len(answer.body) if answer.length is None else answer.length
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(answer.body)
        while answer.drip and not peer.closing.wait(0.02):
            handler.wfile.write(b" ")
    except (BrokenPipeError, ConnectionResetError):
        pass  # the client had enough
