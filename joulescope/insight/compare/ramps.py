"""Minutes in which a load begins or ends: what they cost is of no operating point.

While an engine fills up or drains, a minute holds many batches, and its mean says little of what a steady
load of that mean would cost. ML.ENERGY leaves such time out of its steady window; so do points here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from joulescope.minute_model import EngineMinute

LEAST_RUNNING = 4.0
"""Below so many requests at a time, minutes differ by chance."""
MOST_CHANGE = 2.0
"""By this factor a neighbour is busier, or less busy, than it would be under one load."""
MOST_NET_RATIO = 0.5
"""Part of a minute's mean batch that may have come, and not gone, beside a neighbour that is less busy."""
_MINUTE = 60

Key = tuple[str, int]


def key_of(minute: EngineMinute) -> Key:
    """Engine and start of the minute that it lies in, in seconds since the epoch."""
    return minute.kind.engine, int(minute.start_wall_seconds // _MINUTE) * _MINUTE


@dataclass(frozen=True, slots=True)
class _Load:
    """Requests at a time in one minute, and how many more came than went."""

    running: float = 0.0
    net: int = 0


def ramps(minutes: Iterable[EngineMinute]) -> frozenset[Key]:
    """The minutes in which an engine filled up or drained; each engine for itself.

    Such a minute is less busy than a neighbour by far; or a neighbour is less busy by far, and more requests
    came than went, or the other way round; or it stands alone.
    """
    loads: dict[Key, _Load] = {}
    for minute in minutes:
        key, before = key_of(minute), loads.get(key_of(minute), _Load())
        span = max(minute.end_wall_seconds - minute.start_wall_seconds, 1.0)
        ended = sum(cell.requests for cell in minute.tasks)
        loads[key] = _Load(
            before.running + minute.load.running_seconds / span,
            before.net + minute.load.requests_started - ended,
        )
    return frozenset(
        (engine, start)
        for (engine, start), load in loads.items()
        if _on_ramp(
            load, [loads.get((engine, start + step), _Load()).running for step in (-_MINUTE, _MINUTE)]
        )
    )


def _on_ramp(load: _Load, neighbours: Sequence[float]) -> bool:
    if max(load.running, *neighbours) < LEAST_RUNNING:
        return False
    if max(neighbours) > MOST_CHANGE * load.running:
        return True
    less_busy = sum(load.running > MOST_CHANGE * each for each in neighbours)
    return less_busy == 2 or (less_busy == 1 and abs(load.net) > MOST_NET_RATIO * load.running)
