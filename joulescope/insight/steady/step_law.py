"""What steps of a service cost, by how many requests run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution import laws
from joulescope.attribution.cost import CostModel
from joulescope.attribution.prior import Expectation
from joulescope.insight.steady import chunks as chunk_columns
from joulescope.insight.steady.chunks import Chunks
from joulescope.insight.steady.pipeline import slowest_of
from joulescope.insight.steady.requests import Mean
from joulescope.insight.steady.values import Clocks, Service

Floats = NDArray[np.float64]

SECONDS, STATIC, WEIGHTS, KV, FLOPS, SEQUENCES, LINKS = range(7)
"""Figures of a step: seconds, and joules of one GPU by part."""

FIGURES = 7

_FEW = 7
"""Steps of so many chunks are looked at count by count; of more, some counts stand for those between."""


_HALVINGS = 16
"""To find a clock within some millionths of the full one."""


def _model(service: Service) -> CostModel:
    told = service.laws
    limit = told.limit_watts or np.inf
    _, sequence, per_byte, _, per_flop, *_ = told.time_coefficients
    joules_byte, _, joules_flop, joules_sequence, active = told.energy_coefficients
    expectation = Expectation(
        launch_seconds=told.time_coefficients[0],
        sequence_seconds=sequence,
        seconds_per_byte=per_byte,
        seconds_per_flop=per_flop,
        joules_per_byte=joules_byte,
        joules_per_flop=joules_flop,
        sequence_joules=joules_sequence,
        active_watts=active,
        limit_watts=limit,
    )
    model = CostModel(told.cost, service.gpu_count, expectation)
    model.restore(told.time_coefficients, told.energy_coefficients, told.unevenness)
    return model


class StepLaw:
    """What a step costs, from what its requests bring; per GPU."""

    def __init__(self, service: Service) -> None:
        cost, per_gpu = service.laws.cost, 1.0 / max(service.gpu_count, 1)
        self._model = _model(service)
        self._link, self._clocks = service.link, service.clocks
        self._limit_watts = service.laws.limit_watts or np.inf
        self._kv_bytes = cost.kv_bytes_per_token * per_gpu
        self._linear = cost.flops_per_token * per_gpu
        self._attention = cost.flops_per_token_context * per_gpu
        self._sample = cost.flops_per_sample * per_gpu

    def features(self, requests: Floats, figures: Floats) -> Floats:
        """Features of steps from their requests and the sums of :mod:`.chunks`' figures (… × figures)."""
        features = np.empty((*figures.shape[:-1], laws.TOKENS + 1))
        features[..., laws.SEQUENCES] = requests
        features[..., laws.KV_BYTES] = figures[..., chunk_columns.KV_TOKENS] * self._kv_bytes
        features[..., laws.OTHER_FLOPS] = (
            figures[..., chunk_columns.POSITIONS] * self._attention
            + figures[..., chunk_columns.SAMPLES] * self._sample
        )
        features[..., laws.TOKENS] = figures[..., chunk_columns.TOKENS]
        return features

    def cost(self, features: Floats) -> Floats:
        """Steps (… × features) to their :data:`FIGURES`."""
        flat = features.reshape(-1, laws.TOKENS + 1)
        joules, worked = self._model.foresee(flat)
        tokens, link = flat[:, laws.TOKENS], self._link
        price = self._model.step_joules()
        result = np.empty((len(flat), FIGURES))
        result[:, KV] = price.per_kv_byte * flat[:, laws.KV_BYTES]
        result[:, FLOPS] = price.per_flop * (tokens * self._linear + flat[:, laws.OTHER_FLOPS])
        result[:, SEQUENCES] = price.sequence * flat[:, laws.SEQUENCES]
        result[:, LINKS] = link.joules_per_token * tokens
        brought = result[:, [KV, FLOPS, SEQUENCES]].sum(axis=1)
        result[:, WEIGHTS] = joules - price.active_watts * worked - brought
        voltage = np.ones(len(flat))
        if self._clocks is not None:
            memory = result[:, WEIGHTS] + result[:, KV]
            core = result[:, FLOPS] + result[:, SEQUENCES]
            worked, voltage = self._at_the_limit(flat, memory, core, self._clocks)
        seconds = worked + link.seconds_per_step + link.seconds_per_token * tokens
        result[:, SECONDS] = seconds
        result[:, STATIC] = price.active_watts * voltage**2 * seconds
        result[:, [FLOPS, SEQUENCES]] *= (voltage**2)[:, None]
        return result.reshape(*features.shape[:-1], FIGURES)

    def _at_the_limit(
        self, flat: Floats, memory_joules: Floats, core_joules: Floats, clocks: Clocks
    ) -> tuple[Floats, Floats]:
        """Seconds of steps, and the part of the full voltage, at the highest clock at which they draw no more
        than the limit; found by halving."""
        duration, active = self._model.duration(), self._model.step_joules().active_watts
        limit = self._limit_watts
        read = duration.weights.value(flat)
        by_memory, by_arithmetic, _ = duration.bounds(flat, read)
        other = flat[:, laws.OTHER_FLOPS] * duration.time.per_flop
        linear = flat[:, laws.TOKENS] * (duration.flops_per_token * duration.time.per_flop)

        def at(clock: Floats) -> tuple[Floats, Floats, Floats]:
            longer = 1.0 / clock - 1.0
            seconds = np.maximum(by_memory + other * longer, by_arithmetic + (other + linear) * longer)
            voltage = clocks.voltage_floor + (1.0 - clocks.voltage_floor) * clock
            return seconds, voltage, memory_joules + (core_joules + active * seconds) * voltage**2

        low, high = np.full(len(flat), clocks.lowest), np.ones(len(flat))
        seconds, voltage, joules = at(high)
        low = np.where(joules <= limit * seconds, 1.0, low)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            seconds, _, joules = at(middle)
            fits = joules <= limit * seconds
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        seconds, voltage, joules = at(low)
        static = active * voltage**2
        stretched = (joules - static * seconds) / np.maximum(limit - static, 0.1 * limit)
        return np.maximum(seconds, stretched), voltage


