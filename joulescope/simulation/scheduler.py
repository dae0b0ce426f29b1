"""A continuous-batching scheduler in the manner of vLLM's V1: one token budget for all.

Running requests come first, each with what it lacks (one token in decode, a chunk in prefill); what is
left of the budget admits waiting ones. When no block is free the request that came last is preempted: it
loses its blocks, goes back to the front of the queue, and later computes everything again, the tokens it
had already generated included.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from joulescope.simulation.kv_cache import KvCache
from joulescope.simulation.workload import PlannedRequest


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The engine's arguments, named as vLLM names them."""

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    kv_cache_tokens: int = 420_000
    block_size: int = 16
    async_scheduling: bool = True
    """Schedule a step while the one before still runs (vLLM's default since 0.14)."""


USUAL_LIMITS = EngineLimits()
"""vLLM's defaults, and the KV cache of an 8B model on 80 GB."""


@dataclass(slots=True, eq=False)
class Request:
    """A request inside the engine."""

    handle: int
    plan: PlannedRequest
    computed: int = 0
    """Tokens whose KV is computed, those of steps in flight included."""
    generated: int = 0
    placeholders: int = 0
    """Tokens that steps in flight will generate."""
    in_flight: int = 0
    """Steps in flight that compute it."""
    high_water: int = 0
    """The most tokens that were ever computed: below it, computing again is a recomputation."""
    blocks: int = 0
    shared_prefix: bool = False
    admitted: bool = False
    hit_tokens: int = 0
    """Prefix hit at first admission."""
    preemptions: int = 0
    finished: bool = False
    luck: Random = field(default_factory=Random)
    """Decides which of the tokens drafted for it are right."""
    drafts: int = 0
    """Tokens that the drafter has proposed, to be verified in the next step."""

    @property
    def tokens(self) -> int:
        """Tokens it consists of, those in flight included."""
        return self.plan.prompt_tokens + self.generated + self.placeholders


@dataclass(slots=True, eq=False)
class Batch:
    """What one step computes; the columns are parallel."""

    requests: list[Request] = field(default_factory=list)
    context: list[int] = field(default_factory=list)
    scheduled: list[int] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    """Tokens that come out, as far as can be known beforehand."""
    heads: list[int] = field(default_factory=list)
    """Tokens at which the output head runs: one, and one for each draft."""
    drafted: list[int] = field(default_factory=list)
    recomputed: list[int] = field(default_factory=list)
    admitted_with_hit: list[Request] = field(default_factory=list)
    """Requests that this step computes for the first time and that found their prefix."""
    preempted: list[Request] = field(default_factory=list)


