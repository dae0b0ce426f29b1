"""What a step costs, and what each of its requests brings: the model that sets proportions, never totals.

Per GPU, with the bytes and FLOPs that the engine's model says of the step::

    energy(S)   = J/byte · bytes(S) + J/flop · flops(S) + J/sequence · |S| + active watts · duration(S)
    duration(S) = max(launch + s/sequence · |S| + s/byte · KV(S) + s/flop · other flops(S)
                        + max(s/byte · weights, s/flop · linear flops(S)),
                      dynamic energy(S) / (power limit − active watts))

The eight coefficients start from :mod:`joulescope.attribution.prior` and are learned while serving: those
of time from every step's observed duration, those of energy from every clean interval of the counter.
A request's share is its Shapley value: costs that are paid once divide equally, those that it brings
are its own, and the maxima divide by :mod:`joulescope.attribution.shapley`. The observed duration, not the
modelled one, is what the static power is charged for. See ``docs/attribution.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.learn import PriorRegression
from joulescope.attribution.prior import Expectation
from joulescope.attribution.shapley import saved_without, shares_of_maximum
from joulescope.model import CostFacts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_TIME_KEEP = 0.9995
"""Half of what steps taught is forgotten after 1,400 steps."""

_ENERGY_KEEP = 0.998
"""Half of what intervals taught is forgotten after 350 of them, about three minutes."""

_TIME_PRIOR_STD, _ENERGY_PRIOR_STD = 1.0, 1.0
_TIME_NOISE, _TIME_JITTER_SECONDS = 0.05, 2e-4
_ENERGY_NOISE, _EDGE_SECONDS = 0.02, 0.02
"""The counter ticks every 0.1 s and is polled in between: the ends of an interval are that unsure."""


@dataclass(frozen=True, slots=True)
class StepTotals:
    """What a step moved and computed on one GPU."""

    sequences: int
    kv_bytes: float
    linear_flops: float
    other_flops: float
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class StepCost:
    """Modelled joules of one step on one GPU, by request."""

    shapley_joules: Floats
    saved_joules: Floats
    """What the step would cost less without the request."""
    totals: StepTotals


class CostModel:
    """Learns the cost of one engine's steps. Times are seconds, energies joules of one GPU."""

    def __init__(self, facts: CostFacts, gpu_count: int, expectation: Expectation) -> None:
        self._facts, self._gpu_count = facts, gpu_count
        per_gpu = 1.0 / max(gpu_count, 1)
        self._weight_bytes = facts.weight_bytes * per_gpu
        self._kv_bytes = facts.kv_bytes_per_token * per_gpu
        self._linear = facts.flops_per_token * per_gpu
        self._attention = facts.flops_per_token_context * per_gpu
        self._sample = facts.flops_per_sample * per_gpu
        self.expect(expectation)

    def describes(self, facts: CostFacts, gpu_count: int) -> bool:
        """Whether what was learned holds for an engine with these facts."""
        return (self._facts, self._gpu_count) == (facts, gpu_count)

    @property
    def has_learned(self) -> bool:
        return self.time.observations + self.energy.observations > 0

    def expect(self, expectation: Expectation) -> None:
        """Starts over from an expectation."""
        e = expectation
        self.expectation = e
        time = np.array([e.launch_seconds, e.sequence_seconds, e.seconds_per_byte, e.seconds_per_flop])
        energy = np.array([e.joules_per_byte, e.joules_per_flop, e.sequence_joules, e.active_watts])
        self.time = PriorRegression(time, _TIME_PRIOR_STD, _TIME_KEEP)
        self.energy = PriorRegression(energy, _ENERGY_PRIOR_STD, _ENERGY_KEEP)

    # ----------------------------------------------------------------------------------------- costs

    def step_cost(self, context: Ints, scheduled: Ints, sampled: Ints, duration_seconds: float) -> StepCost:
        """The cost of a step from its columns (tokens) and its observed duration.

        Attention reads the KV of all tokens up to the last scheduled one; token *j* of a chunk attends
        to ``context + j`` tokens. The output head runs where a token came out.
        """
        after = context + scheduled
        kv_bytes = after * self._kv_bytes
        positions = scheduled * (context + 0.5 * (scheduled + 1))
        other = positions * self._attention + np.minimum(sampled, scheduled) * self._sample
        linear = scheduled.astype(np.float64) * self._linear
        totals = StepTotals(
            len(context), float(kv_bytes.sum()), float(linear.sum()), float(other.sum()), duration_seconds
        )
        joules_per_byte, joules_per_flop, sequence_joules, active_watts = self.energy.coefficients
        _, sequence_seconds, seconds_per_byte, seconds_per_flop = self.time.coefficients
        dynamic = kv_bytes * joules_per_byte + (linear + other) * joules_per_flop + sequence_joules
        seconds = kv_bytes * seconds_per_byte + other * seconds_per_flop + sequence_seconds
        if self._memory_bound(totals, float(dynamic.sum())):
            shared, saved = self._linear_shares(seconds, duration_seconds)
        else:
            shared, saved = self._general_shares(dynamic, seconds, linear, duration_seconds)
        read_joules = self._weight_bytes * joules_per_byte / totals.sequences
        return StepCost(
            shapley_joules=dynamic + read_joules + active_watts * shared,
            saved_joules=dynamic + active_watts * saved,
            totals=totals,
        )

    def _memory_bound(self, totals: StepTotals, own_joules: float) -> bool:
        """Whether the weight read is the bound for every subset of the requests; true of most steps."""
        launch, sequence, per_byte, per_flop = self.time.coefficients
        if totals.linear_flops * per_flop > self._weight_bytes * per_byte:
            return False
        fixed_joules = self._weight_bytes * self.energy.coefficients[0]
        fixed_seconds = launch + self._weight_bytes * per_byte
        own_seconds = totals.sequences * sequence + totals.kv_bytes * per_byte + totals.other_flops * per_flop
        headroom = self._headroom_watts()
        return bool(
            fixed_joules <= headroom * fixed_seconds
            and fixed_joules + own_joules <= headroom * (fixed_seconds + own_seconds)
        )

    def _headroom_watts(self) -> float:
        """What dynamic energy may draw under the power limit; never less than a tenth of it."""
        limit = self.expectation.limit_watts
        return max(limit - float(self.energy.coefficients[3]), 0.1 * limit)

    def _linear_shares(self, seconds: Floats, duration_seconds: float) -> tuple[Floats, Floats]:
        """Shares of the duration where it is a constant plus what each brings."""
        launch, _, per_byte, _ = self.time.coefficients
        fixed = launch + self._weight_bytes * per_byte
        stretch = duration_seconds / (fixed + float(seconds.sum()))
        saved = seconds * stretch
        return saved + fixed * stretch / len(seconds), saved

    def _general_shares(
        self, dynamic: Floats, seconds: Floats, linear: Floats, duration_seconds: float
    ) -> tuple[Floats, Floats]:
        """Shares of the duration where different subsets of the requests meet different bounds."""
        launch, _, per_byte, per_flop = self.time.coefficients
        headroom = self._headroom_watts()
        read_joules = self._weight_bytes * self.energy.coefficients[0]
        constants = np.array([launch + self._weight_bytes * per_byte, launch, read_joules / headroom])
        own = np.stack([seconds, seconds + linear * per_flop, dynamic / headroom])
        stretch = duration_seconds / float((constants + own.sum(axis=1)).max())
        return shares_of_maximum(constants, own) * stretch, saved_without(constants, own) * stretch

    # ------------------------------------------------------------------------------------- learning

    def learn_times(self, steps: Sequence[StepTotals]) -> None:
        """Takes observed durations. Steps that the power limit stretched teach nothing about time."""
        if not steps:
            return
        n, kv, linear, other, duration = np.array(
            [(s.sequences, s.kv_bytes, s.linear_flops, s.other_flops, s.duration_seconds) for s in steps]
        ).T
        _, _, per_byte, per_flop = self.time.coefficients
        read = np.full(len(n), self._weight_bytes)
        by_memory = read * per_byte >= linear * per_flop
        rows = np.stack(
            [
                np.ones(len(n)),
                n,
                kv + np.where(by_memory, read, 0.0),
                other + np.where(by_memory, 0.0, linear),
            ],
            axis=1,
        )
        joules_per_byte, joules_per_flop, sequence_joules, _ = self.energy.coefficients
        dynamic = (kv + read) * joules_per_byte + (linear + other) * joules_per_flop + n * sequence_joules
        free = dynamic < 0.97 * self._headroom_watts() * (rows @ self.time.coefficients)
        std = _TIME_NOISE * duration + _TIME_JITTER_SECONDS
        self.time.learn(rows[free], duration[free], std[free])

    def learn_energy(
        self, steps: Sequence[tuple[StepTotals, float]], energy_joules: float, idle_seconds: float
    ) -> None:
        """Takes the measured joules of steps (each with the part that was measured), idle ones taken off."""
        row = np.zeros(4)
        for s, part in steps:
            row += part * np.array(
                [
                    self._weight_bytes + s.kv_bytes,
                    s.linear_flops + s.other_flops,
                    s.sequences,
                    s.duration_seconds,
                ]
            )
        edge_joules = _EDGE_SECONDS * energy_joules / max(row[3] + idle_seconds, 1e-9)
        std = np.hypot(_ENERGY_NOISE * energy_joules, edge_joules)
        self.energy.learn(row[None, :], np.array([energy_joules]), np.array([max(std, 1e-6)]))
