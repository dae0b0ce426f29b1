"""The prompts of a workload as the chunks that steps compute: how many tokens, and what comes with them.

A chunk's tokens decide whether a step is bound by memory, arithmetic or power, so their distribution
matters, not only their mean. It is kept on a grid of half octaves: each chunk is laid on the two grid points
around it such that its mean stays. So a small change of the lengths makes a small change of everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulescope.insight.steady.values import LengthClass

Floats = NDArray[np.float64]

TOKENS, KV_TOKENS, POSITIONS, SAMPLES = range(4)
"""What a chunk brings to its step: tokens computed, tokens whose KV is read, positions attended to (summed
over the tokens), tokens that come out."""

FIGURES = 4
_PER_OCTAVE = 2
DEFAULT_BUDGET = 8192
"""Tokens of a step where the engine does not tell its ``max_num_batched_tokens``."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunks:
    """Chunks of one kind, by size."""

    per_request: float
    """How many a request has, in the mean."""
    chance: Floats
    """Of each size; sums to 1."""
    figures: Floats
    """Sizes × :data:`FIGURES`: the mean chunk of each size."""

    @property
    def mean(self) -> Floats:
        return np.asarray(self.chance @ self.figures)

    def pairs(self) -> Chunks:
        """Two that meet in a step, drawn independently: their sums, by size."""
        chance = np.outer(self.chance, self.chance).ravel()
        sums = (self.figures[:, None] + self.figures[None]).reshape(-1, FIGURES)
        return _on_grid(chance, sums, 0.5 * self.per_request)


def prompt_chunks(classes: Sequence[LengthClass], budget_tokens: int | None) -> Chunks:
    """What requests of these classes compute of their prompts, in chunks of at most ``budget_tokens``."""
    return _chunks(((each.weight, each.cached_tokens, each.prompt_tokens) for each in classes), budget_tokens)


def again_chunks(tokens: float, context: float, budget_tokens: int | None) -> Chunks:
    """A stretch of ``tokens`` that is computed again, after ``context`` that is not."""
    return _chunks([(1.0, context, context + tokens)], budget_tokens)


def _chunks(spans: Iterable[tuple[float, float, float]], budget_tokens: int | None) -> Chunks:
    """Chunks of stretches of tokens: weight, begin and end of each. With the last a token comes out."""
    budget = float(budget_tokens or DEFAULT_BUDGET)
    chance: list[float] = []
    rows: list[tuple[float, float, float, float]] = []
    whole = 0.0
    for weight, begin, end in spans:
        whole += weight
        start = min(
            begin, max(end - 1.0, 0.0)
        )  # of a prompt that was found whole, the last token is computed
        count = max(math.ceil((end - start) / budget), 1)
        for at in range(count):
            context = start + at * budget
            tokens = max(min(end - context, budget), 1.0)
            after = context + tokens
            samples = 1.0 if at == count - 1 else 0.0
            chance.append(weight)
            rows.append((tokens, after, tokens * (context + 0.5 * (tokens + 1.0)), samples))
    weights = np.array(chance)
    per_request = float(weights.sum()) / whole
    return _on_grid(weights / weights.sum(), np.array(rows), per_request)


def _on_grid(chance: Floats, figures: Floats, per_request: float) -> Chunks:
    """Lays chunks on the grid, each on the two sizes around it."""
    tokens = figures[:, TOKENS]
    low = np.floor(_PER_OCTAVE * np.log2(np.maximum(tokens, 1.0)) + 1e-9).astype(np.int64)
    size = np.exp2(np.arange(low.max() + 2) / _PER_OCTAVE)
    upper = np.clip((tokens - size[low]) / (size[low + 1] - size[low]), 0.0, 1.0)
    at, part = np.concatenate([low, low + 1]), np.concatenate([chance * (1.0 - upper), chance * upper])
    weights = np.bincount(at, part, len(size)).astype(np.float64)
    used = weights > 0.0
    doubled = np.concatenate([figures, figures])
    sums = [np.bincount(at, part * column, len(size)) for column in doubled.T]
    means = np.stack(sums, axis=1)[used] / weights[used, None]
    means[:, TOKENS] = size[used]
    return Chunks(per_request, weights[used] / weights.sum(), means)