@dataclass(frozen=True, slots=True, eq=False)
class StepTable:
    """Mean figures of steps by how many requests they hold, and what a chunk more would add."""

    batch: Floats
    """Ascending, from 1."""
    usual: Floats
    """Batches × :data:`FIGURES`: with as many prompts as requests bring."""
    plain: Floats
    """The same without any prompt."""
    again: tuple[Floats, ...]
    """For each kind of chunk that is computed again: what one adds to a plain step."""
    square_seconds: Floats
    """Mean square of the usual steps' seconds."""
    first: Floats
    """Mean seconds of usual steps for a request whose prompt is in them."""
    decoding: Floats
    """Mean seconds of usual steps for a request that decodes in them."""
    durations: Floats
    """Seconds that usual steps may take (batches × cases), and how often they do, by :attr:`chances`."""
    chances: Floats
    decoders: Floats
    """Requests that decode in each case (batches × cases)."""
    slowest: Floats
    """Mean seconds of the longest of one, two, … usual steps, up to as many as there are pipeline stages
    (batches × stages)."""

    def at(self, table: Floats, batch: Floats) -> Floats:
        """A table's rows at other batches, between and beyond linear; below one request, as at one."""
        where = np.clip(batch, self.batch[0], self.batch[-1])
        if table.ndim == 1:
            return np.interp(where, self.batch, table)
        return np.stack([np.interp(where, self.batch, column) for column in table.T], axis=-1)


def tabulate(service: Service, mean: Mean, fresh: Chunks, again: Sequence[Chunks], most: float) -> StepTable:
    """The table for up to ``most`` requests in a step."""
    law = StepLaw(service)
    batch = np.unique(np.rint(np.geomspace(1.0, max(most, 1.0), 40)))
    if batch[-1] < most:
        batch = np.append(batch, batch[-1] + 1.0)
    part = fresh.per_request / (fresh.per_request + mean.decode_steps)
    counts, weights = _counts(batch, part)
    decoder = decoder_of(service, mean)
    decoding = np.maximum(batch[:, None] - counts[None, :], 0.0)
    requests = np.maximum(batch[:, None], counts[None, :])
    pair = fresh.pairs()
    costs = np.zeros((len(batch), len(counts), FIGURES))
    squares = np.zeros((len(batch), len(counts)))
    durations: list[Floats] = []
    chances: list[Floats] = []
    decoders: list[Floats] = []
    for at, count in enumerate(counts.tolist()):
        chance, bring = _together(fresh, pair, count)
        sums = decoding[:, at, None, None] * decoder + bring[None]
        each = law.cost(law.features(requests[:, at, None], sums))
        costs[:, at] = np.einsum("s,bsf->bf", chance, each)
        squares[:, at] = each[..., SECONDS] ** 2 @ chance
        durations.append(each[..., SECONDS])
        chances.append(weights[:, at, None] * chance[None])
        decoders.append(np.broadcast_to(decoding[:, at, None], durations[-1].shape))
    usual = np.einsum("bc,bcf->bf", weights, costs)
    plain = law.cost(law.features(batch, batch[:, None] * decoder))
    prompts = counts * weights
    seconds, often = np.concatenate(durations, axis=1), np.concatenate(chances, axis=1)
    return StepTable(
        batch=batch,
        usual=usual,
        plain=plain,
        again=tuple(_added(law, batch, decoder, kind) - plain for kind in again),
        square_seconds=(weights * squares).sum(axis=1),
        first=_mean(costs[..., SECONDS], prompts),
        decoding=_mean(costs[..., SECONDS], decoding * weights),
        durations=seconds,
        chances=often,
        decoders=np.concatenate(decoders, axis=1),
        slowest=slowest_of(seconds, often, service.pipeline_parallel),
    )


