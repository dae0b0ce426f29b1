"""Frozen values of what stands beside the accounts: the place, the grid. No joule figure has them in it.

The rules of :mod:`joulescope.model` hold here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FETCH_FAILURES = (
    "unreachable",  # no connection, or one that broke
    "timeout",
    "status",  # HTTP, of failure
    "redirect",  # to another place, or without end
    "too_large",
    "unreadable",  # the file
    "token",
    "malformed",  # neither a number nor JSON
    "missing_field",
    "not_a_number",
    "out_of_range",
    "future",  # the file was changed in it
    "internal_error",
)
"""Why a figure that others publish could not be had."""


@dataclass(frozen=True, slots=True)
class Multipliers:
    """What the operator says of the place and the grid. No joule figure has any of it in it."""

    pue_ratio: float | None = None
    """Energy of the whole facility per energy of its IT equipment, 1 or more."""
    carbon_grams_per_joule: float | None = None
    """Grams of CO2 equivalent per joule from the grid; ``None`` where not configured or too old."""
    carbon_age_seconds: float | None = None
    """Since the figure was last found at its source; ``None`` for a constant and before the first time."""
    carbon_failures: Mapping[str, int] | None = None
    """Refreshes that failed, by reason; ``None`` where nothing is refreshed."""
    price_per_joule: float | None = None
    currency: str = ""
    """Of the price: ISO 4217, three letters."""
