"""The minutes of the last day, kept in memory as compressed lines, for whoever asks the sidecar."""

from __future__ import annotations

import secrets
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
    number: int
    """In the order in which lines came, from 1."""

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
        self._process = secrets.token_hex(4)
        """So that a number of one process is not taken for one of the next."""
        self.taken = 0
        """Minutes that came so far: while it stands still, so does what is kept."""
        self.crowded_out = 0
        """Minutes that had to make room before they were old."""

    def take(self, minutes: Sequence[EngineMinute]) -> None:
        """Keeps minutes, in the order in which they were closed."""
        new = [
            _packed(minute, json_line(minute).encode(), number)
            for number, minute in enumerate(minutes, self.taken + 1)
        ]
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

    def after(
        self, sequence: str, since: float, engine: str | None, max_bytes: int
    ) -> tuple[list[bytes], str]:
        """Lines in the order in which they came, also of minutes that were told before, and from where to
        go on: whoever does misses none that is still kept, and gets none twice.

        Args:
            sequence: what the call before returned, empty for the first. One of a process before this counts
                as none.
            since, engine, max_bytes: as of :meth:`lines`, save that lines which end together may be parted.

        Raises:
            ValueError: if it is nothing that a call returned.
        """
        process, dash, text = sequence.partition("-")
        if sequence and not (dash and text.isdecimal() and text.isascii() and len(text) < 19):
            raise ValueError("since_sequence is what the answer before had in Joulescope-Sequence")
        number = int(text) if process == self._process else 0
        with self._lock:
            kept, number_last = list(self._kept), self.taken
        found: list[bytes] = []
        told = 0
        for each in kept:
            if each.number > number and each.end_wall_seconds > since and engine in (None, each.engine):
                if told >= max_bytes:
                    number_last = each.number - 1
                    break
                found.append(each.line())
                told += len(found[-1])
        return found, f"{self._process}-{number_last}"


def _packed(minute: EngineMinute, line: bytes, number: int) -> KeptMinute:
    return KeptMinute(
        minute.start_wall_seconds,
        minute.end_wall_seconds,
        minute.kind.engine,
        zlib.compress(line),
        len(line),
        number,
    )
