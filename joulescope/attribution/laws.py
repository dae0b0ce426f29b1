"""Bytes that a step reads and seconds that it takes, as functions of what its requests bring in sum.

Both are laws for :mod:`joulescope.attribution.shapley`: arrays of any shape, the last axis the features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEQUENCES, KV_BYTES, OTHER_FLOPS, TOKENS = range(4)
"""Features of a request in a step, and of the step as their sums."""

READ_BYTES, LINEAR_FLOPS, SECONDS, EVEN_BYTES, UNEVEN_BYTES = range(4, 9)
"""What else is known of a step: weights that it reads, FLOPs of the layers that read them, its duration, and
what it would read of the experts if their tokens chose them all alike, or unevenly."""

STEP_FIGURES = 9


UNEVEN = ((0.75, 1.0 / 3.0), (0.25, 3.0))
"""Uneven experts: the part of them, and how much more often than on the average each is chosen. One quarter
gets three quarters of the tokens."""

_MOST_CHOSEN = 0.999
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(32)
_OWEN_NODES, _OWEN_WEIGHTS = 0.5 * (_NODES + 1.0), 0.5 * _NODE_WEIGHTS


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Bytes of weights that a step reads, as a law of its features.

    Tokens do not choose all experts alike. How unlike is one figure, ``unevenness``: that part of the experts
    is chosen as :data:`UNEVEN` says, the others all with the same chance; a token chooses as many in both.
    """

    dense_bytes: float
    expert_bytes: float
    chosen: float
    """Chance that a token chooses an expert, all experts alike (0..1, below 1)."""
    unevenness: float = 0.0

    def groups(self) -> list[tuple[float, float]]:
        """Of the experts: the part in each group, and the logarithm of the chance that a token leaves one
        of them alone."""
        even = [(1.0 - self.unevenness, 1.0)]
        uneven = [(self.unevenness * part, times) for part, times in UNEVEN]
        return [
            (part, math.log1p(-min(self.chosen * times, _MOST_CHOSEN)))
            for part, times in even + uneven
            if part
        ]

    def of(self, tokens: Floats) -> Floats:
        """Bytes that a step of so many tokens reads."""
        touched = np.zeros(np.shape(tokens))
        if self.expert_bytes:
            for part, left_out in self.groups():
                touched -= part * np.expm1(left_out * tokens)
        return np.asarray(self.dense_bytes + self.expert_bytes * touched)

    def value(self, sums: Floats) -> Floats:
        return self.of(sums[..., TOKENS])

    def expert_shares(self, tokens: Floats, counts: Ints) -> Floats:
        """Shapley value of each request in the experts' bytes of its step, given its tokens (requests).

        Exact: by Owen's formula ("Multilinear extensions of games", 1972) it is the integral over t of what
        a request adds when each other is there with chance t, and the chance that an expert is still
        untouched is then a product over the requests. ``counts`` are the requests of each step.
        """
        shares = np.zeros(len(tokens))
        for part, left_out in self.groups():
            shares += self.expert_bytes * part * _first_touch(left_out, tokens, counts)
        return shares

    def value_and_slopes(self, sums: Floats) -> tuple[Floats, Floats]:
        slopes = np.zeros_like(sums)
        if self.expert_bytes:
            for part, left_out in self.groups():
                slopes[..., TOKENS] -= (
                    left_out * self.expert_bytes * part * np.exp(left_out * sums[..., TOKENS])
                )
        return self.value(sums), slopes


def _first_touch(left_out: float, tokens: Floats, counts: Ints) -> Floats:
    """Shapley value of each request in the part of the experts that its step touches."""
    step = np.repeat(np.arange(len(counts)), counts)
    chunks = np.flatnonzero(tokens != 1.0)
    one = -math.expm1(left_out)
    chosen = -np.expm1(left_out * tokens[chunks])
    chunk_logs = np.log1p(-_OWEN_NODES * chosen[:, None])
    one_logs = np.log1p(-_OWEN_NODES * one)
    ones = counts - np.bincount(step[chunks], minlength=len(counts))
    untouched = ones[:, None] * one_logs
    np.add.at(untouched, step[chunks], chunk_logs)
    shares: Floats = (one * (np.exp(untouched - one_logs) @ _OWEN_WEIGHTS))[step]
    shares[chunks] = chosen * (np.exp(untouched[step[chunks]] - chunk_logs) @ _OWEN_WEIGHTS)
    return shares


