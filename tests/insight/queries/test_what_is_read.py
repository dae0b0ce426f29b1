"""A question reads the columns, row groups and days that it needs, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from joulescope.insight.queries import Span, Tables, chargeback, coverage, distribution, usage
from joulescope.insight.queries.ledger import open_root
from joulescope.insight.queries.tables import MINUTE_COLUMNS, REQUEST_COLUMNS
from tests.insight.queries.conftest import Made
from tests.made_ledger import BEGIN_NS, DAY_NS, Recipe, write

HOUR_NS = DAY_NS // 24


def scans(tables: Tables, expression: Any) -> Iterator[Mapping[str, Any]]:
    """What DuckDB's plan says of each reading of Parquet: projections and filters."""
    import ibis

    sql = f"EXPLAIN (FORMAT JSON) {ibis.to_sql(expression, dialect='duckdb')}"
    waiting = json.loads(tables.backend.raw_sql(sql).fetchall()[0][1])
    while waiting:
        node = waiting.pop()
        waiting += node["children"]
        if "READ_PARQUET" in node["name"]:
            yield node["extra_info"]


@pytest.mark.parametrize(
    ("question", "needed"),
    [
        (lambda tables: usage(tables, ("tenant",)), {"tenant", "attributed_joules", "output_tokens"}),
        (distribution, {"attributed_joules", "output_tokens"}),
        (lambda tables: chargeback(tables, ("lora",)), {"lora", "engine", "idle_joules", "measured_joules"}),
    ],
    ids=["usage", "distribution", "chargeback"],
)
def test_columns_that_are_not_asked_for_stay_unread(made: Made, question: Any, needed: set[str]) -> None:
    """The plan of DuckDB names what it reads: what is needed, and neither ids nor traces nor laws."""
    tables = made.tables()
    columns = {name for scan in scans(tables, question(tables)) for name in scan["Projections"]}
    assert needed <= columns
    assert columns <= set(REQUEST_COLUMNS) | set(MINUTE_COLUMNS)
    for name in ("request_id", "trace_parent", "laws", "marginal_joules", "first_token_unix_ns", "tasks"):
        assert name not in columns


def test_row_groups_of_other_hours_are_skipped(made: Made) -> None:
    """The span stands in the scan itself, where the least and most of each row group decide."""
    begin = BEGIN_NS + 6 * HOUR_NS
    tables = made.tables(Span(begin, begin + HOUR_NS))
    (scan,) = scans(tables, usage(tables, ("tenant",)))
    filters = scan["Filters"].replace(" ", "")
    assert f"end_unix_ns>={begin}" in filters
    assert f"end_unix_ns<{begin + HOUR_NS}" in filters


def test_files_of_other_days_are_not_opened(tmp_path: Path) -> None:
    """Spoilt files of days outside the span are no trouble; within it they are named."""
    list(write(tmp_path, Recipe(requests=400, days=4)))
    for table in ("requests", "minutes"):
        last = sorted((tmp_path / table).rglob("*.parquet"))[-1]
        last.write_bytes(b"spoilt")
    with open_root(str(tmp_path), Span(BEGIN_NS, BEGIN_NS + DAY_NS)) as opened:
        assert opened.rejected == ()
        assert coverage(opened.tables)["requests"] == 100
    with open_root(str(tmp_path)) as opened:
        assert len(opened.rejected) == 2
        assert coverage(opened.tables)["requests"] == 300


def test_verifying_finds_what_the_ends_of_files_do_not_show(tmp_path: Path) -> None:
    """A flipped byte in the middle of a file whose name has a checksum: it is left out and named."""
    import zlib

    list(write(tmp_path, Recipe(requests=400)))
    first = sorted((tmp_path / "requests").rglob("*.parquet"))[0]
    whole = first.read_bytes()
    named = first.with_name(f"{first.stem}.{zlib.crc32(whole):08x}.parquet")
    first.rename(named)
    with open_root(str(tmp_path), verify=True) as opened:
        assert coverage(opened.tables)["requests"] == 400
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 0xFF
    named.write_bytes(spoilt)
    assert pq.read_schema(named) is not None
    with open_root(str(tmp_path), verify=True) as opened:
        ((path, reason),) = opened.rejected
        assert (path, "checksum" in reason) == (str(named), True)
        assert coverage(opened.tables)["requests"] == 200


@pytest.mark.parametrize("name", ["led[ge]r", "l*r", "l?r"])
def test_a_folder_named_like_a_pattern_is_itself(tmp_path: Path, name: str) -> None:
    """And not what the pattern would find beside it: another ledger's joules would be on the bill."""
    for number, folder in enumerate((name, "ledgr", "l1r", "lr")):
        list(write(tmp_path / folder, Recipe(requests=10 + number, days=1)))
    with open_root(str(tmp_path / name)) as opened:
        assert coverage(opened.tables)["requests"] == 10
