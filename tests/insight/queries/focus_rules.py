"""Rules of FOCUS 1.4 for a Cost and Usage dataset, as data and checks: an own reading of its model.

The validator that is published as a package knows versions up to 1.0. Each rule that can be seen in the rows
of one dataset is here for every column that joulescope writes; columns that must be there are asked for.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

Row = Mapping[str, Any]

MANDATORY = frozenset(
    [
        "BilledCost",
        "BillingAccountId",
        "BillingAccountName",
        "BillingCurrency",
        "BillingPeriodEnd",
        "BillingPeriodStart",
        "ChargeCategory",
        "ChargeClass",
        "ChargeDescription",
        "ChargePeriodEnd",
        "ChargePeriodStart",
        "ContractedCost",
        "EffectiveCost",
        "HostProviderName",
        "InvoiceIssuerName",
        "ListCost",
        "PricingQuantity",
        "PricingUnit",
        "ServiceCategory",
        "ServiceName",
        "ServiceProviderName",
    ]
)
RECOMMENDED = frozenset(["ChargeFrequency", "InvoiceId", "ServiceSubcategory"])
WHEN_USAGE_IS_MEASURED = frozenset(["ConsumedQuantity", "ConsumedUnit"])
WHEN_THERE_IS_A_PRICE_LIST = frozenset(
    ["ContractedUnitPrice", "ListUnitPrice", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId"]
)
WHEN_RESOURCES_ARE_BILLED = frozenset(["ResourceId", "ResourceName", "ResourceType"])
WHEN_THERE_ARE_SUB_ACCOUNTS = frozenset(["SubAccountId", "SubAccountName", "SubAccountType"])
WHEN_THERE_ARE_TAGS = frozenset(["Tags"])
OPTIONAL = frozenset(["PricingCategory"])
REMOVED = frozenset(["ProviderName", "PublisherName"])

NEVER_NULL = MANDATORY - {"BillingAccountName", "ChargeClass", "PricingQuantity", "PricingUnit"}
NEVER_NULL_FOR_USAGE = frozenset(
    [
        "PricingQuantity",
        "PricingUnit",
        "PricingCategory",
        "ConsumedQuantity",
        "ConsumedUnit",
        "SkuId",
        "SkuPriceId",
        "ListUnitPrice",
        "ContractedUnitPrice",
        "ServiceSubcategory",
    ]
)
ALLOWED: Mapping[str, frozenset[str | None]] = {
    "ChargeCategory": frozenset(["Usage", "Purchase", "Tax", "Credit", "Adjustment"]),
    "ChargeClass": frozenset([None, "Correction"]),
    "ChargeFrequency": frozenset(["One-Time", "Recurring", "Usage-Based"]),
    "PricingCategory": frozenset(["Standard", "Dynamic", "Committed", "Other"]),
    "ServiceCategory": frozenset(["AI and Machine Learning"]),
    "ServiceSubcategory": frozenset(["AI Platforms", "Generative AI", "Machine Learning"]),
}
"""Of the last two those that serving of models may be in."""

COSTS = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
NUMBERS = (*COSTS, "ConsumedQuantity", "ContractedUnitPrice", "ListUnitPrice", "PricingQuantity")
INSTANTS = ("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart")
TEXTS_WITHOUT_SPACE = ("BillingAccountId", "SubAccountId", "ResourceId", "ServiceName", "SkuId")

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_UNIT = re.compile(r"([1-9]\d* )?[A-Z][a-z]*(-[A-Z][a-z]*s|s)?(/[A-Z][a-z]*)?")
_COLUMN = re.compile(r"[A-Z][A-Za-z0-9]*")
_CUSTOM = re.compile(r"x_[A-Z][A-Za-z0-9]*")


def breaches(columns: Sequence[str], rows: Sequence[Row]) -> Iterator[str]:
    """What a dataset, as texts of a CSV with nulls for empty ones, does wrong; each fault once."""
    yield from dict.fromkeys(_of_columns(columns))
    found: dict[str, None] = {}
    for row in rows:
        for rule in (_nulls, _values, _formats, _periods, _products):
            found.update(dict.fromkeys(rule(row)))
    yield from found
    yield from _of_all(rows)


def _of_columns(columns: Sequence[str]) -> Iterator[str]:
    for name in sorted(MANDATORY | RECOMMENDED | WHEN_USAGE_IS_MEASURED | WHEN_THERE_IS_A_PRICE_LIST):
        if name not in columns:
            yield f"{name} is not there"
    for name in columns:
        if name in REMOVED:
            yield f"{name} was removed in 1.4"
        if not (_CUSTOM if name.startswith("x_") else _COLUMN).fullmatch(name):
            yield f"{name} is no name of a column"
        if len(name) > 50:
            yield f"{name} is longer than 50 characters"
    if len(set(columns)) < len(columns):
        yield "a column is there twice"


def _nulls(row: Row) -> Iterator[str]:
    must = NEVER_NULL | (NEVER_NULL_FOR_USAGE if row["ChargeCategory"] == "Usage" else frozenset())
    yield from (f"{name} is null" for name in sorted(must) if row.get(name) is None)
    for first, second in (
        ("ConsumedQuantity", "ConsumedUnit"),
        ("SubAccountId", "SubAccountName"),
        ("SubAccountId", "SubAccountType"),
        ("ResourceId", "ResourceType"),
        ("PricingQuantity", "PricingUnit"),
    ):
        if (row[first] is None) != (row[second] is None):
            yield f"one of {first} and {second} is null"
    if row["SkuPriceId"] is None and any(
        row[name] is not None for name in ("SkuPriceDetails", "ListUnitPrice")
    ):
        yield "a price without a SkuPriceId"


def _values(row: Row) -> Iterator[str]:
    for name, allowed in ALLOWED.items():
        if row[name] not in allowed:
            yield f"{name} is {row[name]!r}"
    if not re.fullmatch("[A-Z]{3}", row["BillingCurrency"] or ""):
        yield f"BillingCurrency is {row['BillingCurrency']!r}"


def _formats(row: Row) -> Iterator[str]:
    checks: list[tuple[Sequence[str], Callable[[str], Any]]] = [
        (NUMBERS, _NUMBER.fullmatch),
        (INSTANTS, _INSTANT.fullmatch),
        (("PricingUnit", "ConsumedUnit"), _UNIT.fullmatch),
        (TEXTS_WITHOUT_SPACE, lambda text: text == text.strip()),
    ]
    for names, check in checks:
        yield from (
            f"{name} is written {row[name]!r}" for name in names if row[name] and not check(row[name])
        )
    if row["Tags"] is not None:
        tags = json.loads(row["Tags"])
        if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
            yield f"Tags is {row['Tags']!r}"
        if not all("/" in key for key in tags):
            yield "a tag of the provider has no prefix"


def _periods(row: Row) -> Iterator[str]:
    if not all(_INSTANT.fullmatch(row[name] or "") for name in INSTANTS):
        return
    begin, end, month, next_month = (
        datetime.fromisoformat(row[name].replace("Z", "+00:00"))
        for name in ("ChargePeriodStart", "ChargePeriodEnd", "BillingPeriodStart", "BillingPeriodEnd")
    )
    if not month <= begin < end <= next_month:
        yield "a charge period is not within its billing period"
    if (month.day, next_month.day) != (1, 1) or not timedelta(28) <= next_month - month <= timedelta(31):
        yield "a billing period is no month"


def _products(row: Row) -> Iterator[str]:
    price, quantity = Decimal(row["ListUnitPrice"]), Decimal(row["PricingQuantity"])
    for name in ("ListCost", "ContractedCost"):
        if Decimal(row[name]) != price * quantity:
            yield f"{name} is not price times quantity"
    if row["ListUnitPrice"] != row["ContractedUnitPrice"] or row["ListCost"] != row["ContractedCost"]:
        yield "contracted and list differ without negotiated terms"
    if row["EffectiveCost"] != row["BilledCost"]:
        yield "EffectiveCost is not BilledCost though nothing is amortised"


_ONE_EACH = (
    ("SkuPriceId", "SkuId"),
    ("BillingAccountId", "BillingCurrency"),
    ("SubAccountId", "SubAccountName"),
)


def _of_all(rows: Sequence[Row]) -> Iterator[str]:
    """One price of a SKU has one SKU; an account has one currency and one name in a billing period."""
    for of, what in _ONE_EACH:
        seen: dict[Any, set[Any]] = defaultdict(set)
        for row in rows:
            seen[row[of]].add(row[what])
        yield from (f"{of} {key} has more than one {what}" for key, names in seen.items() if len(names) > 1)