@dataclass(frozen=True, slots=True)
class StepTimes:
    """What the duration of a step is made of, seconds."""

    launch: float
    sequence: float
    per_byte: float
    """Of the weights that every step reads."""
    per_kv_byte: float
    per_flop: float
    per_expert_byte: float


@dataclass(frozen=True, slots=True)
class StepJoules:
    """What the joules of a step are made of."""

    per_byte: float
    """Of weights."""
    per_kv_byte: float
    per_flop: float
    sequence: float
    active_watts: float
    """Static power while a step runs."""


@dataclass(frozen=True, slots=True, eq=False)
class Duration:
    """Seconds of a step as a law of its features, by the coefficients of the moment."""

    time: StepTimes
    joules: StepJoules
    headroom_watts: float
    flops_per_token: float
    weights: Weights

    def value(self, sums: Floats) -> Floats:
        read = self.weights.value(sums)
        memory, arithmetic, capped = self.bounds(sums, read)
        return np.asarray(np.maximum(np.maximum(memory, arithmetic), capped))

    def value_and_slopes(self, sums: Floats) -> tuple[Floats, Floats]:
        read, reading = self.weights.value_and_slopes(sums)
        memory, arithmetic, capped = self.bounds(sums, read)
        uncapped = np.maximum(memory, arithmetic)
        per_token = self.flops_per_token * self.time.per_flop
        slopes = np.empty_like(sums)
        time = self.time
        slopes[...] = (time.sequence, time.per_kv_byte, time.per_flop, per_token)
        read_seconds = reading[..., TOKENS] * time.per_expert_byte
        slopes[..., TOKENS] = np.where(memory >= arithmetic, read_seconds, per_token)
        by_cap = capped > uncapped
        if by_cap.any():
            drawn = reading * self.joules.per_byte
            drawn += self._joules_each()
            slopes = np.where(by_cap[..., None], drawn / self.headroom_watts, slopes)
        return np.maximum(uncapped, capped), slopes

    def dense_bounds(self) -> tuple[Floats, Floats]:
        """Constants and prices (bounds × features) of a model without experts: all its bounds are linear."""
        time, dense_bytes, headroom_watts = self.time, self.weights.dense_bytes, self.headroom_watts
        capped_seconds = dense_bytes * self.joules.per_byte / headroom_watts
        constants = [time.launch + dense_bytes * time.per_byte, time.launch, capped_seconds]
        prices = np.zeros((3, TOKENS + 1))
        prices[:2, :TOKENS] = time.sequence, time.per_kv_byte, time.per_flop
        prices[1, TOKENS] = self.flops_per_token * time.per_flop
        prices[2] = self._joules_each() / headroom_watts
        return np.array(constants), prices

    def _joules_each(self) -> Floats:
        """Joules of a unit of each feature, beyond static power and the weights."""
        joules = self.joules
        per_token = self.flops_per_token * joules.per_flop
        return np.array([joules.sequence, joules.per_kv_byte, joules.per_flop, per_token])

    def bounds(self, sums: Floats, read: Floats) -> tuple[Floats, Floats, Floats]:
        """Seconds by memory, by arithmetic, and by the power cap: the longest is the step's.

        ``read``: bytes of weights that steps of these sums read.
        """
        time, dense_bytes = self.time, self.weights.dense_bytes
        common = time.launch + sums @ np.array([time.sequence, time.per_kv_byte, time.per_flop, 0.0])
        drawn = sums @ self._joules_each() + read * self.joules.per_byte
        by_arithmetic = common + sums[..., TOKENS] * (self.flops_per_token * time.per_flop)
        reading = dense_bytes * time.per_byte + (read - dense_bytes) * time.per_expert_byte
        return common + reading, by_arithmetic, drawn / self.headroom_watts
