"""A ledger as a Cost and Usage dataset of FOCUS, the FinOps Open Cost and Usage Specification.

The version and the columns are those of FOCUS 1.4 (4 June 2026): its requirements model names for each
column whether it must be there and whether it may be null. docs/chargeback.md says which columns are left
out, and why.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO, Any

from joulescope.errors import ConfigError, QueryError
from joulescope.insight.queries.chargeback import (
    IDLE,
    OPEN,
    OVERHEAD,
    OWNED,
    REQUESTS,
    UNATTRIBUTED,
    chargeback,
)
from joulescope.insight.queries.money import KWH_DIGITS, PRICE_DIGITS, Prices, decimal_of, exact_kwh
from joulescope.insight.queries.span import moment
from joulescope.insight.queries.tables import PERIOD, Tables

FOCUS_VERSION = "1.4"
BY = ("tenant", "model", "lora", "task")
"""What rows are told apart by, beside the engine, the hour or day, and the part of the joules."""

PERIODS_OF_FOCUS = ("hour", "day")
UNIT = "Kilowatt-Hours"
TAG_PREFIX = "joulescope/"

TEXT, DECIMAL, COST, INSTANT, WHOLE = "text", "decimal", "cost", "instant", "whole"

COLUMNS: Mapping[str, str] = {
    "BilledCost": COST,
    "BillingAccountId": TEXT,
    "BillingAccountName": TEXT,
    "BillingCurrency": TEXT,
    "BillingPeriodEnd": INSTANT,
    "BillingPeriodStart": INSTANT,
    "ChargeCategory": TEXT,
    "ChargeClass": TEXT,
    "ChargeDescription": TEXT,
    "ChargeFrequency": TEXT,
    "ChargePeriodEnd": INSTANT,
    "ChargePeriodStart": INSTANT,
    "ConsumedQuantity": DECIMAL,
    "ConsumedUnit": TEXT,
    "ContractedCost": COST,
    "ContractedUnitPrice": DECIMAL,
    "EffectiveCost": COST,
    "HostProviderName": TEXT,
    "InvoiceId": TEXT,
    "InvoiceIssuerName": TEXT,
    "ListCost": COST,
    "ListUnitPrice": DECIMAL,
    "PricingCategory": TEXT,
    "PricingQuantity": DECIMAL,
    "PricingUnit": TEXT,
    "ResourceId": TEXT,
    "ResourceName": TEXT,
    "ResourceType": TEXT,
    "ServiceCategory": TEXT,
    "ServiceName": TEXT,
    "ServiceProviderName": TEXT,
    "ServiceSubcategory": TEXT,
    "SkuId": TEXT,
    "SkuMeter": TEXT,
    "SkuPriceDetails": TEXT,
    "SkuPriceId": TEXT,
    "SubAccountId": TEXT,
    "SubAccountName": TEXT,
    "SubAccountType": TEXT,
    "Tags": TEXT,
    "x_CachedTokens": WHOLE,
    "x_CarbonGrams": DECIMAL,
    "x_EnergyMicrojoules": WHOLE,
    "x_Lora": TEXT,
    "x_Model": TEXT,
    "x_OutputUnit": TEXT,
    "x_OutputUnits": WHOLE,
    "x_Part": TEXT,
    "x_PowerUsageEffectiveness": DECIMAL,
    "x_PromptTokens": WHOLE,
    "x_Requests": WHOLE,
    "x_Task": TEXT,
}
"""Columns in order, FOCUS' own before those that begin with ``x_``, and the type of each."""

_DESCRIPTIONS = {
    REQUESTS: "GPU energy of finished requests",
    IDLE: "GPU energy while nothing ran",
    OVERHEAD: "GPU energy of start-up, recomputation and other work that no request asked for",
    OPEN: "GPU energy of requests that are still open, less what finished ones drew in earlier periods",
    UNATTRIBUTED: "GPU energy that is not known to belong to any engine or request",
}
_SHARED = ", shared among those who used the engine"


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who bills and who serves: what a ledger does not know."""

    account_id: str = "self-hosted"
    account_name: str | None = None
    provider: str = "self-hosted"
    """Service provider, host provider and issuer of the invoice in one."""
    service: str = "LLM inference"


def focus_rows(
    tables: Tables,
    prices: Prices,
    period: str = "day",
    spread: str = "attributed",
    issuer: Issuer | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of the dataset: costs are :class:`decimal.Decimal`, instants :class:`datetime.datetime` in UTC.

    Raises:
        ConfigError: without a price, of which all costs are made, or by another period than hour or day.
    """
    if prices.electricity_price is None or prices.currency is None:
        raise ConfigError(
            "FOCUS asks for a cost in every row: give --electricity-price (per kWh) and --currency"
        )
    if period not in PERIODS_OF_FOCUS:
        raise ConfigError(f"FOCUS rows are by {' or '.join(PERIODS_OF_FOCUS)}, not by {period!r}")
    lines = tables.rows(chargeback(tables, (*BY, period), spread, engine=True))
    length = timedelta(hours=1) if period == "hour" else timedelta(days=1)
    constant = _constant(prices, issuer or Issuer())
    return (_row(line, prices, length, constant) for line in lines)


