"""The Unix socket to which hooks, and samplers beside engines, connect."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import stat
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from joulescope.errors import ConfigError, ProtocolError
from joulescope.hook.wire import AnyRecord
from joulescope.ingest.frames import FrameDecoder

_READ_BYTES = 256 * 1024
_MAX_PATH_BYTES = 107  # sun_path of unix(7), less the closing NUL
_MAX_SESSIONS = 256
MAX_UNFINISHED_BYTES = 64 * 2**20
"""Of frames that have begun and not ended, of all connections together: as many as fit into one frame from
each would be gigabytes. Hooks send theirs in one go."""
_CREDENTIALS = struct.Struct("iII")  # struct ucred of unix(7)


@dataclass(frozen=True, slots=True)
class Arrival:
    """What one connection brought: records, or its end (``closed`` says why)."""

    session: int
    records: list[AnyRecord]
    closed: str = ""


class _Connection:
    def __init__(self, number: int, peer: socket.socket) -> None:
        self.number = number
        self.peer = peer
        self.decoder = FrameDecoder()
        self.pid = _peer_pid(peer)


class Listener:
    """Owns the socket file. Used from one thread.

    Args:
        path: where hooks look for it; the folder is made if it is missing.
        mode: permission bits; engine and sidecar share a group.
        first_session: number of the first connection.
        max_unfinished_bytes: of frames that have begun, of all connections together.

    Raises:
        ConfigError: if the socket cannot be there, and why.
    """

    def __init__(
        self,
        path: Path,
        mode: int = 0o660,
        first_session: int = 1,
        max_unfinished_bytes: int = MAX_UNFINISHED_BYTES,
    ) -> None:
        self.path = path
        self.refused: Counter[str] = Counter()
        self._next_session = first_session
        self._max_unfinished_bytes = max_unfinished_bytes
        self._connections: dict[int, _Connection] = {}
        self._bound = BoundSocket(path, mode)
        self._server = self._bound.server
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ, None)

    def rejected(self) -> Counter[str]:
        """Frames and records refused on connections that are still open, and connections refused."""
        total = Counter(self.refused)
        for connection in self._connections.values():
            total.update(connection.decoder.rejected)
        return total

    def peer_pid(self, session: int) -> int | None:
        """The process at the other end, as the own pid namespace has it; ``None`` if it is not in there."""
        connection = self._connections.get(session)
        return None if connection is None else connection.pid

    def say(self, session: int, data: bytes) -> bool:
        """Writes a few bytes to a peer without waiting; False if they were not taken whole."""
        connection = self._connections.get(session)
        try:
            return connection is not None and connection.peer.send(data, socket.MSG_NOSIGNAL) == len(data)
        except OSError:
            return False

    def hang_up(self, session: int) -> None:
        """Ends a connection from this side; nothing more arrives from it."""
        connection = self._connections.get(session)
        if connection is not None:
            self._drop(connection)

    def poll(self, timeout_seconds: float) -> Iterator[Arrival]:
        """Waits up to the timeout for something to arrive, and hands out all that has."""
        for key, _ in self._selector.select(timeout_seconds):
            if key.fileobj is self._server:
                self._accept()
            else:
                yield from self._read(key.data)

    def close(self) -> None:
        """Closes all connections and removes the socket file if it is still ours."""
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._selector.close()
        self._server.close()
        self._bound.remove()

    def _accept(self) -> None:
        try:
            peer, _ = self._server.accept()
        except OSError:  # gone again, or out of descriptors: the next poll tries again
            self.refused["accept_failed"] += 1
            return
        if len(self._connections) >= _MAX_SESSIONS:
            self.refused["too_many_sessions"] += 1
            peer.close()
            return
        peer.setblocking(False)
        connection = _Connection(self._next_session, peer)
        self._next_session += 1
        self._connections[connection.number] = connection
        self._selector.register(peer, selectors.EVENT_READ, connection)

    def _read(self, connection: _Connection) -> Iterator[Arrival]:
        number = connection.number
        try:
            data = connection.peer.recv(_READ_BYTES)
            records = connection.decoder.feed(data)
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(connection)
            yield Arrival(number, [], closed=errno.errorcode.get(error.errno or 0, "error").lower())
            return
        except ProtocolError:
            self.refused["not_this_protocol"] += 1
            self._drop(connection)
            yield Arrival(number, [], closed="not_this_protocol")
            return
        if records:
            yield Arrival(number, records)
        if connection.decoder.pending_bytes and self._unfinished_bytes() > self._max_unfinished_bytes:
            self.refused["too_much_unfinished"] += 1
            self._drop(connection)
            yield Arrival(number, [], closed="too_much_unfinished")
            return
        if not data:
            self._drop(connection)
            yield Arrival(number, [], closed="disconnected")

    def _unfinished_bytes(self) -> int:
        return sum(connection.decoder.pending_bytes for connection in self._connections.values())

    def _drop(self, connection: _Connection) -> None:
        self.refused.update(connection.decoder.rejected)
        if connection.decoder.pending_bytes:
            self.refused["truncated_frame"] += 1
        self._connections.pop(connection.number, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.peer)
        connection.peer.close()


def _peer_pid(peer: socket.socket) -> int | None:
    """Who connected, by the kernel's word (``SO_PEERCRED``): 0 is a process out of sight."""
    try:
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except (OSError, AttributeError):
        return None
    pid, _, _ = _CREDENTIALS.unpack(credentials)
    return int(pid) or None


