"""What joules cost, in money and in carbon, by the settings that say so; see docs/multipliers.md."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

MICROJOULES_PER_KWH = 3_600_000_000_000

KWH_DIGITS = 15
"""Decimals of a kWh that are kept: a microjoule is 2.8·10⁻¹³ kWh."""

PRICE_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Prices:
    """Multipliers of joules. ``None`` is not known: what would need it is not known either."""

    electricity_price: float | None = None
    """Per kWh, in ``currency``."""
    currency: str | None = None
    pue: float | None = None
    """Energy of the facility per energy of its IT equipment. Without it all is of the GPUs alone."""
    carbon_intensity: float | None = None
    """gCO2e/kWh."""

    def cost(self, microjoules: int) -> float | None:
        """In the currency."""
        if self.electricity_price is None:
            return None
        return microjoules / MICROJOULES_PER_KWH * (self.pue or 1.0) * self.electricity_price

    def carbon_grams(self, microjoules: int) -> float | None:
        if self.carbon_intensity is None:
            return None
        return microjoules / MICROJOULES_PER_KWH * (self.pue or 1.0) * self.carbon_intensity


def kwh(microjoules: int) -> float:
    return microjoules / MICROJOULES_PER_KWH


def decimal_of(figure: float, digits: int = PRICE_DIGITS) -> Decimal:
    """The decimal number that a setting was written as."""
    return round(Decimal(repr(figure)), digits)
