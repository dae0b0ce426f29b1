"""What the steps of one engine teach of its cost: coefficients of seconds and joules, from prior and data.

Ten coefficients of a dense model (two more of a mixture of experts) start from
:mod:`joulescope.attribution.prior` and are learned while serving: those of time from every step's observed
duration, those of energy from every clean interval of the counter. The formulas are in
:mod:`joulescope.attribution.cost`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.laws import (
    KV_BYTES,
    LINEAR_FLOPS,
    OTHER_FLOPS,
    READ_BYTES,
    SECONDS,
    SEQUENCES,
    TOKENS,
    Duration,
    StepJoules,
    StepTimes,
    Weights,
)
from joulescope.attribution.learn import PriorRegression
from joulescope.attribution.prior import Expectation
from joulescope.model import CostFacts

Floats = NDArray[np.float64]

_TIME_KEEP = 0.9995
"""Half of what steps taught is forgotten after 1,400 steps."""

_ENERGY_KEEP = 0.998
"""Half of what intervals taught is forgotten after 350 of one GPU, about three minutes."""

_LONG_TIME_KEEP, _LONG_ENERGY_KEEP = 0.999995, 0.9999
"""The same for a fit that is to know all loads of an hour: 140,000 steps, 7,000 intervals."""

_TIME_PRIOR_STD = 1.0
_OF_HOST = 2
"""So many coefficients of time, launch and sequences, are the host's: what else it does shows in them."""

_ENERGY_PRIOR_STD = np.array([1.0, 1.0, 1.5, 2.0, 1.0])
"""How far each coefficient may be from what is expected, as a part of it."""

_ENERGY_WANDER = np.array([0.0, 0.0, 0.0, 0.0, 0.01])
"""Static power follows the temperature: by so much from one interval to the next."""

_ENERGY_OUTLIER_POWER = 2.0

_UNEVENNESS, _UNEVENNESS_STD = 0.1, 0.3
"""How unlike experts are expected to be chosen; see :class:`joulescope.attribution.laws.Weights`."""

_BYTES_ALIKE = 0.9
"""Correlation of what a byte of weights and a byte of KV cache may cost more than expected: both come from
the same memory, by kernels that reach more or less of its bandwidth."""

_TIME_NOISE, _TIME_JITTER_SECONDS = 0.015, 5e-5
_ENERGY_NOISE, _IDLE_NOISE, _EDGE_SECONDS = 0.015, 0.1, 0.01
"""What the fit is told: more than there is, so that it leans on its prior. How unsure the ends of an interval
really are is in :mod:`joulescope.attribution.uncertainty`."""

_UNCAPPED = 0.97
"""Steps whose dynamic power comes nearer to the cap than this may have been stretched by it."""


