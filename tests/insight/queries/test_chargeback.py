"""Lines of a chargeback add up to the measured joules, to the microjoule, however they are cut and spread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from joulescope.insight.queries import SPREADS, Span, chargeback, coverage, open_duckdb
from joulescope.insight.queries.chargeback import PARTS
from tests.insight.queries.conftest import Made
from tests.made_ledger import BEGIN_NS, DAY_NS, Recipe, files_of, write

WAYS = [(), ("tenant", "lora", "task"), ("engine", "tenant", "hour"), ("month",)]


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("by", WAYS, ids=["-".join(way) or "all" for way in WAYS])
def test_lines_add_up_to_what_was_measured(made: Made, by: tuple[str, ...], spread: str) -> None:
    """Every joule once, on somebody's bill or on a line that says why not."""
    tables = made.tables()
    rows = tables.rows(chargeback(tables, by, spread))
    assert sum(row["joules_uj"] for row in rows) == made.measured_uj
    assert sum(row["requests"] for row in rows) == 3000


def test_idle_and_overhead_stand_apart(made: Made) -> None:
    """Tenants pay for their requests only, and the rest has a line for each reason."""
    tables = made.tables()
    rows = tables.rows(chargeback(tables, ("tenant",), "apart"))
    apart = {row["part"]: row["joules_uj"] for row in rows if not row["owned"]}
    minutes = made.minutes
    assert apart == {
        "idle": minutes["idle"].sum(),
        "overhead": minutes["overhead_startup"].sum() + minutes["overhead_preemption"].sum(),
        "unattributed": minutes["unattributed"].sum(),
        "open": 2 * 5_000_000,
    }
    owned = {
        part: sum(row["joules_uj"] for row in rows if row["owned"] and row["part"] == part) for part in PARTS
    }
    wasted = made.requests["wasted_uj"].sum()
    drawn = np.maximum(made.requests["joules_uj"], 0).sum()
    assert owned == {**dict.fromkeys(PARTS, 0), "requests": drawn - wasted, "wasted": wasted}


def test_idle_is_spread_by_attributed_joules_of_the_engine(made: Made) -> None:
    """A share is that of the tenant in the engine's joules, to a microjoule; other engines do not matter."""
    tables = made.tables()
    rows = tables.rows(chargeback(tables, ("tenant",), "attributed", engine=True))
    for engine in (0, 1):
        own = made.requests["engine"] == engine
        joules = np.maximum(made.requests["joules_uj"], 0)
        idle = made.minutes["idle"][made.minutes["engine"] == engine].sum()
        for tenant in range(3):
            share = joules[own & (made.requests["tenant"] == tenant)].sum() / joules[own].sum()
            (row,) = (
                row
                for row in rows
                if (row["engine"], row["tenant"], row["part"])
                == (f"engine-{engine}", f"tenant-{tenant}", "idle")
            )
            assert row["joules_uj"] == pytest.approx(share * idle, abs=2)


def test_an_hour_without_requests_keeps_its_idle_joules_apart(tmp_path: Path) -> None:
    """There is nobody to spread them over; other hours are spread as always."""
    list(write(tmp_path, Recipe(requests=6, days=1, engines=1, unmeasured=0.0)))
    tables = open_duckdb(files_of(tmp_path, "requests"), files_of(tmp_path, "minutes"))
    rows = tables.rows(chargeback(tables, ("tenant", "hour"), "attributed"))
    busy = {row["period_ns"] for row in rows if row["part"] == "requests"}
    apart = {row["period_ns"] for row in rows if row["part"] == "idle" and not row["owned"]}
    shared = {row["period_ns"] for row in rows if row["part"] == "idle" and row["owned"]}
    assert shared == busy
    assert len(busy | apart) == 24
    assert not busy & apart


def test_open_requests_cancel_out_over_spans_that_adjoin(made: Made) -> None:
    """What one span books as open the next takes back: together they are as the whole."""

    def open_uj(span: Span) -> int:
        tables = made.tables(span)
        rows = tables.rows(chargeback(tables, (), "apart"))
        return sum(row["joules_uj"] for row in rows if row["part"] == "open")

    edge = BEGIN_NS + DAY_NS
    halves = [open_uj(Span(None, edge)), open_uj(Span(edge, None))]
    assert sum(halves) == open_uj(Span())


def test_a_fleet_draws_more_than_64_bits_hold(tmp_path: Path) -> None:
    """40 engines of 250 MWh each: 3.6·10¹⁹ µJ in all, and the lines add up to the last of them."""
    recipe = Recipe(requests=400, days=1, engines=40, unmeasured=0.0, open_uj=900_000_000_000_000_007)
    ((requests, minutes),) = write(tmp_path, recipe)
    tables = open_duckdb(files_of(tmp_path, "requests"), files_of(tmp_path, "minutes"))
    left_out = ("engine", "start_ns", "generated", "wasted_abort")
    written = [
        round(value / 1e6 * 1e6) for name in minutes if name not in left_out for value in minutes[name]
    ]
    for spread in SPREADS:
        rows = tables.rows(chargeback(tables, (), spread))
        parts = {row["part"]: row["joules_uj"] for row in rows}
        assert parts["open"] > 2**63
        assert sum(parts.values()) == pytest.approx(sum(written), rel=1e-12)
    assert coverage(tables)["attributed_uj"] > 2**63
    assert coverage(tables)["requests_uj"] == requests["joules_uj"].sum()
