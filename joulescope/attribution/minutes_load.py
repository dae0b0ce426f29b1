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
    lengths_ns, gauges = ends - starts, _gauges(block)
    first_ns, last_ns = int(starts[0]), int(ends[-1])
    minute = minute_of(clock.of(last_ns))
    if clock.edge_ns(first_ns + 1) < int(ends[0]):
        *before, last = clock.pieces(first_ns, int(ends[0]))
        for number, begin_ns, end_ns in before:
            _note(minute_of(number), gauges and gauges.first, np.array([end_ns - begin_ns]))
        lengths_ns[0] = last[2] - last[1]
    _note(minute, gauges, lengths_ns)


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


def _gauges(block: StepBlock) -> _Gauges | None:
    """Of each step; ``None`` where none told any.

    The hook tells them with the last step of what it sends at once. Those before it ran in the same moments:
    the queues are as at the next step that tells, and what ran is what they computed.
    """
    running = [step.running for step in block.told]
    if running.count(None) == len(running):
        return None
    waiting = [step.waiting for step in block.told]
    kv_usage = [step.kv_usage_ratio for step in block.told]
    # Of None an array of floats has NaN.
    queues, usage = np.array([running, waiting], dtype=np.float64), np.array(kv_usage, dtype=np.float64)
    silent = np.isnan(queues).any(axis=0)
    if silent.any():
        tells = np.flatnonzero(~silent)
        if tells.size:
            after = np.searchsorted(tells, np.flatnonzero(silent)).clip(max=tells.size - 1)
            queues[1, silent], usage[silent] = queues[1, tells[after]], usage[tells[after]]
            queues[0, silent] = np.diff(block.offsets)[silent]
    return _Gauges(queues, usage)


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
    minute.held[2] += usage / 1e9
    full = kv_usage >= KV_FULL_RATIO
    if full.any():
        load["kv_full_seconds"] += int(lengths_ns[full].sum())
