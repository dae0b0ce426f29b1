"""A real S3 server in a process of its own, behind a door that can refuse, fall silent or be gone."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import subprocess
import sys
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Literal

from tests.real.sidecar import wait_until
from tests.real.vllm_env import free_port
from tests.requirements import need_package

Mood = Literal["well", "refusing", "silent", "gone"]
"""``refusing`` answers each request with 503, ``silent`` takes requests and answers none, ``gone`` resets
connections."""

_REFUSAL_BODY = (
    b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>'
)
_REFUSAL = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_REFUSAL_BODY), _REFUSAL_BODY)
)
_RESET = struct.pack("ii", 1, 0)


class Door(socketserver.ThreadingTCPServer):
    """Passes connections on to the server, or does not."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, to_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passage)
        self.to_port = to_port
        self.mood: Mood = "well"
        self.refused = 0
        """Requests that were not passed on."""
        self.open: set[socket.socket] = set()
        self.changed = threading.Condition()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def be(self, mood: Mood) -> None:
        """From now on; connections that are open end."""
        with self.changed:
            self.mood = mood
            for each in self.open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            self.changed.notify_all()


class _Passage(socketserver.BaseRequestHandler):
    server: Door
    request: socket.socket

    def handle(self) -> None:
        mood = self.server.mood
        if mood != "well":
            self.server.refused += 1
        with contextlib.suppress(OSError):
            getattr(self, f"_{mood}")()

    def _gone(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _silent(self) -> None:
        with self.server.changed:
            self.server.changed.wait_for(lambda: self.server.mood != "silent")

    def _refusing(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (data := self.request.recv(65_536)):
            head += data
        self.request.sendall(_REFUSAL)

    def _well(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.to_port)) as far:
            ends = {self.request, far}
            with self.server.changed:
                self.server.open |= ends
            try:
                back = threading.Thread(target=_carry, args=(far, self.request), daemon=True)
                back.start()
                _carry(self.request, far)
                back.join()
            finally:
                with self.server.changed:
                    self.server.open -= ends


def _carry(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            to.sendall(data)
    with contextlib.suppress(OSError):
        to.shutdown(socket.SHUT_WR)


class ObjectStore:
    """moto's S3 server, which keeps objects in its memory, and a bucket in it."""

    bucket = "joules"

    def __init__(self) -> None:
        for name in ("moto", "flask", "flask_cors", "s3fs"):
            need_package(name)
        self._stack = ExitStack()

    def __enter__(self) -> ObjectStore:
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        wait_until(lambda: _answers(port), "the S3 server")
        self.door = Door(port)
        self._stack.callback(self.door.server_close)
        self._stack.callback(self.door.shutdown)
        self._stack.callback(self.door.be, "gone")
        self._direct = f"http://127.0.0.1:{port}"
        self.files().mkdir(self.bucket)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def environ(self) -> dict[str, str]:
        """The variables by which S3's clients find and enter it, through the door."""
        return {**_KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.door.port}"}

    def files(self):  # type: ignore[no-untyped-def]
        """What lies in it, past the door."""
        import s3fs

        return s3fs.S3FileSystem(
            key=_KEYS["AWS_ACCESS_KEY_ID"],
            secret=_KEYS["AWS_SECRET_ACCESS_KEY"],
            endpoint_url=self._direct,
            client_kwargs={"region_name": _KEYS["AWS_DEFAULT_REGION"]},
            skip_instance_cache=True,
        )


_KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAJOULESCOPETEST01",
    "AWS_SECRET_ACCESS_KEY": "a-secret-that-no-page-may-show",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",  # s3fs and the keeper try again by themselves: so a try is over sooner
}


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True
