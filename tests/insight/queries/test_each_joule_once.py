"""Whatever is in a ledger: each measured joule is in one row of the export, that of what it was drawn for."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulescope.insight.queries import SPREADS, open_duckdb
from joulescope.insight.queries.focus import PERIODS_OF_FOCUS, Focus
from joulescope.insight.queries.money import Prices
from tests.insight.queries.few import minute, request, save
from tests.made_ledger import BEGIN_NS, DAY_NS, MINUTE_NS

PRICES = Prices(0.2, "EUR")
ENGINES = ("a", "b", "c")
JOULES_UJ = st.integers(0, 10**10)
INSTANTS = st.one_of(
    st.integers(BEGIN_NS, BEGIN_NS + 2 * DAY_NS - 1),
    st.sampled_from([BEGIN_NS, BEGIN_NS + DAY_NS - 1, BEGIN_NS + DAY_NS, BEGIN_NS + DAY_NS // 24]),
)
"""In two days of two months; at their very edges, and an hour's, more often than chance would have it."""


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Some without joules, some wasted in part or whole, with names or none."""
    joules_uj = draw(st.none() | JOULES_UJ)
    wasted_uj = 0 if joules_uj is None else draw(st.sampled_from([0, joules_uj // 3, joules_uj]))
    names = st.sampled_from([None, "", "x", "y"])
    texts = {name: draw(names) for name in ("tenant", "lora", "task", "model")}
    unit = draw(st.sampled_from([None, "token", "image"]))
    return request(
        draw(INSTANTS), joules_uj, wasted_uj, engine=draw(st.sampled_from(ENGINES)), unit=unit, **texts
    )


@st.composite
def minutes(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, int]]:
    """A row, and the microjoules of its parts. Without an engine nothing was attributed."""
    start_ns = draw(INSTANTS) // MINUTE_NS * MINUTE_NS
    engine = draw(st.sampled_from([*ENGINES, "", None]))
    parts = {
        "unattributed": draw(JOULES_UJ),
        **(
            {
                name: draw(JOULES_UJ)
                for name in ("prefill", "decode", "idle", "overhead_startup", "overhead_preemption")
            }
            if engine
            else {}
        ),
    }
    return minute(start_ns, engine, parts), parts


def exported(root: Path, **options: Any) -> list[dict[str, str]]:
    files = (sorted(map(str, root.glob(f"{table}/*/*.parquet"))) for table in ("requests", "minutes"))
    Focus(open_duckdb(*files), PRICES, **options).write_csv(root / "focus.csv")
    with open(root / "focus.csv", newline="") as file:
        return list(csv.DictReader(file))


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    finished=st.lists(requests(), max_size=30),
    kept=st.lists(minutes(), min_size=1, max_size=30),
    period=st.sampled_from(PERIODS_OF_FOCUS),
    spread=st.sampled_from(SPREADS),
)
def test_each_joule_is_in_one_row(
    tmp_path_factory: pytest.TempPathFactory, finished: Any, kept: Any, period: str, spread: str
) -> None:
    """By part, to the microjoule: what was idle is no request's and no overhead, whoever pays for it; what
    was wasted is not in what came to something."""
    root = tmp_path_factory.mktemp("few")
    save(root, "requests", "few", finished)
    save(root, "minutes", "few", [row for row, _ in kept])
    truth: Counter[str] = Counter()
    for _, parts in kept:
        for name, microjoules in parts.items():
            kind = {"prefill": "open", "decode": "open"}.get(name, name.partition("_")[0])
            truth[kind] += microjoules
    for row in finished:
        drawn, wasted = (round((row[f"{name}_joules"] or 0.0) * 1e6) for name in ("attributed", "wasted"))
        truth.update({"requests": drawn - wasted, "wasted": wasted, "open": -drawn})
    rows = exported(root, period=period, spread=spread)
    found: Counter[str] = Counter()
    for row in rows:
        found[row["x_Part"]] += int(row["x_EnergyMicrojoules"])
    assert {part: joules for part, joules in found.items() if joules} == {
        part: joules for part, joules in truth.items() if joules
    }
    assert sum(found.values()) == sum(sum(parts.values()) for _, parts in kept)
    assert sum(int(row["x_Requests"] or 0) for row in rows) == len(finished)
    assert all(int(row["x_EnergyMicrojoules"]) >= 0 for row in rows if row["x_Part"] != "open")