class BoundSocket:
    """A Unix socket that is listened on, and its file, which is removed only while it is still this one's.

    Raises:
        ConfigError: if the socket cannot be there, and why; ``flag`` is what names the path.
    """

    def __init__(self, path: Path, mode: int, flag: str = "--socket") -> None:
        self.path = path
        self.server = _bind(path, mode, flag)
        self._identity = os.stat(path).st_ino

    def remove(self) -> None:
        """Removes the file, unless another sidecar has put its own there."""
        with contextlib.suppress(OSError):
            if os.stat(self.path).st_ino == self._identity:
                os.unlink(self.path)


def _bind(path: Path, mode: int, flag: str) -> socket.socket:
    """Listens there; a missing folder is made, and what a killed sidecar left behind is removed."""
    variable = "JOULESCOPE_" + flag.lstrip("-").replace("-", "_").upper()
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise ConfigError(
            f"socket path {path} is longer than {_MAX_PATH_BYTES} bytes, which Unix sockets cannot have: "
            f"choose a shorter one with {flag} or {variable}"
        )
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path, flag)
        server.bind(os.fspath(path))
        os.chmod(path, mode)
        server.listen(64)
        server.setblocking(False)
    except OSError as error:
        server.close()
        raise ConfigError(
            f"cannot listen on socket {path}: {error.strerror or error}; choose a path that this user may "
            f"write with {flag} or {variable}"
        ) from error
    except ConfigError:
        server.close()
        raise
    return server


def _remove_stale(path: Path, flag: str) -> None:
    """Unlinks what a killed sidecar left behind, but nothing that is in use or not a socket."""
    try:
        kind = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ConfigError(f"{path} exists and is not a socket: choose another path with {flag}")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(os.fspath(path))
    except OSError as error:
        if not isinstance(error, PermissionError) or not _is_listened_on(path):
            os.unlink(path)
            return
    finally:
        probe.close()
    raise ConfigError(
        f"another joulescope already listens on {path}: stop it, or choose another path with {flag}"
    )


def _is_listened_on(path: Path) -> bool:
    """Whether some process listens there, of a user who does not let us connect (``proc(5)``, net/unix): a
    line ends with the path, and its fourth word has ``__SO_ACCEPTCON``."""
    try:
        lines = Path("/proc/net/unix").read_text(errors="surrogateescape").splitlines()[1:]
    except OSError:
        return False
    found = (line.split(maxsplit=7) for line in lines)
    return any(len(words) == 8 and words[7] == str(path) and int(words[3], 16) & 0x10000 for words in found)
