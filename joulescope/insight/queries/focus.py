"""A ledger as a Cost and Usage dataset of FOCUS, the FinOps Open Cost and Usage Specification.

The version and the columns are those of FOCUS 1.4 (4 June 2026). docs/chargeback.md says which columns are
left out, and why. Lines of the bill become rows of the dataset in DuckDB, whichever engine answered: whole
numbers of 128 bits keep each product exact, and files are written without a Python object for each cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joulescope.errors import ConfigError, QueryError
from joulescope.insight.queries.chargeback import (
    IDLE,
    OF_REQUESTS,
    OPEN,
    OVERHEAD,
    OWNED,
    REQUESTS,
    UNATTRIBUTED,
    WASTED,
    chargeback,
)
from joulescope.insight.queries.money import KWH_DIGITS, PRICE_DIGITS, Prices, decimal_of
from joulescope.insight.queries.tables import PERIOD, Tables

FOCUS_VERSION = "1.4"
BY = ("tenant", "model", "lora", "task")
"""What rows are told apart by, beside the engine, the hour or day, and the part of the joules."""

PERIODS_OF_FOCUS = ("hour", "day")
UNIT = "Kilowatt-Hours"
TAG_PREFIX = "joulescope/"

_DESCRIPTIONS = {
    REQUESTS: "GPU energy of finished requests",
    WASTED: "GPU energy of finished requests that came to nothing: aborted, rejected or recomputed",
    IDLE: "GPU energy while nothing ran",
    OVERHEAD: "GPU energy of start-up, recomputation and other work that no request asked for",
    OPEN: "GPU energy of requests that are still open, less what finished ones drew in earlier periods",
    UNATTRIBUTED: "GPU energy that is not known to belong to any engine or request",
}
_OTHER = "GPU energy of rows that do not add up"
_SHARED = ", shared among those who used the engine"

# ------------------------------------------------------------------------------------------------- columns


def _text(text: str) -> str:
    """As a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _known(column: str) -> str:
    """Null where a key of the bill is empty."""
    return f"nullif({column}, '')"


def _count(column: str) -> str:
    """Counts are known of lines of requests only: elsewhere they are absent, and not zero."""
    return f"CASE WHEN part = {_text(REQUESTS)} THEN {column} END"


def _scaled(whole: str, digits: int) -> str:
    """A whole number times ten to the power of minus ``digits``, exactly."""
    step = "0." + "1".rjust(digits, "0")
    return f"CAST({whole} AS DECIMAL(38, 0)) * CAST('{step}' AS DECIMAL({digits + 1}, {digits}))"


def _described() -> str:
    whens = "".join(f" WHEN part = {_text(part)} THEN {_text(said)}" for part, said in _DESCRIPTIONS.items())
    shared = f"CASE WHEN {OWNED} AND NOT {_drawn_by_requests()} THEN {_text(_SHARED)} ELSE '' END"
    return f"CASE{whens} ELSE {_text(_OTHER)} END || {shared}"


def _drawn_by_requests() -> str:
    return f"part IN ({', '.join(map(_text, OF_REQUESTS))})"


def _tags() -> str:
    """A JSON object of the keys that are not empty."""
    keys = {name: _text(f'"{TAG_PREFIX}{name}": ') for name in ("lora", "model", "task")}
    pairs = ", ".join(f"{key} || to_json({_known(name)})" for name, key in keys.items())
    return f"nullif('{{' || concat_ws(', ', {pairs}) || '}}', '{{}}')"


COST_DIGITS = KWH_DIGITS + PRICE_DIGITS
_COST = _scaled("facility * price", COST_DIGITS)
_NOTHING = "CAST(NULL AS VARCHAR)"

