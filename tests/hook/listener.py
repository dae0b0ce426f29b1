"""A plain listener at the far end of the socket: collects records by session, or misbehaves on demand."""

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


class Listener:
    """Listens on a Unix stream socket until closed.

    :param garbage: bytes written back to every peer.
    :param deaf: accept, but never read.
    """

    def __init__(self, path: Path | str, *, garbage: bytes = b"", deaf: bool = False) -> None:
        self.path = str(path)
        self.sessions: list[Session] = []
        self._garbage = garbage
        self._deaf = deaf
        self._peers: list[socket.socket] = []
        with contextlib.suppress(FileNotFoundError):
            Path(self.path).unlink()
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(self.path)
        self._server.listen(64)
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
            if self._garbage:
                peer.sendall(self._garbage)
            if not self._deaf:
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
