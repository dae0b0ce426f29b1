"""The long run of an engine with continuous batching and chunked prefill, from the cost of its steps.

Every running request is in every step and gets its next token of it, so the engine is a server that all
share alike: with *n* requests present, *r(n)* run, each step takes *t(r)*, and requests end at the rate
``μ(n) = r(n) / (steps of a request · t(r(n)))``. The number present is then a birth–death chain, and for
``r = n`` it depends on nothing but the mean of the requests' steps (such queues are insensitive to how
lengths are distributed; F. P. Kelly, "Reversibility and Stochastic Networks", 1979). Each of the *r* requests
of a step is at its prompt with the chance ``chunks / steps`` of its life, independent of the others, from
which follow the mean time and joules of steps with *r* requests.

What the model leaves out: that long steps make arrivals come in clumps, that requests which wait for room
are of other lengths than those that fit, and whatever the cost model of steps leaves out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from joulescope.insight.steady.chunks import DEFAULT_BUDGET, Chunks, again_chunks, prompt_chunks
from joulescope.insight.steady.mixture import mixed
from joulescope.insight.steady.pipeline import (
    chances,
    closed_ratio,
    open_ratio,
    since_begun,
    split_chance,
)
from joulescope.insight.steady.requests import Mean, mean_of
from joulescope.insight.steady.room import Room, room_of
from joulescope.insight.steady.step_law import FIGURES, SECONDS, STATIC, StepTable, tabulate
from joulescope.insight.steady.values import LengthClass, Operation, Parts, Service, Workload

Floats = NDArray[np.float64]

_ALMOST = 1.0 - 1e-9
"""Of the capacity: from here on the queue grows."""

_NEVER = 1e-4
"""A state of a pipeline that is met less often is left out."""


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """What holds with so many requests present; rows by state."""

    present: Floats
    running: Floats
    together: Floats
    """Requests in a step: those that run, by pipeline stage."""
    flights: Floats
    """Steps under way at a time, up to one for each pipeline stage."""
    figures: Floats
    """Of a step: seconds, and joules of one GPU by part (:mod:`.step_law`)."""
    again: Floats
    """Of that, for what is computed again."""
    bubble: Floats
    """Seconds by which the slowest of the steps under way is longer than the mean: none goes on to the next
    stage before it is free."""
    wait: Floats
    """Seconds that the GPUs wait for the host before a step."""
    cycle: Floats
    """Seconds from one step of a request to its next."""
    ends: Floats
    """Requests that end a second."""
    full: Floats
    """Chance that the KV cache holds requests back."""
    pushed: Floats
    """Preemptions a second."""


@dataclass(frozen=True, slots=True)
class _Queue:
    """How requests come and wait."""

    capacity: float
    """Requests a second that can be served."""
    seconds: float | None
    """In the queue; ``None`` where it grows."""
    saturated: bool = False
    closed: bool = False
    """Whether one comes as another goes."""


class Engine:
    """One service under one mix of lengths."""

    def __init__(self, classes: tuple[LengthClass, ...], shared_tokens: float, service: Service) -> None:
        budget = service.limits.max_num_batched_tokens
        self.service, self.shared_tokens = service, shared_tokens
        self.classes = classes
        self.fresh: Chunks = prompt_chunks(classes, budget)
        self.mean: Mean = mean_of(classes, service.tokens_per_pass, self.fresh.per_request)
        self.steps = self.mean.decode_steps + self.fresh.per_request
        self.room: Room = room_of(service.limits, classes, self.mean, self._step_tokens(), shared_tokens)
        self.stages = max(service.pipeline_parallel, 1)
        self.budget = float(budget or DEFAULT_BUDGET)
        fewest = 1.0 if self.stages > 1 and service.flights is None else self.bounded(service.flights)
        most = max(self.room.most / fewest, 1.0)
        full = self.room.when_full
        cached = max(self.mean.context - self.mean.held, 0.0)
        lost = again_chunks(max(full.victim_tokens, 1.0), cached, budget)
        vain = again_chunks(max((budget or math.inf) - most, 1.0) if full.vain_chunks else 1.0, 0.0, budget)
        self.again_by_end = (full.preemptions * lost.per_request, full.vain_chunks)
        """Chunks of each kind that are computed again, by request that ends while the cache is full."""
        self.table: StepTable = tabulate(service, self.mean, self.fresh, (lost, vain), most)
        self._saturated: dict[float | None, States] = {}

    def _step_tokens(self) -> float:
        part = self.fresh.per_request / self.steps
        return part * float(self.fresh.mean[0]) + (1.0 - part) * (1.0 + self.service.drafted_per_pass)

    def bounded(self, flights: float | None) -> float:
        """Steps under way at a time, where many run; ``None``: as many as can be."""
        return min(max(flights or self.stages, 1.0), float(self.stages))

    def states(self, present: Floats, flights: float | None = None) -> States:
        """What holds with so many present, and up to so many steps under way."""
        running, full = self.room.running(present), self.room.full(present)
        together = np.maximum(running / self.bounded(flights), np.minimum(running, 1.0))
        again = np.zeros((len(present), FIGURES))
        for by_end, table in zip(self.again_by_end, self.table.again, strict=True):
            again += (by_end * full * together / self.steps)[:, None] * self.table.at(table, together)
        figures = self.table.at(self.table.usual, together) + again
        by_step, by_request = self.service.laws.wait_seconds
        wait = by_step + by_request * together
        bubble = self._bubble(together, running / together)
        cycle = self.stages * (figures[:, SECONDS] + bubble + wait)
        ends = running / (self.steps * cycle)
        return States(
            present=present,
            running=running,
            together=together,
            flights=running / together,
            figures=figures,
            again=again,
            bubble=bubble,
            wait=wait,
            cycle=cycle,
            ends=ends,
            full=full,
            pushed=(self.room.when_full.preemptions + self.room.when_full.vain_preemptions) * full * ends,
        )

    def saturated(self, flights: float | None = None) -> States:
        """What holds with more present than can ever run; every load is compared with it."""
        if flights not in self._saturated:
            self._saturated[flights] = self.states(np.array([1e12]), flights)
        return self._saturated[flights]

    def _bubble(self, together: Floats, flights: Floats) -> Floats:
        if self.stages == 1:
            return np.zeros_like(together)
        slowest = self.table.at(self.table.slowest, together)
        low = np.clip(np.floor(flights).astype(np.int64), 1, self.stages - 1)
        rows, part = np.arange(len(together)), flights - low
        longest = (1.0 - part) * slowest[rows, low - 1] + part * slowest[rows, low]
        return np.asarray(np.maximum(longest - slowest[:, 0], 0.0))


engine_of = lru_cache(maxsize=128)(Engine)
"""The same service is asked for many loads, and what a load does not change is most of the work."""


def steady_state(workload: Workload, service: Service) -> Operation:
    """How a service fares under a workload in the long run.

    Deterministic, and smooth in everything but the number of chunks that a prompt falls into.

    Raises:
        ValueError: the laws hold no coefficients.
    """
    engine = engine_of(workload.classes, workload.shared_tokens, service)
    if engine.stages == 1 or service.flights is not None:
        return _with_flights(engine, workload, service.flights)
    found = [
        (chance, _with_flights(engine, workload, float(flights)))
        for flights, chance in enumerate(_flight_chances(engine, workload), start=1)
        if chance > _NEVER
    ]
    return mixed(found)


def flight_chances(workload: Workload, service: Service) -> tuple[float, ...]:
    """How often one step is under way at a time, two, …, up to one for each pipeline stage; sums to 1."""
    return _flight_chances(engine_of(workload.classes, workload.shared_tokens, service), workload)


def _flight_chances(engine: Engine, workload: Workload) -> tuple[float, ...]:
    stages, rate, clients = engine.stages, workload.arrivals_per_second, workload.concurrency
    if stages == 1:
        return (1.0,)
    full = engine.saturated()
    if clients is not None and clients > engine.room.most * _ALMOST:
        split = split_chance(engine.fresh, engine.budget, float(full.ends[0] * full.cycle[0]))
        return tuple(since_begun(split * float(full.ends[0]), min(stages, int(engine.room.most)), stages))
    ratios = []
    for sets in range(1, stages):
        fewer = engine.saturated(float(sets))
        if rate is not None and rate >= _ALMOST * float(fewer.ends[0]):
            ratios.append(math.inf)
            continue
        operation = _with_flights(engine, workload, float(sets + 1))
        beside = operation.requests_per_second * stages * operation.step_seconds
        split = split_chance(engine.fresh, engine.budget, beside)
        if clients is not None:
            ratios.append(closed_ratio(split, clients, sets))
        else:
            ratios.append(open_ratio(split, operation.running, sets))
    return tuple(chances(ratios).tolist())


def _with_flights(engine: Engine, workload: Workload, flights: float | None) -> Operation:
    """The long run where so many steps are under way at a time, if so many requests are there."""
    saturated = engine.saturated(flights)
    capacity = float(saturated.ends[0])
    rate = workload.arrivals_per_second
    if rate is not None and rate < _ALMOST * capacity:
        return _open(engine, rate, capacity, flights)
    if rate is not None or workload.concurrency is None:
        return _operation(engine, saturated, np.ones(1), _Queue(capacity, None, saturated=True))
    if workload.concurrency == 0.0:
        return _open(engine, 0.0, capacity, flights)
    return _closed(engine, workload.concurrency, capacity, flights)


@dataclass(frozen=True, slots=True, eq=False)
class Occupancy:
    """How often so many requests are present, where requests come at a rate."""

    states: States
    chance: Floats
    """Of each state; the last holds all deeper ones too. With the chance that is left nobody is there."""
    present: float
    """In the mean, those that wait included."""
    tail: float
    """By how much each deeper state is seldomer than the one before."""


def occupancy(engine: Engine, rate: float, capacity: float, flights: float | None) -> Occupancy:
    """The birth–death chain at a rate that can be served."""
    states = engine.states(np.arange(1.0, engine.room.deepest + 1.0), flights)
    with np.errstate(divide="ignore"):
        log_chance = np.cumsum(np.log(rate) - np.log(states.ends))
    tail = rate / capacity
    top = max(float(log_chance.max()), 0.0)
    chance = np.exp(log_chance - top)
    beyond = float(chance[-1]) * tail / (1.0 - tail)
    """Chance of still more present, each with one more as likely by ``tail``."""
    none = math.exp(-top)
    whole = none + float(chance.sum()) + beyond
    chance = chance / whole
    present = float(chance @ states.present) + beyond / whole * (
        float(states.present[-1]) + 1.0 / (1.0 - tail)
    )
    chance[-1] += beyond / whole  # more than the deepest state changes nothing but the queue
    return Occupancy(states, chance, present, tail)


def _open(engine: Engine, rate: float, capacity: float, flights: float | None) -> Operation:
    """Requests come at a rate that can be served."""
    found = occupancy(engine, rate, capacity, flights)
    running = float(found.chance @ found.states.running)
    queue = max(found.present - running, 0.0) / rate if rate > 0.0 else 0.0
    return _operation(engine, found.states, found.chance, _Queue(capacity, queue))


def _closed(engine: Engine, clients: float, capacity: float, flights: float | None) -> Operation:
    """As many requests as clients, always."""
    states = engine.states(np.array([max(clients, 1.0)]), flights)
    busy = min(clients, 1.0)
    queue = None
    if math.isfinite(clients):
        queue = max(float((clients - states.running[0]) / states.ends[0]), 0.0)
    held_back = clients > engine.room.most * _ALMOST
    return _operation(engine, states, np.array([busy]), _Queue(capacity, queue, held_back, closed=True))


def _operation(engine: Engine, states: States, chance: Floats, queue: _Queue) -> Operation:
    """Means over the states; with the chance that is left, the engine is empty."""
    service, mean = engine.service, engine.mean
    busy, ends = float(chance.sum()), float(chance @ states.ends)
    pace = chance * states.flights / states.cycle
    """Steps a second in each state."""
    parts = _parts(engine, pace @ states.figures, busy, float(pace @ states.figures[:, SECONDS]))
    tokens = ends * mean.output_tokens
    limit = service.limits.kv_cache_tokens
    running = float(chance @ states.running)
    by_step, by_request = _shares(pace), _shares(chance * states.ends)
    held = running * mean.held / max(busy, 1e-300) + engine.shared_tokens
    prompts = engine.table.at(engine.table.usual - engine.table.plain, states.together)
    intake, prompt = _first_token(engine, states, chance, queue)
    by_token = service.gpu_count / tokens if tokens > 0.0 else 0.0
    return Operation(
        batch=float(by_step @ states.together),
        running=running,
        step_seconds=float(by_step @ states.figures[:, SECONDS]),
        wait_seconds=float(by_step @ states.wait),
        inter_token_seconds=_inter_token(engine, states, by_request),
        first_token_seconds=None if queue.seconds is None else queue.seconds + intake + prompt,
        queue_seconds=queue.seconds,
        intake_seconds=intake,
        tokens_per_second=tokens,
        requests_per_second=ends,
        watts=parts.total,
        joules_per_token=parts.times(1.0 / tokens) if tokens > 0.0 else None,
        recompute_joules_per_token=by_token * float(pace @ states.again[:, STATIC:].sum(axis=1)),
        prefill_joules_per_token=by_token * float(pace @ prompts[:, STATIC:].sum(axis=1)),
        busy_ratio=busy,
        kv_usage_ratio=min(held / limit, 1.0) if limit else None,
        kv_full_ratio=float(chance @ states.full),
        preemptions_per_second=float(chance @ states.pushed),
        saturated=queue.saturated,
        capacity_requests_per_second=queue.capacity,
    )


def _parts(engine: Engine, figures: Floats, busy: float, worked: float) -> Parts:
    """Watts of all GPUs from the figures of all steps of a second, and the time that any request runs."""
    laws, gpus = engine.service.laws, engine.service.gpu_count
    static, weights, kv, flops, sequences, links = (gpus * figures[STATIC:]).tolist()
    idle_watts = gpus * laws.idle_watts
    return Parts(
        static=static,
        weights=weights,
        kv=kv,
        flops=flops,
        sequences=sequences,
        waiting=idle_watts * max(busy - worked, 0.0),
        idle=idle_watts * max(1.0 - busy, 0.0),
        links=links,
    )


def _shares(weights: Floats) -> Floats:
    """Parts of a whole; where there is none, what holds for the first request that comes."""
    whole = float(weights.sum())
    return weights / whole if whole > 0.0 else np.eye(len(weights))[0]


def _inter_token(engine: Engine, states: States, by_request: Floats) -> float:
    """Mean time between the tokens of a request: the steps in which it decodes, whatever else is in them."""
    more = states.figures[:, SECONDS] - engine.table.at(engine.table.usual, states.together)[:, SECONDS]
    decoding = engine.table.at(engine.table.decoding, states.together) + more + states.bubble + states.wait
    passes = float(by_request @ decoding) * engine.stages
    return passes / engine.service.tokens_per_pass


def _gathered(table: StepTable, together: Floats) -> Floats:
    """What the step that takes in an arrival is longer because others arrived beside it: who comes, comes
    rather during a long step, and more come in that."""
    usual = table.at(table.usual, together)[:, SECONDS]
    prompts = usual - table.at(table.plain, together)[:, SECONDS]
    scatter = table.at(table.square_seconds, together) / np.maximum(usual, 1e-12) ** 2 - 1.0
    return np.asarray(prompts * np.maximum(scatter, 0.0))


def _first_token(engine: Engine, states: States, chance: Floats, queue: _Queue) -> tuple[float, float]:
    """Mean time until the engine looks up from the step under way, and from then to the first token, without
    the queue: a step that is scheduled already, and those that compute the prompt."""
    table, together = engine.table, states.together
    seconds = states.figures[:, SECONDS] + states.wait
    left = 0.5 * table.at(table.square_seconds, together) / np.maximum(seconds, 1e-12)
    if engine.stages > 1:  # the engine looks up when a step has gone through all stages
        left *= states.cycle / (states.flights * np.maximum(seconds, 1e-12))
    if queue.closed:
        left = np.zeros_like(left)  # who comes as another goes comes between two steps
    ahead = seconds if engine.service.async_scheduling else np.zeros_like(seconds)
    alone = 1.0 - float(chance.sum())
    with_prompt = table.at(table.first, together) + states.wait
    first = alone * float(with_prompt[0]) + float(chance @ with_prompt)
    if not queue.closed:
        first += float(chance @ _gathered(table, together))
    prompt = float(chance @ ahead) + engine.stages * engine.fresh.per_request * first
    return float(chance @ left), prompt
