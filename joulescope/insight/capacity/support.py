"""How far a foreseen state lies from what was seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from joulescope.insight.capacity.observed import Seen, Span

SEEN, BEYOND, REFUSED = "seen", "beyond", "refused"
"""Within what was seen; beyond it, by the law alone; too far beyond to say anything."""

_MARGIN = 0.25
"""Octaves outside the span of minutes that still count as seen: within a minute the batch scatters more."""

FARTHEST = 5.0
"""Octaves of batch from what was seen beyond which nothing is said."""


@dataclass(frozen=True, slots=True)
class Support:
    """Whether data stand behind a figure."""

    verdict: str
    octaves: float
    """By how many octaves the batch lies outside the range that was seen; 0 within."""
    notes: tuple[str, ...] = ()


def octaves_outside(value: float, span: Span) -> float:
    """How many octaves ``value`` lies outside ``span``; 0 within and at its margins."""
    value = max(value, 1e-9)
    below, above = math.log2(max(span.low, 1e-9) / value), math.log2(value / max(span.high, 1e-9))
    return max(below - _MARGIN, above - _MARGIN, 0.0)


def support_of(batch: float, seen: Seen, bound: str) -> Support:
    """What stands behind a state with so many requests in a step, held back by ``bound``."""
    octaves = octaves_outside(batch, seen.batch)
    notes = []
    if octaves > 0.0:
        notes.append(f"batch {batch:.3g} was not seen (seen {seen.batch.low:.3g} to {seen.batch.high:.3g})")
    if not {"memory": seen.memory_bound, "compute": seen.compute_bound, "power": seen.power_bound}[bound]:
        notes.append(f"steps bound by {bound} were not seen")
    verdict = SEEN if not notes else BEYOND
    return Support(REFUSED if octaves > FARTHEST else verdict, octaves, tuple(notes))
