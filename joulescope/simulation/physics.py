"""The true cost of a step: how long it takes and what it draws, as a function of who is in it.

A step reads the weights once, however many requests share it; each request adds its KV bytes, its
arithmetic and a little of the runtime's work. The linear layers read weights while they compute, so the
longer of the two counts; attention follows. Power is limited: a step that would draw more than the cap
takes longer (clocks fall)::

    dynamic(S)  = J/byte·weights + Σ own joules
    duration(S) = max(launch + Σ own seconds + max(weight seconds, Σ linear seconds),
                      dynamic(S) / (cap − active watts))
    energy(S)   = dynamic(S) + active watts · duration(S)

That is the roofline with a power cap. Its shares are in :mod:`joulescope.simulation.truth`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from joulescope.simulation.worlds import World

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class StepTerms:
    """A step's cost as a set function: what is paid once and, for each request, what it brings."""

    fixed_joules: float
    """Paid once: reading the weights."""
    own_joules: Floats
    """Dynamic energy that each request brings."""
    launch_seconds: float
    weight_seconds: float
    """Time to read the weights; arithmetic of the linear layers hides behind it, or it behind them."""
    linear_seconds: Floats
    """Time of each request's linear layers."""
    own_seconds: Floats
    """Time that each request adds in any case: KV reads, attention, sampling."""
    active_watts: float
    headroom_watts: float
    """Cap minus static power: the most that dynamic energy may draw."""

    def duration_seconds(self, dynamic_joules: Floats, linear_seconds: Floats, own_seconds: Floats) -> Floats:
        """Durations of steps whose requests sum to the given figures."""
        work = self.launch_seconds + own_seconds + np.maximum(self.weight_seconds, linear_seconds)
        return np.maximum(work, dynamic_joules / self.headroom_watts)

    def energy_joules(self, own_joules: Floats, linear_seconds: Floats, own_seconds: Floats) -> Floats:
        """Energies of (non-empty) steps whose requests sum to the given figures."""
        dynamic = self.fixed_joules + own_joules
        return dynamic + self.active_watts * self.duration_seconds(dynamic, linear_seconds, own_seconds)


@dataclass(frozen=True, slots=True)
class StepCost:
    """What a step takes in all."""

    duration_seconds: float
    energy_joules: float

    @property
    def power_watts(self) -> float:
        return self.energy_joules / self.duration_seconds


class StepPhysics:
    """Costs of steps in one world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def terms(self, context: Ints, scheduled: Ints, sampled: Ints) -> StepTerms:
        """The cost of a step as a set function of its requests.

        Args:
            context: tokens already computed for each request.
            scheduled: tokens that this step computes for each.
            sampled: 1 where the output head runs for the request, else 0.
        """
        gpu, model, runtime = self.world.hardware, self.world.model, self.world.runtime
        linear_flops = scheduled * model.flops_per_token
        # Causal attention: the k-th new token sees the context and the k new tokens up to itself.
        positions = scheduled * (context + (scheduled + 1) / 2)
        other_flops = positions * model.flops_per_token_context + sampled * model.flops_per_sample
        kv_bytes = (context + scheduled) * model.kv_bytes_per_token
        own_joules = (
            (linear_flops + other_flops) * gpu.joules_per_flop
            + kv_bytes * gpu.joules_per_byte
            + runtime.sequence_joules
        )
        own_seconds = (
            other_flops / gpu.flops_per_second + kv_bytes / gpu.bytes_per_second + runtime.sequence_seconds
        )
        return StepTerms(
            fixed_joules=model.weight_bytes * gpu.joules_per_byte,
            own_joules=own_joules,
            launch_seconds=runtime.step_seconds,
            weight_seconds=model.weight_bytes / gpu.bytes_per_second,
            linear_seconds=np.asarray(linear_flops / gpu.flops_per_second, dtype=np.float64),
            own_seconds=own_seconds,
            active_watts=gpu.active_watts,
            headroom_watts=gpu.power_limit_watts - gpu.active_watts,
        )

    def cost(self, terms: StepTerms) -> StepCost:
        """Duration and energy of the step with all its requests in it."""
        own, linear, seconds = terms.own_joules.sum(), terms.linear_seconds.sum(), terms.own_seconds.sum()
        duration = terms.duration_seconds(terms.fixed_joules + own, linear, seconds)
        return StepCost(
            duration_seconds=float(duration),
            energy_joules=float(terms.energy_joules(own, linear, seconds)),
        )
