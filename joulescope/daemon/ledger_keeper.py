"""Keeps the ledger, off the accounting thread: a disk or a store that does not answer holds up nobody."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from joulescope.clock import Clock, WallAnchor
from joulescope.config import Settings
from joulescope.config.ledger import is_store
from joulescope.errors import ConfigError, LedgerError
from joulescope.export.records import finished_line
from joulescope.ledger.files import Files
from joulescope.ledger.place import Place, require_packages
from joulescope.ledger.recovery import recover
from joulescope.ledger.retention import Bounds, bound
from joulescope.ledger.tables import MINUTES, REQUESTS, TABLES
from joulescope.ledger.upload import Uploaded, upload
from joulescope.ledger.writer import LedgerWriter, Rotation
from joulescope.ledger_model import LedgerTotals
from joulescope.minute_model import EngineMinute
from joulescope.minutes import json_line
from joulescope.model import FinishedRequest, Snapshot
from joulescope.periodic import Periodic

_logger = logging.getLogger(__name__)

LOOK_SECONDS = 300.0
"""How often the folder is looked at: for segments of processes that died meanwhile, and for its size."""

RETRY_SECONDS = 60.0
"""Pause after a rotation, a look or an upload that failed."""

OpenMinutes = Callable[[int], Sequence[EngineMinute]]
"""What minutes of engines that are not over hold so far, by the instant that is now."""


class LedgerKeeper:
    """Takes what has finished, and brings it to the ledger in threads of its own.

    A :class:`joulescope.export.RequestSink`, and a sink of minutes. :meth:`export`, :meth:`take` and
    :meth:`turn` are for the accounting thread.

    Args:
        folder: where files are made: the ledger's own, or the spool of a store.
        place: the object store, if the ledger is in one.
    """

    name = "ledger"

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        anchor: WallAnchor,
        *,
        place: Place | None = None,
        flush_seconds: float = 10.0,
        rotation: Rotation | None = None,
        bounds: Bounds | None = None,
        files: Files | None = None,
    ) -> None:
        self._folder, self._place = folder, place
        self._clock, self._anchor = clock, anchor
        self._flush_seconds = flush_seconds
        self._bounds = bounds or Bounds()
        self._files = files or Files()
        self._writer = LedgerWriter(folder, clock, self._wall_seconds(), rotation, self._files)
        self._taken: list[EngineMinute] = []
        self._asked_ns: int | None = None
        self._writing = threading.Lock()
        """Held while segments are written, and not while they become Parquet: the end does not wait for
        that."""
        self._failing: set[str] = set()
        self._next_ns: dict[str, int] = {}
        self._recovered: Counter[str] = Counter()
        self._lost: Counter[tuple[str, str]] = Counter()
        self._failures: Counter[str] = Counter()
        self._evicted: Counter[str] = Counter()
        self._damaged_bytes = 0
        self._sizes: tuple[int | None, int | None] = (None, None)
        self._uploaded = Uploaded()
        self._flushed_wall_seconds: float | None = None
        self._closed = False
        self._threads = [Periodic("ledger", self.step)]
        if place is not None:
            self._threads.append(Periodic("ledger-upload", self.step_upload))

    @classmethod
    def build(cls, settings: Settings, clock: Clock, anchor: WallAnchor) -> LedgerKeeper:
        """As the settings ask.

        Raises:
            ConfigError: if there is no file system for such a URL.
            MissingExtra: if pyarrow or fsspec is not installed.
        """
        assert settings.ledger is not None
        require_packages()
        try:
            place = Place(settings.ledger) if is_store(settings.ledger) else None
        except LedgerError as error:
            raise ConfigError(f"ledger: {error}") from None
        return cls(
            Path(settings.ledger_spool or settings.ledger),
            clock,
            anchor,
            place=place,
            flush_seconds=settings.ledger_flush_seconds,
            rotation=Rotation(settings.ledger_rotate_mebibytes << 20, settings.ledger_rotate_seconds),
            bounds=Bounds(settings.ledger_max_mebibytes << 20, settings.ledger_max_days),
        )

    # ---------------------------------------------------------------------------- the accounting thread

    def export(self, requests: Sequence[FinishedRequest]) -> None:
        """Takes finished requests."""
        self._writer.add(
            REQUESTS,
            [
                (finished_line(each, self._anchor)[:-1], self._anchor.wall_of(each.end_ns) / 1e9)
                for each in requests
            ],
        )

    def take(self, minutes: Sequence[EngineMinute]) -> None:
        """Takes minutes that are over; :meth:`turn` hands them on."""
        self._taken.extend(minutes)

    def turn(self, open_minutes: OpenMinutes) -> None:
        """Hands on minutes that are over, and before each flush what those hold that are not."""
        now_ns = self._clock.now_ns()
        due = self._asked_ns is None or now_ns - self._asked_ns >= 0.5e9 * self._flush_seconds
        if not self._taken and not due:
            return
        self._asked_ns = now_ns
        closed, self._taken = self._taken, []
        self._writer.add(MINUTES, map(_row, closed), list(map(_row, open_minutes(now_ns))))

    def counts(self) -> Mapping[str, int]:
        """Requests that are on the disk, and that never will be."""
        dropped = sum(self._lost_rows()[REQUESTS].values())
        return {"written": self._writer.rows[REQUESTS], "dropped": dropped}

    def totals(self) -> LedgerTotals:
        """How the ledger fares."""
        writer = self._writer
        return LedgerTotals(
            is_kept=True,
            rows=dict(writer.rows),
            recovered_rows=dict(self._recovered),
            lost_rows=self._lost_rows(),
            damaged_bytes=self._damaged_bytes + writer.damaged_bytes,
            failures=dict(self._failures),
            evicted_bytes=dict(self._evicted),
            open_bytes=self._sizes[0],
            parquet_bytes=self._sizes[1],
            uploaded_bytes=None if self._place is None else self._uploaded.bytes,
            flushed_wall_seconds=self._flushed_wall_seconds,
        )

    def _lost_rows(self) -> dict[str, dict[str, int]]:
        lost: dict[str, dict[str, int]] = {table: {} for table in TABLES}
        for (table, reason), number in (self._writer.lost + self._lost).items():
            lost[table][reason] = number
        return lost

    # --------------------------------------------------------------------------------- its own threads

    def start(self) -> None:
        """Starts to write; what dead processes left is taken over first."""
        for thread in self._threads:
            thread.start()

    def step(self) -> float:
        """Flushes, and does what else is due; returns the pause until the next time."""
        begin_ns = self._clock.now_ns()
        with self._writing:
            if self._closed:
                return self._flush_seconds
            self._try("flush", self._flush)
        if self._is_due("rotate"):
            self._try("rotate", self._rotate)
        if self._is_due("recover"):
            self._try("recover", self._recover, LOOK_SECONDS)
        if self._is_due("bound"):
            self._try("bound", self._bound, LOOK_SECONDS)
        took_seconds = (self._clock.now_ns() - begin_ns) / 1e9
        return max(self._flush_seconds - took_seconds, 0.0)

    def step_upload(self) -> float:
        """Brings Parquet files to the store; returns the pause until the next look."""
        self._try("upload", self._upload)
        return min(RETRY_SECONDS, 6.0 * self._flush_seconds)

    def close(self, timeout_seconds: float) -> None:
        """A last flush. Segments stay, and the next start turns them into Parquet."""
        for thread in self._threads:
            thread.stop(0.0)
        if not self._writing.acquire(timeout=max(timeout_seconds, 0.0)):
            _logger.warning("the ledger's disk does not answer: what finished last may not be in it")
            return
        try:
            if not self._closed:
                self._closed = True
                self._try("flush", self._close_writer)
        finally:
            self._writing.release()

    def _is_due(self, operation: str) -> bool:
        return self._clock.now_ns() >= self._next_ns.get(operation, 0)

    def _try(self, operation: str, do: Callable[[], None], pause_seconds: float = 0.0) -> None:
        """What fails is counted, said once for each stretch of failures, and tried again later."""
        try:
            do()
        except Exception as error:  # beside the disk's errors those of pyarrow and of stores
            self._failures[operation] += 1
            pause_seconds = RETRY_SECONDS
            if operation not in self._failing:
                self._failing.add(operation)
                _logger.warning(
                    _WORDS[operation] + "; accounting goes on, and it is tried again",
                    self._folder if operation != "upload" else self._place and self._place.root,
                    _said(error),
                    exc_info=None if isinstance(error, OSError) else error,
                )
        else:
            if operation in self._failing:
                self._failing.discard(operation)
                _logger.info("the ledger: %s works again", operation)
        self._next_ns[operation] = self._clock.now_ns() + round(1e9 * pause_seconds)

    def _flush(self) -> None:
        if not self._folder.is_dir() and self._flushed_wall_seconds is None:
            self._files.make_folder(self._folder)
        self._writer.flush()
        self._flushed_wall_seconds = self._wall_seconds()

    def _close_writer(self) -> None:
        self._writer.close()
        self._flushed_wall_seconds = self._wall_seconds()

    def _rotate(self) -> None:
        with self._writing:
            if not self._closed:
                self._writer.seal()
        if self._writer.convert():
            self._next_ns["bound"] = 0

    def _recover(self) -> None:
        found = recover(self._files, self._folder)
        self._recovered.update(found.rows)
        self._damaged_bytes += found.damaged_bytes
        for table in TABLES:
            self._lost[table, "invalid"] += found.invalid_rows[table]

    def _bound(self) -> None:
        today = datetime.fromtimestamp(self._wall_seconds(), timezone.utc).date()
        kept = bound(self._files, self._folder, self._bounds, today)
        for reason, size in kept.evicted_bytes.items():
            self._evicted[reason if self._place is None else "not_uploaded"] += size
        self._sizes = kept.open_bytes, kept.parquet_bytes
        if kept.failure is not None:
            raise kept.failure

    def _upload(self) -> None:
        assert self._place is not None
        upload(self._files, self._folder, self._place, self._uploaded)

    def _wall_seconds(self) -> float:
        return self._anchor.wall_of(self._clock.now_ns()) / 1e9


_WORDS = {
    "flush": "the ledger in %s cannot be written: %s; rows wait in memory while there is room",
    "rotate": "segments of the ledger in %s cannot become Parquet files: %s; they stay as they are",
    "recover": "segments that another process left in the ledger in %s cannot be taken over: %s",
    "bound": "old files of the ledger in %s cannot be removed: %s",
    "upload": "the ledger's store %s does not take files: %s; they wait in the spool while there is room",
}


def _row(minute: EngineMinute) -> tuple[bytes, float]:
    return json_line(minute)[:-1].encode(), minute.end_wall_seconds


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    if isinstance(error, OSError):
        return str(error)
    return f"{type(error).__name__}: {error}"


class LedgerPart:
    """The ledger as a part of the daemon: there, or not."""

    def __init__(self, keeper: LedgerKeeper | None = None) -> None:
        self._keeper = keeper

    @classmethod
    def build(cls, settings: Settings, clock: Clock, anchor: WallAnchor) -> LedgerPart:
        """As the settings ask; see :meth:`LedgerKeeper.build`."""
        return cls() if settings.ledger is None else cls(LedgerKeeper.build(settings, clock, anchor))

    @property
    def sinks(self) -> Sequence[LedgerKeeper]:
        """What takes finished requests, and minutes that are over."""
        return () if self._keeper is None else (self._keeper,)

    def start(self) -> None:
        if self._keeper is not None:
            self._keeper.start()

    def turn(self, open_minutes: OpenMinutes) -> None:
        """To be called after minutes were handed out."""
        if self._keeper is not None:
            self._keeper.turn(open_minutes)

    def beside(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot, with how the ledger fares."""
        return snapshot if self._keeper is None else replace(snapshot, ledger=self._keeper.totals())
