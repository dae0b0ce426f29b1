"""What a step costs, and what each of its requests brings: the model that sets proportions, never totals.

Per GPU, with the bytes and FLOPs that the engine's model says of the step::

    energy(S)   = J/weight byte · weights(S) + J/KV byte · KV(S) + J/flop · flops(S) + J/sequence · |S|
                  + active watts · duration(S)
    duration(S) = max(launch + s/sequence · |S| + s/KV byte · KV(S) + s/flop · other flops(S)
                        + max(s/weight byte · weights(S), s/flop · linear flops(S)),
                      dynamic energy(S) / (power limit − active watts))
    weights(S)  = dense weights + expert weights · touched(tokens(S))

What part of the experts so many tokens touch is in :class:`joulescope.attribution.laws.Weights`.
The coefficients start from :mod:`joulescope.attribution.prior` and are learned while serving: those
of time from every step's observed duration, those of energy from every clean interval of the counter.
A request's share is its Shapley value: costs that are paid once divide equally, those that it brings
are its own, and what is not linear divides by :mod:`joulescope.attribution.shapley`. The observed duration,
not the modelled one, is what the static power is charged for. See ``docs/attribution.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.fit import StepFit
from joulescope.attribution.laws import (
    EVEN_BYTES,
    KV_BYTES,
    LINEAR_FLOPS,
    OTHER_FLOPS,
    READ_BYTES,
    SECONDS,
    SEQUENCES,
    STEP_FIGURES,
    TOKENS,
    UNEVEN_BYTES,
)
from joulescope.attribution.prior import Expectation
from joulescope.attribution.shapley import LARGE, divide_cost, divide_largest
from joulescope.model import CostFacts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_CHUNK_TOKENS, _FEW = 16, 32
"""A request of fewer tokens, among no fewer requests, is small: what it saves of a step's duration is told by
the slope there."""

WEIGHT, SAVED, CACHE, FLOPS, TIME, OWN_TIME = range(6)
"""Rows of priced steps, by request: modelled Shapley joules; joules saved without it; bytes of KV cache;
FLOPs; its part of the duration, seconds; that of it which would be saved without it."""

ROWS = 6


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
    """How long the GPU worked on each step, as observed."""


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """What steps should cost on one GPU, by the coefficients of the moment."""

    rows: Floats
    """:data:`ROWS` × requests."""
    steps: Floats
    """Steps × :data:`STEP_FIGURES`."""
    memory_bound: NDArray[np.bool_]
    """Of each step: whether memory surely set the pace; of others :meth:`Duration.bounds` tells what did."""


@dataclass(frozen=True, slots=True, eq=False)
class _Experts:
    """Bytes of a mixture's experts, by request."""

    shares: Floats
    """Shapley's share of those that its step reads."""
    released: Floats
    """What would not be read without the request."""


