"""The end of a segment: its rows become a Parquet file, and it is removed."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from joulescope.ledger.convert import replaced_by, write_parquet
from joulescope.ledger.files import Files
from joulescope.ledger.frames import Frame
from joulescope.ledger.layout import DAMAGED, is_compact, partition, segment_name, stem_and_crc
from joulescope.ledger.segment import Contents, read_segment

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Outcome:
    """What became of a segment."""

    rows: int = 0
    invalid_rows: int = 0
    """None of the table, and left out."""
    damaged_bytes: int = 0


def settle_segment(
    files: Files,
    folder: Path,
    path: Path,
    table: str,
    day: date,
    *,
    state: Frame | None = None,
    contents: Contents | None = None,
) -> Outcome:
    """Turns a segment, which nobody else may hold, into a Parquet file, and removes it.

    One of which something could not be read keeps its file under another name, to be looked at. One whose
    Parquet file is there already, because the process ended between the two, is only removed.

    Args:
        folder: of the ledger or its spool.
        state: what was open when its writer died, to be taken in.
        contents: if they were read already.

    Raises:
        OSError: if that is not possible now; then the segment is as it was.
    """
    outcome = Outcome()
    name = segment_name(path.name)
    assert name is not None, path
    target = folder / table / partition(day)
    if not _is_done(target, name.stem):
        inside = contents or read_segment(path, table)
        rows = inside.rows + ([] if state is None else rows_of(state))
        if rows:
            _, _, wrong = write_parquet(files, target, name.stem, table, rows)
            if wrong:
                _logger.warning("%s: %d rows are none of %s: %s", path, len(wrong), table, wrong[0])
            outcome.invalid_rows = len(wrong)
            outcome.rows = len(rows) - len(wrong)
        damage = inside.damage
        if damage:
            _logger.warning("%s: has %s; the rest was read: %d rows", path, damage, len(rows))
        if damage.places or damage.foreign:
            outcome.damaged_bytes = sum(length for _, length in damage.places) or path.stat().st_size
            files.rename(path, path.with_name(path.name + DAMAGED))
            return outcome
    files.remove(path)
    return outcome


def rows_of(state: Frame) -> list[bytes]:
    """The rows of a state, each as JSON."""
    return [json.dumps(row).encode() for row in json.loads(state.payload)]


def _is_done(folder: Path, stem: str) -> bool:
    """Whether the Parquet file of a segment is there, or a compact one that has its rows."""
    try:
        found = sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return False
    if any((named := stem_and_crc(name)) is not None and named[0] == stem for name in found):
        return True
    return any(is_compact(name) and stem in _replaced_by(folder / name) for name in found)


def _replaced_by(path: Path) -> frozenset[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return replaced_by(pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError, ValueError):
        return frozenset()  # it is damaged, and readers name it
