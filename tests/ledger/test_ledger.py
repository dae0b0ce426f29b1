"""What is written to a ledger is read from it, whatever has become a file of it so far."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulescope.clock import ManualClock
from joulescope.errors import LedgerError
from joulescope.export.records import RequestLine
from joulescope.ledger.read import Ledger, open_ledger
from joulescope.ledger.tables import (
    MINUTES,
    REQUEST_COLUMNS,
    REQUESTS,
    SCHEMA_KEY,
    SCHEMA_VERSION,
    arrow_schema,
)
from joulescope.ledger.writer import LedgerWriter, Rotation
from joulescope.minute_model import EngineMinute
from joulescope.minutes import json_line
from tests.ledger.rows import DAY_SECONDS, NOON, minute, minute_row, request
from tests.made_minutes import minutes


def writer_in(folder: Path, clock: ManualClock | None = None) -> LedgerWriter:
    return LedgerWriter(folder, clock or ManualClock(), NOON, Rotation(seconds=60.0))


def rows(ledger: Ledger, table: str = REQUESTS, **span: float) -> list[dict[str, Any]]:
    return [row for path in ledger.files(table, **span) for row in pq.read_table(path).to_pylist()]


def ids(found: Iterable[dict[str, Any]]) -> list[str]:
    return sorted(row["request_id"] for row in found)


def test_requests_are_read_before_and_after_they_became_parquet(tmp_path: Path) -> None:
    """The reader does not tell the two apart, and no row is there twice."""
    clock = ManualClock()
    writer = writer_in(tmp_path, clock)
    writer.add(REQUESTS, [request(1), request(2)])
    assert rows(open_ledger(tmp_path)) == []
    writer.flush()
    with open_ledger(tmp_path) as ledger:
        before = rows(ledger)
    clock.advance(61.0)
    assert writer.rotate() == 1
    writer.add(REQUESTS, [request(3)])
    writer.flush()
    with open_ledger(tmp_path) as ledger:
        after = rows(ledger)
        assert ledger.rejected == []
    assert ids(before) == ["request-1", "request-2"]
    assert ids(after) == ["request-1", "request-2", "request-3"]
    assert [row for row in after if row["request_id"] != "request-3"] == before
    assert before[0]["end_time"] == datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
    assert before[0]["end_unix_ns"] == int(NOON) * 10**9
    assert before[1]["attributed_joules"] == 2.0
    assert before[1]["marginal_joules"] is None


def test_files_lie_by_the_day_on_which_their_rows_ended(tmp_path: Path) -> None:
    """And days that nobody asks for are not opened."""
    clock = ManualClock()
    writer = writer_in(tmp_path, clock)
    writer.add(REQUESTS, [request(1), request(2, DAY_SECONDS), request(3, 2 * DAY_SECONDS)])
    writer.flush()
    clock.advance(61.0)
    assert writer.rotate() == 3
    found = sorted(tmp_path.glob("requests/*/*.parquet"))
    assert [path.parent.name for path in found] == ["date=2026-01-31", "date=2026-02-01", "date=2026-02-02"]
    assert all(pq.read_schema(path).metadata[SCHEMA_KEY] == str(SCHEMA_VERSION).encode() for path in found)
    assert not list(tmp_path.glob("open/**/*.segment"))
    with open_ledger(tmp_path) as ledger:
        span = {"begin": NOON + DAY_SECONDS, "end": NOON + DAY_SECONDS + 1.0}
        assert ids(rows(ledger, **span)) == ["request-2"]
        assert ids(rows(ledger, begin=NOON + DAY_SECONDS)) == ["request-2", "request-3"]


def test_files_are_not_for_everybody(tmp_path: Path) -> None:
    """Request ids are read by the owner and the group."""
    clock = ManualClock()
    writer = writer_in(tmp_path, clock)
    writer.add(REQUESTS, [request(1)])
    writer.flush()
    clock.advance(61.0)
    writer.rotate()
    writer.add(REQUESTS, [request(2)])
    writer.flush()
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(found) == 2
    assert all(path.stat().st_mode & 0o777 & ~0o640 == 0 for path in found)


@settings(max_examples=15, deadline=None)
@given(st.lists(minutes(), min_size=1, max_size=6))
def test_minutes_come_back_as_they_were(tmp_path_factory: Any, made: list[EngineMinute]) -> None:
    """To the last bit, from segments and from Parquet."""
    folder = tmp_path_factory.mktemp("ledger")
    clock = ManualClock()
    writer = writer_in(folder, clock)
    writer.add(MINUTES, [minute_row(each) for each in made])
    writer.flush()
    expected = sorted(map(json_line, made))
    with open_ledger(folder) as ledger:
        assert sorted(map(json_line, ledger.minutes())) == expected
    clock.advance(61.0)
    writer.rotate()
    with open_ledger(folder) as ledger:
        assert sorted(map(json_line, ledger.minutes())) == expected
        assert ledger.rejected == []


def test_minutes_come_in_the_order_of_their_begins(tmp_path: Path) -> None:
    """Also where several sidecars wrote them, and over midnight; a span counts by the begin."""
    first, second = writer_in(tmp_path), writer_in(tmp_path)
    of_first = [minute(number) for number in range(0, 1440, 2)]
    of_second = [minute(number, "e1") for number in range(1, 1440, 2)]
    first.add(MINUTES, map(minute_row, reversed(of_first)))
    second.add(MINUTES, map(minute_row, of_second))
    first.flush()
    second.flush()
    with open_ledger(tmp_path) as ledger:
        assert [each.tokens.decode for each in ledger.minutes()] == list(range(1440))
        span = ledger.minutes(NOON + 60.0 * 719, NOON + 60.0 * 721)
        assert [each.tokens.decode for each in span] == [719, 720]


def test_minutes_in_progress_are_read_until_they_are_whole(tmp_path: Path) -> None:
    """What a minute holds so far is there once, however often it was written."""
    writer = writer_in(tmp_path)
    writer.add(MINUTES, [minute_row(minute(1))])
    writer.add(MINUTES, [], [minute_row(minute(2, joules=5.0))])
    writer.flush()
    writer.add(MINUTES, [], [minute_row(minute(2, joules=9.0)), minute_row(minute(3, joules=1.0))])
    writer.flush()
    writer.flush()
    with open_ledger(tmp_path) as ledger:
        assert [each.joules.measured for each in ledger.minutes()] == [1.0, 9.0, 1.0]
    writer.add(MINUTES, [minute_row(minute(2, joules=20.0))], [minute_row(minute(3, joules=4.0))])
    writer.flush()
    with open_ledger(tmp_path) as ledger:
        assert [each.joules.measured for each in ledger.minutes()] == [1.0, 20.0, 4.0]
    writer.add(MINUTES, [minute_row(minute(3, joules=30.0))], [])
    writer.flush()
    with open_ledger(tmp_path) as ledger:
        assert [each.joules.measured for each in ledger.minutes()] == [1.0, 20.0, 30.0]


def test_columns_are_those_of_the_request_log() -> None:
    """In their order; a column that the log gains must be given its type here."""
    assert list(REQUEST_COLUMNS) == list(RequestLine.__struct_fields__)
    assert arrow_schema(REQUESTS).names == list(REQUEST_COLUMNS)


def test_a_ledger_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A mistyped folder is no empty ledger."""
    with pytest.raises(LedgerError, match="there is no such folder"):
        open_ledger(tmp_path / "nowhere")
    with pytest.raises(LedgerError, match="nosuchstore://"):
        open_ledger("nosuchstore://bucket/ledger")


def test_figures_of_the_page_are_those_that_were_measured() -> None:
    """Memory and processor time with and without a ledger."""
    root = Path(__file__).resolve().parents[2]
    loads = json.loads((root / "benchmarks/results/sidecar_size_ledger.json").read_text())["loads"]
    page = " ".join((root / "docs/ledger.md").read_text().split())
    told = re.search(
        r"(\d+) MiB with a ledger and (\d+) MiB without, and ([\d.]+) of a core in place of ([\d.]+)", page
    )
    assert told is not None
    assert told.groups() == (
        f"{loads['ledger']['peak_rss_mib']:.0f}",
        f"{loads['plain']['peak_rss_mib']:.0f}",
        f"{loads['ledger']['cpu_cores']:.2f}",
        f"{loads['plain']['cpu_cores']:.2f}",
    )
    more = loads["ledger"]["peak_rss_mib"] - loads["plain"]["peak_rss_mib"]
    assert abs(more - 95) < 5
    assert "needs about 95 MiB more" in (root / "docs/operations.md").read_text()
