"""The true cost of a step: how long it takes and what it draws, as a function of who is in it.

A *law* says what a step costs from the sums of its requests' features (:data:`FEATURES`), so that the cost of
any subset of the requests can be asked for, of thousands of subsets at once. Whoever divides a step's
joules (:mod:`joulescope.simulation.shapley`) knows nothing else about it. Laws differ in form, not only in
figures: the worlds that are built from them are to be unlike the model that attribution fits.

The law of one GPU, in the form that is calibrated. A step reads the weights once, however many requests share
it; each request adds its KV bytes, its arithmetic and a little of the runtime's work. The linear layers
read weights while they compute, so the longer of the two counts; attention follows. A step that would draw
more than the cap takes longer::

    dynamic(S)  = J/byte·(weights + KV) + J/FLOP·FLOPs + J/request·requests
    duration(S) = max(launch + own seconds + max(weight seconds, linear seconds),
                      dynamic(S) / (cap − active watts))
    energy(S)   = dynamic(S) + active watts · duration(S)

The parts of a world (:mod:`joulescope.simulation.parts`) replace pieces of it: weights that depend on the
tokens, arithmetic that is padded, a drafter, a soft maximum, clocks that fall at the cap. Several GPUs
are in :mod:`joulescope.simulation.group`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from joulescope.simulation.parts import Drafter, Dvfs, Hardware, Model, Runtime

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEATURES = ("requests", "tokens", "positions", "kv_tokens", "heads", "samplers")
"""What each request adds to a step: itself; tokens computed; positions attended to, summed over these
tokens; tokens whose KV is read; tokens at which the output head runs; 1 if a token may come out."""

_NEWTON_STEPS = 5
"""Of the search for a clock; the power that is reached is then within a milliwatt of the limit."""


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


def sums_of(context: Sequence[int], scheduled: Sequence[int], heads: Sequence[int]) -> Floats:
    """The sums of :func:`features_of` over a step's requests, [len(FEATURES)]: the same to the last digit,
    for all are multiples of a half, and sooner than by arrays of a few requests each."""
    count, tokens, before = len(context), sum(scheduled), sum(context)
    if tokens == count:  # one token each
        positions: float = before + count
    else:
        positions = sum(new * (old + (new + 1) / 2) for old, new in zip(context, scheduled, strict=True))
    sums = (count, tokens, positions, before + tokens, sum(heads), count - heads.count(0))
    return np.array(sums, dtype=np.float64)


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

    def warmed(self, leak_watts: Sequence[float]) -> Law:
        """The same with so much more static power on each GPU; a law that knows no leakage stays as it is."""
        return self

    def energy_joules(self, sums: Floats) -> Floats:
        """Energy of all GPUs together: [len(FEATURES), ...] to [...]."""
        return np.asarray(self.cost(sums).joules.sum(axis=0))

    def own_joules(self, features: Floats) -> Floats | None:
        """What each request adds, where that is the same whoever else is there; ``None`` where it is not.

        A shortcut: without it the shares come out the same, later.
        """
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """What steps ask of one GPU at full clock: arrays [...] that go together, or numbers of one step."""

    fixed_seconds: Floats
    """Launches, and what the runtime does for each sequence: takes its time whatever the clock."""
    weight_seconds: Floats | float
    kv_seconds: Floats
    linear_seconds: Floats
    other_seconds: Floats
    """Arithmetic that reads no weights: attention, and the output head."""
    memory_joules: Floats
    core_joules: Floats
    """Of arithmetic and small kernels: goes with the square of the voltage."""

    def seconds(self, exponent: float, clock: Floats | float = 1.0) -> Floats:
        """Time of the steps at a part of the full clock."""
        linear, other = self.linear_seconds / clock, self.other_seconds / clock
        if math.isinf(exponent):
            return self.fixed_seconds + self.kv_seconds + other + np.maximum(self.weight_seconds, linear)
        memory, arithmetic = self.weight_seconds + self.kv_seconds, linear + other
        return self.fixed_seconds + (memory**exponent + arithmetic**exponent) ** (1.0 / exponent)

    def where(self, chosen: NDArray[np.bool_]) -> Load:
        """The load of those steps only, as arrays [chosen]."""
        columns = (np.broadcast_to(getattr(self, each.name), chosen.shape) for each in fields(self))
        return Load(*(column[chosen] for column in columns))


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a model that one GPU holds and computes, 0..1 each."""

    layers: float = 1.0
    heads: float = 1.0
    sequences: float = 1.0
    """Of the energy that the runtime spends on each sequence."""
    stages: float = 1.0
    """Of the time of launches and of the work for each sequence."""


