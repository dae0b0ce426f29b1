"""The two tables of a ledger: their columns, and how rows come into and out of them.

``requests`` has the columns of a line of the request log, ``minutes`` those of
:data:`joulescope.minutes.COLUMNS`. The types are written down here, because files that were written once must
be read for years: a column may be added, and is null in older files, but none may change its type or meaning
without a new :data:`SCHEMA_VERSION`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from joulescope.clock import utc_instant
from joulescope.minutes import CELL_COLUMNS, COLUMNS

REQUESTS = "requests"
MINUTES = "minutes"
TABLES = (REQUESTS, MINUTES)

SCHEMA_VERSION = 1
SCHEMA_KEY = b"joulescope.schema"
"""In the metadata of each Parquet file; the value is the version as a decimal number."""
TABLE_KEY = b"joulescope.table"
REPLACES_KEY = b"joulescope.replaces"
"""In the metadata of a compact file: the stems of all whose rows it has, a line each."""

_TEXT = "text"
_WHOLE = "whole"
_NUMBER = "number"
_TIME = "time"
_TRUTH = "truth"

REQUEST_COLUMNS: Mapping[str, str] = {
    "request_id": _TEXT,
    "engine": _TEXT,
    "attributed_joules": _NUMBER,
    "marginal_joules": _NUMBER,
    "prefill_joules": _NUMBER,
    "decode_joules": _NUMBER,
    "prompt_tokens": _WHOLE,
    "cached_tokens": _WHOLE,
    "output_tokens": _WHOLE,
    "finish_reason": _TEXT,
    "external_id": _TEXT,
    "model": _TEXT,
    "lora": _TEXT,
    "kind": _TEXT,
    "start_time": _TIME,
    "start_unix_ns": _WHOLE,
    "first_token_time": _TIME,
    "first_token_unix_ns": _WHOLE,
    "end_time": _TIME,
    "end_unix_ns": _WHOLE,
    "scheduled_tokens": _WHOLE,
    "recomputed_tokens": _WHOLE,
    "drafted_tokens": _WHOLE,
    "accepted_tokens": _WHOLE,
    "preemptions": _WHOLE,
    "steps": _WHOLE,
    "wasted_joules": _NUMBER,
    "avoided_joules": _NUMBER,
    "attributed_low_joules": _NUMBER,
    "attributed_high_joules": _NUMBER,
    "marginal_low_joules": _NUMBER,
    "marginal_high_joules": _NUMBER,
    "energy_source": _TEXT,
    "complete": _TRUTH,
    "trace_parent": _TEXT,
    "trace_state": _TEXT,
    "method": _TEXT,
    "method_version": _TEXT,
    "unit": _TEXT,
    "work_unit": _TEXT,
    "software": _TEXT,
    "first_step_time": _TIME,
    "first_step_unix_ns": _WHOLE,
    "preempted_seconds": _NUMBER,
    "tenant": _TEXT,
    "task": _TEXT,
}
"""Columns of ``requests``, in order: the keys of a line of the request log. Any may be null."""

_MINUTE_KINDS = {
    "str": _TEXT,
    "int": _WHOLE,
    "int | None": _WHOLE,
    "float": _NUMBER,
    "time": _TIME,
    "cells": "cells",
    "counts": "counts",
    "laws": _TEXT,
}

END_COLUMNS: Mapping[str, str] = {REQUESTS: "end_time", MINUTES: "end"}
"""By table, the instant that decides on which day's partition a row lies."""


def kinds(table: str) -> Mapping[str, str]:
    """The columns of a table, with the kind of each."""
    if table == REQUESTS:
        return REQUEST_COLUMNS
    return {name: _MINUTE_KINDS[kind] for name, kind in COLUMNS.items()}


def arrow_schema(table: str) -> Any:
    """The columns of a table as pyarrow has them; the version stands in the metadata."""
    import pyarrow as pa

    simple = {
        _TEXT: pa.string(),
        _WHOLE: pa.int64(),
        _NUMBER: pa.float64(),
        _TIME: pa.timestamp("us", tz="UTC"),
        _TRUTH: pa.bool_(),
        "counts": pa.map_(pa.string(), pa.int64()),
        "cells": pa.list_(
            pa.struct([(name, _simple(pa, _MINUTE_KINDS[kind])) for name, kind in CELL_COLUMNS.items()])
        ),
    }
    metadata = {SCHEMA_KEY: str(SCHEMA_VERSION).encode(), TABLE_KEY: table.encode()}
    return pa.schema([(name, simple[kind]) for name, kind in kinds(table).items()], metadata=metadata)


def _simple(pa: Any, kind: str) -> Any:
    return {_TEXT: pa.string(), _WHOLE: pa.int64(), _NUMBER: pa.float64()}[kind]


def arrow_table(table: str, payloads: Sequence[bytes]) -> Any:
    """Rows, each a JSON object as :func:`row_of` reads it, as columns.

    Raises:
        ValueError: if one of them is no row of the table.
    """
    import pyarrow as pa

    schema = arrow_schema(table)
    rows = [row_of(table, payload) for payload in payloads]
    columns = {name: [row.get(name) for row in rows] for name in schema.names}
    try:
        return pa.table(columns, schema=schema)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise ValueError(f"not of the columns of {table}: {error}") from error


def row_of(table: str, payload: bytes) -> dict[str, Any]:
    """A row of its JSON text, with instants as datetimes. Keys that are no columns are left out.

    Raises:
        ValueError: if it is none.
    """
    found = json.loads(payload)
    if not isinstance(found, dict):
        raise ValueError("a row is not a JSON object")
    row: dict[str, Any] = {}
    for name, kind in kinds(table).items():
        value = found.get(name)
        if kind == _TIME and value is not None:
            value = instant(value)
        elif name == "laws" and isinstance(value, dict):
            value = json.dumps(value, allow_nan=False)
        elif kind == "counts" and isinstance(value, dict):
            value = sorted(value.items())
        row[name] = value
    return row


def instant(text: Any) -> datetime:
    """An ISO 8601 instant such as ``2026-01-31T12:00:00.123456Z``, in UTC.

    Raises:
        ValueError: if it is none.
    """
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no instant")
    return utc_instant(text)


def names_of(tables: str | Iterable[str]) -> tuple[str, ...]:
    """The names of tables, checked.

    Raises:
        ValueError: if one is no table of a ledger.
    """
    names = (tables,) if isinstance(tables, str) else tuple(tables)
    for name in names:
        if name not in TABLES:
            raise ValueError(f"{name!r} is no table of a ledger; there are {' and '.join(TABLES)}")
    return names
