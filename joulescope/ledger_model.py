"""Frozen values that tell how the minutes of engines, and the ledger, fare.

The rules of :mod:`joulescope.model` hold here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LEDGER_TABLES = ("requests", "minutes")

LOST_ROWS = (
    "no_room",  # the disk took nothing for so long that no more could wait in memory
    "too_large",
    "invalid",  # none of the table: a bug, or damaged and not found out
)
"""Why a row is not in the ledger."""

LEDGER_OPERATIONS = ("flush", "rotate", "recover", "bound", "upload")
"""What may fail, and is tried again."""

EVICTED = ("age", "size", "not_uploaded")
"""Why a file is in the ledger no more: too old, no room, or either in the spool of an object store."""


@dataclass(frozen=True, slots=True)
class LedgerTotals:
    """Counts since the start; what lies there now is as of the last look."""

    is_kept: bool = False
    """Whether there is a ledger at all."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """Rows of this process on the disk, by table."""
    recovered_rows: Mapping[str, int] = field(default_factory=dict)
    """Rows taken over from segments of dead processes, by table."""
    lost_rows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By table, by reason of :data:`LOST_ROWS`."""
    damaged_bytes: int = 0
    """Of segments that were taken over and could not be read there."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """By operation, of :data:`LEDGER_OPERATIONS`."""
    evicted_bytes: Mapping[str, int] = field(default_factory=dict)
    """By reason, of :data:`EVICTED`."""
    open_bytes: int | None = None
    """Of segments in the folder; ``None`` before the first look. So is the next."""
    parquet_bytes: int | None = None
    uploaded_bytes: int | None = None
    """``None`` where there is no object store."""
    flushed_wall_seconds: float | None = None
    """When all that had finished was on the disk last."""


@dataclass(frozen=True, slots=True)
class MinuteTotals:
    """What befell minutes of engines since the start, in lines of the page and rows of the ledger."""

    late: int = 0
    """Lines that were made because something came after their minute was closed."""
    crowded_out: int = 0
    """Lines that the sidecar forgot before a day was over, for want of memory; a ledger has them."""