class CostModel(StepFit):
    """Prices the steps of one engine by what they have taught so far."""

    def __init__(self, facts: CostFacts, gpu_count: int, expectation: Expectation) -> None:
        super().__init__(facts, gpu_count, expectation)
        per_gpu = 1.0 / max(gpu_count, 1)
        self._kv_bytes = facts.kv_bytes_per_token * per_gpu
        self._attention = facts.flops_per_token_context * per_gpu
        self._sample = facts.flops_per_sample * per_gpu
        self._scratch = np.empty((TOKENS + 2, 0))
        """Reused from block to block: what is too large for the heap costs page faults each time."""

    def price(self, columns: StepColumns, rows: Floats | None = None, at_limit: bool = False) -> Prices:
        """Prices steps, into ``rows`` if given. Every step has at least one request.

        Attention reads the KV of all tokens up to the last scheduled one; token *j* of a chunk attends
        to ``context + j`` tokens. The output head runs where a token came out.

        ``at_limit``: the power limit holds the GPU back. Whatever it does then draws the limit, so that
        what a request costs is the time that it takes.
        """
        features = self._features(columns)
        counts = np.diff(columns.offsets)
        steps = self._figures(columns, features, counts)
        rows = np.empty((ROWS, features.shape[1])) if rows is None else rows
        experts = (
            self._divide_experts(features[TOKENS], steps, counts) if self._weights.expert_bytes else None
        )
        memory_bound = self._memory_bound(steps)
        crooked = ~memory_bound
        if not crooked.all():
            self._time_linear(rows, features, steps, counts, experts)
        if crooked.any():
            self._time_crooked(rows, features, steps, counts, crooked)
        if at_limit:
            limit_watts = self.expectation.limit_watts
            self._note_work(rows, features)
            rows[WEIGHT], rows[SAVED] = limit_watts * rows[TIME], limit_watts * rows[OWN_TIME]
        else:
            self._pay(rows, features, counts, experts)
        alone = np.flatnonzero(counts == 1)
        if len(alone):  # without its only request there would have been no step
            at = columns.offsets[alone]
            rows[SAVED, at], rows[OWN_TIME, at] = rows[WEIGHT, at], rows[TIME, at]
        return Prices(rows, steps, memory_bound)

    def _features(self, columns: StepColumns) -> Floats:
        """Features × requests; valid until the next call."""
        context, scheduled = columns.context, columns.scheduled
        if self._scratch.shape[1] < len(context):
            self._scratch = np.empty((TOKENS + 2, 2 * len(context)))
        features, after = self._scratch[:-1, : len(context)], self._scratch[-1, : len(context)]
        features[SEQUENCES] = 1.0
        features[TOKENS] = scheduled
        np.add(context, features[TOKENS], out=after)
        np.multiply(after, self._kv_bytes, out=features[KV_BYTES])
        other = np.multiply(after, self._attention, out=features[OTHER_FLOPS])
        chunks = np.flatnonzero(scheduled > 1)  # of all others the one token attends to what is then there
        tokens = features[TOKENS, chunks]
        other[chunks] = tokens * (context[chunks] + 0.5 * (tokens + 1.0)) * self._attention
        sampled = np.minimum(columns.sampled, features[TOKENS], out=after)
        sampled *= self._sample
        other += sampled
        return features

    def _figures(self, columns: StepColumns, features: Floats, counts: Ints) -> Floats:
        """What is known of each step (steps × :data:`STEP_FIGURES`)."""
        steps = np.empty((len(counts), STEP_FIGURES))
        steps[:, SEQUENCES] = counts
        steps[:, KV_BYTES : TOKENS + 1] = np.add.reduceat(features[KV_BYTES:], columns.offsets[:-1], axis=1).T
        steps[:, READ_BYTES] = self._weights.of(steps[:, TOKENS])
        steps[:, LINEAR_FLOPS] = steps[:, TOKENS] * self._linear
        steps[:, SECONDS] = columns.seconds
        steps[:, EVEN_BYTES] = self._even.of(steps[:, TOKENS])
        steps[:, UNEVEN_BYTES] = self._uneven.of(steps[:, TOKENS])
        return steps

    def _memory_bound(self, steps: Floats) -> NDArray[np.bool_]:
        """Whether reading the weights is the bound for every subset of a step's requests; true of most."""
        time, headroom_watts = self._times(), self._headroom_watts()
        dense_bytes = self._weights.dense_bytes
        fixed_seconds = dense_bytes * time.per_byte
        reading = fixed_seconds + (steps[:, READ_BYTES] - dense_bytes) * time.per_expert_byte
        seconds = time.launch + reading + steps[:, SEQUENCES] * time.sequence
        seconds += steps[:, KV_BYTES] * time.per_kv_byte + steps[:, OTHER_FLOPS] * time.per_flop
        alone_joules = dense_bytes * self.step_joules().per_byte
        alone = alone_joules <= headroom_watts * (time.launch + fixed_seconds)
        memory = steps[:, LINEAR_FLOPS] * time.per_flop <= reading
        return np.asarray(memory & alone & (self._dynamic_joules(steps) <= headroom_watts * seconds))

    def _time_linear(
        self, rows: Floats, features: Floats, steps: Floats, counts: Ints, experts: _Experts | None
    ) -> None:
        """Divides durations that are a constant plus what each brings, and the experts read."""
        time = self._times()
        own = np.multiply(features[KV_BYTES], time.per_kv_byte, out=rows[OWN_TIME])
        own += np.multiply(features[OTHER_FLOPS], time.per_flop, out=rows[WEIGHT])
        own += time.sequence
        expert_bytes = steps[:, READ_BYTES] - self._weights.dense_bytes
        seconds = steps[:, KV_BYTES] * time.per_kv_byte + steps[:, OTHER_FLOPS] * time.per_flop
        seconds += counts * time.sequence + expert_bytes * time.per_expert_byte
        shared = time.launch + self._weights.dense_bytes * time.per_byte
        stretch = steps[:, SECONDS] / (shared + seconds)
        stretches = np.repeat(stretch, counts)
        own *= stretches
        np.add(own, np.repeat(shared * stretch / counts, counts), out=rows[TIME])
        if experts is not None:
            stretches *= time.per_expert_byte
            rows[TIME] += stretches * experts.shares
            own += stretches * experts.released

    def _divide_experts(self, tokens: Floats, steps: Floats, counts: Ints) -> _Experts:
        without = np.repeat(steps[:, TOKENS], counts) - tokens
        return _Experts(
            shares=self._weights.expert_shares(tokens, counts),
            released=np.repeat(steps[:, READ_BYTES], counts) - self._weights.of(without),
        )

    def _time_crooked(
        self, rows: Floats, features: Floats, steps: Floats, counts: Ints, chosen: NDArray[np.bool_]
    ) -> None:
        """Divides, in place, the durations of steps of which different subsets meet different bounds."""
        if chosen.all():
            rows[TIME], rows[OWN_TIME] = self._divide_durations(features, steps, counts)
        else:
            at = np.flatnonzero(np.repeat(chosen, counts))
            rows[TIME, at], rows[OWN_TIME, at] = self._divide_durations(
                features[:, at], steps[chosen], counts[chosen]
            )

    def _divide_durations(self, features: Floats, steps: Floats, counts: Ints) -> Floats:
        """Each request's part of the duration, and what of it would be saved without it (2 × requests)."""
        offsets, sums, law = np.cumsum(counts) - counts, steps[:, : TOKENS + 1], self.duration()
        chunks = np.flatnonzero(features[TOKENS] >= _CHUNK_TOKENS)
        large = _large_requests(features[TOKENS], steps, offsets, chunks)
        has_large = np.flatnonzero(large >= 0)
        biggest = np.zeros_like(sums)
        biggest[has_large] = features[:, large[has_large]].T
        if self._weights.expert_bytes:
            division = divide_cost(law, sums - biggest, biggest)
        else:
            division = divide_largest(*law.dense_bounds(), sums - biggest, biggest)
        divided = np.empty((2, features.shape[1]))
        shares = _dot(division.slopes, division.constant / counts, features, counts, divided[0])
        shares[large[has_large]] = (division.large + division.constant / counts)[has_large]
        # A sum of shares is near the whole, not equal to it.
        shares *= np.repeat(steps[:, SECONDS] / np.add.reduceat(shares, offsets), counts)
        whole, slopes = law.value_and_slopes(sums)
        stretch = steps[:, SECONDS] / whole
        own = _dot(slopes * stretch[:, None], np.zeros(len(counts)), features, counts, divided[1])
        # Without a large part of it a step may meet another bound: what that saves is no matter of slopes.
        exact = np.flatnonzero((features[TOKENS] >= _CHUNK_TOKENS) | np.repeat(counts < _FEW, counts))
        step_of = np.searchsorted(offsets, exact, side="right") - 1
        without = law.value(sums[step_of] - features[:, exact].T)
        own[exact] = (whole[step_of] - without) * stretch[step_of]
        return divided

    def _note_work(self, rows: Floats, features: Floats) -> None:
        rows[CACHE] = features[KV_BYTES]
        flops = np.multiply(features[TOKENS], self._linear, out=rows[FLOPS])
        flops += features[OTHER_FLOPS]

    def _pay(self, rows: Floats, features: Floats, counts: Ints, experts: _Experts | None) -> None:
        """Joules from bytes, FLOPs and seconds: Shapley's share, and what is saved without each."""
        self._note_work(rows, features)
        joules = self.step_joules()
        weight, saved = rows[WEIGHT], rows[SAVED]
        np.multiply(rows[FLOPS], joules.per_flop, out=saved)
        saved += np.multiply(rows[CACHE], joules.per_kv_byte, out=weight)
        saved += joules.sequence
        np.multiply(rows[TIME], joules.active_watts, out=weight)
        weight += saved
        weight += np.repeat((self._weights.dense_bytes * joules.per_byte) / counts, counts)
        saved += rows[OWN_TIME] * joules.active_watts
        if experts is not None:
            weight += joules.per_byte * experts.shares
            saved += joules.per_byte * experts.released

    def next_token_joules(self, columns: StepColumns) -> float:
        """What a step of these requests would cost more with one more that decodes a token, on all GPUs.

        ``E(S ∪ {d}) − E(S)``, where *d* has as much context as the requests of *S* have in the mean, and the
        duration that static power is paid for is the modelled one of both.
        """
        features = self._features(columns)
        sums = features.sum(axis=1)
        context = 1.0 + float((columns.context + columns.scheduled).mean())
        more = np.zeros_like(sums)
        more[SEQUENCES] = more[TOKENS] = 1.0
        more[KV_BYTES] = context * self._kv_bytes
        more[OTHER_FLOPS] = context * self._attention + self._sample
        without, whole = self.foresee(np.stack([sums, sums + more]))[0].tolist()
        return float(whole - without) * max(self._gpu_count, 1)


