"""For each rule of FOCUS one way to break it: what is done to columns, or to one row, of a sound file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.insight.queries import focus_rules as rules


@dataclass(frozen=True)
class Spoilt:
    """``without`` and ``more``: columns that are left out, and that come on top. ``put``: into one row."""

    put: Mapping[str, str | None] = field(default_factory=dict)
    without: str = ""
    more: tuple[str, ...] = ()


def put(**texts: str | None) -> Spoilt:
    return Spoilt(texts)


_MALFORMED_UNITS = {"ConsumedUnit": "kWh", "PricingUnit": "Kilowatt-hours", "x_OutputUnit": "token"}

SPOILT: Mapping[str, Spoilt] = {
    # of columns
    **{
        f"{name} is there": Spoilt(without=name)
        for name in (*rules.MANDATORY, *rules.RECOMMENDED, *rules.CONDITIONAL)
    },
    **{f"{name} is gone": Spoilt(more=(name,)) for name in rules.REMOVED},
    "FOCUS columns are in Pascal case": Spoilt(more=("Billed_Cost",)),
    "own columns begin with x_, and go on in Pascal case": Spoilt(more=("x_energy",)),
    "names of columns have 50 characters at most": Spoilt(more=("x_" + "Y" * 49,)),
    "a column is there once": Spoilt(more=("Tags",)),
    # of rows
    **{f"{name} is not null": Spoilt({name: None}) for name in rules.NEVER_NULL},
    **{f"{name} of usage is not null": Spoilt({name: None}) for name in rules.NEVER_NULL_FOR_USAGE},
    **{f"{first} and {second} are null together": Spoilt({second: None}) for first, second in rules.TOGETHER},
    **{f"{name} is of usage": put(ChargeCategory="Credit") for name in rules.FOR_USAGE_ALONE},
    **{
        f"{name} has a SkuPriceId": put(SkuPriceId=None, SkuPriceDetails="{}")
        for name in rules.NEEDS_A_SKU_PRICE
    },
    **{f"{name} is allowed": Spoilt({name: "Energy"}) for name in rules.ALLOWED},
    **{
        f"{name} is a plain number": Spoilt({name: text})
        for name, text in zip(
            (*rules.NUMBERS, *rules.OWN_NUMBERS),
            3 * ("1e-7", "+1", "1,000", "3 EUR", "-", ".5"),
            strict=False,
        )
    },
    **{
        f"{name} is an instant in UTC": Spoilt({name: text})
        for name, text in zip(
            rules.INSTANTS,
            ("2026-03-01 00:00:00", "2026-02-01T01:00:00+01:00", "2026-02-01T00:00Z", "2026-02-01"),
            strict=True,
        )
    },
    **{f"{name} is a unit": Spoilt({name: text}) for name, text in _MALFORMED_UNITS.items()},
    **{f"{name} is not blank": Spoilt({name: " "}) for name in rules.NAMES},
    **{f"{name} is not negative": Spoilt({name: "-0.1"}) for name in rules.PRICES},
    "BillingCurrency is a code of ISO 4217": put(BillingCurrency="Euro"),
    "ListCost is price times quantity": put(ListCost="1.5"),
    "ContractedCost is price times quantity": put(ContractedCost="1.5"),
    "ContractedUnitPrice is ListUnitPrice, as nothing is negotiated": put(ContractedUnitPrice="0.1"),
    "ContractedCost is ListCost, as nothing is negotiated": put(ContractedCost="0.1"),
    "EffectiveCost is BilledCost, as nothing is amortised": put(EffectiveCost="0"),
    "ResourceName is not ResourceId again": put(ResourceId="engine-0", ResourceName="engine-0"),
    "a purchase is not Usage-Based": put(ChargeCategory="Purchase"),
    "a charge period is within its billing period": put(ChargePeriodEnd="2027-03-01T00:00:00Z"),
    "a billing period is a month": put(BillingPeriodEnd="2027-03-01T00:00:00Z"),
    "Tags is a JSON object": put(Tags='["chat"]'),
    "keys of Tags are there once": put(Tags='{"joulescope/task": "chat", "joulescope/task": "code"}'),
    "values of Tags are single": put(Tags='{"joulescope/task": ["chat", "code"]}'),
    "tags of the provider have a prefix": put(Tags='{"task": "chat"}'),
    # of whole files
    "SkuPriceId has one SkuId": put(SkuId="other"),
    "SkuId has one SkuMeter": put(SkuMeter="other"),
    "SkuPriceId has one SkuPriceDetails": put(SkuPriceDetails='{"x_Meter": "NVML"}'),
    "BillingAccountId has one BillingCurrency": put(BillingCurrency="USD"),
    "BillingAccountId has one BillingAccountName": put(BillingAccountName="other"),
    "SubAccountId has one SubAccountName": put(SubAccountName="other"),
    "ResourceId has one ResourceType": put(ResourceType="other"),
}
"""By the name of the rule."""


def spoil(
    how: Spoilt, columns: list[str], rows: list[dict[str, str | None]], at: int
) -> tuple[list[str], list[dict[str, str | None]]]:
    """Columns and rows of a file of which one thing is wrong."""
    changed = [*rows[:at], rows[at] | how.put, *rows[at + 1 :]]
    return [name for name in (*columns, *how.more) if name != how.without], changed
