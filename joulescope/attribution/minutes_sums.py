"""What the steps of one engine in one measured stretch come to: work, time, bounds and modelled joules.

Two rows: steps in which no prompt was computed (or computed again), and those in which one was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.cost import WEIGHT, CostModel
from joulescope.attribution.laws import (
    KV_BYTES,
    LINEAR_FLOPS,
    OTHER_FLOPS,
    READ_BYTES,
    SECONDS,
    SEQUENCES,
    STEP_FIGURES,
    TOKENS,
    Duration,
    StepJoules,
)
from joulescope.attribution.steps import Segment
from joulescope.minute_model import Steps

Floats = NDArray[np.float64]

DECODE, PREFILL = 0, 1

STEPS, WAITED, SAMPLES, MEMORY, COMPUTE, POWER = range(STEP_FIGURES, STEP_FIGURES + 6)
"""Columns after those of :mod:`joulescope.attribution.laws`: steps; seconds waited for them; tokens that came
out; of the seconds, those in which memory, arithmetic or the power limit set the pace."""

STATIC, WEIGHTS, KV, FLOPS, EACH = range(STEP_FIGURES + 6, STEP_FIGURES + 11)
"""Modelled joules by what they are for."""

COLUMNS = STEP_FIGURES + 11


def step_sums(segments: Sequence[Segment], model: CostModel, at_limit: bool) -> Floats:
    """Sums of the steps as far as they lie in the segments, on one GPU (2 × :data:`COLUMNS`).

    Args:
        model: tells, by its coefficients of the moment, what bounds each step and what joules it takes.
        at_limit: the power limit held the GPU back, as measured: then that is what set the pace.
    """
    sums = np.zeros((2, COLUMNS))
    for segment in segments:
        block, cut = segment.block, segment.steps
        figures, parts, waited = block.figures[cut], segment.parts, segment.waited_seconds
        prompts = block.computes_prompt[cut]
        weights = np.empty((2, len(parts)))
        np.multiply(parts, prompts, out=weights[PREFILL])
        np.subtract(parts, weights[PREFILL], out=weights[DECODE])
        found = weights @ figures
        sums[:, :STEP_FIGURES] += found
        sums[:, STEPS] += weights.sum(axis=1)
        sums[:, SAMPLES] += weights @ block.samples[cut]
        if waited.any():
            for_prompts = float(waited @ prompts)
            sums[PREFILL, WAITED] += for_prompts
            sums[DECODE, WAITED] += float(waited.sum()) - for_prompts
        if at_limit:
            sums[:, POWER] += found[:, SECONDS]
        elif block.memory_bound[cut].all():
            sums[:, MEMORY] += found[:, SECONDS]
        else:
            weights *= figures[:, SECONDS]
            sums[:, MEMORY : POWER + 1] += weights @ _bounds(model.duration(), figures)
    sums[:, STATIC:] = sums[:, :STEP_FIGURES] @ _prices(model.step_joules())
    return sums


def _prices(joules: StepJoules) -> Floats:
    """What each figure of a step costs, by what it is for (figures × the columns from STATIC on)."""
    prices = np.zeros((STEP_FIGURES, COLUMNS - STATIC))
    prices[SECONDS, 0] = joules.active_watts
    prices[READ_BYTES, WEIGHTS - STATIC] = joules.per_byte
    prices[KV_BYTES, KV - STATIC] = joules.per_kv_byte
    prices[LINEAR_FLOPS, FLOPS - STATIC] = prices[OTHER_FLOPS, FLOPS - STATIC] = joules.per_flop
    prices[SEQUENCES, EACH - STATIC] = joules.sequence
    return prices


def _bounds(law: Duration, figures: Floats) -> Floats:
    """1 for what sets the pace of each step, 0 for the others (steps × memory, arithmetic, power)."""
    memory, arithmetic, capped = law.bounds(figures[:, : TOKENS + 1], figures[:, READ_BYTES])
    found = np.empty((len(figures), 3))
    found[:, 2] = by_power = capped > np.maximum(memory, arithmetic)
    found[:, 0] = by_memory = (memory >= arithmetic) & ~by_power
    found[:, 1] = ~(by_memory | by_power)
    return found


def modelled_joules(segments: Sequence[Segment]) -> tuple[float, float]:
    """Modelled joules of steps as far as they lie in the segments: of those that compute prompts, of all."""
    prompts = total = 0.0
    for segment in segments:
        rows = segment.block.rows[WEIGHT, segment.requests]
        offsets = segment.block.offsets[segment.first : segment.last]
        joules = np.add.reduceat(rows, offsets - offsets[0]) * segment.parts
        total += float(joules.sum())
        prompts += float(joules @ segment.block.computes_prompt[segment.steps])
    return prompts, total


def clipped(segment: Segment, start_ns: int, end_ns: int) -> Segment | None:
    """The part of a segment that lies in a stretch; ``None`` where nothing does."""
    starts = segment.block.start_ns[segment.stage, segment.steps]
    overlap_ns = np.minimum(segment.ends_ns, end_ns) - np.maximum(starts, start_ns)
    inside = np.flatnonzero(overlap_ns > 0)
    if not len(inside):
        return None
    first, last = int(inside[0]), int(inside[-1]) + 1
    part = Segment(
        segment.block,
        segment.first + first,
        segment.first + last,
        segment.stage,
        np.maximum(overlap_ns[first:last], 0),
        (start_ns, end_ns),
    )
    if not segment.waited_seconds.any():  # engines took turns: what looks like waiting was another's step
        part.waited_seconds = np.zeros_like(part.parts)
    return part


def as_steps(row: Floats, gpu_count: int) -> Steps:
    """One row as a value. All GPUs have the same steps: these count once, and the GPUs' work is summed."""
    own = row.tolist()
    told = (row / max(gpu_count, 1)).tolist()
    return Steps(
        steps=told[STEPS],
        seconds=own[SECONDS],
        waited_seconds=own[WAITED],
        sequences=told[SEQUENCES],
        tokens=told[TOKENS],
        samples=told[SAMPLES],
        weight_bytes=own[READ_BYTES],
        kv_bytes=own[KV_BYTES],
        flops=own[LINEAR_FLOPS] + own[OTHER_FLOPS],
        memory_bound_seconds=own[MEMORY],
        compute_bound_seconds=own[COMPUTE],
        power_bound_seconds=own[POWER],
        modelled_joules=sum(own[STATIC:]),
        static_joules=own[STATIC],
        weight_joules=own[WEIGHTS],
        kv_joules=own[KV],
        flop_joules=own[FLOPS],
        sequence_joules=own[EACH],
    )