@dataclass(frozen=True, slots=True)
class GpuLaw(Law):
    """What steps cost on one GPU."""

    gpu: Hardware
    model: Model
    runtime: Runtime
    drafter: Drafter | None = None
    share: Share = Share()
    leak_watts: float = 0.0

    def cost(self, sums: Floats) -> Cost:
        load, static = self.load(sums), self.gpu.active_watts + self.leak_watts
        exponent, limit = self.gpu.overlap_exponent, self.gpu.power_limit_watts
        if self.gpu.dvfs is not None:
            seconds, joules = _at_falling_clocks(load, self.gpu, static, self.gpu.dvfs)
        else:
            dynamic = load.memory_joules + load.core_joules
            seconds = np.maximum(load.seconds(exponent), dynamic / (limit - static))
            joules = dynamic + static * seconds
        return Cost(seconds=seconds[None], joules=joules[None])

    def warmed(self, leak_watts: Sequence[float]) -> GpuLaw:
        return replace(self, leak_watts=leak_watts[0])

    def load(self, sums: Floats) -> Load:
        gpu, model, share = self.gpu, self.model, self.share
        requests, tokens, positions, kv_tokens, heads, samplers = sums
        padding = self._padding(tokens)
        work = (requests + padding) * share.stages
        weight_bytes = self._weight_bytes(tokens) * share.layers
        kv_bytes = kv_tokens * (model.kv_bytes_per_token * share.layers)
        linear = (tokens + padding) * (model.flops_per_token * share.layers)
        other = positions * (model.flops_per_token_context * share.layers)
        other = other + heads * (model.flops_per_sample * share.heads)
        fixed_seconds = self.runtime.step_seconds * share.stages + work * self.runtime.sequence_seconds
        if self.drafter is not None:
            passes = self.drafter.tokens * np.minimum(samplers, 1.0)
            fixed_seconds = fixed_seconds + passes * self.drafter.launch_seconds
            weight_bytes = weight_bytes + passes * self.drafter.weight_bytes
            kv_bytes = kv_bytes + self.drafter.tokens * kv_tokens * self.drafter.kv_bytes_per_token
            drafted = tokens + self.drafter.tokens * samplers
            linear = linear + drafted * self.drafter.flops_per_token
        return Load(
            fixed_seconds=fixed_seconds,
            weight_seconds=weight_bytes / gpu.bytes_per_second,
            kv_seconds=kv_bytes / gpu.bytes_per_second,
            linear_seconds=linear / gpu.flops_per_second,
            other_seconds=other / gpu.flops_per_second,
            memory_joules=(weight_bytes + kv_bytes) * gpu.joules_per_byte,
            core_joules=(linear + other) * gpu.joules_per_flop
            + (requests + padding) * (self.runtime.sequence_joules * share.sequences),
        )

    def own_joules(self, features: Floats) -> Floats | None:
        """Holds for the plain form, if for no subset the arithmetic outgrows the weight read or the power
        reaches the cap."""
        plain = math.isinf(self.gpu.overlap_exponent) and self.gpu.dvfs is None and self.drafter is None
        if not plain or self.model.experts is not None or self.runtime.graph_sizes:
            return None
        load, once = self.load(features), self.load(np.zeros(len(features)))
        if load.linear_seconds.sum() > once.weight_seconds:
            return None
        static = self.gpu.active_watts + self.leak_watts
        headroom_watts = self.gpu.power_limit_watts - static
        own = load.memory_joules - once.memory_joules + load.core_joules
        seconds = load.fixed_seconds - once.fixed_seconds + load.kv_seconds + load.other_seconds
        excess = once.memory_joules / headroom_watts - once.fixed_seconds - once.weight_seconds
        if excess + np.maximum(own / headroom_watts - seconds, 0.0).sum() > 0.0:
            return None
        return np.asarray(own + static * seconds)

    def _padding(self, tokens: Floats) -> Floats | float:
        """Tokens that are computed for nobody, because only steps of certain sizes were captured."""
        if not self.runtime.graph_sizes:
            return 0.0
        sizes = np.array(self.runtime.graph_sizes, dtype=np.float64)
        next_size = sizes[np.minimum(np.searchsorted(sizes, tokens), len(sizes) - 1)]
        # Nothing is launched for nobody: a step of zero tokens stands for what is paid once.
        return np.where(tokens > 0, np.maximum(next_size - tokens, 0.0), 0.0)

    def _weight_bytes(self, tokens: Floats) -> Floats | float:
        """Weights that are read: experts that no token chose are left alone."""
        experts = self.model.experts
        if experts is None:
            return self.model.weight_bytes
        untouched = sum(
            part * np.exp(tokens * math.log1p(-min(experts.choice_ratio * chance, 0.999)))
            for part, chance in experts.popularity
        )
        return self.model.weight_bytes - experts.weight_bytes * np.asarray(untouched)


