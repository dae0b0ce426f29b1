"""Ledgers of a few rows that are written out: what is not named of a row is null, as in an older file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from joulescope.attribution.minutes_open import PARTS
from joulescope.ledger.tables import arrow_schema
from tests.made_ledger import MINUTE_NS, UTC_TIME


def request(end_ns: int, joules_uj: int | None, wasted_uj: int = 0, **others: Any) -> dict[str, Any]:
    """A finished request. Its joules are not known where ``joules_uj`` is ``None``."""
    return {
        "end_unix_ns": end_ns,
        "end_time": end_ns // 1000,
        "start_unix_ns": end_ns - 10**9,
        "attributed_joules": None if joules_uj is None else joules_uj / 1e6,
        "wasted_joules": None if joules_uj is None else wasted_uj / 1e6,
        **others,
    }


def minute(start_ns: int, engine: str | None, parts_uj: Mapping[str, int], **others: Any) -> dict[str, Any]:
    """A minute of an engine, or of GPUs that no engine had; parts that are left out are none."""
    parts = {f"{name}_joules": parts_uj.get(name, 0) / 1e6 for name in PARTS}
    return {
        "start": start_ns // 1000,
        "end": (start_ns + MINUTE_NS) // 1000,
        "engine": engine,
        "measured_joules": sum(parts_uj.values()) / 1e6,
        **parts,
        **others,
    }


def save(
    root: Path, table: str, name: str, rows: Iterable[Mapping[str, Any]], without: Sequence[str] = ()
) -> str:
    """Writes rows as a Parquet file of the ledger, ``without`` some columns; returns where it is."""
    given, schema = list(rows), arrow_schema(table)
    fields = [field for field in schema if field.name not in without]

    def column(field: pa.Field) -> pa.Array:
        values = [row.get(field.name) for row in given]
        kind = UTC_TIME if pa.types.is_timestamp(field.type) else field.type
        return pa.array(values, pa.int64()).cast(kind) if kind == UTC_TIME else pa.array(values, kind)

    path = root / table / "date=2026-01-31" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table([column(field) for field in fields], pa.schema(fields, schema.metadata)), path)
    return str(path)
