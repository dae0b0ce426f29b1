"""What one step costs by an engine's laws: the fitted model of time and energy, for one step at a time.

The formulas are those of :mod:`joulescope.attribution.cost`, here on plain numbers: a rehearsal
(:mod:`joulescope.insight.diagnosis.rehearsal`) asks for tens of thousands of steps one after the other, each
of which depends on the one before, and there arrays of one element cost more than they save.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from joulescope.attribution.laws import UNEVEN
from joulescope.minute_model import Laws

_MOST_CHOSEN = 0.999
_LEAST_HEADROOM = 0.1

MEMORY, COMPUTE, POWER = range(3)
"""What sets the pace of a step."""


@dataclass(slots=True)
class StepCost:
    """One step."""

    seconds: float
    joules: float
    """Of all GPUs."""
    bound: int
    """Of :data:`MEMORY`, :data:`COMPUTE`, :data:`POWER`."""


class StepPrices:
    """Prices steps by laws.

    Args:
        laws: of one kind of engine; coefficients are those of one GPU.
        gpu_count: GPUs of the replica, which share the work evenly.
    """

    def __init__(self, laws: Laws, gpu_count: int) -> None:
        facts, gpus = laws.cost, max(gpu_count, 1)
        self.laws, self.gpu_count = laws, gpus
        launch, sequence, per_byte, per_kv_byte, per_flop, *experts = laws.time_coefficients
        joules_byte, joules_kv, joules_flop, joules_sequence, active_watts = laws.energy_coefficients
        self._launch, self._sequence = launch, sequence
        self._kv_seconds = facts.kv_bytes_per_token / gpus * per_kv_byte
        self._kv_joules = facts.kv_bytes_per_token / gpus * joules_kv
        self._attention = facts.flops_per_token_context / gpus
        self._sample = facts.flops_per_sample / gpus
        self._linear = facts.flops_per_token / gpus
        self._per_flop, self._joules_flop = per_flop, joules_flop
        self._joules_sequence, self._active_watts = joules_sequence, active_watts
        chosen = min(facts.expert_choice_ratio, _MOST_CHOSEN)
        self._expert_bytes = facts.expert_weight_bytes / gpus if chosen > 0.0 else 0.0
        self._dense_bytes = facts.weight_bytes / gpus - self._expert_bytes
        self._groups = _groups(chosen, laws.unevenness) if self._expert_bytes else []
        self._per_byte, self._per_expert_byte, self._joules_byte = per_byte, sum(experts), joules_byte
        limit = laws.limit_watts if laws.limit_watts > 0.0 else math.inf
        self._headroom = max(limit - active_watts, _LEAST_HEADROOM * limit)
        self.idle_watts = laws.idle_watts * gpus
        self.wait_step, self.wait_sequence = laws.wait_seconds

    def of(self, sequences: float, tokens: float, positions: float, kv_tokens: float, heads: float) -> StepCost:
        """The cost of one step.

        Args:
            sequences: requests in it.
            tokens: computed in it.
            positions: attended to, summed over these tokens.
            kv_tokens: whose keys and values are read.
            heads: tokens that come out.
        """
        other = positions * self._attention + heads * self._sample
        linear = tokens * self._linear
        read = self._dense_bytes
        reading = read * self._per_byte
        if self._expert_bytes:
            touched = sum(-part * math.expm1(left_out * tokens) for part, left_out in self._groups)
            read += touched * self._expert_bytes
            reading += touched * self._expert_bytes * self._per_expert_byte
        common = self._launch + sequences * self._sequence + kv_tokens * self._kv_seconds + other * self._per_flop
        arithmetic = linear * self._per_flop
        drawn = read * self._joules_byte + kv_tokens * self._kv_joules + (linear + other) * self._joules_flop
        drawn += sequences * self._joules_sequence
        seconds, bound = (common + reading, MEMORY) if reading >= arithmetic else (common + arithmetic, COMPUTE)
        capped = drawn / self._headroom
        if capped > seconds:
            seconds, bound = capped, POWER
        return StepCost(seconds, (drawn + self._active_watts * seconds) * self.gpu_count, bound)


def _groups(chosen: float, unevenness: float) -> list[tuple[float, float]]:
    """Of the experts: the part in each group, and the logarithm of the chance that a token leaves one alone."""
    parts = [(1.0 - unevenness, 1.0), *((unevenness * part, times) for part, times in UNEVEN)]
    return [(part, math.log1p(-min(chosen * times, _MOST_CHOSEN))) for part, times in parts if part]
