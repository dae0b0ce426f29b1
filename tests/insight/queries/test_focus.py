"""The bill as FOCUS rows keeps FOCUS' rules, and its sum is that of the measured joules."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from joulescope.errors import ConfigError, QueryError
from joulescope.insight.queries import SPREADS
from joulescope.insight.queries.focus import COLUMNS, Issuer, focus_rows, write_csv, write_parquet
from joulescope.insight.queries.money import Prices
from tests.insight.queries.conftest import Made
from tests.insight.queries.focus_rules import breaches

PRICES = Prices(0.137, "EUR", 1.21, 380.0)
MICROJOULES_PER_KWH = 3_600_000_000_000


def as_csv(made: Made, **options: Any) -> list[dict[str, str | None]]:
    """The rows as whoever reads the file sees them: texts, empty ones null."""
    file = io.StringIO()
    count = write_csv(focus_rows(made.tables(), PRICES, **options), file)
    file.seek(0)
    rows = [{name: text or None for name, text in row.items()} for row in csv.DictReader(file)]
    assert len(rows) == count
    return rows


@pytest.fixture(scope="module")
def bill(made: Made) -> list[dict[str, str | None]]:
    """By the day, idle joules shared: the defaults."""
    return as_csv(made)


@pytest.mark.parametrize(("period", "spread"), [("day", "attributed"), ("hour", "apart")])
def test_rows_keep_the_rules(made: Made, period: str, spread: str) -> None:
    """No rule that rows can show is broken, by hour and by day, with idle joules shared or apart."""
    rows = as_csv(made, period=period, spread=spread)
    assert len(rows) > 50
    assert list(breaches(list(rows[0]), rows)) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"BilledCost": None}, "BilledCost is null"),
        ({"ListCost": "1.5"}, "ListCost is not price times quantity"),
        ({"ChargeCategory": "Energy"}, "ChargeCategory is 'Energy'"),
        ({"PricingUnit": "kWh"}, "PricingUnit is written 'kWh'"),
        ({"ConsumedQuantity": "1e-7"}, "ConsumedQuantity is written '1e-7'"),
        ({"ChargePeriodStart": "2026-01-31 00:00:00"}, "ChargePeriodStart is written"),
        ({"ChargePeriodEnd": "2026-03-01T00:00:00Z"}, "a charge period is not within its billing period"),
        ({"SubAccountName": None}, "one of SubAccountId and SubAccountName is null"),
        ({"BillingCurrency": "USD"}, "BillingAccountId self-hosted has more than one BillingCurrency"),
        ({"Tags": '{"model": "m"}'}, "a tag of the provider has no prefix"),
    ],
)
def test_the_rules_can_be_broken(
    bill: list[dict[str, str | None]], change: dict[str, str | None], fault: str
) -> None:
    """A spoilt row is found out: the check above could fail."""
    rows = list(bill)
    first = next(index for index, row in enumerate(rows) if row["SubAccountId"])
    rows[first] = rows[first] | change
    assert any(text.startswith(fault) for text in breaches(list(rows[first]), rows))


@pytest.mark.parametrize("missing", ["HostProviderName", "ServiceCategory", "SkuPriceId"])
def test_a_missing_column_is_found(made: Made, missing: str) -> None:
    """Columns that must be there are asked for by name."""
    columns = [name for name in COLUMNS if name != missing]
    assert f"{missing} is not there" in list(breaches(columns, []))


@pytest.mark.parametrize("spread", SPREADS)
def test_the_sum_is_what_was_measured(made: Made, spread: str) -> None:
    """Microjoules exactly; kWh and money to the rounding of the last decimal of each row."""
    rows = as_csv(made, period="hour", spread=spread)
    assert sum(int(row["x_EnergyMicrojoules"] or 0) for row in rows) == made.measured_uj
    kwh = sum(Decimal(row["ConsumedQuantity"] or 0) for row in rows)
    exact = Decimal(made.measured_uj) / MICROJOULES_PER_KWH
    assert abs(kwh - exact) <= len(rows) * Decimal("5e-16")
    cost = sum(Decimal(row["BilledCost"] or 0) for row in rows)
    assert cost == pytest.approx(exact * Decimal("1.21") * Decimal("0.137"), rel=Decimal("1e-9"))
    assert sum(int(row["x_Requests"] or 0) for row in rows) == len(made.requests["engine"])


def test_facility_and_gpu_energy_are_told_apart(bill: list[dict[str, str | None]]) -> None:
    """What is consumed is what the GPUs drew; what is priced has the facility's share in it."""
    for row in bill:
        consumed, priced = Decimal(row["ConsumedQuantity"] or 0), Decimal(row["PricingQuantity"] or 0)
        assert priced == pytest.approx(consumed * Decimal("1.21"), abs=Decimal("2e-15"))
        assert Decimal(row["x_PowerUsageEffectiveness"] or 0) == Decimal("1.21")


def test_parquet_has_the_same_rows(made: Made, tmp_path: Path) -> None:
    """Decimals stay decimals and instants instants; every value is that of the CSV."""
    path = tmp_path / "focus.parquet"
    count = write_parquet(
        focus_rows(made.tables(), PRICES, issuer=Issuer("4711", "Lab", "Us", "Chat")), path, 100
    )
    table = pq.read_table(path)
    assert table.num_rows == count
    assert table.schema.metadata[b"focus.version"] == b"1.4"
    written = table.to_pylist()
    file = io.StringIO()
    write_csv(written, file)
    file.seek(0)
    rows = [{name: text or None for name, text in row.items()} for row in csv.DictReader(file)]
    assert list(breaches(list(rows[0]), rows)) == []
    assert sum(row["x_EnergyMicrojoules"] for row in written) == made.measured_uj
    assert {row["BillingAccountName"] for row in written} == {"Lab"}
    assert {row["ServiceProviderName"] for row in written} == {"Us"}


def test_a_file_that_cannot_be_written_is_named(made: Made, tmp_path: Path) -> None:
    """The error has the path and the flag that mends it."""
    with pytest.raises(QueryError, match=r"cannot write .*nowhere.*--output"):
        write_parquet(focus_rows(made.tables(), PRICES), tmp_path / "nowhere" / "focus.parquet")


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
        focus_rows(made.tables(), prices, period)
