"""Choices of the operator: who pays for what, and how long to wait."""

from __future__ import annotations

from dataclasses import dataclass, field

from joulescope.attribution.labels import LabelRules
from joulescope.units import NANOSECONDS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Policy:
    """The payers are ``request`` or the book that is named first; see ``docs/attribution.md``."""

    recompute_to: str = "overhead"
    """Who pays for recompute after a preemption; ``overhead``: the system chose the victim."""
    rejected_to: str = "request"
    """Who pays for drafted tokens that were not accepted: ``request`` or ``overhead``."""
    dummy_to: str = "overhead"
    """Who pays for empty data-parallel steps, where requests ran in the same interval."""
    idle_to: str = "idle"
    """Who pays for idle time, where requests ran in the same interval."""
    lost_to: str = "unattributed"
    """Who pays for time of which records were lost, where requests ran in the same interval."""
    max_lag_ns: int = 10 * NANOSECONDS_PER_SECOND
    """How long an interval waits for an engine that has not said what it did."""
    max_open_requests: int = 65536
    """Per engine; the oldest is closed as ``evicted`` when there are more."""
    assume_all_gpus: bool = False
    """An engine that names no GPU is taken to use all that are measured."""
    labels: LabelRules = field(default_factory=LabelRules)
    """Which adapters and tenants are told apart."""
