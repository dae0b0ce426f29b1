"""Takes over the segments of writers that are dead: whoever can lock all of a writer's segments may.

Age does not matter: a segment is of a living writer as long as that holds its lock, however long it writes
nothing, and of a dead one from the instant its process is gone.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from joulescope.ledger.files import Files
from joulescope.ledger.layout import OPEN, SegmentName, day_of, is_part, segment_name
from joulescope.ledger.seal import settle_segment
from joulescope.ledger.segment import newest_state, read_segment
from joulescope.ledger.tables import TABLES

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Recovered:
    """What was taken over."""

    rows: Counter[str] = field(default_factory=Counter)
    """By table."""
    invalid_rows: Counter[str] = field(default_factory=Counter)
    damaged_bytes: int = 0
    segments: int = 0


@dataclass(frozen=True, slots=True)
class _Found:
    path: Path
    name: SegmentName
    day: date


def recover(files: Files, folder: Path) -> Recovered:
    """Turns the segments of dead writers into Parquet files.

    Raises:
        OSError: if one could not be; it is tried again the next time, and the others are done.
    """
    recovered = Recovered()
    failures: list[OSError] = []
    for table in TABLES:
        by_writer: dict[str, list[_Found]] = {}
        for found in _segments(files, folder / OPEN / table, failures):
            by_writer.setdefault(found.name.writer, []).append(found)
        for of_writer in by_writer.values():
            try:
                _take_over(files, folder, table, of_writer, recovered)
            except OSError as error:
                failures.append(error)
    if recovered.segments:
        _logger.info(
            "the ledger took over %d segments that another process left: %d requests, %d minutes",
            recovered.segments,
            recovered.rows["requests"],
            recovered.rows["minutes"],
        )
    if failures:
        raise failures[0]
    return recovered


def _take_over(files: Files, folder: Path, table: str, found: list[_Found], recovered: Recovered) -> None:
    """All of a writer's segments of a table, or none: what was in progress is told by all of them."""
    with ExitStack() as held:
        for each in found:
            if not _lock(files, each.path, held):
                return
        contents = {each: read_segment(each.path, table) for each in found}
        newest = newest_state(contents.values())
        for each in sorted(found, key=lambda one: one.name.number):
            outcome = settle_segment(
                files,
                folder,
                each.path,
                table,
                each.day,
                state=newest if contents[each].state is newest else None,
                contents=contents[each],
            )
            recovered.segments += 1
            recovered.rows[table] += outcome.rows
            recovered.invalid_rows[table] += outcome.invalid_rows
            recovered.damaged_bytes += outcome.damaged_bytes


def _lock(files: Files, path: Path, held: ExitStack) -> bool:
    """Whether a segment is there, and nobody has it."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    held.callback(os.close, file)
    return files.lock(file) and os.fstat(file).st_nlink > 0


def _segments(files: Files, folder: Path, failures: list[OSError]) -> Iterator[_Found]:
    if not folder.is_dir():
        return
    for below in sorted(folder.iterdir()):
        day = day_of(below.name)
        if day is None or not below.is_dir():
            continue
        try:
            paths = sorted(below.iterdir())
        except FileNotFoundError:
            continue  # a neighbour has found it empty, and removed it
        except OSError as error:
            failures.append(error)
            continue
        for path in paths:
            name = segment_name(path.name)
            if name is not None:
                yield _Found(path, name, day)
            elif is_part(path.name):
                _remove_part(files, path)
        if not paths:
            _remove_folder(below)


def _remove_part(files: Files, path: Path) -> None:
    """A segment that was never whole; one that is being made is locked."""
    with ExitStack() as held:
        if _lock(files, path, held):
            files.remove(path)


def _remove_folder(path: Path) -> None:
    """If it is still empty."""
    with suppress(OSError):
        path.rmdir()
