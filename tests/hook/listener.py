"""The far end of the socket, for tests: a listener with threads, and one that reads only when asked."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from joulescope.hook.wire import LENGTH_BYTES, AnyRecord


@dataclass
class Session:
    """One connection: the records it brought, in order, and whether it has ended."""

    records: list[AnyRecord] = field(default_factory=list)
    ended: bool = False

    def of(self, kind: type) -> list:
        return [record for record in self.records if isinstance(record, kind)]


def read_frames(buffer: bytearray, decoder: msgspec.msgpack.Decoder) -> list[AnyRecord]:
    """Takes the whole frames off the front of ``buffer``."""
    records: list[AnyRecord] = []
    while len(buffer) >= LENGTH_BYTES:
        end = LENGTH_BYTES + int.from_bytes(buffer[:LENGTH_BYTES], "big")
        if len(buffer) < end:
            break
        records += decoder.decode(bytes(buffer[LENGTH_BYTES:end]))
        del buffer[:end]
    return records


def _bind(path: Path | str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen(64)
    return server


class PatientListener:
    """Accepts and reads when told to, without threads: what was sent before is there at once."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.peer: socket.socket | None = None
        self._server = _bind(path)
        self._server.setblocking(False)
        self._decoder = msgspec.msgpack.Decoder(list[AnyRecord])
        self._buffer = bytearray()

    def accept(self) -> socket.socket:
        """The next connection that waits; fails with ``BlockingIOError`` if there is none."""
        self.peer, _ = self._server.accept()
        self.peer.setblocking(False)
        self._buffer.clear()
        return self.peer

    def read(self) -> list[AnyRecord]:
        """All records that have arrived on the present connection, accepting one if there is none."""
        if self.peer is None:
            self.accept()
        assert self.peer is not None
        with contextlib.suppress(BlockingIOError):
            while data := self.peer.recv(1 << 20):
                self._buffer += data
        return read_frames(self._buffer, self._decoder)

    def hang_up(self) -> None:
        """Breaks the connection and goes on listening."""
        if self.peer is not None:
            self.peer.close()
            self.peer = None

    def close(self) -> None:
        """Breaks the connection, stops listening and removes the socket, as a killed process with its
        directory does."""
        self.hang_up()
        self._server.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


class Listener:
    """Listens on a Unix stream socket, with a thread for each peer, until closed."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self.sessions: list[Session] = []
        self._peers: list[socket.socket] = []
        self._server = _bind(path)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def records(self) -> list[AnyRecord]:
        return [record for session in self.sessions for record in list(session.records)]

    def of(self, kind: type) -> list:
        return [record for record in self.records if isinstance(record, kind)]

    def wait_for(self, condition: Callable[[], bool], timeout_seconds: float = 10.0) -> None:
        """Returns as soon as the condition holds; fails after the timeout."""
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            assert time.monotonic() < deadline, f"nothing after {timeout_seconds} s; got {self.records[-5:]}"
            threading.Event().wait(0.005)

    def close(self) -> None:
        """Stops listening and breaks every connection, as a killed process does."""
        for each in [self._server, *self._peers]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        with contextlib.suppress(FileNotFoundError):
            Path(self.path).unlink()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            self._peers.append(peer)
            session = Session()
            self.sessions.append(session)
            threading.Thread(target=self._read, args=(peer, session), daemon=True).start()

    def _read(self, peer: socket.socket, session: Session) -> None:
        decoder = msgspec.msgpack.Decoder(list[AnyRecord])
        buffer = bytearray()
        while True:
            try:
                data = peer.recv(1 << 16)
            except OSError:
                break
            if not data:
                break
            buffer += data
            session.records += read_frames(buffer, decoder)
        session.ended = True
