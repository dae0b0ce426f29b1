"""What a step should cost: the model that sets proportions, never totals.

Version 1 is a prior: joules follow the bytes moved and the FLOPs done, with coefficients from
published measurements. A step's cost has a part that is paid once however many requests join (the
weights are read once) and a part that each request brings (its KV bytes, its FLOPs). By Shapley's
rule the first is shared equally and the second is its owner's; see ``docs/attribution.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulescope.model import CostFacts

JOULES_PER_BYTE = 0.19e-9
"""Memory traffic, static power for its duration included: 0.19 J per GB of weights on an H100
(regression over ML.ENERGY v3 batch sweeps; KV reads cost about the same per GB)."""

JOULES_PER_FLOP = 1.25e-12
"""Dense bf16 work, static power included: about 0.02 J per prefill token of an 8B model on an H100."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """Modelled joules of one step: ``fixed_joules`` once, ``own_joules`` per request (same order)."""

    fixed_joules: float
    own_joules: NDArray[np.float64]

    def shapley_joules(self) -> NDArray[np.float64]:
        """Each request's Shapley value: an equal share of the fixed part, and its own."""
        return self.own_joules + self.fixed_joules / len(self.own_joules)


@dataclass(frozen=True, slots=True)
class CostModel:
    """Coefficients that turn a model's bytes and FLOPs into joules."""

    joules_per_byte: float = JOULES_PER_BYTE
    joules_per_flop: float = JOULES_PER_FLOP

    def step_cost(
        self,
        facts: CostFacts,
        context: NDArray[np.int64],
        scheduled: NDArray[np.int64],
        sampled: NDArray[np.int64],
        duration_seconds: float,
    ) -> StepCost:
        """The modelled cost of a step from its columns (tokens).

        Attention reads the KV of all tokens up to the last scheduled one, and token *j* of a chunk
        attends to ``context + j`` tokens, on average ``context + scheduled / 2``.

        An engine that could not tell its model's cost is charged by time: one fixed part in proportion
        to the step's duration, shared equally.
        """
        if facts.weight_bytes <= 0.0:
            return StepCost(duration_seconds, np.zeros(len(context)))
        per_token = facts.flops_per_token * self.joules_per_flop
        per_pair = facts.flops_per_token_context * self.joules_per_flop
        per_kv_token = facts.kv_bytes_per_token * self.joules_per_byte
        own = context.astype(np.float64) * per_kv_token
        if len(scheduled) == scheduled.sum():  # one token each: the steady decode step
            own += context * per_pair + (per_token + per_kv_token + 0.5 * per_pair)
        else:
            own += scheduled * (per_token + per_kv_token)
            own += scheduled * (context + 0.5 * scheduled) * per_pair
        per_sample = facts.flops_per_sample * self.joules_per_flop
        if per_sample:
            own += np.minimum(sampled, scheduled) * per_sample
        return StepCost(facts.weight_bytes * self.joules_per_byte, own)
