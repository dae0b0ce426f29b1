"""Takes rows, writes them to segments at each flush, and turns segments into Parquet."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path

from joulescope.clock import Clock
from joulescope.ledger.files import Files
from joulescope.ledger.frames import MAX_PAYLOAD_BYTES, ROW, STATE, frame
from joulescope.ledger.layout import OPEN, SegmentName, new_writer, partition
from joulescope.ledger.seal import settle_segment
from joulescope.ledger.segment import OpenSegment
from joulescope.ledger.tables import MINUTES, TABLES
from joulescope.units import NANOSECONDS_PER_SECOND

_logger = logging.getLogger(__name__)

MAX_PENDING_BYTES = 8 * 1024 * 1024
"""How much waits in memory while the disk does not take it; what is beyond is lost, and counted."""

_MAX_OPEN_DAYS = 3
"""Segments of a table that are open at once: yesterday's last rows come a little after midnight."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a segment becomes a Parquet file."""

    bytes: int = 8 * 1024 * 1024
    seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class _Pending:
    payload: bytes
    day: date


class LedgerWriter:
    """Rows in, files out. :meth:`add` is for any thread, the rest for one.

    Args:
        folder: a local one: the ledger's root, or the spool of one that is in an object store.
        wall_seconds: of the process's start, for the writer's name.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        wall_seconds: float,
        rotation: Rotation | None = None,
        files: Files | None = None,
        *,
        max_pending_bytes: int = MAX_PENDING_BYTES,
    ) -> None:
        self.folder = folder
        self.name = new_writer(wall_seconds)
        self.rows: Counter[str] = Counter(dict.fromkeys(TABLES, 0))
        """By table, on the disk."""
        self.lost: Counter[tuple[str, str]] = Counter()
        """Rows by table and reason: ``no_room``, ``too_large``, ``invalid``."""
        self.damaged_bytes = 0
        """Of own segments, by the disk."""
        self._clock = clock
        self._rotation = rotation or Rotation()
        self._files = files or Files()
        self._max_pending_bytes = max_pending_bytes
        self._lock = threading.Lock()
        self._pending: dict[str, list[_Pending]] = {table: [] for table in TABLES}
        self._pending_bytes = 0
        self._in_progress: Sequence[tuple[bytes, float]] | None = None
        self._state: Sequence[tuple[bytes, float]] = ()
        """What was in progress by the last flush."""
        self._closed = False
        self._open: dict[tuple[str, date], tuple[OpenSegment, int]] = {}
        """With the instant at which each is to be turned into Parquet."""
        self._sealed: list[tuple[OpenSegment, date]] = []
        self._numbers = Counter(dict.fromkeys(TABLES, 0))
        self._sequences = Counter(dict.fromkeys(TABLES, 0))

    # ------------------------------------------------------------------------------------------------ rows

    def add(
        self,
        table: str,
        rows: Iterable[tuple[bytes, float]],
        in_progress: Sequence[tuple[bytes, float]] | None = None,
    ) -> None:
        """Takes rows; they are on the disk after the next flush.

        Args:
            rows: JSON texts, each with the instant at which the row ended, in seconds since the epoch.
            in_progress: the rows of minutes that are not over, as they stand once ``rows`` are: they take
                the place of those before. ``None``: they have not changed.
        """
        with self._lock:
            for payload, end_wall_seconds in rows:
                if len(payload) > MAX_PAYLOAD_BYTES:
                    self.lost[table, "too_large"] += 1
                elif self._closed or self._pending_bytes + len(payload) > self._max_pending_bytes:
                    self.lost[table, "no_room"] += 1
                else:
                    self._pending[table].append(_Pending(payload, _day(end_wall_seconds)))
                    self._pending_bytes += len(payload)
            if in_progress is not None:
                self._in_progress = in_progress

    @property
    def pending_bytes(self) -> int:
        """What waits for the next flush."""
        return self._pending_bytes

    def flush(self) -> None:
        """Writes what waits, and what the minutes in progress hold so far; on return it is on the disk.

        Raises:
            OSError: if not all could be written; what was not waits for the next time.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(2, "the folder is gone", str(self.folder))
        with self._lock:
            waiting = {table: list(rows) for table, rows in self._pending.items()}
            in_progress = self._in_progress
        for table, rows in waiting.items():
            self._flush_rows(table, rows, table == MINUTES and in_progress is not None)
        if in_progress is not None:
            self._state = in_progress
            self._write_state()
        with self._lock:
            if self._in_progress is in_progress:
                self._in_progress = None

    def _write_state(self) -> None:
        state = b"[" + b",".join(payload for payload, _ in self._state) + b"]"
        if self._state and len(state) <= MAX_PAYLOAD_BYTES:
            self._append(MINUTES, _day(max(end for _, end in self._state)), STATE, [state])

    def _flush_rows(self, table: str, waiting: Sequence[_Pending], voids_state: bool) -> None:
        for day in sorted({row.day for row in waiting}):
            rows = [row for row in waiting if row.day == day]
            self._append(table, day, ROW, [row.payload for row in rows])
            if voids_state:
                self._state = ()  # some of it is among these rows: with them it would be there twice
            written = set(map(id, rows))
            with self._lock:
                self._pending[table] = [row for row in self._pending[table] if id(row) not in written]
                self._pending_bytes -= sum(len(row.payload) for row in rows)
                self.rows[table] += len(rows)

    def _append(self, table: str, day: date, kind: bytes, payloads: Sequence[bytes]) -> None:
        segment = self._segment(table, day)
        first = self._sequences[table]
        self._sequences[table] += len(payloads)
        data = b"".join(frame(kind, first + at, payload) for at, payload in enumerate(payloads))
        segment.append(data, len(payloads) if kind == ROW else 0)

    def _segment(self, table: str, day: date) -> OpenSegment:
        found = self._open.get((table, day))
        if found is not None and found[0].is_there():
            return found[0]
        if found is not None:
            _logger.warning("the ledger's segment %s was taken away; another one is begun", found[0].path)
            self._open.pop((table, day))[0].close()
        self._numbers[table] += 1
        name = SegmentName(self.name, self._numbers[table])
        path = self.folder / OPEN / table / partition(day) / name.file
        segment = OpenSegment(self._files, path, table, name)
        due_ns = self._clock.now_ns() + round(self._rotation.seconds * NANOSECONDS_PER_SECOND)
        self._open[table, day] = segment, due_ns
        return segment

    # --------------------------------------------------------------------------------------------- Parquet

    def rotate(self) -> int:
        """:meth:`seal` and :meth:`convert`."""
        self.seal()
        return self.convert()

    def seal(self) -> None:
        """Begins others in place of the segments that are old or large enough.

        Raises:
            OSError: if that is not possible; what was in progress is written with the next flush.
        """
        if MINUTES in self._seal_ripe():
            self._write_state()  # what was in progress goes with the segment that it was written to

    def convert(self) -> int:
        """Turns sealed segments into Parquet; returns how many. :meth:`flush` and :meth:`close` may be called
        meanwhile.

        Raises:
            OSError: if one could not be; it stays as it is, and is tried again the next time.
        """
        done = 0
        while self._sealed:
            segment, day = self._sealed[0]
            if segment.is_there():
                outcome = settle_segment(self._files, self.folder, segment.path, segment.table, day)
                self.lost[segment.table, "invalid"] += outcome.invalid_rows
                self.damaged_bytes += outcome.damaged_bytes
                done += 1
            segment.close()
            self._sealed.pop(0)
        return done

    def _seal_ripe(self) -> set[str]:
        """The tables of which a segment was sealed."""
        sealed = set()
        now_ns = self._clock.now_ns()
        for table in TABLES:
            days = sorted(day for of, day in self._open if of == table)
            for at, day in enumerate(days):
                segment, due_ns = self._open[table, day]
                too_many = at < len(days) - _MAX_OPEN_DAYS
                if too_many or now_ns >= due_ns or segment.size >= self._rotation.bytes:
                    del self._open[table, day]
                    self._sealed.append((segment, day))
                    sealed.add(table)
        return sealed

    def close(self) -> None:
        """A last flush; segments stay as they are, and the next start turns them into Parquet. Those that
        were sealed may be in another thread's hands, and are let go when the process ends.

        Raises:
            OSError: if not all could be written; what was not is lost, and counted.
        """
        try:
            self.flush()
        finally:
            with self._lock:
                self._closed = True
                for table, rows in self._pending.items():
                    self.lost[table, "no_room"] += len(rows)
                self._pending = {table: [] for table in TABLES}
                self._pending_bytes = 0
            for segment, _ in self._open.values():
                segment.close()
            self._open.clear()


def _day(wall_seconds: float) -> date:
    return datetime.fromtimestamp(wall_seconds, timezone.utc).date()