def _at_falling_clocks(load: Load, gpu: Hardware, static_watts: float, dvfs: Dvfs) -> tuple[Floats, Floats]:
    """Seconds and joules of steps whose clock falls until they draw no more than the limit."""
    limit_watts = gpu.power_limit_watts
    seconds, joules = _at_clock(load, gpu.overlap_exponent, static_watts, dvfs, 1.0)
    over = np.asarray(joules > limit_watts * seconds)
    if over.any():
        some = load.where(over)
        clock = _clock_of(some, static_watts, limit_watts, dvfs)
        seconds, joules = np.array(seconds), np.array(joules)
        seconds[over], joules[over] = _at_clock(some, gpu.overlap_exponent, static_watts, dvfs, clock)
    return seconds, joules


def _at_clock(
    load: Load, exponent: float, static_watts: float, dvfs: Dvfs, clock: Floats | float
) -> tuple[Floats, Floats]:
    """Seconds and joules of steps at a part of the full clock."""
    seconds = load.seconds(exponent, clock)
    voltage = dvfs.voltage_floor + (1.0 - dvfs.voltage_floor) * clock
    return seconds, load.memory_joules + (load.core_joules + static_watts * seconds) * voltage**2


def _clock_of(load: Load, static_watts: float, limit_watts: float, dvfs: Dvfs) -> Floats:
    """The part of the full clock, 1 at most, at which steps draw just the limit, by Newton's method.

    With the weight read or the linear layers as the longer, steps take ``A + B/f`` at the clock ``f``, and
    what they draw beyond the limit, times ``f``, is a convex cubic of ``f``: from 1 Newton goes straight to
    its root. Which is the longer there is told by the excess where both are as long.
    """
    slope = 1.0 - dvfs.voltage_floor
    balance = np.clip(load.linear_seconds / np.maximum(load.weight_seconds, 1e-12), dvfs.lowest_clock, 1.0)
    seconds, joules = _at_clock(load, math.inf, static_watts, dvfs, balance)
    by_arithmetic = joules > limit_watts * seconds
    base = load.fixed_seconds + load.kv_seconds + np.where(by_arithmetic, 0.0, load.weight_seconds)
    scaled = load.other_seconds + np.where(by_arithmetic, load.linear_seconds, 0.0)
    clock = np.ones_like(base)
    for _ in range(_NEWTON_STEPS):
        voltage = dvfs.voltage_floor + slope * clock
        squared, grows = voltage * voltage, 2.0 * slope * voltage
        time = base * clock + scaled
        net_watts = static_watts * squared - limit_watts
        excess = clock * (load.memory_joules + load.core_joules * squared) + net_watts * time
        growth = load.memory_joules + load.core_joules * (squared + clock * grows)
        growth = growth + static_watts * grows * time + net_watts * base
        clock = clock - excess / growth
    return np.maximum(clock, dvfs.lowest_clock)
