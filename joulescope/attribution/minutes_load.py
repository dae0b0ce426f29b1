"""Time in which requests ran and waited, by the gauges that steps tell, put into minutes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.minutes_open import OpenMinute
from joulescope.attribution.minutes_time import MinuteClock
from joulescope.attribution.steps import StepBlock

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Told = tuple[float, float, float]
"""Requests that run and that wait, and usage of the KV cache: not a number where it was not told."""

KV_FULL_RATIO = 0.95
"""A KV cache so full holds requests back."""


def note_load(
    block: StepBlock, clock: MinuteClock, minute_of: Callable[[int], OpenMinute], before: Told | None = None
) -> Told | None:
    """Takes a block of steps, all of which end in one minute.

    A hook may tell its gauges once for several steps, with the last of them: those before have what it told,
    and steps after the last telling one what that told.

    What a step tells of the queues holds for its stretch of time, from the output before it, if it was waited
    for, to its own; between such stretches nothing ran. Only the first can reach back into another minute.

    Args:
        minute_of: the open minute of a number.
        before: what the engine told last before this block; ``None``: nothing yet.

    Returns:
        What it told last, now.
    """
    starts, ends = block.start_ns[-1], block.end_ns[-1]
    lengths_ns, gauges = ends - starts, _gauges(block, before)
    first_ns, last_ns = int(starts[0]), int(ends[-1])
    minute = minute_of(clock.of(last_ns))
    if clock.edge_ns(first_ns + 1) < int(ends[0]):
        *earlier, last = clock.pieces(first_ns, int(ends[0]))
        for number, begin_ns, end_ns in earlier:
            _note(minute_of(number), gauges and gauges.first, np.array([end_ns - begin_ns]))
        lengths_ns[0] = last[2] - last[1]
    _note(minute, gauges, lengths_ns)
    return None if gauges is None else gauges.last


@dataclass(frozen=True, slots=True, eq=False)
class _Gauges:
    """What steps told, not a number where they did not."""

    queues: Floats
    """Requests that ran and that waited (2 × steps)."""
    kv_usage: Floats

    @property
    def first(self) -> _Gauges:
        """Those of the first step."""
        return _Gauges(self.queues[:, :1], self.kv_usage[:1])

    @property
    def last(self) -> Told:
        """Those of the last step."""
        return float(self.queues[0, -1]), float(self.queues[1, -1]), float(self.kv_usage[-1])


def _gauges(block: StepBlock, before: Told | None) -> _Gauges | None:
    """Of each step; ``None`` where none told any, nor one before them."""
    running = [step.running for step in block.told]
    silent = running.count(None)
    if silent == len(running):
        if before is None:
            return None
        told = np.repeat(np.array(before)[:, None], len(running), axis=1)
        return _Gauges(told[:2], told[2])
    waiting = [step.waiting for step in block.told]
    kv_usage = [step.kv_usage_ratio for step in block.told]
    # Of None an array of floats has NaN.
    told = np.array([running, waiting, kv_usage], dtype=np.float64)
    if silent:
        telling = np.flatnonzero(~np.isnan(told[0]))
        following = np.searchsorted(telling, np.arange(len(running)))
        told = told[:, telling[np.minimum(following, len(telling) - 1)]]
    return _Gauges(told[:2], told[2])


def _note(minute: OpenMinute, gauges: _Gauges | None, lengths_ns: Ints) -> None:
    if gauges is None:
        untold_ns = int(lengths_ns.sum())
        minute.untold_ns += untold_ns
        minute.no_kv_ns += untold_ns
        return
    queues, kv_usage = gauges.queues, gauges.kv_usage
    held = queues @ lengths_ns
    if np.isnan(held).any():
        silent = np.isnan(queues).any(axis=0)
        minute.untold_ns += int(lengths_ns[silent].sum())
        minute.no_kv_ns += int(lengths_ns[silent].sum())
        queues, kv_usage, lengths_ns = queues[:, ~silent], kv_usage[~silent], lengths_ns[~silent]
        held = queues @ lengths_ns
    minute.tells = True
    minute.held[:2] += held / 1e9
    load = minute.load
    load["busy_seconds"] += int(lengths_ns.sum())
    if held[1]:
        load["queued_seconds"] += int(lengths_ns[queues[1] > 0.0].sum())
    usage = float(kv_usage @ lengths_ns)
    if usage != usage:
        known = ~np.isnan(kv_usage)
        minute.no_kv_ns += int(lengths_ns[~known].sum())
        kv_usage, lengths_ns = kv_usage[known], lengths_ns[known]
        usage = float(kv_usage @ lengths_ns)
    minute.tells_kv |= len(kv_usage) > 0
    minute.held[2] += usage / 1e9
    full = kv_usage >= KV_FULL_RATIO
    if full.any():
        load["kv_full_seconds"] += int(lengths_ns[full].sum())
