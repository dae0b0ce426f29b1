"""Rules of FOCUS 1.4 for a Cost and Usage dataset, each by a name of its own: an own reading of its text.

The validator that is published as a package knows versions up to 1.0. Here is what can be seen in the rows of
one dataset, for every column that joulescope writes. Each rule has a file in ``focus_spoilt`` that breaks it.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

Row = Mapping[str, str | None]

# -------------------------------------------------------------------------------- what is asked of columns

MANDATORY = (
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
)
RECOMMENDED = ("ChargeFrequency", "InvoiceId", "ServiceSubcategory")
CONDITIONAL = (
    "ConsumedQuantity",  # usage is measured
    "ConsumedUnit",
    "ContractedUnitPrice",  # there are unit prices
    "ListUnitPrice",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "ResourceId",  # resources are told apart
    "ResourceName",
    "ResourceType",
    "SubAccountId",  # there are sub accounts
    "SubAccountName",
    "Tags",  # there are tags
)
"""Those whose condition holds of a bill by tenant, engine and model."""

REMOVED = ("ProviderName", "PublisherName")

NULLABLE = ("BillingAccountName", "ChargeClass")
NEVER_NULL = (*(name for name in MANDATORY if name not in NULLABLE), "ChargeFrequency", "ServiceSubcategory")
NEVER_NULL_FOR_USAGE = (
    "PricingCategory",
    "ConsumedQuantity",
    "ConsumedUnit",
    "SkuId",
    "SkuPriceId",
    "ListUnitPrice",
    "ContractedUnitPrice",
)
TOGETHER = (
    ("ConsumedQuantity", "ConsumedUnit"),
    ("PricingQuantity", "PricingUnit"),
    ("ResourceId", "ResourceType"),
    ("SkuId", "SkuMeter"),
    ("SubAccountId", "SubAccountName"),
    ("SubAccountId", "SubAccountType"),
)
"""Null in the same rows."""

FOR_USAGE_ALONE = ("ConsumedQuantity",)
NEEDS_A_SKU_PRICE = (
    "ConsumedQuantity",
    "ContractedUnitPrice",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "SkuPriceDetails",
)
ALLOWED: Mapping[str, tuple[str | None, ...]] = {
    "ChargeCategory": ("Usage", "Purchase", "Tax", "Credit", "Adjustment"),
    "ChargeClass": (None, "Correction"),
    "ChargeFrequency": ("One-Time", "Recurring", "Usage-Based"),
    "PricingCategory": (None, "Standard", "Dynamic", "Committed", "Other"),
    "ServiceCategory": ("AI and Machine Learning",),
    "ServiceSubcategory": (
        "AI Platforms",
        "Bots",
        "Generative AI",
        "Machine Learning",
        "Natural Language Processing",
        "Other (AI and Machine Learning)",
    ),
}
"""Of the last two those of the one category that serving of models is in."""

COSTS = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
PRICES = ("ContractedUnitPrice", "ListUnitPrice")
NUMBERS = (*COSTS, *PRICES, "ConsumedQuantity", "PricingQuantity")
OWN_NUMBERS = (
    "x_CachedTokens",
    "x_CarbonGrams",
    "x_EnergyMicrojoules",
    "x_OutputUnits",
    "x_PowerUsageEffectiveness",
    "x_PromptTokens",
    "x_Requests",
)
INSTANTS = ("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart")
UNITS = ("ConsumedUnit", "PricingUnit", "x_OutputUnit")
NAMES = tuple(name for name in NEVER_NULL if name not in (*NUMBERS, *INSTANTS, "PricingUnit", *ALLOWED))
ONE_EACH = (
    ("SkuPriceId", "SkuId"),
    ("SkuId", "SkuMeter"),
    ("SkuPriceId", "SkuPriceDetails"),
    ("BillingAccountId", "BillingCurrency"),
    ("BillingAccountId", "BillingAccountName"),
    ("SubAccountId", "SubAccountName"),
    ("ResourceId", "ResourceType"),
)
"""One of the first has one of the second."""

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_UNIT = re.compile(r"([1-9]\d* )?[A-Z][a-z]*(-[A-Z][a-z]*)*s(/([1-9]\d* )?[A-Z][a-z]*)?")

# ---------------------------------------------------------------------------------------- rules of columns

ColumnRule = Callable[[Sequence[str]], bool]
"""Whether the names of a file break the rule; the next likewise of a row, and of all rows."""
RowRule = Callable[[Row], bool]
FileRule = Callable[[Sequence[Row]], bool]

COLUMN_RULES: Mapping[str, ColumnRule] = {
    **{
        f"{name} is there": lambda columns, name=name: name not in columns
        for name in (*MANDATORY, *RECOMMENDED, *CONDITIONAL)
    },
    **{f"{name} is gone": lambda columns, name=name: name in columns for name in REMOVED},
    "FOCUS columns are in Pascal case": lambda columns: (
        not _all_match("[A-Z][A-Za-z0-9]*", _own(columns, False))
    ),
    "own columns begin with x_, and go on in Pascal case": lambda columns: (
        not _all_match("x_[A-Z][A-Za-z0-9]*", _own(columns, True))
    ),
    "names of columns have 50 characters at most": lambda columns: max(map(len, columns)) > 50,
    "a column is there once": lambda columns: len(set(columns)) < len(columns),
}


def _own(columns: Sequence[str], own: bool) -> list[str]:
    return [name for name in columns if name.startswith("x") == own]


def _all_match(pattern: str, texts: Iterable[str]) -> bool:
    return all(re.fullmatch(pattern, text) for text in texts)


# ------------------------------------------------------------------------------------------- rules of rows


def _malformed(pattern: re.Pattern[str], name: str) -> RowRule:
    return lambda row: row.get(name) is not None and not pattern.fullmatch(row[name] or "")


def _number(row: Row, name: str) -> Decimal | None:
    text = row.get(name)
    return Decimal(text) if text is not None and _NUMBER.fullmatch(text) else None


def _instants(row: Row) -> list[datetime] | None:
    texts = [row.get(name) or "" for name in INSTANTS]
    if not all(map(_INSTANT.fullmatch, texts)):
        return None
    return [datetime.fromisoformat(text.replace("Z", "+00:00")) for text in texts]


def _is_no_product(cost: str, price: str) -> RowRule:
    def broken(row: Row) -> bool:
        one, each, quantity = (_number(row, name) for name in (cost, price, "PricingQuantity"))
        return one is not None and each is not None and quantity is not None and one != each * quantity

    return broken


def _differ(first: str, second: str) -> RowRule:
    return lambda row: row.get(first) != row.get(second)


def _outside_its_month(row: Row) -> bool:
    found = _instants(row)
    return found is not None and not found[1] <= found[3] < found[2] <= found[0]


def _no_month(row: Row) -> bool:
    found = _instants(row)
    if found is None:
        return False
    end, begin = found[:2]
    return (begin.day, end.day) != (1, 1) or not timedelta(28) <= end - begin <= timedelta(31)


def _tags(row: Row) -> list[tuple[str, Any]] | None:
    """Pairs of the object, with those of a key that is there twice; ``None`` where it is no object."""
    text = row.get("Tags")
    if text is None:
        return []
    try:
        found = json.loads(text, object_pairs_hook=list)
    except ValueError:
        return None
    is_object = text.strip().startswith("{")
    return found if is_object else None


def _is_usage(row: Row) -> bool:
    return row.get("ChargeCategory") == "Usage" and row.get("ChargeClass") != "Correction"


ROW_RULES: Mapping[str, RowRule] = {
    **{f"{name} is not null": lambda row, name=name: row.get(name) is None for name in NEVER_NULL},
    **{
        f"{name} of usage is not null": lambda row, name=name: _is_usage(row) and row.get(name) is None
        for name in NEVER_NULL_FOR_USAGE
    },
    **{
        f"{first} and {second} are null together": lambda row, first=first, second=second: (
            (row.get(first) is None) != (row.get(second) is None)
        )
        for first, second in TOGETHER
    },
    **{
        f"{name} is of usage": lambda row, name=name: (
            row.get("ChargeCategory") != "Usage" and row.get(name) is not None
        )
        for name in FOR_USAGE_ALONE
    },
    **{
        f"{name} has a SkuPriceId": lambda row, name=name: (
            row.get("SkuPriceId") is None and row.get(name) is not None
        )
        for name in NEEDS_A_SKU_PRICE
    },
    **{
        f"{name} is allowed": lambda row, name=name, allowed=allowed: row.get(name) not in allowed
        for name, allowed in ALLOWED.items()
    },
    **{f"{name} is a plain number": _malformed(_NUMBER, name) for name in (*NUMBERS, *OWN_NUMBERS)},
    **{f"{name} is an instant in UTC": _malformed(_INSTANT, name) for name in INSTANTS},
    **{f"{name} is a unit": _malformed(_UNIT, name) for name in UNITS},
    **{f"{name} is not blank": lambda row, name=name: (row.get(name) or "x").isspace() for name in NAMES},
    **{f"{name} is not negative": lambda row, name=name: (_number(row, name) or 0) < 0 for name in PRICES},
    "BillingCurrency is a code of ISO 4217": _malformed(re.compile("[A-Z]{3}"), "BillingCurrency"),
    "ListCost is price times quantity": _is_no_product("ListCost", "ListUnitPrice"),
    "ContractedCost is price times quantity": _is_no_product("ContractedCost", "ContractedUnitPrice"),
    "ContractedUnitPrice is ListUnitPrice, as nothing is negotiated": _differ(
        "ContractedUnitPrice", "ListUnitPrice"
    ),
    "ContractedCost is ListCost, as nothing is negotiated": _differ("ContractedCost", "ListCost"),
    "EffectiveCost is BilledCost, as nothing is amortised": _differ("EffectiveCost", "BilledCost"),
    "ResourceName is not ResourceId again": lambda row: (
        row.get("ResourceName") is not None and row.get("ResourceName") == row.get("ResourceId")
    ),
    "a purchase is not Usage-Based": lambda row: (
        (row.get("ChargeCategory"), row.get("ChargeFrequency")) == ("Purchase", "Usage-Based")
    ),
    "a charge period is within its billing period": _outside_its_month,
    "a billing period is a month": _no_month,
    "Tags is a JSON object": lambda row: _tags(row) is None,
    "keys of Tags are there once": lambda row: len(dict(_tags(row) or [])) < len(_tags(row) or []),
    "values of Tags are single": lambda row: any(isinstance(value, list) for _, value in _tags(row) or []),
    "tags of the provider have a prefix": lambda row: any("/" not in key for key, _ in _tags(row) or []),
}

# ------------------------------------------------------------------------------------- rules of whole files


def _more_than_one(first: str, second: str) -> FileRule:
    def broken(rows: Sequence[Row]) -> bool:
        seen: dict[Any, set[Any]] = defaultdict(set)
        for row in rows:
            if row.get(first) is not None:
                seen[row[first]].add(row.get(second))
        return any(len(found) > 1 for found in seen.values())

    return broken


FILE_RULES: Mapping[str, FileRule] = {
    f"{first} has one {second}": _more_than_one(first, second) for first, second in ONE_EACH
}

RULES = (*COLUMN_RULES, *ROW_RULES, *FILE_RULES)


def broken(columns: Sequence[str], rows: Sequence[Row], only: Iterable[str] = RULES) -> list[str]:
    """Names of the rules, of those named, that a dataset breaks: texts of a CSV, nulls for empty ones."""
    asked = frozenset(only)
    return [
        *(name for name, rule in COLUMN_RULES.items() if name in asked and rule(columns)),
        *(name for name, rule in ROW_RULES.items() if name in asked and any(map(rule, rows))),
        *(name for name, rule in FILE_RULES.items() if name in asked and rule(rows)),
    ]
