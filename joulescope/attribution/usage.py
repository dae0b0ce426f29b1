"""What each request used of a GPU in one measured interval, summed over the steps that it was in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.cost import ROWS, SAVED, WEIGHT
from joulescope.attribution.steps import Segment, Special

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STEPS = ROWS
"""Row of the steps that a request was in, after those of :mod:`joulescope.attribution.cost`."""


@dataclass(slots=True, eq=False)
class Usage:
    """By request; only those that were in a step."""

    slots: Ints
    sums: Floats
    """``ROWS + 1`` × requests: the rows of the steps' prices, and :data:`STEPS`."""
    special: SpecialUsage | None


@dataclass(slots=True, eq=False)
class SpecialUsage:
    """What was more than plain decode, by request: modelled joules (requests of :class:`Usage`)."""

    prefill: Floats
    recomputed: Floats
    rejected: Floats


def usage_of(segments: list[Segment], capacity: int, wait_watts: float) -> Usage:
    """Sums the priced steps of one engine as far as they lie in an interval.

    Args:
        capacity: slots of the engine's requests.
        wait_watts: what the GPU draws while it waits for the next step of running requests, who pay for
            it in equal parts; what a request saves by not being there is that of the steps it had alone.
    """
    sums = np.zeros((ROWS + 1, capacity))
    present = np.zeros(capacity, dtype=np.int64)
    for segment in segments:
        slots = segment.slots
        rows = segment.block.rows[:, segment.requests]
        for which in range(ROWS):
            sums[which] += np.bincount(slots, rows[which], capacity)
        steps = np.bincount(slots, minlength=capacity)
        present += steps
        sums[STEPS] += steps
        _take_off_what_lies_outside(segment, sums)
        np.maximum(sums, 0.0, out=sums)  # where nothing lies inside, rounding may leave less than nothing
        if segment.waited_seconds.any():
            _add_waiting(segment, sums, wait_watts)
    slots = np.flatnonzero(present)
    return Usage(slots, sums[:, slots], _special_usage(segments, capacity, slots))


def _take_off_what_lies_outside(segment: Segment, sums: Floats) -> None:
    """Most steps lie in the interval as a whole; those at its ends do not."""
    for step in np.flatnonzero(segment.parts != 1.0).tolist():
        requests, outside = segment.requests_of(step), 1.0 - float(segment.parts[step])
        slots = segment.block.slots[requests]
        sums[:ROWS, slots] -= outside * segment.block.rows[:, requests]
        sums[STEPS, slots] -= outside


def _add_waiting(segment: Segment, sums: Floats, wait_watts: float) -> None:
    counts = np.diff(segment.block.offsets[segment.first : segment.last + 1])
    joules = wait_watts * segment.waited_seconds
    slots = segment.slots
    sums[WEIGHT] += np.bincount(slots, np.repeat(joules / counts, counts), sums.shape[1])
    alone = counts == 1
    if alone.any():
        at = (np.cumsum(counts) - counts)[alone]
        sums[SAVED] += np.bincount(slots[at], joules[alone], sums.shape[1])


def _special_usage(segments: list[Segment], capacity: int, slots: Ints) -> SpecialUsage | None:
    sums = np.zeros((3, capacity))
    found = False
    for segment in segments:
        special = segment.special()
        if special is None:
            continue
        found = True
        weights = segment.block.rows[WEIGHT, segment.requests][special.rows] * _parts_of(segment, special)
        of = segment.slots[special.rows]
        ratios = (special.prefill_ratio, special.recomputed_ratio, special.rejected_ratio)
        for row, ratio in enumerate(ratios):
            sums[row] += np.bincount(of, weights * ratio, capacity)
    return SpecialUsage(*sums[:, slots]) if found else None


def _parts_of(segment: Segment, special: Special) -> Floats:
    """Of the step of each special request, the part that lies in the interval."""
    begins = segment.block.offsets[segment.first : segment.last] - segment.block.offsets[segment.first]
    return np.asarray(segment.parts[np.searchsorted(begins, special.rows, side="right") - 1])
