"""What a power reading averages, told from how it answers steps of load of known instants.

A reading that is the mean of the time W before its renewal shows, at a renewal t after the load stepped up,
the part ``t / W`` of the step; W follows from many steps that lie anywhere between two renewals. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Burst = tuple[int, int]
"""When a load began and ended, nanoseconds of CLOCK_MONOTONIC."""

WINDOWS_MS = (1.0, *np.arange(2.5, 152.5, 2.5).tolist(), *np.arange(160.0, 1510.0, 10.0).tolist())
DELAYS_MS = tuple(np.arange(0.0, 202.5, 2.5).tolist())
"""What is tried. A delay holds what the reading is late beside its window: the GPU's own ramp included."""

LEAST_STEP_WATTS = 10.0
LEAST_POINTS = 12

_LATE_RATIO = 0.25
"""The last quarter of a burst or a pause shows what it comes to in the end."""


@dataclass(frozen=True)
class Step:
    """One edge of a load: what a reading came from and goes to."""

    at_ns: int
    until_ns: int
    from_watts: float
    to_watts: float


def steps_of(times_ns: NDArray[Any], watts: NDArray[Any], bursts: Sequence[Burst]) -> list[Step]:
    """The edges of bursts over which the reading changed enough to tell anything."""
    edges = [edge for burst in bursts for edge in burst]
    found = []
    for before_ns, at_ns, until_ns in zip(edges, edges[1:], edges[2:], strict=False):
        from_watts = _settled(times_ns, watts, before_ns, at_ns)
        to_watts = _settled(times_ns, watts, at_ns, until_ns)
        if from_watts is not None and to_watts is not None and abs(to_watts - from_watts) >= LEAST_STEP_WATTS:
            found.append(Step(at_ns, until_ns, from_watts, to_watts))
    return found


def _settled(times_ns: NDArray[Any], watts: NDArray[Any], begin_ns: int, end_ns: int) -> float | None:
    late = (times_ns > end_ns - (end_ns - begin_ns) * _LATE_RATIO) & (times_ns <= end_ns)
    return float(np.median(watts[late])) if late.any() else None


def response(
    times_ns: NDArray[Any], watts: NDArray[Any], steps: Sequence[Step]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Milliseconds since its step, and part of it shown, of every renewal of the reading that was seen.

    A renewal is a poll that shows another figure than the one before; it is taken to have come half a poll
    earlier.
    """
    changed = np.flatnonzero(np.diff(watts) != 0) + 1
    renewed_ns = (times_ns[changed] + times_ns[changed - 1]) / 2
    since, part = [np.empty(0)], [np.empty(0)]
    for step in steps:
        inside = (renewed_ns > step.at_ns) & (renewed_ns <= step.until_ns)
        since.append((renewed_ns[inside] - step.at_ns) / 1e6)
        part.append((watts[changed[inside]] - step.from_watts) / (step.to_watts - step.from_watts))
    return np.concatenate(since), np.concatenate(part)


def window_of(
    times_ns: Sequence[int], watts: Sequence[float], bursts: Sequence[Burst]
) -> dict[str, float] | None:
    """The window and delay that explain a reading best; ``None`` where too few steps were seen.

    ``error_ratio`` is the root of the mean square of what is left, as a part of the step: above some tenths
    the reading is no plain mean of a window.
    """
    times, values = np.asarray(times_ns), np.asarray(watts)
    steps = steps_of(times, values, bursts)
    since_ms, part = response(times, values, steps)
    if len(since_ms) < LEAST_POINTS:
        return None
    windows, delays = np.meshgrid(WINDOWS_MS, DELAYS_MS, indexing="ij")
    shown = (since_ms - delays[..., None]) / windows[..., None]
    errors = np.sqrt(((np.clip(shown, 0.0, 1.0) - part) ** 2).mean(axis=-1))
    place = np.unravel_index(int(errors.argmin()), errors.shape)
    return {
        "window_ms": float(windows[place]),
        "delay_ms": float(delays[place]),
        "error_ratio": float(errors[place]),
        "steps": float(len(steps)),
        "renewals": float(len(since_ms)),
    }
