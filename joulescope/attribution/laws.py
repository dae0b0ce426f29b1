"""Bytes that a step reads and seconds that it takes, as functions of what its requests bring in sum.

Both are laws for :mod:`joulescope.attribution.shapley`: arrays of any shape, the last axis the features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SEQUENCES, KV_BYTES, OTHER_FLOPS, TOKENS = range(4)
"""Features of a request in a step, and of the step as their sums."""


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
