"""The guest's end of the socket: non-blocking, bounded, and silent about every failure.

Nothing here waits and nothing raises ``OSError``: a peer that is absent, slow, dead or speaking
nonsense costs a failed system call and a count. The little that a sidecar says is read only by who asks.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from joulescope.hook.refusal import advice

LENGTH_BYTES = 4
"""Of the length that comes before each frame, big endian."""
MAX_BUFFER_BYTES = 4 * 1024 * 1024
"""Bytes kept for a slow reader: about a minute of steps of 256 requests at 40 steps a second."""
MAX_HEARD_BYTES = 64 * 1024
"""Longest that a sidecar's word may be; one that talks on is not listened to."""
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 1.0


@dataclass(slots=True)
class _Pending:
    """A frame of which ``sent_bytes`` are gone and the rest still waits."""

    frame: bytes
    records: int
    sent_bytes: int = 0


class Link:
    """A stream connection to ``path`` that comes back by itself after a break.

    Instants are CLOCK_MONOTONIC nanoseconds and are handed in, so that tests decide the time.
    """

    def __init__(self, path: str, *, max_buffer_bytes: int = MAX_BUFFER_BYTES) -> None:
        self.path = path
        self.lost_records = 0
        """Records in frames that a break caught before their last byte was handed to the kernel."""
        self._socket: socket.socket | None = None
        self._frames: deque[_Pending] = deque()
        self._buffered_bytes = 0
        self._max_buffer_bytes = max_buffer_bytes
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._next_try_ns = 0
        self._heard: bytearray | None = bytearray()
        self.refused = False
        """Whether the last try found a socket that this process may not write to."""
        self._complained = False
        self.hung_up = False
        """Whether the far end was found to have closed the present connection, or to talk nonsense."""

    @property
    def connected(self) -> bool:
        return self._socket is not None

    @property
    def buffered_bytes(self) -> int:
        """Bytes accepted by :meth:`send` that the kernel has not taken yet."""
        return self._buffered_bytes

    def complaint(self) -> str:
        """What the log should have, once, where the last try found the socket shut to this process; else
        empty."""
        if not self.refused or self._complained:
            return ""
        self._complained = True
        return advice(self.path)

    def connect(self, now_ns: int) -> bool:
        """Tries once, if the back-off allows it; true if there is a connection now."""
        if self._socket is not None:
            return True
        if now_ns < self._next_try_ns:
            return False
        candidate: socket.socket | None = None
        try:
            candidate = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            candidate.connect(self.path)
        except OSError as error:
            if candidate is not None:
                candidate.close()
            self.refused = isinstance(error, PermissionError)
            self._back_off(now_ns)
            return False
        self.refused = False
        self._socket = candidate
        self._retry_seconds = FIRST_RETRY_SECONDS
        return True

    def send(self, frame: bytes, records: int, now_ns: int) -> bool:
        """Takes a frame whole or not at all; false if there is no connection or no room.

        An empty buffer takes a frame of any size, so that one large frame cannot be refused for ever.
        A frame that was taken and then caught in a break counts in :attr:`lost_records`.
        """
        self.flush(now_ns)
        if self._socket is None:
            return False
        if self._frames and self._buffered_bytes + len(frame) > self._max_buffer_bytes:
            return False
        self._frames.append(_Pending(frame, records))
        self._buffered_bytes += len(frame)
        self.flush(now_ns)
        return True

    def flush(self, now_ns: int) -> None:
        """Writes what the kernel takes without waiting; a broken connection is dropped."""
        while self._frames and self._socket is not None:
            head = self._frames[0]
            try:
                sent = self._socket.send(memoryview(head.frame)[head.sent_bytes :], socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.drop(now_ns)
                return
            head.sent_bytes += sent
            self._buffered_bytes -= sent
            if head.sent_bytes == len(head.frame):
                self._frames.popleft()

    def receive(self) -> list[bytes]:
        """The whole frames that have come from the far end, without waiting; most often none.

        A break is only noted in :attr:`hung_up`: what was sent and not taken is for :meth:`flush` to count.
        """
        if self._socket is None or self._heard is None:
            return []
        try:
            data = self._socket.recv(MAX_HEARD_BYTES)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            data = b""
        self.hung_up = not data
        self._heard += data
        frames = list(self._whole_frames(self._heard))
        if len(self._heard) > MAX_HEARD_BYTES:
            self._heard, self.hung_up = None, True
        return frames

    def _whole_frames(self, heard: bytearray) -> Iterator[bytes]:
        while len(heard) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(heard[:LENGTH_BYTES], "big")
            if len(heard) < end:
                return
            yield bytes(heard[LENGTH_BYTES:end])
            del heard[:end]

    def wait_readable(self, timeout_seconds: float) -> None:
        """Waits until something comes or the far end closes, for a process that has nothing else to do."""
        if self._socket is not None:
            select.select([self._socket], [], [], timeout_seconds)

    def wait_writable(self, timeout_seconds: float) -> None:
        """Waits until the kernel takes more, for use at the very end only."""
        if self._socket is not None:
            select.select([], [self._socket], [], timeout_seconds)

    def drop(self, now_ns: int) -> None:
        """Ends the connection; frames that are not wholly sent are counted as lost."""
        self.lost_records += sum(pending.records for pending in self._frames)
        self.abandon()
        self._back_off(now_ns)

    def abandon(self) -> None:
        """Closes this process's descriptor and forgets the buffer, without counting (after a fork)."""
        self._frames.clear()
        self._buffered_bytes = 0
        self._heard = bytearray()
        self.hung_up = False
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _back_off(self, now_ns: int) -> None:
        self._next_try_ns = now_ns + round(self._retry_seconds * 1e9)
        self._retry_seconds = min(2 * self._retry_seconds, LAST_RETRY_SECONDS)
