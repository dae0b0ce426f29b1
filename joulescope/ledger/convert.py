"""Turns rows into a Parquet file that is there whole or not at all, and reads such files."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from joulescope.ledger.files import Files
from joulescope.ledger.layout import PART, parquet_name
from joulescope.ledger.tables import (
    REPLACES_KEY,
    SCHEMA_KEY,
    SCHEMA_VERSION,
    TABLE_KEY,
    arrow_schema,
    arrow_table,
)

BATCH_ROWS = 4096
"""Rows that are turned into columns at a time: what bounds the memory."""

GROUP_ROWS = 65_536
_CHUNK_BYTES = 1 << 20


class _Summed:
    """A file that is being written in large pieces, with the checksum of what was."""

    def __init__(self, files: Files, file: int) -> None:
        self._files, self._file = files, file
        self.crc = 0
        self.closed = False
        self._at = 0
        self._waiting = bytearray()

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._waiting += data
        self._at += size
        if len(self._waiting) >= _CHUNK_BYTES:
            self.write_out()
        return size

    def write_out(self) -> None:
        """Returns when the file has all."""
        self.crc = zlib.crc32(self._waiting, self.crc)
        data, self._waiting = bytes(self._waiting), bytearray()
        done = 0
        while done < len(data):
            done += self._files.write(self._file, data[done:])

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        pass

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


def write_parquet(
    files: Files, folder: Path, stem: str, table: str, rows: Sequence[bytes]
) -> tuple[Path, int, list[str]]:
    """Writes rows as the Parquet file of a segment; it appears under its name when it is on the disk.

    Returns:
        The file, its size in bytes, and for each row that was left out because it is none of the table: why.

    Raises:
        OSError: if it cannot be written; then nothing is left of it.
    """
    wrong: list[str] = []
    schema = arrow_schema(table)
    path, size = write_groups(files, folder, stem, schema, _groups(table, rows, wrong))
    return path, size, wrong


def rename_synced(files: Files, part: Path, path: Path) -> None:
    """Gives a file that is on the disk its name, and returns when that is there too."""
    files.rename(part, path)
    files.sync_folder(path.parent)


def write_groups(
    files: Files,
    folder: Path,
    stem: str,
    schema: Any,
    groups: Iterable[Any],
    publish: Callable[[Files, Path, Path], None] = rename_synced,
) -> tuple[Path, int]:
    """Writes row groups as a Parquet file.

    Args:
        publish: gets the file, which is on the disk under another name, and the path that it is to have.

    Returns:
        The file, and its size in bytes.

    Raises:
        OSError: if it cannot be written; then nothing is left of it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files.make_folder(folder)
    part = folder / f".{stem}{PART}"
    files.remove(part)
    file = files.create(part)
    try:
        try:
            summed = _Summed(files, file)
            with pq.ParquetWriter(
                pa.PythonFile(summed, mode="w"), schema, compression="zstd", write_page_checksum=True
            ) as writer:
                for group in groups:
                    writer.write_table(group, row_group_size=GROUP_ROWS)
            summed.write_out()
            files.sync(file)
        finally:
            files.close(file)
        path = folder / parquet_name(stem, summed.crc)
        publish(files, part, path)
    except BaseException:
        with suppress(OSError):
            files.remove(part)
        raise
    return path, summed.tell()


def _groups(table: str, rows: Sequence[bytes], wrong: list[str]) -> Iterator[Any]:
    """Columns of one row group at a time."""
    import pyarrow as pa

    for at in range(0, max(len(rows), 1), GROUP_ROWS):
        parts = list(_batches(table, rows[at : at + GROUP_ROWS], wrong))
        yield pa.concat_tables(parts) if parts else arrow_schema(table).empty_table()


def _batches(table: str, rows: Sequence[bytes], wrong: list[str]) -> Iterator[Any]:
    for at in range(0, len(rows), BATCH_ROWS):
        some = rows[at : at + BATCH_ROWS]
        try:
            yield arrow_table(table, some)
        except ValueError:
            for row in some:
                try:
                    yield arrow_table(table, [row])
                except ValueError as error:
                    wrong.append(str(error))


def checksum(file: IO[bytes]) -> int:
    """The CRC-32 of an open file, from where it stands to its end."""
    crc = 0
    while chunk := file.read(_CHUNK_BYTES):
        crc = zlib.crc32(chunk, crc)
    return crc


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen of a Parquet file."""

    wrong: str = ""
    """Why it is not to be read; empty if nothing is wrong."""
    replaces: frozenset[str] = frozenset()
    """The stems of files whose rows it has, if it is a compact one."""


def look(file: Any, table: str, crc: int | None) -> Looked:
    """What is wrong with a Parquet file that is open for reading in bytes, and what it replaces.

    Args:
        crc: what all its bytes must sum to; ``None``: its end is looked at, and nothing else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if crc is not None:
        found = checksum(file)
        if found != crc:
            return Looked(f"is damaged: its checksum is {found:08x}, by its name it was {crc:08x}")
        file.seek(0)
    try:
        metadata = pq.read_schema(file).metadata or {}
    except (pa.ArrowException, OSError, ValueError) as error:
        return Looked(f"is no Parquet file: {str(error).splitlines()[0]}")
    wrong = _why_foreign(metadata, table)
    return Looked(wrong, frozenset() if wrong else replaced_by(metadata))


def replaced_by(metadata: Mapping[bytes, bytes]) -> frozenset[str]:
    """The stems of the files whose rows one has, by its metadata."""
    return frozenset(metadata.get(REPLACES_KEY, b"").decode(errors="replace").split())


def _why_foreign(metadata: Mapping[bytes, bytes], table: str) -> str:
    version, of = metadata.get(SCHEMA_KEY), metadata.get(TABLE_KEY)
    if version is None or of is None:
        return "is a Parquet file, but not of a ledger: its metadata lack joulescope.schema"
    if of != table.encode():
        return f"is of the table {of.decode(errors='replace')}, not of {table}"
    if not version.isdigit() or int(version) > SCHEMA_VERSION:
        said = version.decode(errors="replace")
        return f"has schema {said}, this version reads up to {SCHEMA_VERSION}: use a newer joulescope"
    return ""


def read_rows(file: Any) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file that is open for reading in bytes.

    Raises:
        ValueError, OSError: if it cannot be read; pyarrow's own errors are among these.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        for batch in parquet.iter_batches(BATCH_ROWS):
            yield from batch.to_pylist()
