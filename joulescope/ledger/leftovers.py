"""Segments that lie about: those of writers that are at work, and those of writers that are dead."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from joulescope.ledger.files import Files
from joulescope.ledger.layout import DAMAGED, SEGMENT, SegmentName, day_of, is_part, segment_name
from joulescope.ledger.seal import rows_of
from joulescope.ledger.segment import Contents, newest_state, read_segment


@dataclass(slots=True)
class Leftover:
    """A segment as it was found."""

    path: Path
    table: str
    name: SegmentName
    day: date
    is_live: bool
    rows: list[bytes] = field(default_factory=list)
    problem: str = ""
    """What of it could not be read."""


def leftovers(folder: Path, table: str) -> list[Leftover]:
    """The segments of a table below ``open``, with their rows; strangers are there too, as problems.

    What the last minutes of a writer hold so far is among the rows of its newest segment.
    """
    found = []
    contents: dict[str, list[tuple[Leftover, Contents]]] = {}
    for path, day in _paths(folder / table):
        name = segment_name(path.name)
        if name is None or day is None:
            found.append(_stranger(path, table, day))
            continue
        left = Leftover(path, table, name, day, _is_live(path))
        try:
            inside = read_segment(path, table)
        except FileNotFoundError:
            continue  # it has become a Parquet file meanwhile
        except OSError as error:
            left.problem = f"cannot be read: {error.strerror or error}"
            found.append(left)
            continue
        left.rows = inside.rows
        left.problem = f"has {inside.damage}" if inside.damage else ""
        contents.setdefault(name.writer, []).append((left, inside))
        found.append(left)
    for of_writer in contents.values():
        _add_state(of_writer)
    return found


def _add_state(of_writer: list[tuple[Leftover, Contents]]) -> None:
    newest = newest_state(inside for _, inside in of_writer)
    for left, inside in of_writer:
        if newest is not None and inside.state is newest:
            left.rows.extend(rows_of(newest))


def _paths(folder: Path) -> Iterator[tuple[Path, date | None]]:
    try:
        days = sorted(folder.iterdir())
    except OSError:
        return
    for below in days:
        try:
            yield from (
                (path, day_of(below.name)) for path in sorted(below.iterdir()) if not is_part(path.name)
            )
        except OSError:
            yield below, None


def _is_live(path: Path) -> bool:
    """Whether a writer holds the segment open."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not Files().lock(file, shared=True)
    except OSError:
        return False
    finally:
        os.close(file)


def _stranger(path: Path, table: str, day: date | None) -> Leftover:
    problem = f"is no segment: those end in {SEGMENT}"
    if path.name.endswith(DAMAGED):
        problem = "was damaged; what could be read of it is in the ledger, and it is kept to be looked at"
    return Leftover(path, table, SegmentName(path.name, 0), day or date.min, False, problem=problem)
