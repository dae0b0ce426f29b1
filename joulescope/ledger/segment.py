"""A segment that this process appends to, and segments of others as they are read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from joulescope.ledger.files import Files
from joulescope.ledger.frames import ROW, STATE, Damage, Frame, header, read_frames
from joulescope.ledger.layout import PART, SegmentName


class OpenSegment:
    """An append-only file of frames, locked as long as it is open: one that can be locked has no writer.

    A write that fails half way, as on a full disk, is taken back, so that the next frame does not follow a
    torn one; where even that fails the rest of the file is skipped by the marker of the next frame.
    """

    def __init__(self, files: Files, path: Path, table: str, name: SegmentName) -> None:
        """Creates the file; its name appears when it is locked.

        Raises:
            OSError: if that is not possible.
        """
        self.path, self.table, self.name = path, table, name
        self.rows = 0
        self.size = 0
        self._files = files
        files.make_folder(path.parent)
        part = path.parent / f".{path.name}{PART}"
        self._file = files.create(part)
        try:
            if not files.lock(self._file):
                raise BlockingIOError(f"{part} is locked by another process")
            self.append(header(table), 0)
            files.rename(part, path)
            files.sync_folder(path.parent)
        except OSError:
            files.close(self._file)
            _try_remove(files, part)
            _try_remove(files, path)
            raise

    def append(self, data: bytes, rows: int) -> None:
        """Appends frames, and returns when they are on the disk.

        Raises:
            OSError: if not all could be written; then none was, as far as the file system lets that be.
        """
        done = 0
        try:
            while done < len(data):
                done += self._files.write(self._file, data[done:])
            self._files.sync(self._file)
        except OSError:
            self._take_back()
            raise
        self.size += len(data)
        self.rows += rows

    def _take_back(self) -> None:
        with suppress(OSError):
            self._files.truncate(self._file, self.size)

    def is_there(self) -> bool:
        """Whether the path still leads to this file: somebody may have removed the folder."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        held = os.fstat(self._file)
        return (held.st_dev, held.st_ino) == (found.st_dev, found.st_ino)

    def close(self) -> None:
        """Unlocks it. The file stays."""
        self._files.close(self._file)


def _try_remove(files: Files, path: Path) -> None:
    with suppress(OSError):
        files.remove(path)


@dataclass(slots=True)
class Contents:
    """What was read of a segment."""

    rows: list[bytes] = field(default_factory=list)
    """JSON texts, in the order in which they were written."""
    sequence: int = -1
    """Of the last row; -1 without rows."""
    state: Frame | None = None
    """What was still open when the segment was written last."""
    damage: Damage = field(default_factory=Damage)


def newest_state(of_writer: Iterable[Contents]) -> Frame | None:
    """What a writer had open last, by all of its segments; ``None`` if a row that came later voids it."""
    contents = list(of_writer)
    states = [inside.state for inside in contents if inside.state is not None]
    newest = max(states, key=lambda state: state.sequence, default=None)
    last = max((inside.sequence for inside in contents), default=-1)
    return newest if newest is not None and newest.sequence > last else None


def read_segment(path: Path, table: str) -> Contents:
    """All that can be read of a segment.

    Raises:
        OSError: if the file cannot be read at all.
    """
    contents = Contents()
    for found in read_frames(path.read_bytes(), table, contents.damage):
        if found.kind == ROW:
            contents.rows.append(found.payload)
            contents.sequence = max(contents.sequence, found.sequence)
        elif found.kind == STATE:
            contents.state = found
    return contents
