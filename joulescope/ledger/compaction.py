"""Makes few large Parquet files of many small ones: those of a day that is over become one, up to a size.

Rows are copied as they are, row group by row group, and read back before anything is removed. The new file
says in its metadata which files it takes the place of. It is there under its name before they go, so that a
process that ends at any instant loses nothing; what it left is done by the next. Writers are not in the way:
they add files and never change one.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from joulescope.errors import LedgerError
from joulescope.ledger.convert import (
    BATCH_ROWS,
    GROUP_ROWS,
    Looked,
    look,
    rename_synced,
    replaced_by,
    write_groups,
)
from joulescope.ledger.current import Current, current
from joulescope.ledger.files import Files
from joulescope.ledger.holding import alone_at_work, without_readers
from joulescope.ledger.layout import compact_stem, is_compact, is_part, partition
from joulescope.ledger.place import Place, Stored, local_root, require_root
from joulescope.ledger.tables import REPLACES_KEY, SCHEMA_KEY, TABLES

_logger = logging.getLogger(__name__)

TARGET_BYTES = 256 << 20
"""Files are put together up to this size; those above half of it stay as they are."""


@dataclass(slots=True)
class Compacted:
    """What a compaction of a table did."""

    files_found: int = 0
    """Parquet files of the table, of all days."""
    days: int = 0
    """On which files were put together."""
    rows: int = 0
    files_before: int = 0
    """Small files that were put together."""
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    removed_files: int = 0
    """Files that an earlier compaction had replaced, and not removed."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Files that were passed over, and why."""


def _a_second() -> None:
    time.sleep(1.0)


