"""Short windows of simulated services, through the real path. Each is made once in a run of the tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from benchmarks.planted import Case, Plant, run
from joulescope.minute_model import EngineMinute

SECONDS = 75.0
"""From an empty engine on: both windows of a pair begin alike."""


@lru_cache(maxsize=16)
def minutes(*plants: Plant, seed: int = 1) -> tuple[EngineMinute, ...]:
    """Minutes of the calibrated service with these changes."""
    return run(Case("short", ()), plants, seed, SECONDS, account=True, warm_up=0.0).minutes


def later(window: Sequence[EngineMinute], seconds: float) -> list[EngineMinute]:
    """The same minutes, so much later."""
    return [
        replace(
            each,
            start_wall_seconds=each.start_wall_seconds + seconds,
            end_wall_seconds=each.end_wall_seconds + seconds,
        )
        for each in window
    ]
