"""Frozen values of what stands beside the accounts: the place, the grid, servers without a hook.

No joule figure has them in it.

The rules of :mod:`joulescope.model` hold here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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

SCRAPE_FAILURES = (
    "unreachable",
    "timeout",
    "status",
    "redirect",
    "too_large",
    "malformed",
    "out_of_range",
    "unknown_server",  # none of those whose metrics are known
    "internal_error",
)
"""Why the page of a server without a hook could not be had."""


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


@dataclass(frozen=True, slots=True)
class ServerTotals:
    """What the page of a server without a hook says of its whole run; nothing of it is of a request."""

    server: str
    """URL of the page."""
    kind: str = ""
    """``vllm``, ``sglang``, ``tgi``, or empty where not known."""
    up: bool = False
    """The last look at the page brought figures, and is not long ago. All figures are ``None`` if not."""
    generated_tokens: float | None = None
    """Counted since the sidecar first saw the page, over restarts of the server."""
    prompt_tokens: float | None = None
    """Counted likewise, those found in a cache included."""
    running: int | None = None
    waiting: int | None = None
    kv_usage_ratio: float | None = None
    resets: int = 0
    """Times its counters began again."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Looks that failed, by reason."""