COLUMNS: Mapping[str, str] = {
    "BilledCost": _COST,
    "BillingAccountId": "account_id",
    "BillingAccountName": "account_name",
    "BillingCurrency": "currency",
    "BillingPeriodEnd": "month + INTERVAL 1 MONTH",
    "BillingPeriodStart": "month",
    "ChargeCategory": "'Usage'",
    "ChargeClass": _NOTHING,
    "ChargeDescription": _described(),
    "ChargeFrequency": "'Usage-Based'",
    "ChargePeriodEnd": "begin + length",
    "ChargePeriodStart": "begin",
    "ConsumedQuantity": _scaled("drawn", KWH_DIGITS),
    "ConsumedUnit": _text(UNIT),
    "ContractedCost": _COST,
    "ContractedUnitPrice": _scaled("price", PRICE_DIGITS),
    "EffectiveCost": _COST,
    "HostProviderName": "provider",
    "InvoiceId": _NOTHING,
    "InvoiceIssuerName": "provider",
    "ListCost": _COST,
    "ListUnitPrice": _scaled("price", PRICE_DIGITS),
    "PricingCategory": "'Standard'",
    "PricingQuantity": _scaled("facility", KWH_DIGITS),
    "PricingUnit": _text(UNIT),
    "ResourceId": _known("engine"),
    "ResourceName": _NOTHING,
    "ResourceType": "CASE WHEN engine <> '' THEN 'LLM engine' END",
    "ServiceCategory": "'AI and Machine Learning'",
    "ServiceName": "service",
    "ServiceProviderName": "provider",
    "ServiceSubcategory": "'Generative AI'",
    "SkuId": "'gpu-energy'",
    "SkuMeter": "'GPU energy'",
    "SkuPriceDetails": _NOTHING,
    "SkuPriceId": "'gpu-energy'",
    "SubAccountId": _known("tenant"),
    "SubAccountName": _known("tenant"),
    "SubAccountType": "CASE WHEN tenant <> '' THEN 'Tenant' END",
    "Tags": _tags(),
    "x_AdapterName": _known("lora"),
    "x_CachedTokens": _count("cached_tokens"),
    "x_CarbonGrams": _scaled(f"rounded(facility * grams, {10**PRICE_DIGITS})", KWH_DIGITS),
    "x_EnergyMicrojoules": "CAST(joules_uj AS BIGINT)",
    "x_ModelName": _known("model"),
    "x_OutputUnit": "CASE WHEN unit <> '' THEN upper(unit[1]) || unit[2:] || 's' END",
    "x_OutputUnits": _count("output_tokens"),
    "x_Part": "part",
    "x_PowerUsageEffectiveness": _scaled("pue", PRICE_DIGITS),
    "x_PromptTokens": _count("prompt_tokens"),
    "x_Requests": _count("requests"),
    "x_TaskName": _known("task"),
}
"""Columns in order, FOCUS' own before those that begin with ``x_``, and each as SQL of a line of the bill."""

INSTANTS = ("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart")

