"""Time in which requests ran and waited, by the gauges that steps tell, put into minutes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.minutes_open import OpenMinute
from joulescope.attribution.minutes_time import MinuteClock
from joulescope.attribution.steps import StepBlock

KV_FULL_RATIO = 0.95
"""A KV cache so full holds requests back."""


def note_load(block: StepBlock, clock: MinuteClock, minute_of: Callable[[int], OpenMinute]) -> None:
    """Takes a block of steps, all of which end in one minute.

    What a step tells of the queues holds for its stretch of time, from the output before it, if it was waited
    for, to its own; between such stretches nothing ran. Only the first can reach back into another minute.

    Args:
        minute_of: the open minute of a number.
    """
    starts, ends = block.start_ns[-1], block.end_ns[-1]
    told = block.told
    gauges = np.array(
        [(step.running, step.waiting, step.kv_usage_ratio) for step in told], dtype=np.float64
    )  # of what is not told it makes NaN
    lengths = ends - starts
    *before, last = clock.pieces(int(starts[0]), int(ends[0]))
    for number, begin_ns, end_ns in before:
        _note(minute_of(number), gauges[:1], np.array([end_ns - begin_ns]))
    if before:
        lengths[0] = last[2] - last[1]
    _note(minute_of(clock.of(int(ends[-1]))), gauges, lengths)


def _note(minute: OpenMinute, gauges: NDArray[np.float64], lengths_ns: NDArray[np.int64]) -> None:
    unknown = np.isnan(gauges)
    if unknown.any():
        silent, no_kv = unknown[:, :2].any(axis=1), unknown[:, 2]
        minute.untold_ns += int(lengths_ns[silent].sum())
        minute.no_kv_ns += int(lengths_ns[silent | no_kv].sum())
        gauges, lengths_ns = np.nan_to_num(gauges[~silent]), lengths_ns[~silent]
    held = (lengths_ns / 1e9) @ gauges
    minute.held += held
    load = minute.load
    load["busy_seconds"] += int(lengths_ns.sum())
    if held[1]:
        load["queued_seconds"] += int(lengths_ns[gauges[:, 1] > 0.0].sum())
    full = gauges[:, 2] >= KV_FULL_RATIO
    if full.any():
        load["kv_full_seconds"] += int(lengths_ns[full].sum())
