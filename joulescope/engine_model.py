"""Frozen value types that speak of what engines have under way, and how they fare.

Part of :mod:`joulescope.model`, from which everybody imports them.
"""

from __future__ import annotations

from dataclasses import dataclass

OPEN_PHASES = ("waiting", "prefill", "decode", "ended")
"""Where an open request is: in the queue (again, if it was preempted); computing its prompt (or recomputing);
generating; ended, while the joules of its last steps are not divided yet."""


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """What a request whose account is not closed has used so far. Joules lag by half a second or so."""

    request_id: str
    external_id: str
    engine: str
    model: str
    lora: str
    kind: str
    start_ns: int
    first_token_ns: int | None
    phase: str
    """Of :data:`OPEN_PHASES`."""
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    preemptions: int
    attributed_joules: float | None
    """``None`` before anything of it was measured."""
    prefill_joules: float | None
    marginal_joules: float | None


@dataclass(frozen=True, slots=True)
class BaselineTotals:
    """What an engine's work costs against what the same work used to cost."""

    learned_ratio: float | None
    """How much of the learning is done, 0..1; 1: there is a baseline. ``None``: there is none, and none is
    learned."""
    name: str
    """Of the baseline, empty before there is one."""
    source: str
    """``pinned`` or ``learned``."""
    version: str
    """Of the software whose work it was learned from."""
    created_wall_seconds: float | None
    actual_joules: float | None
    """Measured of the steps that were compared."""
    expected_joules: float | None
    """What they should have cost."""
    error_ratio: float | None
    """Relative standard error of what is expected, for the work of late."""
