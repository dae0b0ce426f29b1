"""The bill as FOCUS rows keeps FOCUS' rules, and its sum is that of the measured joules."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from joulescope.errors import ConfigError, QueryError
from joulescope.insight.queries import SPREADS
from joulescope.insight.queries.focus import COLUMNS, Focus, Issuer
from joulescope.insight.queries.money import Prices
from tests.insight.queries.conftest import Made
from tests.insight.queries.focus_rules import RULES, broken
from tests.insight.queries.focus_spoilt import SPOILT, spoil

PRICES = Prices(0.137, "EUR", 1.21, 380.0)
MICROJOULES_PER_KWH = 3_600_000_000_000

Rows = list[dict[str, str | None]]


def as_read(path: Path) -> Rows:
    """The rows as whoever reads the file sees them: texts, empty ones null."""
    with open(path, newline="") as file:
        return [{name: text or None for name, text in row.items()} for row in csv.DictReader(file)]


@pytest.fixture
def bill_of(made: Made, tmp_path: Path) -> Callable[..., Rows]:
    def write(**options: Any) -> Rows:
        count = Focus(made.tables(), PRICES, **options).write_csv(tmp_path / "focus.csv")
        rows = as_read(tmp_path / "focus.csv")
        assert len(rows) == count
        return rows

    return write


@pytest.fixture(scope="module")
def bill(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """By the day, idle joules shared: the defaults."""
    path = tmp_path_factory.mktemp("bill") / "focus.csv"
    Focus(made.tables(), PRICES).write_csv(path)
    return as_read(path)


@pytest.mark.parametrize(("period", "spread"), [("day", "attributed"), ("hour", "apart")])
def test_rows_keep_the_rules(bill_of: Callable[..., Rows], period: str, spread: str) -> None:
    """No rule that rows can show is broken, by hour and by day, with idle joules shared or apart."""
    rows = bill_of(period=period, spread=spread)
    assert len(rows) > 50
    assert list(rows[0]) == list(COLUMNS)
    assert broken(list(rows[0]), rows) == []


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_can_be_broken(bill: Rows, rule: str) -> None:
    """A file of which one thing is wrong is found out, by the rule that is about it."""
    at = next(
        index for index, row in enumerate(bill) if row["SubAccountId"] and row["x_Requests"] and row["Tags"]
    )
    columns, rows = list(bill[0]), [bill[at], *bill[:20]]
    assert broken(columns, rows, [rule]) == []
    assert broken(*spoil(SPOILT[rule], columns, rows, 0), [rule]) == [rule]


def test_nothing_is_spoilt_without_a_rule() -> None:
    """A rule that is dropped leaves no file behind that claims to break it."""
    assert SPOILT.keys() == set(RULES)
    assert len(set(RULES)) == len(RULES)


@pytest.mark.parametrize("spread", SPREADS)
def test_the_sum_is_what_was_measured(made: Made, bill_of: Callable[..., Rows], spread: str) -> None:
    """Microjoules exactly; kWh and money to the rounding of the last decimal of each row."""
    rows = bill_of(period="hour", spread=spread)
    assert sum(int(row["x_EnergyMicrojoules"] or 0) for row in rows) == made.measured_uj
    kwh = sum(Decimal(row["ConsumedQuantity"] or 0) for row in rows)
    exact = Decimal(made.measured_uj) / MICROJOULES_PER_KWH
    assert abs(kwh - exact) <= len(rows) * Decimal("5e-16")
    cost = sum(Decimal(row["BilledCost"] or 0) for row in rows)
    assert cost == pytest.approx(exact * Decimal("1.21") * Decimal("0.137"), rel=Decimal("1e-9"))
    assert sum(int(row["x_Requests"] or 0) for row in rows) == len(made.requests["engine"])


def test_figures_of_a_row_are_those_of_its_microjoules(bill: Rows) -> None:
    """Consumed is what the GPUs drew; priced has the facility's share in it; grams are those of the priced.
    Each is rounded once, to its last decimal: by decimals of any length here, by whole numbers there."""
    for row in bill:
        exact = Decimal(row["x_EnergyMicrojoules"] or "x") / MICROJOULES_PER_KWH
        priced = Decimal(row["PricingQuantity"] or "x")
        assert abs(Decimal(row["ConsumedQuantity"] or "x") - exact) <= Decimal("5e-16")
        assert abs(priced - exact * Decimal("1.21")) <= Decimal("5e-16")
        assert abs(Decimal(row["x_CarbonGrams"] or "x") - priced * 380) <= Decimal("5e-16")
        assert Decimal(row["BilledCost"] or "x") == priced * Decimal("0.137")
        assert Decimal(row["x_PowerUsageEffectiveness"] or "x") == Decimal("1.21")


def test_what_was_wasted_is_a_charge_of_its_own(made: Made, bill: Rows) -> None:
    """Aborted requests: their joules are on the bill of whoever sent them, apart from those that came to
    something, and nothing is there twice."""
    parts: dict[str | None, int] = {}
    for row in bill:
        parts[row["x_Part"]] = parts.get(row["x_Part"], 0) + int(row["x_EnergyMicrojoules"] or 0)
    wasted = int(made.requests["wasted_uj"].sum())
    joules = made.requests["joules_uj"]
    assert parts["wasted"] == wasted > 0
    assert parts["requests"] == int(joules[joules >= 0].sum()) - wasted
    assert all(row["SubAccountId"] for row in bill if row["x_Part"] == "wasted")


def test_tags_name_the_model_the_adapter_and_the_task(made: Made, bill: Rows) -> None:
    """As columns do; what is not known is in neither, and counts are known of requests alone."""
    for row in bill:
        named = {"lora": "x_AdapterName", "model": "x_ModelName", "task": "x_TaskName"}
        there = {f"joulescope/{tag}": row[name] for tag, name in named.items() if row[name]}
        assert json.loads(row["Tags"] or "{}") == there
        assert (row["x_Requests"] is None) == (row["x_Part"] != "requests")
    assert {row["x_TaskName"] for row in bill} == {*made.requests["task"]} - {""} | {None}
    assert {row["x_OutputUnit"] for row in bill} == {None, "Tokens"}


def test_parquet_has_the_same_rows(made: Made, tmp_path: Path) -> None:
    """Decimals stay decimals and instants instants; every value is that of the CSV."""
    path = tmp_path / "focus.parquet"
    found = Focus(made.tables(), PRICES, issuer=Issuer("4711", "Lab", "Us", 'O\'Chat, "x"'))
    count, text_count = found.write_parquet(path), found.write_csv(tmp_path / "focus.csv")
    table = pq.read_table(path)
    assert table.num_rows == count == text_count
    assert table.schema.metadata[b"focus.version"] == b"1.4"
    rows = as_read(tmp_path / "focus.csv")
    assert broken(list(rows[0]), rows) == []
    for written, row in zip(table.to_pylist(), rows, strict=True):
        for name, value in written.items():
            if isinstance(value, Decimal):
                assert value == Decimal(row[name] or "x"), name
            elif hasattr(value, "isoformat"):
                assert f"{value:%Y-%m-%dT%H:%M:%SZ}" == row[name]
            else:
                assert (None if value is None else str(value)) == row[name]
    assert {row["BillingAccountName"] for row in rows} == {"Lab"}
    assert {row["ServiceName"] for row in rows} == {'O\'Chat, "x"'}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_file_that_cannot_be_written_is_named(made: Made, tmp_path: Path, form: str) -> None:
    """The error has the path and the flag that mends it."""
    write = getattr(Focus(made.tables(), PRICES), f"write_{form}")
    with pytest.raises(QueryError, match=r"cannot write .*nowhere.*--output"):
        write(tmp_path / "nowhere" / "it's.focus")


@pytest.mark.parametrize(
    ("prices", "period", "message"),
    [
        (Prices(), "day", "give --electricity-price .* and --currency"),
        (PRICES, "month", "by hour or day, not by 'month'"),
    ],
)
def test_what_focus_cannot_do_without(made: Made, prices: Prices, period: str, message: str) -> None:
    """A price, as every row has a cost; an hour or a day, as a month is the billing period."""
    with pytest.raises(ConfigError, match=message):
        Focus(made.tables(), prices, period)


@pytest.mark.parametrize(
    ("names", "flag"),
    [
        (("",), "account"),
        (("a", " "), "account-name"),
        (("a", None, ""), "provider"),
        (("a", "b", "c", "\t"), "service"),
    ],
)
def test_blank_names_are_refused(names: tuple[Any, ...], flag: str) -> None:
    """FOCUS wants them in every row, and an empty text is not one."""
    with pytest.raises(ConfigError, match=f"--{flag} .* is blank"):
        Issuer(*names)
