"""Brings Parquet files from the spool to an object store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from joulescope.ledger.files import Files
from joulescope.ledger.place import Place
from joulescope.ledger.tables import TABLES


@dataclass(slots=True)
class Uploaded:
    """What went to the store."""

    files: int = 0
    bytes: int = 0


def upload(files: Files, spool: Path, place: Place, uploaded: Uploaded) -> None:
    """Every Parquet file of the spool, the oldest first. Each is removed when the store has it whole.

    A file keeps its name: one that was sent twice, because the process ended between the two, is there once.

    Raises:
        OSError: if the store, or the disk, does not do it; what was sent until then is in ``uploaded``.
    """
    local = Place(str(spool))
    waiting = [(each.day, each.path) for table in TABLES for each in local.stored(table)]
    for _, path in sorted(waiting):
        try:
            size = place.put(path, str(Path(path).relative_to(spool.absolute())))
        except FileNotFoundError:
            if Path(path).exists():
                raise
            continue  # it was too old, or a neighbour on the same spool was faster
        files.remove(Path(path))
        uploaded.files += 1
        uploaded.bytes += size
