"""Where things lie in a ledger, and how files are named.

::

    ROOT/requests/date=2026-01-31/20260131T080000-1f2e3d4c-000007.5a6b7c8d.parquet
    ROOT/minutes/date=2026-01-31/20260131T080000-1f2e3d4c-000003.9abcdef0.parquet
    ROOT/minutes/date=2026-01-30/compact-0123456789abcdef.76543210.parquet
    SPOOL/open/requests/date=2026-01-31/20260131T080000-1f2e3d4c-000008.segment

``SPOOL`` is ``ROOT`` where that is a local folder. A segment becomes exactly one Parquet file, of the same
stem: where both are there, as after a crash, the segment is done with. The eight digits are the CRC-32 of the
file, so that a reader knows a damaged file without a second file that could be lost or lag behind.

A compact file has the rows of several others of its day, whose stems stand in its metadata: where both are
there, as after a crash, the others are done with.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timezone

OPEN = "open"
SEGMENT = ".segment"
PARQUET = ".parquet"
DAMAGED = ".damaged"
"""Added to the name of a segment of which not all could be read, kept to be looked at."""
PART = ".part"
"""Ends the names of files that are being written; they begin with a dot, and no reader looks at them."""

FILE_MODE = 0o640
FOLDER_MODE = 0o750
"""Request ids are not for everybody on the machine."""

_COMPACT = "compact-"
_DATE = re.compile(r"date=(\d{4}-\d{2}-\d{2})")
_SEGMENT = re.compile(r"(?P<writer>\d{8}T\d{6}-[0-9a-f]{8})-(?P<number>\d{6,})\.segment")
_PARQUET = re.compile(r"(?P<stem>[^.]+)(?:\.(?P<crc>[0-9a-f]{8}))?\.parquet")


def new_writer(wall_seconds: float) -> str:
    """A name for one process, unique and sorted by when it started."""
    return f"{datetime.fromtimestamp(wall_seconds, timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def partition(day: date) -> str:
    return f"date={day.isoformat()}"


def day_of(folder: str) -> date | None:
    """The day of a partition's folder; ``None`` if the name is of no partition."""
    found = _DATE.fullmatch(folder)
    try:
        return None if found is None else date.fromisoformat(found.group(1))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class SegmentName:
    """Whose segment a file is."""

    writer: str
    number: int

    @property
    def stem(self) -> str:
        return f"{self.writer}-{self.number:06d}"

    @property
    def file(self) -> str:
        return self.stem + SEGMENT


def segment_name(file: str) -> SegmentName | None:
    """``None`` if a file is named as no segment is."""
    found = _SEGMENT.fullmatch(file)
    return None if found is None else SegmentName(found["writer"], int(found["number"]))


def parquet_name(stem: str, crc: int) -> str:
    return f"{stem}.{crc:08x}{PARQUET}"


def stem_and_crc(file: str) -> tuple[str, int | None] | None:
    """Stem of a Parquet file's name, and the checksum in it if it has one; ``None`` of other files."""
    found = _PARQUET.fullmatch(file)
    if found is None or file.startswith((".", "_")):
        return None
    return found["stem"], None if found["crc"] is None else int(found["crc"], 16)


def compact_stem(replaced: Iterable[str]) -> str:
    """Of the file that has the rows of those: the same whoever makes it."""
    told = "\n".join(sorted(replaced)).encode()
    return _COMPACT + hashlib.blake2s(told, digest_size=8).hexdigest()


def is_compact(file: str) -> bool:
    """Whether a file, or a stem, is named as one that has the rows of several."""
    return file.startswith(_COMPACT)


def is_part(file: str) -> bool:
    """Whether a file is being written, or was when its process ended."""
    return file.startswith(".") and file.endswith(PART)