def _constant(prices: Prices, issuer: Issuer) -> dict[str, Any]:
    price = decimal_of(prices.electricity_price or 0.0)
    return {
        "BillingAccountId": issuer.account_id,
        "BillingAccountName": issuer.account_name,
        "BillingCurrency": prices.currency,
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "ConsumedUnit": UNIT,
        "ContractedUnitPrice": price,
        "HostProviderName": issuer.provider,
        "InvoiceIssuerName": issuer.provider,
        "ListUnitPrice": price,
        "PricingCategory": "Standard",
        "PricingUnit": UNIT,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": issuer.service,
        "ServiceProviderName": issuer.provider,
        "ServiceSubcategory": "Generative AI",
        "SkuId": "gpu-energy",
        "SkuMeter": "GPU energy",
        "SkuPriceId": "gpu-energy",
        "x_PowerUsageEffectiveness": None if prices.pue is None else decimal_of(prices.pue),
    }


def _row(
    line: Mapping[str, Any], prices: Prices, length: timedelta, constant: Mapping[str, Any]
) -> dict[str, Any]:
    quantity = exact_kwh(line["joules_uj"], prices.pue or 1.0)
    cost = quantity * constant["ListUnitPrice"]
    tenant, engine = line["tenant"] or None, line["engine"] or None
    grams = prices.carbon_grams(line["joules_uj"])
    row: dict[str, Any] = {**_EMPTY, **constant, **_instants(line[PERIOD], length)}
    row.update(
        BilledCost=cost,
        ContractedCost=cost,
        EffectiveCost=cost,
        ListCost=cost,
        ChargeDescription=_description(line["part"], line[OWNED]),
        ConsumedQuantity=exact_kwh(line["joules_uj"]),
        PricingQuantity=quantity,
        ResourceId=engine,
        ResourceName=engine,
        ResourceType=engine and "LLM engine",
        SubAccountId=tenant,
        SubAccountName=tenant,
        SubAccountType=tenant and "Tenant",
        Tags=_tags(line["model"], line["lora"], line["task"]),
        x_CarbonGrams=None if grams is None else decimal_of(grams),
        x_EnergyMicrojoules=line["joules_uj"],
        x_Part=line["part"],
        x_Model=line["model"] or None,
        x_Lora=line["lora"] or None,
        x_Task=line["task"] or None,
        x_OutputUnit=line["unit"] or None,
        x_OutputUnits=line["output_tokens"],
        x_Requests=line["requests"],
        x_PromptTokens=line["prompt_tokens"],
        x_CachedTokens=line["cached_tokens"],
    )
    return row


_EMPTY: dict[str, Any] = dict.fromkeys(COLUMNS)


def _description(part: str, owned: bool) -> str:
    text = _DESCRIPTIONS.get(part, "GPU energy of rows that do not add up")
    return text + _SHARED if owned and part != REQUESTS else text


@lru_cache(maxsize=1024)
def _instants(begin_ns: int, length: timedelta) -> dict[str, datetime]:
    """The hour or day, and the calendar month around it."""
    begin = moment(begin_ns)
    month = begin.replace(day=1, hour=0)
    return {
        "BillingPeriodStart": month,
        "BillingPeriodEnd": (month + timedelta(days=31)).replace(day=1),
        "ChargePeriodStart": begin,
        "ChargePeriodEnd": begin + length,
    }


@lru_cache(maxsize=4096)
def _tags(model: str, lora: str, task: str) -> str | None:
    named = {
        f"{TAG_PREFIX}{name}": value
        for name, value in (("lora", lora), ("model", model), ("task", task))
        if value
    }
    return json.dumps(named, ensure_ascii=False) if named else None


# ------------------------------------------------------------------------------------------------ writing


def write_csv(rows: Iterable[dict[str, Any]], file: IO[str]) -> int:
    """Writes rows as CSV, nulls as nothing, and returns how many there were."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    special = [name for name, kind in COLUMNS.items() if kind not in (TEXT, WHOLE)]
    count = 0
    for row in rows:
        texts = {name: _text(row[name]) for name in special if row[name] is not None}
        writer.writerow((row | texts).values())
        count += 1
    return count


@lru_cache(maxsize=1024)
def _text(value: datetime | Decimal) -> str:
    """No exponent, no offset but Z."""
    return f"{value:%Y-%m-%dT%H:%M:%SZ}" if isinstance(value, datetime) else f"{value:f}"


def write_parquet(rows: Iterable[Mapping[str, Any]], path: Path, batch: int = 50_000) -> int:
    """Writes rows as Parquet, costs as decimal numbers, and returns how many there were.

    Raises:
        QueryError: if the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        TEXT: pa.string(),
        DECIMAL: pa.decimal128(38, KWH_DIGITS),
        COST: pa.decimal128(38, KWH_DIGITS + PRICE_DIGITS),
        INSTANT: pa.timestamp("us", tz="UTC"),
        WHOLE: pa.int64(),
    }
    schema = pa.schema(
        [(name, types[kind]) for name, kind in COLUMNS.items()], metadata={"focus.version": FOCUS_VERSION}
    )
    count = 0
    found = iter(rows)
    try:
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            while some := list(islice(found, batch)):
                writer.write_table(pa.Table.from_pylist([dict(row) for row in some], schema))
                count += len(some)
    except OSError as error:
        raise QueryError(f"cannot write {path}: {error}; choose another file with --output") from error
    return count
