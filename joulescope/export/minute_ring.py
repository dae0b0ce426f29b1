"""The minutes of the last day, kept in memory as compressed lines, for whoever asks the sidecar."""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from joulescope.minute_model import EngineMinute
from joulescope.minutes import json_line

KEPT_SECONDS = 86_400.0
MAX_BYTES = 64 << 20
"""Of compressed lines: some 9,000 minutes of a busy engine, six engines' day."""


@dataclass(frozen=True, slots=True)
class KeptMinute:
    """A minute as it is kept."""

    start_wall_seconds: float
    end_wall_seconds: float
    engine: str
    packed: bytes
    size: int
    """Of its line of JSON, bytes."""

    def line(self) -> bytes:
        """It as a line of JSON."""
        return zlib.decompress(self.packed)


class MinuteRing:
    """Takes minutes from one thread, and is read from any.

    Args:
        kept_seconds: how far back it reaches, from the latest minute's end.
        max_bytes: what it may hold; the oldest minutes make room.
    """

    def __init__(self, kept_seconds: float = KEPT_SECONDS, max_bytes: int = MAX_BYTES) -> None:
        self._kept_seconds, self._max_bytes = kept_seconds, max_bytes
        self._lock = threading.Lock()
        self._kept: deque[KeptMinute] = deque()
        self._bytes = 0
        self.taken = 0
        """Minutes that came so far: while it stands still, so does what is kept."""
        self.crowded_out = 0
        """Minutes that had to make room before they were old."""

    def take(self, minutes: Sequence[EngineMinute]) -> None:
        """Keeps minutes, in the order in which they were closed."""
        new = [_packed(minute, json_line(minute).encode()) for minute in minutes]
        with self._lock:
            self.taken += len(new)
            self._kept.extend(new)
            self._bytes += sum(len(each.packed) for each in new)
            self._make_room()

    def _make_room(self) -> None:
        kept = self._kept
        if not kept:
            return
        oldest = max(each.end_wall_seconds for each in (kept[0], kept[-1])) - self._kept_seconds
        while kept and (kept[0].end_wall_seconds <= oldest or self._bytes > self._max_bytes):
            gone = kept.popleft()
            self._bytes -= len(gone.packed)
            self.crowded_out += gone.end_wall_seconds > oldest

    def __len__(self) -> int:
        return len(self._kept)

    def kept(self) -> list[KeptMinute]:
        """All of them, by their ends."""
        with self._lock:
            kept = list(self._kept)
        kept.sort(key=lambda each: (each.end_wall_seconds, each.start_wall_seconds))
        return kept

    def lines(self, since: float, engine: str | None, max_bytes: int) -> Iterator[bytes]:
        """Lines of the minutes that end after ``since`` (seconds since the epoch), by their ends.

        No more than ``max_bytes``, but all of those that end together: whoever goes on from the last end
        misses none.

        Args:
            engine: the label of one; ``None``: all.
        """
        wanted = [
            each for each in self.kept() if each.end_wall_seconds > since and engine in (None, each.engine)
        ]
        told, end = 0, None
        for each in wanted:
            if told >= max_bytes and each.end_wall_seconds != end:
                return
            line = each.line()
            told, end = told + len(line), each.end_wall_seconds
            yield line


def _packed(minute: EngineMinute, line: bytes) -> KeptMinute:
    return KeptMinute(
        minute.start_wall_seconds,
        minute.end_wall_seconds,
        minute.kind.engine,
        zlib.compress(line),
        len(line),
    )
