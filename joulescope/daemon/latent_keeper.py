"""What lies between load and joules, as counters: the sums of minutes of engines, without an end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from joulescope.diagnosis_model import STEP_BOUNDS, STEP_PARTS, STEP_READS, LatentTotals
from joulescope.minute_model import EngineMinute
from joulescope.units import NANOSECONDS_PER_SECOND

LOOK_NS = 5 * NANOSECONDS_PER_SECOND
"""How often minutes that are not over are looked at: a scrape sees figures at most this much older."""

_OF_STEPS = (
    "memory_bound_seconds",
    "compute_bound_seconds",
    "power_bound_seconds",
    "waited_seconds",
    "weight_bytes",
    "kv_bytes",
    "flops",
    "static_joules",
    "weight_joules",
    "kv_joules",
    "flop_joules",
    "sequence_joules",
)
_OF_LOAD = ("kv_usage_seconds", "kv_known_seconds", "kv_full_seconds")

OpenMinutes = Callable[[int], Sequence[EngineMinute]]
"""What minutes of engines that are not over hold so far, by the instant that is now."""


class LatentKeeper:
    """Adds up minutes by engine: those that are over once, and those that are not as they stand.

    A sink of minutes. It belongs to the accounting thread.
    """

    def __init__(self) -> None:
        self._over: dict[str, NDArray[np.float64]] = {}
        self._told: dict[str, NDArray[np.float64]] = {}
        self._looked_ns: int | None = None
        self._totals: tuple[LatentTotals, ...] = ()

    def take(self, minutes: Sequence[EngineMinute]) -> None:
        """Takes minutes that are over."""
        _add(self._over, minutes)
        self._looked_ns = None

    def look(self, now_ns: int, open_minutes: OpenMinutes) -> tuple[LatentTotals, ...]:
        """The sums, some seconds old at most."""
        if self._looked_ns is None or now_ns - self._looked_ns >= LOOK_NS:
            self._looked_ns = now_ns
            sums = {engine: row.copy() for engine, row in self._over.items()}
            _add(sums, open_minutes(now_ns))
            for engine, row in sums.items():
                # What was told of a minute may be taken back, as when records turn out to be lost. A counter
                # that falls is a restart to whoever reads it, and all of it would count again.
                told = self._told.setdefault(engine, row)
                self._told[engine] = np.maximum(told, row)
            self._totals = tuple(_totals(engine, row) for engine, row in self._told.items())
        return self._totals


def _add(sums: dict[str, NDArray[np.float64]], minutes: Sequence[EngineMinute]) -> None:
    for minute in minutes:
        engine = minute.kind.engine
        if engine:
            sums[engine] = sums.get(engine, 0.0) + _row(minute)


def _row(minute: EngineMinute) -> NDArray[np.float64]:
    steps = (minute.decode_steps, minute.prefill_steps)
    return np.array(
        [sum(getattr(each, name) for each in steps) for name in _OF_STEPS]
        + [getattr(minute.load, name) for name in _OF_LOAD]
    )


def _totals(engine: str, row: NDArray[np.float64]) -> LatentTotals:
    values = iter(row.tolist())
    return LatentTotals(
        engine=engine,
        bound_seconds={name: next(values) for name in STEP_BOUNDS},
        read_bytes={name: next(values) for name in STEP_READS},
        flops=next(values),
        modelled_joules={name: next(values) for name in STEP_PARTS},
        kv_usage_seconds=next(values),
        kv_known_seconds=next(values),
        kv_full_seconds=next(values),
    )
