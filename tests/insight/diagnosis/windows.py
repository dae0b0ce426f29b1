"""Short windows of simulated services, through the real path. Each is made once in a run of the tests."""

from __future__ import annotations

from functools import lru_cache

from benchmarks.planted import Case, Plant, run
from joulescope.minute_model import EngineMinute

SECONDS = 75.0
"""From an empty engine on: both windows of a pair begin alike."""


@lru_cache(maxsize=16)
def minutes(*plants: Plant, seed: int = 1) -> tuple[EngineMinute, ...]:
    """Minutes of the calibrated service with these changes."""
    return run(Case("short", ()), plants, seed, SECONDS, account=True, warm_up=0.0).minutes
