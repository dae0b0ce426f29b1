"""The true cost of a step: how long it takes and what it draws, as a function of who is in it.

A *law* says what a step costs from the sums of its requests' features (:data:`FEATURES`), so that the cost of
any subset of the requests can be asked for, of thousands of subsets at once. Whoever divides a step's
joules (:mod:`joulescope.simulation.shapley`) knows nothing else about it. Laws differ in form, not only in
figures: the worlds that are built from them are to be unlike the model that attribution fits.

The first law is a roofline with a power cap, the one whose figures are calibrated. A step reads the weights
once, however many requests share it; each request adds its KV bytes, its arithmetic and a little of the
runtime's work. The linear layers read weights while they compute, so the longer of the two counts;
attention follows. A step that would draw more than the cap takes longer (clocks fall)::

    dynamic(S)  = J/byte·(weights + KV) + J/FLOP·FLOPs + J/request·requests
    duration(S) = max(launch + own seconds + max(weight seconds, linear seconds),
                      dynamic(S) / (cap − active watts))
    energy(S)   = dynamic(S) + active watts · duration(S)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulescope.simulation.worlds import Model, World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEATURES = ("requests", "tokens", "positions", "kv_tokens", "heads", "samplers")
"""What each request adds to a step: itself; tokens computed; positions attended to, summed over these
tokens; tokens whose KV is read; tokens at which the output head runs; 1 if a token may come out."""


def features_of(context: Ints, scheduled: Ints, heads: Ints) -> Floats:
    """The features of a step's requests, one column each: array [len(FEATURES), requests].

    Args:
        context: tokens already computed for each request.
        scheduled: tokens that this step computes for each.
        heads: tokens at which the output head runs for each.
    """
    # Causal attention: the k-th new token sees the context and the k new tokens up to itself.
    positions = scheduled * (context + (scheduled + 1) / 2)
    return np.array(
        [np.ones(len(context)), scheduled, positions, context + scheduled, heads, np.minimum(heads, 1)]
    )


def flops_of(model: Model, features: Floats) -> Floats:
    """FLOPs of requests or of sums of them: features [len(FEATURES), ...] to [...]."""
    _, tokens, positions, _, heads, _ = features
    flops = tokens * model.flops_per_token + positions * model.flops_per_token_context
    return np.asarray(flops + heads * model.flops_per_sample)


@dataclass(frozen=True, slots=True, eq=False)
class Cost:
    """What steps cost, per GPU: arrays [GPUs, ...]."""

    seconds: Floats
    joules: Floats


class Law(ABC):
    """What steps cost in one world, in one state of it."""

    @abstractmethod
    def cost(self, sums: Floats) -> Cost:
        """The cost of steps from the sums of their requests' features.

        Args:
            sums: array [len(FEATURES), ...]. A step of zero features stands for what is paid once, as
                soon as there is any request at all.
        """

    def energy_joules(self, sums: Floats) -> Floats:
        """Energy of all GPUs together: [len(FEATURES), ...] to [...]."""
        return np.asarray(self.cost(sums).joules.sum(axis=0))

    def own_joules(self, features: Floats) -> Floats | None:
        """What each request adds, where that is the same whoever else is there; ``None`` where it is not.

        A shortcut: without it the shares come out the same, later.
        """
        return None


class Roofline(Law):
    """One GPU: the longer of memory and arithmetic, and a cap on power that stretches the step."""

    def __init__(self, world: World) -> None:
        gpu, model, runtime = world.hardware, world.model, world.runtime
        self.model, self.gpu, self.runtime = model, gpu, runtime
        self._weight_seconds = model.weight_bytes / gpu.bytes_per_second
        self._fixed_joules = model.weight_bytes * gpu.joules_per_byte
        self._headroom_watts = gpu.power_limit_watts - gpu.active_watts

    def cost(self, sums: Floats) -> Cost:
        dynamic = self._fixed_joules + self._own_dynamic_joules(sums)
        reading = np.maximum(self._weight_seconds, self._linear_seconds(sums))
        work = self.runtime.step_seconds + self._own_seconds(sums) + reading
        seconds = np.maximum(work, dynamic / self._headroom_watts)
        return Cost(seconds=seconds[None], joules=(dynamic + self.gpu.active_watts * seconds)[None])

    def own_joules(self, features: Floats) -> Floats | None:
        """Holds if for no subset the arithmetic outgrows the weight read or the power reaches the cap."""
        if self._linear_seconds(features).sum() > self._weight_seconds:
            return None
        own, seconds = self._own_dynamic_joules(features), self._own_seconds(features)
        fixed_seconds = self.runtime.step_seconds + self._weight_seconds
        excess = self._fixed_joules / self._headroom_watts - fixed_seconds
        if excess + np.maximum(own / self._headroom_watts - seconds, 0.0).sum() > 0.0:
            return None
        return np.asarray(own + self.gpu.active_watts * seconds)

    def _linear_seconds(self, sums: Floats) -> Floats:
        return np.asarray(sums[1] * (self.model.flops_per_token / self.gpu.flops_per_second))

    def _own_dynamic_joules(self, sums: Floats) -> Floats:
        requests, kv_tokens = sums[0], sums[3]
        return np.asarray(
            flops_of(self.model, sums) * self.gpu.joules_per_flop
            + kv_tokens * (self.model.kv_bytes_per_token * self.gpu.joules_per_byte)
            + requests * self.runtime.sequence_joules
        )

    def _own_seconds(self, sums: Floats) -> Floats:
        """Time that requests add in any case: attention, output head, KV reads, the runtime's work."""
        requests, _, positions, kv_tokens, heads, _ = sums
        other_flops = positions * self.model.flops_per_token_context + heads * self.model.flops_per_sample
        return np.asarray(
            other_flops / self.gpu.flops_per_second
            + kv_tokens * (self.model.kv_bytes_per_token / self.gpu.bytes_per_second)
            + requests * self.runtime.sequence_seconds
        )
