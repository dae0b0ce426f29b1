"""Reads a ledger: the files that an analysis opens, and the minutes of engines as values.

Whatever cannot be read is named in :attr:`Ledger.rejected`, and the rest is read.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import date, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from types import TracebackType

from joulescope.errors import LedgerError, MinuteError
from joulescope.ledger.convert import Looked, look, read_rows, write_parquet
from joulescope.ledger.current import Current, current
from joulescope.ledger.files import Files
from joulescope.ledger.holding import ReaderHold
from joulescope.ledger.layout import OPEN, partition
from joulescope.ledger.leftovers import Leftover, leftovers
from joulescope.ledger.place import Place, Stored, is_url, local_root, require_root
from joulescope.ledger.tables import MINUTES, names_of
from joulescope.minute_model import EngineMinute
from joulescope.minutes import parse_line, unflatten

_logger = logging.getLogger(__name__)

_LONGEST_MINUTE_SECONDS = 61.0
_TRIES = 3
"""How often a spool is looked at whose files go to the store meanwhile."""


class _Passing(Files):
    """For files that need not outlive this process: nothing is synced."""

    def sync(self, file: int) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


class Ledger(AbstractContextManager["Ledger"]):
    """A ledger that is open for reading. Writers go on meanwhile; each call sees what is there then.

    What is not yet a Parquet file is copied into one in a temporary folder, which lives as long as this
    object.
    """

    def __init__(self, root: str | Path, spool: str | Path | None = None, verify: bool | None = None) -> None:
        """See :func:`open_ledger`."""
        self.root = str(root)
        self._place = Place(self.root)
        self._spool = local_root(self.root) if self._place.is_local else spool and Path(spool)
        self._verify = self._place.is_local if verify is None else verify
        self._rejected: dict[str, str] = {}
        self._copies: tempfile.TemporaryDirectory[str] | None = None
        self._hold: ReaderHold | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Removes the temporary files; those that :meth:`files` named among them are gone then. A compaction
        that waited may replace the others."""
        copies, self._copies = self._copies, None
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.close()
        if copies is not None:
            copies.cleanup()

    @property
    def rejected(self) -> list[tuple[str, str]]:
        """Files of which something could not be read so far, and what is wrong with each."""
        return sorted(self._rejected.items())

    def files(self, table: str, begin: float | None = None, end: float | None = None) -> list[str]:
        """Parquet files, by day, with every row of a table that ended from ``begin`` on and before ``end``.

        They hold other rows too: days are told apart, hours are not. Columns of older files may be fewer.
        Local ones are paths, those in an object store URLs.

        Args:
            table: ``requests`` or ``minutes``.
            begin: seconds since the epoch; ``None``: from the first row on.

        Raises:
            ValueError: if there is no such table.
            LedgerError: if the place cannot be read at all, or there is no room for copies.
        """
        found, open_rows = self._found(table, begin, end)
        found += [(left.day, self._copy(left)) for left in open_rows if left.rows]
        return [path for _, path in sorted(found)]

    def minutes(self, begin: float | None = None, end: float | None = None) -> Iterator[EngineMinute]:
        """The minutes that began from ``begin`` on and before ``end``, in the order of their begins.

        Raises:
            LedgerError: if the place cannot be read at all.
        """
        longest = None if end is None else end + _LONGEST_MINUTE_SECONDS
        found, open_rows = self._found(MINUTES, begin, longest)
        waiting: list[EngineMinute] = []
        for day in sorted({day for day, _ in found} | {left.day for left in open_rows}):
            for path in (path for of, path in found if of == day):
                waiting += self._minutes_of(path)
            for left in (left for left in open_rows if left.day == day):
                waiting += self._minutes_in(left)
            waiting.sort(key=lambda minute: minute.start_wall_seconds)
            midnight = datetime(day.year, day.month, day.day, tzinfo=timezone.utc) + timedelta(days=1)
            ripe = midnight.timestamp() - _LONGEST_MINUTE_SECONDS
            ready = [minute for minute in waiting if minute.start_wall_seconds < ripe]
            waiting = waiting[len(ready) :]
            yield from _within(ready, begin, end)
        yield from _within(waiting, begin, end)

    # ------------------------------------------------------------------------------------------ underneath

    def _found(
        self, table: str, begin: float | None, end: float | None
    ) -> tuple[list[tuple[date, str]], list[Leftover]]:
        """Sound Parquet files, and segments of which there is none. Segments are looked at before Parquet
        files, and the spool before the store: what goes from one to the other meanwhile is not missed."""
        names_of(table)
        if self._hold is None and self._place.is_local:
            self._hold = ReaderHold(local_root(self.root))
        first, last = _day(begin), _day(end)
        open_rows = self._open_rows(table, first, last)
        now = self._current(table, first, last)
        for stem in now.files.keys() | now.replaced:
            open_rows.pop(stem, None)
        return sorted((each.day, place.url(each.path)) for place, each in now.files.values()), list(
            open_rows.values()
        )

    def _current(self, table: str, first: date | None, last: date | None) -> Current:
        """The Parquet files that count. What waits in the spool may be in the store already, and then is the
        same; what is gone from the spool when it is looked at is in the store by now."""
        is_spooled = self._spool is not None and not self._place.is_local
        spool = Place(str(self._spool)) if is_spooled else None
        for _ in range(_TRIES):
            waiting = [] if spool is None else list(self._stored(spool, table, first, last))
            stored = [(self._place, each) for each in self._stored(self._place, table, first, last)]
            found = stored + [(spool, each) for each in waiting if spool is not None]
            gone: set[str] = set()
            now = current(found, partial(self._look, table, gone), self._reject_file)
            if gone.isdisjoint(each.path for each in waiting):
                break
        return now

    def _stored(self, place: Place, table: str, first: date | None, last: date | None) -> Iterator[Stored]:
        try:
            yield from place.stored(table, first, last, self._rejected.__setitem__)
        except OSError as error:
            where = error.filename or place.root
            raise LedgerError(f"{where}: cannot be read: {error.strerror or error}") from error

    def _look(self, table: str, gone: set[str], place: Place, stored: Stored) -> Looked | None:
        try:
            with place.open(stored.path) as file:
                return look(file, table, stored.crc if self._verify else None)
        except FileNotFoundError:
            gone.add(stored.path)  # it was removed since, as too old or too much, or because the store has it
            return None
        except OSError as error:
            return Looked(f"cannot be read: {error.strerror or error}")

    def _reject_file(self, place: Place, stored: Stored, reason: str) -> None:
        self._rejected[place.url(stored.path)] = reason

    def _open_rows(self, table: str, first: date | None, last: date | None) -> dict[str, Leftover]:
        if self._spool is None:
            return {}
        found = {}
        for left in leftovers(Path(self._spool) / OPEN, table):
            if left.problem and not left.is_live:
                self._rejected[str(left.path)] = left.problem
            if (first is None or left.day >= first) and (last is None or left.day <= last):
                found[left.name.stem] = left
        return found

    def _copy(self, left: Leftover) -> str:
        try:
            if self._copies is None:
                self._copies = tempfile.TemporaryDirectory(prefix="joulescope-ledger-")
            folder = Path(self._copies.name) / left.table / partition(left.day)
            path, _, wrong = write_parquet(_Passing(), folder, left.name.stem, left.table, left.rows)
        except OSError as error:
            raise LedgerError(
                f"{tempfile.gettempdir()}: {left.path} cannot be copied there: {error.strerror or error}; "
                "name a folder with room by the variable TMPDIR"
            ) from error
        if wrong:
            self._rejected[str(left.path)] = f"{len(wrong)} rows are none of the table: {wrong[0]}"
        return str(path)

    def _minutes_in(self, left: Leftover) -> Iterator[EngineMinute]:
        bad: list[str] = []
        for row in left.rows:
            try:
                yield parse_line(row)
            except MinuteError as error:
                bad.append(str(error))
        self._reject_rows(str(left.path), bad)

    def _minutes_of(self, path: str) -> Iterator[EngineMinute]:
        bad: list[str] = []
        try:
            with self._place.open(path) if is_url(path) else open(path, "rb") as file:
                for row in read_rows(file):
                    try:
                        yield unflatten(row)
                    except MinuteError as error:
                        bad.append(str(error))
        except (OSError, ValueError) as error:
            self._rejected[path] = f"cannot be read: {error}"
        self._reject_rows(path, bad)

    def _reject_rows(self, path: str, bad: list[str]) -> None:
        if bad:
            self._rejected[path] = f"{len(bad)} rows are no minutes: {bad[0]}"


