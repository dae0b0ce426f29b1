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