class StepFit:
    """Learns what the steps of one engine cost. Times are seconds, energies joules of one GPU.

    Args:
        facts: the engine's model, of all its GPUs together.
        gpu_count: how many they are.
        expectation: where learning starts.
        forgets: whether it follows what has changed of late; else it remembers for an hour or more.
    """

    def __init__(
        self, facts: CostFacts, gpu_count: int, expectation: Expectation, *, forgets: bool = True
    ) -> None:
        self._facts, self._gpu_count = facts, gpu_count
        self._keeps = (_TIME_KEEP, _ENERGY_KEEP) if forgets else (_LONG_TIME_KEEP, _LONG_ENERGY_KEEP)
        self.pupil: StepFit | None = None
        """Another fit of the same engine, which is taught the same."""
        per_gpu = 1.0 / max(gpu_count, 1)
        self._linear = facts.flops_per_token * per_gpu
        chosen = min(facts.expert_choice_ratio, 1.0 - 1e-9)
        experts = facts.expert_weight_bytes * per_gpu if chosen > 0.0 else 0.0
        self._weights = Weights(facts.weight_bytes * per_gpu - experts, experts, chosen)
        self._even = Weights(0.0, experts, chosen)
        self._uneven = Weights(0.0, experts, chosen, 1.0)
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
        byte_seconds, byte_joules, gpus = e.seconds_per_byte, e.joules_per_byte, max(self._gpu_count, 1)
        time = [e.launch_seconds, e.sequence_seconds, byte_seconds, byte_seconds, e.seconds_per_flop]
        if self._weights.expert_bytes:
            time += [(1.0 - _UNEVENNESS) * byte_seconds, _UNEVENNESS * byte_seconds]
            self._weights = replace(self._weights, unevenness=_UNEVENNESS)
        energy = np.array([byte_joules, byte_joules, e.joules_per_flop, e.sequence_joules, e.active_watts])
        on_gpu = np.arange(len(time)) >= _OF_HOST
        self.time = PriorRegression(np.array(time), _time_covariance(len(time)), self._keeps[0], alone=on_gpu)
        self.energy = PriorRegression(
            energy,
            _alike(_ENERGY_PRIOR_STD, (0, 1)),
            self._keeps[1] ** (1.0 / gpus),
            wander=_ENERGY_WANDER / math.sqrt(gpus),
            outlier_power=_ENERGY_OUTLIER_POWER,
        )

    def set_limit(self, limit_watts: float) -> None:
        """The GPU's power limit is this from now on; what was learned holds under it too."""
        self.expectation = replace(self.expectation, limit_watts=limit_watts)
        if self.pupil is not None:
            self.pupil.set_limit(limit_watts)

    def restore(self, times: Sequence[float], joules: Sequence[float], unevenness: float) -> None:
        """Goes on with these coefficients, learned elsewhere."""
        self.time.coefficients = np.array(times, dtype=np.float64)
        self.energy.coefficients = np.array(joules, dtype=np.float64)
        self._weights = replace(self._weights, unevenness=unevenness)

    @property
    def unevenness(self) -> float:
        """How unlike experts are chosen; see :class:`joulescope.attribution.laws.Weights`."""
        return self._weights.unevenness

    def share_energy(self, other: StepFit) -> None:
        """Goes on with the joules per byte, per FLOP and so on of another model on the same GPUs, if it has
        learned none of its own: they are the GPU's, and where both run only their sum is measured."""
        if self.energy is not other.energy and not self.energy.observations:
            self.energy = other.energy

    def part_energy(self) -> None:
        """On other GPUs than before: what was learned there is kept, and shared no longer."""
        self.energy = deepcopy(self.energy)

    # ------------------------------------------------------------------------- coefficients of the moment

    def _times(self) -> StepTimes:
        launch, sequence, per_byte, per_kv_byte, per_flop, *experts = self.time.coefficients.tolist()
        return StepTimes(launch, sequence, per_byte, per_kv_byte, per_flop, sum(experts))

    def step_joules(self) -> StepJoules:
        """What the joules of a step are made of, as far as is known now."""
        return StepJoules(*self.energy.coefficients.tolist())

    def _headroom_watts(self) -> float:
        """What dynamic energy may draw under the power limit; never less than a tenth of it."""
        limit = self.expectation.limit_watts
        return max(limit - self.step_joules().active_watts, 0.1 * limit)

    def duration(self) -> Duration:
        """How long steps take, as far as is known now."""
        return Duration(
            self._times(), self.step_joules(), self._headroom_watts(), self._linear, self._weights
        )

    def _dynamic_joules(self, steps: Floats) -> Floats:
        """What steps draw beyond static power (steps × :data:`STEP_FIGURES` to steps)."""
        flops = steps[:, LINEAR_FLOPS] + steps[:, OTHER_FLOPS]
        return self._drawn_joules(steps, steps[:, READ_BYTES], flops)

    def _drawn_joules(self, sums: Floats, read_bytes: Floats, flops: Floats) -> Floats:
        """The same of steps whose features are ``sums``, and the weights read and FLOPs computed in all."""
        joules = self.step_joules()
        drawn = read_bytes * joules.per_byte + sums[:, KV_BYTES] * joules.per_kv_byte
        drawn += flops * joules.per_flop
        return np.asarray(drawn + sums[:, SEQUENCES] * joules.sequence)

    def foresee(self, sums: Floats) -> tuple[Floats, Floats]:
        """Joules on one GPU and seconds that steps should take, by their features (steps × features).

        Unlike the price of a step, which charges static power for the duration that was observed, this asks
        the model for the duration too.
        """
        seconds = self.duration().value(sums)
        flops = sums[:, TOKENS] * self._linear + sums[:, OTHER_FLOPS]
        drawn = self._drawn_joules(sums, self._weights.value(sums), flops)
        return drawn + self.step_joules().active_watts * seconds, seconds

    def avoided_joules(self, tokens: int) -> float:
        """What computing the first ``tokens`` tokens of a prompt would have cost, bound by arithmetic."""
        per_token_context = self._facts.flops_per_token_context / max(self._gpu_count, 1)
        flops = tokens * self._linear + 0.5 * tokens * (tokens + 1.0) * per_token_context
        joules = self.step_joules()
        per_flop = joules.per_flop + joules.active_watts * self._times().per_flop
        return float(flops * per_flop) * max(self._gpu_count, 1)

    # ------------------------------------------------------------------------------------------- learning

    def learn_times(self, steps: Floats) -> None:
        """Takes observed durations (steps × :data:`STEP_FIGURES`).

        Steps that the power limit stretched teach nothing about time.
        """
        if not len(steps):
            return
        if self.pupil is not None:
            self.pupil.learn_times(steps)
        rows, duration = self.time_rows(steps), steps[:, SECONDS]
        headroom_joules = self._headroom_watts() * (rows @ self.time.coefficients)
        free = self._dynamic_joules(steps) < _UNCAPPED * headroom_joules
        std = _TIME_NOISE * duration + _TIME_JITTER_SECONDS
        changes = self.time.changes
        self.time.learn(rows[free], duration[free], std[free])
        if self._weights.expert_bytes:
            even, uneven = self.time.coefficients[5:].tolist()
            self._weights = replace(self._weights, unevenness=uneven / (even + uneven))
        if self.time.changes > changes:  # other clocks change the joules too, which fewer data tell of
            self.energy.jump()

    def time_rows(self, steps: Floats) -> Floats:
        """What each time coefficient is multiplied by (steps × coefficients)."""
        n, kv, other, _, _, linear, _, even, uneven = steps.T
        rows = np.empty((len(steps), len(self.time.prior)))
        rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3] = 1.0, n, self._weights.dense_bytes, kv
        if self._weights.expert_bytes:
            rows[:, 5], rows[:, 6] = even, uneven
        reads = [2, *range(5, rows.shape[1])]
        by_memory = rows[:, reads] @ self.time.coefficients[reads] >= linear * self.time.coefficients[4]
        rows[np.ix_(~by_memory, reads)] = 0.0
        rows[:, 4] = other + np.where(by_memory, 0.0, linear)
        return rows

    def learn_energy(
        self,
        figures: Floats,
        energy_joules: float,
        idle_joules: float,
        whole_joules: float | None = None,
        clock_std_seconds: float = 0.0,
    ) -> None:
        """Takes the measured joules of steps.

        Args:
            figures: those of the steps, as far as they were measured, summed (:data:`STEP_FIGURES`).
            energy_joules: measured of them, idle and waiting taken off.
            idle_joules: what was taken off.
            whole_joules: with those of other engines, if the steps' are only a modelled part of them.
            clock_std_seconds: how unsure it is, for the clocks of two nodes, which steps were measured.
        """
        if self.pupil is not None:
            self.pupil.learn_energy(figures, energy_joules, idle_joules, whole_joules, clock_std_seconds)
        whole_joules = energy_joules if whole_joules is None else whole_joules
        n, kv, other, _, read, linear, duration, _, _ = figures
        row = np.array([read, kv, linear + other, n, duration])
        edge_joules = math.hypot(_EDGE_SECONDS, clock_std_seconds) * energy_joules / max(duration, 1e-9)
        unsure = (_ENERGY_NOISE * whole_joules, edge_joules, _IDLE_NOISE * idle_joules)
        std = max(math.hypot(*unsure), 1e-6)
        self.energy.learn(
            row[None, :], np.array([energy_joules]), np.array([std]), is_settled=self.time.is_quiet
        )


def _alike(std: Floats, same: tuple[int, ...]) -> Floats:
    """Covariance of coefficients of which some, all of memory, are nearly the same."""
    correlation = np.eye(len(std))
    correlation[np.ix_(same, same)] = _BYTES_ALIKE
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(correlation * np.outer(std, std))


def _time_covariance(count: int) -> Floats:
    """Prior covariance of the time coefficients, of ``count`` for a dense model or a mixture."""
    memory = (2, 3, *range(5, count))
    covariance = _alike(np.full(count, _TIME_PRIOR_STD), memory)
    if count > 5:
        # Both read at one speed: together they are known as well as the others, apart by the unevenness.
        spread = _UNEVENNESS_STD * np.array([-1.0 / (1.0 - _UNEVENNESS), 1.0 / _UNEVENNESS])
        covariance[5:, 5:] = _TIME_PRIOR_STD**2 + np.outer(spread, spread)
    return covariance