def open_ledger(root: str | Path, *, spool: str | Path | None = None, verify: bool | None = None) -> Ledger:
    """Opens a ledger for reading.

    Args:
        root: the folder, or the URL, that the sidecars write to.
        spool: where ``root`` is a URL: the local folder in which a sidecar of this machine collects what is
            not yet there, to be read too.
        verify: whether every byte is held against the checksum in the file's name before a file is read; by
            default where the files are local. Otherwise the ends of the files are looked at.

    Raises:
        LedgerError: if there is no ledger or no spool there, or one that could not be read; if a ledger in a
            folder is given a spool.
        MissingExtra: if pyarrow or fsspec is not installed.
    """
    require_root(str(root))
    if spool is not None and not is_url(str(root)):
        raise LedgerError(
            f"{root}: only a ledger behind a URL has a spool, this is a folder: leave {spool} out"
        )
    if spool is not None:
        require_root(str(spool), "ledger_spool")
    return Ledger(root, spool, verify)


def _day(wall_seconds: float | None) -> date | None:
    return None if wall_seconds is None else datetime.fromtimestamp(wall_seconds, timezone.utc).date()


def _within(
    minutes: Iterable[EngineMinute], begin: float | None, end: float | None
) -> Iterator[EngineMinute]:
    for minute in minutes:
        start = minute.start_wall_seconds
        if (begin is None or start >= begin) and (end is None or start < end):
            yield minute
