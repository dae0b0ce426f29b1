"""Bytes that a step reads and seconds that it takes, as functions of what its requests bring in sum.

Both are laws for :mod:`joulescope.attribution.shapley`: arrays of any shape, the last axis the features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEQUENCES, KV_BYTES, OTHER_FLOPS, TOKENS = range(4)
"""Features of a request in a step, and of the step as their sums."""


_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(32)
_OWEN_NODES, _OWEN_WEIGHTS = 0.5 * (_NODES + 1.0), 0.5 * _NODE_WEIGHTS


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Bytes of weights that a step reads, as a law of its features."""

    dense_bytes: float
    expert_bytes: float
    log_left_out: float
    """Logarithm of the chance that a token leaves an expert alone."""

    def of(self, tokens: Floats) -> Floats:
        return self.dense_bytes - self.expert_bytes * np.expm1(self.log_left_out * tokens)

    def value(self, sums: Floats) -> Floats:
        return self.of(sums[..., TOKENS])

    def shares(self, tokens: Floats, counts: Ints) -> Floats:
        """Shapley value of each request in the bytes of its step, given its tokens (requests).

        Exact: by Owen's formula ("Multilinear extensions of games", 1972) it is the integral over t of what
        a request adds when each other is there with chance t, and the chance that an expert is still
        untouched is then a product over the requests. ``counts`` are the requests of each step.
        """
        shares = np.repeat(self.dense_bytes / counts, counts)
        if not self.expert_bytes:
            return shares
        step = np.repeat(np.arange(len(counts)), counts)
        chunks = np.flatnonzero(tokens != 1.0)
        one = -np.expm1(self.log_left_out)
        chosen = -np.expm1(self.log_left_out * tokens[chunks])
        chunk_logs = np.log1p(-_OWEN_NODES * chosen[:, None])
        one_logs = np.log1p(-_OWEN_NODES * one)
        ones = counts - np.bincount(step[chunks], minlength=len(counts))
        untouched = ones[:, None] * one_logs
        np.add.at(untouched, step[chunks], chunk_logs)
        shares += (self.expert_bytes * one * (np.exp(untouched - one_logs) @ _OWEN_WEIGHTS))[step]
        before = np.exp(untouched[step[chunks]] - chunk_logs) @ _OWEN_WEIGHTS
        shares[chunks] = (self.dense_bytes / counts)[step[chunks]] + self.expert_bytes * chosen * before
        return shares

    def value_and_slopes(self, sums: Floats) -> tuple[Floats, Floats]:
        left_out = np.exp(self.log_left_out * sums[..., TOKENS])
        slopes = np.zeros_like(sums)
        slopes[..., TOKENS] = -self.log_left_out * self.expert_bytes * left_out
        return self.dense_bytes + self.expert_bytes * (1.0 - left_out), slopes


@dataclass(frozen=True, slots=True, eq=False)
class Duration:
    """Seconds of a step as a law of its features, by the coefficients of the moment."""

    time: Floats
    energy: Floats
    headroom_watts: float
    flops_per_token: float
    weights: Weights

    def value(self, sums: Floats) -> Floats:
        read = self.weights.value(sums)
        memory, arithmetic, capped = self._bounds(sums, read)
        return np.asarray(np.maximum(np.maximum(memory, arithmetic), capped))

    def value_and_slopes(self, sums: Floats) -> tuple[Floats, Floats]:
        read, reading = self.weights.value_and_slopes(sums)
        memory, arithmetic, capped = self._bounds(sums, read)
        uncapped = np.maximum(memory, arithmetic)
        per_token = self.flops_per_token * self.time[3]
        slopes = np.empty_like(sums)
        slopes[...] = (*self.time[1:], per_token)
        slopes[..., TOKENS] = np.where(memory >= arithmetic, reading[..., TOKENS] * self.time[2], per_token)
        by_cap = capped > uncapped
        if by_cap.any():
            joules_per_byte, joules_per_flop, sequence_joules, _ = self.energy
            drawn = reading * joules_per_byte
            drawn += (
                sequence_joules,
                joules_per_byte,
                joules_per_flop,
                self.flops_per_token * joules_per_flop,
            )
            slopes = np.where(by_cap[..., None], drawn / self.headroom_watts, slopes)
        return np.maximum(uncapped, capped), slopes

    def _bounds(self, sums: Floats, read: Floats) -> tuple[Floats, Floats, Floats]:
        """Seconds by memory, by arithmetic, and by the power cap."""
        launch, sequence, per_byte, per_flop = self.time
        joules_per_byte, joules_per_flop, sequence_joules, _ = self.energy
        linear = self.flops_per_token
        common = launch + sums @ np.array([sequence, per_byte, per_flop, 0.0])
        joules = sums @ np.array(
            [sequence_joules, joules_per_byte, joules_per_flop, linear * joules_per_flop]
        )
        joules += read * joules_per_byte
        by_arithmetic = common + sums[..., TOKENS] * (linear * per_flop)
        return common + read * per_byte, by_arithmetic, joules / self.headroom_watts