ModelMaker = Callable[[CostFacts, int, Expectation], CostModel]
"""Makes the cost model of an engine from its facts, its number of GPUs, and what is expected of them."""


def _dot(prices: Floats, fixed: Floats, features: Floats, counts: Ints, out: Floats) -> Floats:
    """Of each request: its step's fixed part, and its features at its step's prices (steps × features)."""
    out[...] = np.repeat(fixed + prices[:, SEQUENCES], counts)
    for feature in (KV_BYTES, OTHER_FLOPS, TOKENS):
        priced = np.repeat(prices[:, feature], counts)
        priced *= features[feature]
        out += priced
    return out


def _large_requests(tokens: Floats, steps: Floats, offsets: Ints, chunks: Ints) -> Ints:
    """Where each step's large request is among all requests; −1 where it has none.

    ``offsets``: where each step begins; ``chunks``: the requests of several tokens.
    """
    large = np.full(len(steps), -1, dtype=np.int64)
    most = LARGE * steps[:, TOKENS] / steps[:, SEQUENCES]
    step_of = np.searchsorted(offsets, chunks, side="right") - 1
    for row, step in zip(chunks.tolist(), step_of.tolist(), strict=True):
        if tokens[row] > most[step]:
            most[step], large[step] = tokens[row], row
    return large