# ------------------------------------------------------------------------------------------------ question


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who bills and who serves: what a ledger does not know.

    Raises:
        ConfigError: if a name that FOCUS wants in every row is blank.
    """

    account_id: str = "self-hosted"
    account_name: str | None = None
    provider: str = "self-hosted"
    """Service provider, host provider and issuer of the invoice in one."""
    service: str = "LLM inference"

    def __post_init__(self) -> None:
        named = {"account": self.account_id, "provider": self.provider, "service": self.service}
        for name, text in named.items():
            if not text.strip():
                raise ConfigError(f"--{name} {text!r} is blank, and FOCUS wants one in every row: name it")
        if self.account_name is not None and not self.account_name.strip():
            raise ConfigError(f"--account-name {self.account_name!r} is blank: leave it out if there is none")


class Focus:
    """A dataset of FOCUS rows, made when it is written.

    Args:
        tables: the ledger. prices: of which all costs are made. period: ``hour`` or ``day`` of each row.
        spread: as in :func:`joulescope.insight.queries.chargeback.chargeback`.

    Raises:
        ConfigError: without a price, or by another period than hour or day.
    """

    def __init__(
        self,
        tables: Tables,
        prices: Prices,
        period: str = "day",
        spread: str = "attributed",
        issuer: Issuer | None = None,
    ) -> None:
        if prices.electricity_price is None or prices.currency is None:
            raise ConfigError(
                "FOCUS asks for a cost in every row: give --electricity-price (per kWh) and --currency"
            )
        if period not in PERIODS_OF_FOCUS:
            raise ConfigError(f"FOCUS rows are by {' or '.join(PERIODS_OF_FOCUS)}, not by {period!r}")
        self._tables = tables
        self._lines = chargeback(tables, (*BY, period), spread, engine=True)
        self._period = period
        self._terms = _terms(prices, issuer or Issuer())

    def write_csv(self, path: Path) -> int:
        """Writes rows as CSV, nulls as nothing, and returns how many there were.

        Raises:
            QueryError: if the ledger cannot be read, or the file cannot be written.
        """
        return self._write(path, "FORMAT csv, HEADER true", lambda instant: f"strftime({instant}, '{_ISO}')")

    def write_parquet(self, path: Path) -> int:
        """The same as Parquet: costs are decimal numbers, instants are instants in UTC."""
        options = f"FORMAT parquet, COMPRESSION zstd, KV_METADATA {{'focus.version': '{FOCUS_VERSION}'}}"
        return self._write(path, options, lambda instant: f"({instant}) AT TIME ZONE 'UTC'")

    def _write(self, path: Path, options: str, instant: Callable[[str], str]) -> int:
        import duckdb

        lines = self._tables.arrow(self._lines)
        with duckdb.connect() as connection:
            # Each thread would keep row groups of all columns apart, for little: texts are most of the work.
            connection.execute("SET threads = 1; SET TimeZone = 'UTC'")
            connection.execute(_ROUNDED)
            connection.register("lines", lines)
            connection.register("terms", self._terms)
            columns = {name: instant(sql) if name in INSTANTS else sql for name, sql in COLUMNS.items()}
            try:
                query = f"COPY ({_rows(columns, self._period)}) TO {_text(str(path))} ({options})"
                return int(connection.execute(query).fetchall()[0][0])
            except (duckdb.IOException, OSError) as problem:
                text = str(problem).partition("\n")[0]
                raise QueryError(f"cannot write {path}: {text}; choose another with --output") from problem


_ISO = "%Y-%m-%dT%H:%M:%SZ"

_ROUNDED = "CREATE TEMP MACRO rounded(top, bottom) AS sign(top) * ((abs(top) + bottom // 2) // bottom)"
"""The quotient of whole numbers, to the nearest."""

_KWH_STEPS = 2_500, 9
"""A microjoule is 2500/9 of the last of the decimals of a kWh that are kept."""


def _rows(columns: Mapping[str, str], period: str) -> str:
    """The dataset as a question to the tables ``lines``, of the bill, and ``terms``, of one row."""
    top, bottom = _KWH_STEPS
    one = 10**PRICE_DIGITS
    made = f"""
        SELECT *, make_timestamp({PERIOD} // 1000) AS begin, date_trunc('month', begin) AS month,
            INTERVAL 1 {period.upper()} AS length,
            CAST(joules_uj AS HUGEINT) * {top} AS steps,
            rounded(steps, {bottom}) AS drawn,
            rounded(steps * coalesce(pue, {one}), {bottom * one}) AS facility
        FROM lines, terms"""
    named = ", ".join(f'{sql} AS "{name}"' for name, sql in columns.items())
    return f"SELECT {named} FROM ({made})"


def _terms(prices: Prices, issuer: Issuer) -> Any:
    """Who bills, and prices as whole numbers of their last decimal: an Arrow table of one row."""
    import pyarrow as pa

    def whole(figure: float | None) -> int | None:
        return None if figure is None else int(decimal_of(figure).scaleb(PRICE_DIGITS))

    texts = {
        "account_id": issuer.account_id,
        "account_name": issuer.account_name,
        "currency": prices.currency,
        "provider": issuer.provider,
        "service": issuer.service,
    }
    numbers = {
        "price": whole(prices.electricity_price),
        "pue": whole(prices.pue),
        "grams": whole(prices.carbon_intensity),
    }
    return pa.table(
        {name: pa.array([text], pa.string()) for name, text in texts.items()}
        | {name: pa.array([number], pa.int64()) for name, number in numbers.items()}
    )
