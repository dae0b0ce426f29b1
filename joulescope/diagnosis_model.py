"""Frozen values that tell what lies between the load of an engine and its joules, and why these changed.

The rules of :mod:`joulescope.model` hold here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

STEP_BOUNDS = ("memory", "compute", "power", "host")
"""What set the pace of steps; ``host``: the GPUs waited between steps, with requests running."""

STEP_READS = ("weights", "kv_cache")
STEP_PARTS = ("static", "weights", "kv_cache", "compute", "sequences")
"""What the modelled joules of steps are for."""

CAUSES = (
    "mix", "load", "batch_limit", "kv_capacity", "prefix_cache", "speculation", "host", "clocks", "layout",
    "model", "efficiency", "overhead", "unattributed", "unexplained",
)  # fmt: skip
"""Names of the causes of :mod:`joulescope.insight.diagnosis.causes`, for exporters; a test holds them to be
the same."""

NO_CAUSE = "none"
"""In place of a first cause: no part is beyond what chance explains."""

WINDOWS = ("before", "now")

OUTCOMES = (
    "made",
    "too_little",  # too few minutes or tokens, or too short a past
    "too_much",  # more minutes than one process may get
    "timeout",
    "failed",  # the process could not be started, or ended without an answer
)
"""What became of a diagnosis."""


@dataclass(frozen=True, slots=True)
class LatentTotals:
    """Sums of one engine since the sidecar met it, as its minutes have them: counters that never fall."""

    engine: str
    bound_seconds: Mapping[str, float]
    """GPU seconds, by :data:`STEP_BOUNDS`."""
    read_bytes: Mapping[str, float]
    """By :data:`STEP_READS`, of all GPUs together; so is the next."""
    flops: float
    modelled_joules: Mapping[str, float]
    """By :data:`STEP_PARTS`."""
    kv_usage_seconds: float
    """Σ usage of the KV cache (0..1) · seconds."""
    kv_known_seconds: float
    """In which that usage was told."""
    kv_full_seconds: float
    """In which the cache was full enough to hold requests back."""


@dataclass(frozen=True, slots=True)
class EngineDiagnosis:
    """Why the joules per token of one engine changed, as far as exporters tell it."""

    engine: str
    joules_per_token: Mapping[str, float]
    """By :data:`WINDOWS`."""
    start_wall_seconds: Mapping[str, float]
    end_wall_seconds: Mapping[str, float]
    parts: Mapping[str, float]
    """J/token by :data:`CAUSES`; they sum to the change."""
    errors: Mapping[str, float]
    """Standard error of each."""
    first_cause: str
    """:data:`NO_CAUSE`: none is beyond chance."""


@dataclass(frozen=True, slots=True)
class DiagnosisTotals:
    """The latest diagnosis of each engine that could be made, and how making them fared."""

    is_on: bool = False
    """Whether the sidecar makes any by itself."""
    engines: tuple[EngineDiagnosis, ...] = ()
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """Diagnoses by :data:`OUTCOMES`, asked for ones too."""
    seconds: float = 0.0
    """Time that the processes which make them took."""
