"""Minutes in which a load begins or ends: what they cost is of no operating point.

While an engine fills up or drains, a minute holds many batches, and its mean says little of what a steady
load of that mean would cost. ML.ENERGY leaves such time out of its steady window; so do points here.
"""

from __future__ import annotations

from collections.abc import Iterable

from joulescope.minute_model import EngineMinute

LEAST_RUNNING = 4.0
"""Below so many requests at a time, minutes differ by chance."""
MOST_CHANGE = 2.0
"""A neighbour with more or fewer requests by this factor makes a minute part of a ramp."""
_MINUTE = 60

Key = tuple[str, int]


def key_of(minute: EngineMinute) -> Key:
    """Engine and start of the minute that it lies in, in seconds since the epoch."""
    return minute.kind.engine, int(minute.start_wall_seconds // _MINUTE) * _MINUTE


def ramps(minutes: Iterable[EngineMinute]) -> frozenset[Key]:
    """The minutes of which a neighbour has a very different load, or none; each engine for itself."""
    running: dict[Key, float] = {}
    for minute in minutes:
        span = minute.end_wall_seconds - minute.start_wall_seconds
        if span > 0:
            key = key_of(minute)
            running[key] = running.get(key, 0.0) + minute.load.running_seconds / max(span, 1.0)
    return frozenset(
        (engine, start)
        for (engine, start), load in running.items()
        if any(_differs(load, running.get((engine, start + step), 0.0)) for step in (-_MINUTE, _MINUTE))
    )


def _differs(load: float, neighbour: float) -> bool:
    high, low = max(load, neighbour), min(load, neighbour)
    return high >= LEAST_RUNNING and high > MOST_CHANGE * low
