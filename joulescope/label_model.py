"""Labels: what may stand in one, and what an engine's figures come to by an open one (adapter, tenant)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BASE_ADAPTER = "base"
"""Label of requests that use no adapter."""

NO_TENANT = "none"
"""Label of requests of which no tenant is known."""

OTHER = "other"
"""Label of all values that got no series of their own."""

TENANT_GROUP = "tenant"
"""Group of the operator's pattern that is the tenant."""


def clean(text: str) -> str:
    """A text that any exposition and any JSON can carry: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class LabelTotals:
    """What the requests of one adapter or tenant used: the engine's own figures, told once more."""

    joules: Mapping[str, float]
    """Attributed, by phase."""
    generated_tokens: int = 0
    requests_finished: int = 0
