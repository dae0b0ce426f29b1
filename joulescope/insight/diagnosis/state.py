"""What decides an engine's joules per token from outside: its drivers, as one value.

Everything else — batch, step time, power, preemptions — follows from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from joulescope.minute_model import Laws


@dataclass(frozen=True, slots=True)
class Cell:
    """Requests of about one length, by their means."""

    weight: float
    """Their part of all requests."""
    prompt_tokens: float
    cached_tokens: float
    """Of the prompt, found in a cache."""
    output_tokens: float


@dataclass(frozen=True, slots=True)
class State:
    """The drivers of one engine."""

    cells: tuple[Cell, ...]
    arrivals_per_second: float
    """In the mean over all time."""
    duty: float
    """The part of the time in which anything arrives, 0..1."""
    duty_seconds: float
    """How long a stretch with arrivals and the one without after it are, together."""
    max_num_seqs: int
    max_num_batched_tokens: int
    kv_room: float
    """Tokens that the KV cache has place for."""
    tokens_per_pass: float
    """That a decoding request gets of a step: 1, and the accepted drafts."""
    drafted_per_pass: float
    laws: Laws
    gpu_count: int
