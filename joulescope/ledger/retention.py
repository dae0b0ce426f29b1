"""Bounds what a folder keeps: by age and by bytes, the oldest day first."""

from __future__ import annotations

import logging
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from joulescope.ledger.files import Files
from joulescope.ledger.layout import DAMAGED, OPEN, PARQUET, day_of, is_part
from joulescope.ledger.tables import TABLES

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may lie in a folder."""

    bytes: int = 4 << 30
    days: float = 400.0
    """Days after that of a file on which it goes."""


@dataclass(slots=True)
class Kept:
    """What a look at the folder found, and what was removed in it."""

    open_bytes: int = 0
    """Of segments."""
    parquet_bytes: int = 0
    files: int = 0
    """Parquet files."""
    evicted_bytes: Counter[str] = field(default_factory=Counter)
    """By reason, ``age`` or ``size``."""
    evicted_files: Counter[str] = field(default_factory=Counter)
    failure: OSError | None = None
    """Why something could not be looked at or removed; the rest was."""


@dataclass(frozen=True, slots=True, order=True)
class _File:
    day: date
    name: str
    path: Path
    size: int


def bound(files: Files, folder: Path, bounds: Bounds, today: date) -> Kept:
    """Removes what is too old, and then the oldest until the rest has room. Open segments stay, and so does
    what is no file of a ledger. What fails is told, and holds up nothing else."""
    kept = Kept()
    removable = sorted(_removable(folder, kept))
    too_old = [each for each in removable if today - each.day > timedelta(days=bounds.days)]
    rest = removable[len(too_old) :]
    stay = [each for each in too_old if not _evict(files, each, "age", kept)]
    total = kept.open_bytes + sum(each.size for each in [*stay, *rest])
    while rest and total > bounds.bytes:
        oldest = rest.pop(0)
        if _evict(files, oldest, "size", kept):
            total -= oldest.size
        else:
            stay.append(oldest)
    kept.files = sum(each.name.endswith(PARQUET) for each in [*stay, *rest])
    kept.parquet_bytes = total - kept.open_bytes
    for reason, number in kept.evicted_files.items():
        _logger.info("the ledger in %s gave up its %d oldest files (%s)", folder, number, reason)
    return kept


def _evict(files: Files, each: _File, reason: str, kept: Kept) -> bool:
    """Whether it is gone."""
    try:
        files.remove(each.path)
    except OSError as error:
        kept.failure = error
        return False
    kept.evicted_bytes[reason] += each.size
    kept.evicted_files[reason] += 1
    with suppress(OSError):  # others are in it still
        each.path.parent.rmdir()
    return True


def _removable(folder: Path, kept: Kept) -> Iterator[_File]:
    """Parquet files, and segments that are kept to be looked at; the size of others is added up."""
    for table in TABLES:
        for path, day, size in _entries(folder / table, kept):
            if path.name.endswith(PARQUET) and not path.name.startswith("."):
                yield _File(day, path.name, path, size)
        for path, day, size in _entries(folder / OPEN / table, kept):
            if path.name.endswith(DAMAGED):
                yield _File(day, path.name, path, size)
            elif not is_part(path.name):
                kept.open_bytes += size


def _entries(folder: Path, kept: Kept) -> Iterator[tuple[Path, date, int]]:
    """What lies in folders of days, other than folders. Links to folders lead elsewhere: they are not
    followed."""
    for below in _inside(folder, kept):
        day = day_of(below.name)
        if day is None or below.is_symlink() or not below.is_dir():
            continue
        for path in _inside(below, kept):
            with suppress(FileNotFoundError):
                status = path.lstat()
                if not stat.S_ISDIR(status.st_mode):
                    yield path, day, status.st_size


def _inside(folder: Path, kept: Kept) -> list[Path]:
    """A neighbour may have removed it meanwhile."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        kept.failure = error
        return []
