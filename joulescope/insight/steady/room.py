"""How many requests can run at a time: the batch limit, the token budget, and the KV cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulescope.insight.steady.fullness import NEVER_FULL, Full, while_full
from joulescope.insight.steady.requests import Mean
from joulescope.insight.steady.values import LengthClass
from joulescope.minute_model import Limits

Floats = NDArray[np.float64]

_UNTOLD_SEQS = 4096
"""Where an engine does not tell its ``max_num_seqs``."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many requests run when so many are there."""

    hard: float
    """By the batch limit and the token budget."""
    soft: float
    """By the KV cache in the mean; infinite where its size is not known."""
    spread: float
    """By how much that scatters with the requests' lengths (standard deviation)."""
    when_full: Full = NEVER_FULL
    """What a full cache does to requests."""

    @property
    def most(self) -> float:
        """How many run while many wait."""
        return float(self.running(np.array([1e12]))[0])

    @property
    def deepest(self) -> int:
        """With so many in the system, one more changes nothing any more."""
        return math.ceil(min(self.hard, self.soft + 6.0 * self.spread)) + 1

    def running(self, present: Floats) -> Floats:
        """How many run of those present, in the mean; never less than a part of one."""
        bounded = np.minimum(present, self.hard)
        if math.isinf(self.soft):
            return bounded
        distance = (bounded - self.soft) / self.spread
        over = self.spread * (distance * _cumulative(distance) + _density(distance))
        return np.asarray(np.maximum(bounded - over, np.minimum(bounded, 1.0)))

    def full(self, present: Floats) -> Floats:
        """Chance that the KV cache holds requests back."""
        if math.isinf(self.soft):
            return np.zeros_like(present)
        return _cumulative((np.minimum(present, self.hard) - self.soft) / self.spread)


def room_of(
    limits: Limits, classes: Sequence[LengthClass], mean: Mean, step_tokens: float, shared_tokens: float
) -> Room:
    """The room of an engine with these limits.

    Args:
        classes: what is asked for.
        mean: of the same.
        step_tokens: that a running request computes in a step, in the mean.
        shared_tokens: of the KV cache, taken by shared prefixes.
    """
    hard = float(limits.max_num_seqs or _UNTOLD_SEQS)
    if limits.max_num_batched_tokens:
        hard = min(hard, max(limits.max_num_batched_tokens / step_tokens, 1.0))
    if limits.kv_cache_tokens is None:
        return Room(hard, math.inf, 1.0)
    space = max(limits.kv_cache_tokens - shared_tokens, mean.held)
    about = max(space / mean.held - 0.5, 1.0)
    if about - 8.0 * math.sqrt(about * mean.held_variance) / mean.held > hard:
        return Room(hard, math.inf, 1.0)
    budget = (limits.max_num_batched_tokens or math.inf) - about
    full = while_full(classes, mean, about, max(budget, 1.0))
    soft = max((space - min(full.free, 0.5 * space)) / mean.held, 1.0)
    spread = max(math.sqrt(mean.held_variance * soft) / mean.held, 0.5)
    return Room(hard, soft, spread, full)


def _density(x: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi))


def _cumulative(x: Floats) -> Floats:
    """Normal distribution function, elementwise."""
    return np.asarray([0.5 * math.erfc(-each / math.sqrt(2.0)) for each in x.tolist()])
