"""What a step costs, and what each of its requests brings: the model that sets proportions, never totals.

Per GPU, with the bytes and FLOPs that the engine's model says of the step::

    energy(S)   = J/byte · (weights(S) + KV(S)) + J/flop · flops(S) + J/sequence · |S|
                  + active watts · duration(S)
    duration(S) = max(launch + s/sequence · |S| + s/byte · KV(S) + s/flop · other flops(S)
                        + max(s/byte · weights(S), s/flop · linear flops(S)),
                      dynamic energy(S) / (power limit − active watts))
    weights(S)  = dense weights + expert weights · (1 − (1 − chosen/experts)^tokens(S))

The eight coefficients start from :mod:`joulescope.attribution.prior` and are learned while serving: those
of time from every step's observed duration, those of energy from every clean interval of the counter.
A request's share is its Shapley value: costs that are paid once divide equally, those that it brings
are its own, and what is not linear divides by :mod:`joulescope.attribution.shapley`. The observed duration,
not the modelled one, is what the static power is charged for. See ``docs/attribution.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.laws import KV_BYTES, OTHER_FLOPS, SEQUENCES, TOKENS, Duration, Weights
from joulescope.attribution.learn import PriorRegression
from joulescope.attribution.prior import Expectation
from joulescope.attribution.shapley import LARGE, divide_cost
from joulescope.model import CostFacts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_TIME_KEEP = 0.9995
"""Half of what steps taught is forgotten after 1,400 steps."""

_ENERGY_KEEP = 0.995
"""Half of what intervals taught is forgotten after 140 of them, about 70 seconds."""

_TIME_PRIOR_STD = 1.0
_ENERGY_PRIOR_STD = np.array([1.0, 1.5, 2.0, 1.0])
"""How far each coefficient may be from what is expected, as a part of it."""

_TIME_NOISE, _TIME_JITTER_SECONDS = 0.015, 5e-5
_ENERGY_NOISE, _IDLE_NOISE, _EDGE_SECONDS = 0.03, 0.1, 0.02
"""The counter ticks every 0.1 s and is polled in between: the ends of an interval are that unsure."""

_UNCAPPED = 0.97
"""Steps whose dynamic power comes nearer to the cap than this may have been stretched by it."""

READ_BYTES, LINEAR_FLOPS, SECONDS, WAITED_SECONDS = range(4, 8)
"""What else is known of a step: weights that it reads, FLOPs of the layers that read them, its duration, and
how long the GPU waited for it."""

STEP_FIGURES = 8

WEIGHT, SAVED, FLOPS, TIME, OWN_TIME = range(5)
"""Rows of priced steps, by request: modelled Shapley joules; joules saved without it; FLOPs; its part of the
duration, seconds; that of it which would be saved without it."""

ROWS = 5


@dataclass(frozen=True, slots=True, eq=False)
class StepColumns:
    """Consecutive steps as columns: request by request, step after step."""

    context: Ints
    """Tokens computed before the step."""
    scheduled: Ints
    """Tokens computed in it."""
    sampled: Ints
    """Tokens that came out."""
    offsets: Ints
    """Where each step begins, and the end: one more than there are steps."""
    seconds: Floats
    """Observed duration of each step."""
    waited_seconds: Floats
    """How long the GPU waited for each step while one of its requests was running."""


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """What steps should cost on one GPU, by the coefficients of the moment."""

    rows: Floats
    """:data:`ROWS` × requests."""
    steps: Floats
    """Steps × :data:`STEP_FIGURES`."""


class CostModel:
    """Learns the cost of one engine's steps. Times are seconds, energies joules of one GPU."""

    def __init__(self, facts: CostFacts, gpu_count: int, expectation: Expectation) -> None:
        self._facts, self._gpu_count = facts, gpu_count
        per_gpu = 1.0 / max(gpu_count, 1)
        self._kv_bytes = facts.kv_bytes_per_token * per_gpu
        self._linear = facts.flops_per_token * per_gpu
        self._attention = facts.flops_per_token_context * per_gpu
        self._sample = facts.flops_per_sample * per_gpu
        chosen = min(facts.expert_choice_ratio, 1.0 - 1e-9)
        experts = facts.expert_weight_bytes * per_gpu if chosen > 0.0 else 0.0
        self._weights = Weights(facts.weight_bytes * per_gpu - experts, experts, float(np.log1p(-chosen)))
        self.wait_watts = 0.0
        """What the GPU draws while it waits for the next step of running requests."""
        self._scratch = np.empty((TOKENS + 1, 0))
        """Reused from block to block: what is too large for the heap costs page faults each time."""
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

    # ----------------------------------------------------------------------------------------- prices

    def price(self, columns: StepColumns, rows: Floats | None = None) -> Prices:
        """Prices steps, into ``rows`` if given. Every step has at least one request.

        Attention reads the KV of all tokens up to the last scheduled one; token *j* of a chunk attends
        to ``context + j`` tokens. The output head runs where a token came out.
        """
        features = self._features(columns)
        begins = columns.offsets[:-1]
        counts = np.diff(columns.offsets)
        steps = np.empty((len(counts), STEP_FIGURES))
        steps[:, SEQUENCES] = counts
        steps[:, KV_BYTES : TOKENS + 1] = np.add.reduceat(features[KV_BYTES:], begins, axis=1).T
        steps[:, READ_BYTES] = self._weights.of(steps[:, TOKENS])
        steps[:, LINEAR_FLOPS] = steps[:, TOKENS] * self._linear
        steps[:, SECONDS] = columns.seconds
        steps[:, WAITED_SECONDS] = columns.waited_seconds
        rows = np.empty((ROWS, features.shape[1])) if rows is None else rows
        self._price_linear(rows, features, steps, counts)
        large = _large_requests(features[TOKENS], steps, columns.offsets)
        crooked = ~self._memory_bound(steps)
        if crooked.any():
            self._price_crooked(rows, features, steps, columns.offsets, large, np.flatnonzero(crooked))
        if columns.waited_seconds.any():
            rows[WEIGHT] += np.repeat(self.wait_watts * columns.waited_seconds / counts, counts)
            self._save_all_alone(rows, counts)
        return Prices(rows, steps)

    def expected_seconds(self, columns: StepColumns) -> Floats:
        """How long each step should take with the GPU to itself."""
        features = self._features(columns)
        sums = np.add.reduceat(features, columns.offsets[:-1], axis=1).T
        return self._duration().value(sums)

    def _duration(self) -> Duration:
        return Duration(
            self.time.coefficients,
            self.energy.coefficients,
            self._headroom_watts(),
            self._linear,
            self._weights,
        )

    def _features(self, columns: StepColumns) -> Floats:
        """Features × requests; valid until the next call."""
        context, scheduled = columns.context, columns.scheduled
        if self._scratch.shape[1] < len(context):
            self._scratch = np.empty((TOKENS + 1, 2 * len(context)))
        features = self._scratch[:, : len(context)]
        features[SEQUENCES] = 1.0
        features[TOKENS] = scheduled
        after = np.add(context, scheduled, dtype=np.float64)
        np.multiply(after, self._kv_bytes, out=features[KV_BYTES])
        other = np.multiply(after, self._attention, out=features[OTHER_FLOPS])
        chunks = np.flatnonzero(scheduled > 1)  # of all others the one token attends to what is then there
        tokens = features[TOKENS, chunks]
        other[chunks] = tokens * (context[chunks] + 0.5 * (tokens + 1.0)) * self._attention
        other += np.minimum(columns.sampled, scheduled) * self._sample
        return features

    def _memory_bound(self, steps: Floats) -> NDArray[np.bool_]:
        """Whether reading the weights is the bound for every subset of a step's requests; true of most."""
        launch, sequence, per_byte, per_flop = self.time.coefficients
        joules_per_byte, joules_per_flop, sequence_joules, _ = self.energy.coefficients
        headroom_watts = self._headroom_watts()
        dense_bytes = self._weights.dense_bytes
        seconds = launch + steps[:, READ_BYTES] * per_byte + steps[:, SEQUENCES] * sequence
        seconds += steps[:, KV_BYTES] * per_byte + steps[:, OTHER_FLOPS] * per_flop
        flops = steps[:, LINEAR_FLOPS] + steps[:, OTHER_FLOPS]
        joules = (steps[:, READ_BYTES] + steps[:, KV_BYTES]) * joules_per_byte + flops * joules_per_flop
        joules += steps[:, SEQUENCES] * sequence_joules
        alone = dense_bytes * joules_per_byte <= headroom_watts * (launch + dense_bytes * per_byte)
        memory = steps[:, LINEAR_FLOPS] * per_flop <= steps[:, READ_BYTES] * per_byte
        return np.asarray(memory & alone & (joules <= headroom_watts * seconds))

    def _headroom_watts(self) -> float:
        """What dynamic energy may draw under the power limit; never less than a tenth of it."""
        limit = self.expectation.limit_watts
        return max(limit - float(self.energy.coefficients[3]), 0.1 * limit)

    def _price_linear(self, rows: Floats, features: Floats, steps: Floats, counts: Ints) -> None:
        """Prices where the duration is a constant plus what each brings, and the experts read."""
        launch, sequence, per_byte, per_flop = self.time.coefficients
        experts = steps[:, READ_BYTES] - self._weights.dense_bytes
        own = np.add(features[KV_BYTES] * per_byte, features[OTHER_FLOPS] * per_flop, out=rows[OWN_TIME])
        own += sequence
        own_seconds = steps[:, KV_BYTES] * per_byte + steps[:, OTHER_FLOPS] * per_flop
        own_seconds += steps[:, SEQUENCES] * sequence
        shared = np.full(len(counts), launch + self._weights.dense_bytes * per_byte)
        stretch = steps[:, SECONDS] / (shared + experts * per_byte + own_seconds)
        stretches = np.repeat(stretch, counts)
        own *= stretches
        np.add(own, np.repeat(shared * stretch / counts, counts), out=rows[TIME])
        read_bytes = self._weights.shares(features[TOKENS], counts)
        saved_bytes = features[KV_BYTES]
        if self._weights.expert_bytes:
            own_bytes = read_bytes - np.repeat(self._weights.dense_bytes / counts, counts)
            rows[TIME] += own_bytes * (stretches * per_byte)
            untouched = self._weights.of(np.repeat(steps[:, TOKENS], counts) - features[TOKENS])
            released = np.repeat(steps[:, READ_BYTES], counts) - untouched
            saved_bytes = saved_bytes + released
            own += released * per_byte * stretches
        self._finish(rows, features, features[KV_BYTES] + read_bytes, saved_bytes, counts)

    def _finish(
        self, rows: Floats, features: Floats, moved_bytes: Floats, saved_bytes: Floats, counts: Ints
    ) -> None:
        """Joules from bytes, FLOPs and seconds, in place."""
        joules_per_byte, joules_per_flop, sequence_joules, active_watts = self.energy.coefficients
        flops = np.multiply(features[TOKENS], self._linear, out=rows[FLOPS])
        flops += features[OTHER_FLOPS]
        arithmetic = flops * joules_per_flop
        arithmetic += sequence_joules
        for row, moved, seconds in ((WEIGHT, moved_bytes, rows[TIME]), (SAVED, saved_bytes, rows[OWN_TIME])):
            joules = np.multiply(moved, joules_per_byte, out=rows[row])
            joules += arithmetic
            joules += seconds * active_watts
        self._save_all_alone(rows, counts)

    @staticmethod
    def _save_all_alone(rows: Floats, counts: Ints) -> None:
        """Without its only request there would have been no step."""
        alone = counts == 1
        if alone.any():
            at = (np.cumsum(counts) - counts)[alone]
            rows[SAVED, at] = rows[WEIGHT, at]
            rows[OWN_TIME, at] = rows[TIME, at]

    def _price_crooked(
        self, rows: Floats, features: Floats, steps: Floats, offsets: Ints, large: Ints, chosen: Ints
    ) -> None:
        """Prices steps again, in place, of which different subsets meet different bounds."""
        counts = np.diff(offsets)[chosen]
        at = np.concatenate([np.arange(offsets[step], offsets[step + 1]) for step in chosen])
        own, sums = features[:, at], steps[chosen, : TOKENS + 1]
        has_large = large[chosen] >= 0
        biggest = np.where(has_large[:, None], features[:, large[chosen]].T, 0.0)
        where_large = np.searchsorted(at, large[chosen][has_large])
        law = self._duration()
        seconds = law.value(sums)
        stretch = np.repeat(steps[chosen, SECONDS] / seconds, counts)
        without = np.repeat(sums, counts, axis=0) - own.T
        begins = np.cumsum(counts) - counts

        division = divide_cost(law, sums - biggest, biggest)
        shares = (own * np.repeat(division.slopes.T, counts, axis=1)).sum(axis=0)
        shares[where_large] = division.large[has_large]
        shares += np.repeat(division.constant / counts, counts)
        # The quadrature is near the whole, not equal to it.
        stretch_shares = np.repeat(steps[chosen, SECONDS] / np.add.reduceat(shares, begins), counts)
        priced = np.empty((ROWS, len(at)))
        priced[TIME] = shares * stretch_shares
        priced[OWN_TIME] = (np.repeat(seconds, counts) - law.value(without)) * stretch
        released = np.repeat(steps[chosen, READ_BYTES], counts) - self._weights.value(without)
        moved = own[KV_BYTES] + self._weights.shares(own[TOKENS], counts)
        self._finish(priced, own, moved, own[KV_BYTES] + released, counts)
        rows[:, at] = priced

    def avoided_joules(self, tokens: int) -> float:
        """What computing the first ``tokens`` tokens of a prompt would have cost, bound by arithmetic."""
        flops = tokens * self._linear + 0.5 * tokens * (tokens + 1.0) * self._attention
        watts_of_time = self.energy.coefficients[3] * self.time.coefficients[3]
        return float(flops * (self.energy.coefficients[1] + watts_of_time)) * max(self._gpu_count, 1)

    # ------------------------------------------------------------------------------------- learning

    def learn_times(self, steps: Floats) -> None:
        """Takes observed durations (steps × :data:`STEP_FIGURES`).

        Steps that the power limit stretched teach nothing about time.
        """
        if not len(steps):
            return
        n, kv, other, _, read, linear, duration, _ = steps.T
        _, _, per_byte, per_flop = self.time.coefficients
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
        free = dynamic < _UNCAPPED * self._headroom_watts() * (rows @ self.time.coefficients)
        std = _TIME_NOISE * duration + _TIME_JITTER_SECONDS
        changes = self.time.changes
        self.time.learn(rows[free], duration[free], std[free])
        if self.time.changes > changes:  # other clocks change the joules too, which fewer data tell of
            self.energy.jump()

    def learn_energy(self, steps: Floats, parts: Floats, energy_joules: float, idle_joules: float) -> None:
        """Takes the measured joules of steps (each with the part that was measured), idle ones taken off."""
        n, kv, other, _, read, linear, duration, waited = parts @ steps
        waited_joules = min(self.wait_watts * waited, energy_joules)
        energy_joules, idle_joules = energy_joules - waited_joules, idle_joules + waited_joules
        row = np.array([read + kv, linear + other, n, duration])
        edge_joules = _EDGE_SECONDS * energy_joules / max(duration, 1e-9)
        unsure = (_ENERGY_NOISE * energy_joules, edge_joules, _IDLE_NOISE * idle_joules)
        std = max(math.hypot(*unsure), 1e-6)
        self.energy.learn(row[None, :], np.array([energy_joules]), np.array([std]))


ModelMaker = Callable[[CostFacts, int, Expectation], CostModel]
"""Makes the cost model of an engine from its facts, its number of GPUs, and what is expected of them."""


def _large_requests(tokens: Floats, steps: Floats, offsets: Ints) -> Ints:
    """Where each step's large request is among all requests; −1 where it has none."""
    large = np.full(len(steps), -1, dtype=np.int64)
    if len(tokens) == steps[:, TOKENS].sum():  # one token each: plain decode
        return large
    most = np.maximum.reduceat(tokens, offsets[:-1])
    for step in np.flatnonzero(most * steps[:, SEQUENCES] > LARGE * steps[:, TOKENS]):
        begin, end = offsets[step], offsets[step + 1]
        large[step] = begin + int(tokens[begin:end].argmax())
    return large