@dataclass(slots=True)
class Compaction:
    """A compaction of one table of a ledger.

    Args:
        before: only days before this one: the present day's files are still coming.
        pause: waits a second or so while somebody reads the ledger.
        dry: says what there is to do, and does nothing.
    """

    place: Place
    table: str
    before: date
    target_bytes: int = TARGET_BYTES
    dry: bool = False
    files: Files = field(default_factory=Files)
    pause: Callable[[], None] = _a_second
    done: Compacted = field(default_factory=Compacted)

    def run(self) -> Compacted:
        """Compacts what is to be compacted.

        Raises:
            LedgerError: if another one is at work, somebody reads the ledger all the time, or the place does
                not do what it must; what was done until then stays.
        """
        try:
            with self._alone():
                stored = list(self.place.stored(self.table))
                self.done.files_found = len(stored)
                for day, of_day in groupby(stored, key=lambda each: each.day):
                    if day < self.before:
                        self._compact_day(day, list(of_day))
        except OSError as error:
            where = error.filename or self.place.root
            raise LedgerError(
                f"{where}: cannot be compacted: {error.strerror or error}; nothing is lost, run it again "
                "when that is mended"
            ) from error
        return self.done

    def _alone(self) -> Any:
        folder = local_root(self.place.root) / self.table
        if self.place.is_local and folder.is_dir() and not self.dry:
            return alone_at_work(folder)
        return nullcontext()

    def _compact_day(self, day: date, stored: Sequence[Stored]) -> None:
        if len(stored) == 1 or all(2 * each.size_bytes > self.target_bytes for each in stored):
            return
        now = self._current(stored)
        if not self.dry:
            self._finish(day, now)
        before = self.done.files_before
        for several in self._groups([each for _, each in now.files.values()]):
            self.done.files_before += len(several)
            self.done.bytes_before += sum(each.size_bytes for each in several)
            self.done.files_after += 1
            if not self.dry:
                self._put_together(day, several)
        self.done.days += self.done.files_before > before

    def _current(self, stored: Sequence[Stored]) -> Current:
        return current([(self.place, each) for each in stored], self._look, self._leave_out)

    def _look(self, place: Place, stored: Stored) -> Looked | None:
        try:
            with place.open(stored.path) as file:
                return look(file, self.table, stored.crc)
        except FileNotFoundError:
            return None  # it was too old, or too much

    def _leave_out(self, place: Place, stored: Stored, reason: str) -> None:
        self.done.left_out.append((place.url(stored.path), reason))

    def _finish(self, day: date, now: Current) -> None:
        """What an earlier compaction did not come to, because its process ended."""
        if self.place.is_local:
            folder = self._folder(day)
            for path in folder.iterdir():
                if is_part(path.name) and is_compact(path.name[1:]):
                    self.files.remove(path)
        if now.done:
            with self._unread():
                self._remove([each for _, each in now.done])
            self.done.removed_files += len(now.done)

    def _groups(self, stored: Sequence[Stored]) -> Iterator[list[Stored]]:
        """Small files of the same columns that make a larger one together."""
        small = [each for each in sorted(stored, key=_stem) if 2 * each.size_bytes <= self.target_bytes]
        by_columns: dict[tuple[str, ...], list[Stored]] = {}
        for each in small if len(small) > 1 else ():
            by_columns.setdefault(self._columns(each), []).append(each)
        for alike in by_columns.values():
            group: list[Stored] = []
            for each in alike:
                if sum(one.size_bytes for one in group) + each.size_bytes > self.target_bytes:
                    yield from [group] if len(group) > 1 else []
                    group = []
                group.append(each)
            yield from [group] if len(group) > 1 else []

    def _columns(self, stored: Stored) -> tuple[str, ...]:
        schema = _schema(self.place, stored)
        version = (schema.metadata or {})[SCHEMA_KEY].decode()
        return version, schema.remove_metadata().to_string(show_field_metadata=False)

    # --------------------------------------------------------------------------------------- one new file

    def _put_together(self, day: date, several: Sequence[Stored]) -> None:
        schemas = [_schema(self.place, each) for each in several]
        replaces = {each.stem for each in several}.union(*(replaced_by(each.metadata) for each in schemas))
        metadata = {**schemas[0].metadata, REPLACES_KEY: "\n".join(sorted(replaces)).encode()}
        schema = schemas[0].with_metadata(metadata)
        stem = compact_stem(replaces)
        write = partial(write_groups, self.files, schema=schema, stem=stem)
        if self.place.is_local:
            publish = partial(self._publish, several)
            _, size = write(folder=self._folder(day), groups=self._rows(several, schema), publish=publish)
        else:
            with tempfile.TemporaryDirectory(prefix="joulescope-compact-") as scratch:
                check = partial(self._check_and_rename, several)
                path, size = write(folder=Path(scratch), groups=self._rows(several, schema), publish=check)
                self.place.put(str(path), f"{self.table}/{partition(day)}/{path.name}")
                self._replace_in_store(day, stem, replaces, several)
        self.done.bytes_after += size

    def _rows(self, several: Sequence[Stored], schema: Any) -> Iterator[Any]:
        """Their rows as they are, a row group at a time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        waiting: list[Any] = []
        rows = 0
        for each in several:
            with (
                self.place.open(each.path) as file,
                pq.ParquetFile(file, page_checksum_verification=True) as parquet,
            ):
                for batch in parquet.iter_batches(BATCH_ROWS):
                    waiting.append(batch)
                    rows += batch.num_rows
                    if rows + BATCH_ROWS > GROUP_ROWS:
                        yield pa.Table.from_batches(waiting).cast(schema)
                        waiting, rows = [], 0
        if waiting:
            yield pa.Table.from_batches(waiting).cast(schema)

    def _check_and_rename(self, several: Sequence[Stored], files: Files, part: Path, path: Path) -> None:
        self._check(several, part)
        rename_synced(files, part, path)

    def _check(self, several: Sequence[Stored], part: Path) -> None:
        """Holds every value of the new file against those that it comes from."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(part, page_checksum_verification=True) as new:
            at = 0
            for group in self._rows(several, new.schema_arrow):
                if at == new.num_row_groups or not new.read_row_group(at).equals(group):
                    raise LedgerError(f"{part}: what was written is not what was read; nothing is replaced")
                at += 1
            if at != new.num_row_groups:
                raise LedgerError(f"{part}: has rows of its own; nothing is replaced")
            self.done.rows += new.metadata.num_rows

    def _publish(self, several: Sequence[Stored], files: Files, part: Path, path: Path) -> None:
        self._check(several, part)
        with self._unread():
            rename_synced(files, part, path)
            self._remove(several)

    def _unread(self) -> Any:
        if self.place.is_local:
            return without_readers(local_root(self.place.root), self.pause)
        return nullcontext()

    def _replace_in_store(self, day: date, stem: str, replaces: set[str], several: Sequence[Stored]) -> None:
        """A store has no locks: who sees a file of another compaction beside its own gives way."""
        for other in self.place.stored(self.table, day, day):
            if is_compact(other.stem) and other.stem != stem and other.stem not in replaces:
                with self.place.open(other.path) as file:
                    shared = look(file, self.table, other.crc).replaces & replaces
                if shared:
                    mine = next(each for each in self.place.stored(self.table, day, day) if each.stem == stem)
                    self._remove([mine])
                    raise LedgerError(
                        f"{self.place.root}: another compaction is at work there, {other.path} is not "
                        "of this one; let one run at a time"
                    )
        self._remove(several)

    def _remove(self, several: Sequence[Stored]) -> None:
        for each in several:
            if self.place.is_local:
                self.files.remove(Path(each.path))
            else:
                self.place.remove(each.path)

    def _folder(self, day: date) -> Path:
        return local_root(self.place.root).absolute() / self.table / partition(day)


def _stem(stored: Stored) -> str:
    return stored.stem


def _schema(place: Place, stored: Stored) -> Any:
    import pyarrow.parquet as pq

    with place.open(stored.path) as file:
        return pq.read_schema(file)


def compact(
    root: str, before: date, target_bytes: int = TARGET_BYTES, *, dry: bool = False
) -> dict[str, Compacted]:
    """Compacts all tables of a ledger; see :class:`Compaction`.

    Args:
        root: folder or URL.

    Raises:
        LedgerError: if there is no ledger, or see :meth:`Compaction.run`.
        MissingExtra: if pyarrow or fsspec is not installed.
    """
    require_root(root)
    place = Place(root)
    return {table: Compaction(place, table, before, target_bytes, dry).run() for table in TABLES}