def _added(law: StepLaw, batch: Floats, decoder: Floats, chunks: Chunks) -> Floats:
    """Mean figures of steps in which one of these chunks takes the place of a decoding request."""
    sums = (batch[:, None, None] - 1.0) * decoder + chunks.figures[None]
    return np.asarray(np.einsum("s,bsf->bf", chunks.chance, law.cost(law.features(batch[:, None], sums))))


def _mean(values: Floats, weights: Floats) -> Floats:
    """By row."""
    return np.asarray((values * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-300))


def decoder_of(service: Service, mean: Mean) -> Floats:
    """What a decoding request brings to a step."""
    tokens = 1.0 + service.drafted_per_pass
    after = mean.context + tokens
    positions = tokens * (mean.context + 0.5 * (tokens + 1.0))
    return np.array([tokens, after, positions, service.tokens_per_pass])


def _together(one: Chunks, two: Chunks, count: float) -> tuple[Floats, Floats]:
    """Chances and sums of ``count`` chunks in a step. Of more than two, a pair is stretched to their mean
    and variance."""
    if count == 0.0:
        return np.ones(1), np.zeros((1, chunk_columns.FIGURES))
    if count == 1.0:
        return one.chance, one.figures
    twice = 2.0 * one.mean
    return two.chance, 0.5 * count * twice + np.sqrt(0.5 * count) * (two.figures - twice)


def _counts(batch: Floats, part: float) -> tuple[Floats, Floats]:
    """Numbers of chunks in a step that are looked at, and how often each is met (batches × numbers), where
    each request of the step is at a chunk with the chance ``part``."""
    largest = float(batch[-1])
    mean = largest * part
    most = int(min(largest, np.ceil(mean + 6.0 * np.sqrt(mean) + 4.0)))
    every = np.arange(most + 1, dtype=np.float64)
    log_chance = _log_binomial(batch[:, None], every[None, :], part)
    chance = np.exp(log_chance)
    chance /= chance.sum(axis=1, keepdims=True)
    few = every[: _FEW + 1]
    some = few if most <= _FEW else np.unique(np.append(few, np.rint(np.geomspace(_FEW, most, 10))))
    low = np.clip(np.searchsorted(some, every, side="right") - 1, 0, max(len(some) - 2, 0))
    weights = np.zeros((len(batch), len(some)))
    if len(some) == 1:
        return some, chance.sum(axis=1, keepdims=True)
    upper = (every - some[low]) / (some[low + 1] - some[low])
    for at in range(len(every)):
        weights[:, low[at]] += chance[:, at] * (1.0 - upper[at])
        weights[:, low[at] + 1] += chance[:, at] * upper[at]
    return some, weights


def _log_binomial(number: Floats, chosen: Floats, part: float) -> Floats:
    """Logarithm of the binomial chance; −inf where more are chosen than there are."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, float(number.max()) + 1.0)))])
    left = number - chosen
    possible = left >= 0
    rest = np.where(possible, left, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_part = np.where(chosen > 0, chosen * np.log(part), 0.0)
        log_rest = np.where(rest > 0, rest * np.log1p(-part) if part < 1.0 else -np.inf, 0.0)
    whole = factorials[number.astype(np.int64)] - factorials[chosen.astype(np.int64)]
    return np.asarray(
        np.where(possible, whole - factorials[rest.astype(np.int64)] + log_part + log_rest, -np.inf)
    )