class Scheduler:
    """Queue, running set and KV cache of one engine.

    ``accept`` says how many of a request's drafted tokens will turn out right.
    """

    def __init__(self, limits: EngineLimits, accept: Callable[[Request, int], int] | None = None) -> None:
        self.limits = limits
        self._accept = accept or (lambda request, drafted: 0)
        self.kv = KvCache(limits.kv_cache_tokens, limits.block_size)
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    def add(self, request: Request) -> None:
        self.waiting.append(request)

    def schedule(self) -> Batch:
        """Decides the next step; an empty batch if there is nothing to compute."""
        batch = Batch()
        budget = self._schedule_running(batch, self.limits.max_num_batched_tokens)
        if not batch.preempted:
            self._admit_waiting(batch, budget)
        return batch

    def free(self, request: Request) -> None:
        """Takes a finished request out and gives its memory back."""
        request.finished = True
        if request in self.running:
            self.running.remove(request)
        elif request in self.waiting:
            self.waiting.remove(request)
        self._release_memory(request)

    def _schedule_running(self, batch: Batch, budget: int) -> int:
        # This and what it calls run for each request of each step: properties, small methods and built-in
        # functions would take most of the time.
        running, ahead = self.running, self.limits.async_scheduling
        position = 0
        while position < len(running) and budget > 0:
            request = running[position]
            position += 1
            plan, known = request.plan, request.generated + request.placeholders
            count = plan.prompt_tokens + known - request.computed + request.drafts
            if count > budget:
                count = budget
            # A token that is not known yet must be left to the GPU to fill in.
            if count <= 0 or known >= plan.max_tokens or (request.placeholders and not ahead):
                continue
            if not self._allocate(request, count) and not self._preempt_for(batch, request, count):
                break
            self._put(batch, request, count)
            budget -= count
        return budget

    def _preempt_for(self, batch: Batch, request: Request, count: int) -> bool:
        """Room for ``count`` more tokens at the expense of those that came last."""
        while not self._allocate(request, count):
            victim = self.running[-1]
            self._preempt(batch, victim)
            if victim is request:
                return False
        return True

    def _admit_waiting(self, batch: Batch, budget: int) -> None:
        while self.waiting and budget > 0 and len(self.running) < self.limits.max_num_seqs:
            request = self.waiting[0]
            if request.in_flight:
                # Preempted while a step with it was running: its token must come back first.
                break
            hit = self.kv.hit_tokens(request.plan.prefix, min(request.plan.prefix_tokens, request.tokens - 1))
            count = min(request.tokens - hit, budget)
            if not self._begin(request, hit, count):
                break
            self.waiting.popleft()
            if hit and not request.admitted:
                request.hit_tokens = hit
                batch.admitted_with_hit.append(request)
            request.admitted = True
            self.running.append(request)
            self._put(batch, request, count)
            budget -= count

    def _begin(self, request: Request, hit: int, count: int) -> bool:
        if hit:
            # Before blocks are taken: what is in use cannot be evicted to make room.
            self.kv.use(request.plan.prefix)
        request.computed = hit
        request.blocks = hit // self.limits.block_size
        if not self._allocate(request, count):
            request.computed = request.blocks = 0
            if hit:
                self.kv.release(request.plan.prefix)
            return False
        request.shared_prefix = hit > 0
        return True

    def _allocate(self, request: Request, count: int) -> bool:
        needed = request.computed + count
        if needed <= request.blocks * self.limits.block_size:
            return True
        lacking = self.kv.blocks_for(needed) - request.blocks
        if not self.kv.take(lacking):
            return False
        request.blocks += lacking
        return True

    def _put(self, batch: Batch, request: Request, count: int) -> None:
        """Enters the request into the step and counts the step's tokens as computed from now on."""
        plan, before, high = request.plan, request.computed, request.high_water
        known = plan.prompt_tokens + request.generated + request.placeholders
        after = before + count
        batch.requests.append(request)
        batch.context.append(before)
        batch.scheduled.append(count)
        batch.recomputed.append((after if after < high else high) - before if before < high else 0)
        request.computed = after
        drafted = after - known if after > known else 0
        if after - drafted > high:
            request.high_water = after - drafted
        samples = 1 if after >= known else 0
        batch.samples.append(samples + self._accept(request, drafted) if drafted else samples)
        batch.heads.append(samples + drafted)
        batch.drafted.append(drafted)
        request.placeholders += samples
        request.in_flight += 1
        if plan.prefix and not request.shared_prefix and request.computed >= plan.prefix_tokens:
            request.shared_prefix = self.kv.keep(plan.prefix, plan.prefix_tokens) > 0

    def _preempt(self, batch: Batch, victim: Request) -> None:
        self.running.pop()
        self._release_memory(victim)
        victim.computed = 0
        victim.preemptions += 1
        self.waiting.appendleft(victim)
        batch.preempted.append(victim)

    def _release_memory(self, request: Request) -> None:
        shared = 0
        if request.shared_prefix:
            shared = request.plan.prefix_tokens // self.limits.block_size
            self.kv.release(request.plan.prefix)
            request.shared_prefix = False
        self.kv.give_back(request.blocks - shared)
        request.blocks = 0
