"""An engine's life rehearsed: continuous batching step by step, priced by fitted laws.

Batch size, step time, preemptions and idle time are consequences of what clients ask for, of limits and of
what steps cost. The rehearsal lets them follow: requests arrive, are admitted as the token budget, the batch
limit and the KV cache allow, generate, are preempted when no room is left (the last come first, and compute
everything again) and leave. It keeps sums instead of requests where it can, so that a step costs the same
whatever its batch is.

Arrivals and lengths come from one fixed sequence: two states that differ in one driver meet the same clients,
and the difference is the driver's.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

from joulescope.insight.diagnosis.prices import COMPUTE, POWER, StepPrices
from joulescope.insight.diagnosis.state import State

_GOLDEN = 0.6180339887498949
"""Its multiples, taken modulo 1, fill an interval evenly: so lengths are drawn."""

_SEED = 20260122

_BLOCK_TOKENS = 16
_SATURATED = 2000
"""Waiting requests beyond which no more are kept: the queue of a saturated engine grows without end."""


@dataclass(slots=True)
class Rehearsal:
    """What an engine did from the end of its warm-up on, as sums. Joules are of all GPUs."""

    seconds: float = 0.0
    busy_seconds: float = 0.0
    """With requests running, waiting for the host between steps included."""
    waited_seconds: float = 0.0
    """Of these, waited for the host."""
    generated: float = 0.0
    computed: float = 0.0
    recomputed: float = 0.0
    joules: float = 0.0
    idle_joules: float = 0.0
    recompute_joules: float = 0.0
    """Of ``joules``, in proportion to tokens of their steps."""
    steps: int = 0
    sequences: float = 0.0
    compute_bound_seconds: float = 0.0
    power_bound_seconds: float = 0.0
    kv_token_seconds: float = 0.0
    preemptions: int = 0
    arrived: int = 0
    waiting: int = 0
    """When it ended."""

    @property
    def joules_per_token(self) -> float:
        return self.joules / max(self.generated, 1e-9)

    @property
    def batch(self) -> float:
        return self.sequences / max(self.steps, 1)


@dataclass(slots=True, eq=False)
class _Request:
    prompt: float
    """To be computed before the first token: what is cached left out, what was generated before a preemption
    included."""
    cached: float
    output: float
    recompute: float = 0.0
    left: float = 0.0
    """Of ``prompt``, not computed yet."""
    done_at: float = 0.0
    """The progress of all decoding requests at which it has said everything."""
    began_at: float = 0.0
    gone: bool = False


@dataclass(slots=True)
class _Engine:
    """The engine between two steps."""

    state: State
    prices: StepPrices
    now: float = 0.0
    progress: float = 0.0
    """Tokens that a request has generated that decoded all along."""
    decoding: int = 0
    context: float = 0.0
    """Σ tokens of decoding requests."""
    private: float = 0.0
    """Tokens that occupy the KV cache, in blocks; cached prefixes are shared, and left out."""
    waiting: deque[_Request] = field(default_factory=deque)
    prefilling: list[_Request] = field(default_factory=list)
    order: list[_Request] = field(default_factory=list)
    """Running requests as they were admitted; those that ended are taken off lazily."""
    ends: list[tuple[float, int, _Request]] = field(default_factory=list)
    admitted: int = 0
    dead: int = 0
    sums: Rehearsal = field(default_factory=Rehearsal)

    # ------------------------------------------------------------------------------------------ a step

    def step(self) -> None:
        """Schedules a step and does it."""
        state = self.state
        crowded = self._make_room()
        width = 1.0 + state.drafted_per_pass
        budget = state.max_num_batched_tokens - self.decoding * width
        tokens, positions, kv_tokens = self.decoding * width, self.context * width, self.context
        heads, recomputed = self.decoding * width, 0.0
        done: list[_Request] = []
        sequences = self.decoding
        for request in tuple(self.prefilling):
            if budget <= 0:
                break
            if request not in self.prefilling:  # it had to make room for the one before
                continue
            count = min(request.left, budget)
            if self.private + count > state.kv_room and not self._free(count, request):
                crowded = True
                break
            positions, kv_tokens = self._compute(request, count, positions, kv_tokens)
            recomputed += min(count, request.recompute)
            tokens, budget, sequences = tokens + count, budget - count, sequences + 1
            if request.left <= 0:
                done.append(request)
        while self.waiting and not crowded and budget > 0 and self._running() < state.max_num_seqs:
            request = self.waiting[0]
            count = min(request.prompt, budget)
            if self.private + count + _BLOCK_TOKENS > state.kv_room:
                break
            self.waiting.popleft()
            request.left = request.prompt
            request.gone = False
            self.prefilling.append(request)
            self.order.append(request)
            positions, kv_tokens = self._compute(request, count, positions, kv_tokens)
            self.private += _BLOCK_TOKENS / 2
            recomputed += min(count, request.recompute)
            tokens, budget, sequences = tokens + count, budget - count, sequences + 1
            if request.left <= 0:
                done.append(request)
        self._do(sequences, tokens, positions, kv_tokens, heads + len(done), recomputed)
        self._take_output(done)

    def _compute(
        self, request: _Request, count: float, positions: float, kv_tokens: float
    ) -> tuple[float, float]:
        context = request.cached + request.prompt - request.left
        request.left -= count
        self.private += count
        return positions + count * (context + (count + 1.0) / 2.0), kv_tokens + context + count

    def _running(self) -> int:
        return self.decoding + len(self.prefilling)

    def _do(
        self, sequences: int, tokens: float, positions: float, kv_tokens: float, heads: float, recomputed: float
    ) -> None:
        prices, sums = self.prices, self.sums
        cost = prices.of(sequences, tokens, positions, kv_tokens, heads)
        waited = prices.wait_step + prices.wait_sequence * sequences
        waited_joules = waited * prices.idle_watts
        elapsed = cost.seconds + waited
        self.now += elapsed
        sums.steps += 1
        sums.sequences += sequences
        sums.busy_seconds += elapsed
        sums.waited_seconds += waited
        sums.joules += cost.joules + waited_joules
        sums.computed += tokens
        if recomputed:
            sums.recomputed += recomputed
            sums.recompute_joules += cost.joules * recomputed / tokens
        if cost.bound == COMPUTE:
            sums.compute_bound_seconds += cost.seconds
        elif cost.bound == POWER:
            sums.power_bound_seconds += cost.seconds
        sums.kv_token_seconds += self.private * elapsed

    def _take_output(self, done: list[_Request]) -> None:
        """Every decoding request got its tokens, and those whose prompt is done their first."""
        gained = self.state.tokens_per_pass
        self.progress += gained
        self.context += self.decoding * gained
        self.private += self.decoding * gained
        self.sums.generated += self.decoding * gained
        while self.ends and self.ends[0][0] <= self.progress + 1e-9:
            request = heapq.heappop(self.ends)[2]
            if not request.gone:
                self._leave(request)
        for request in done:
            self.prefilling.remove(request)
            self.sums.generated += 1.0
            request.recompute = 0.0
            if request.output <= 1.0:
                request.gone = True
                self.dead += 1
                self.private -= request.prompt + _BLOCK_TOKENS / 2
                continue
            self.decoding += 1
            request.began_at = self.progress
            request.done_at = self.progress + request.output - 1.0
            self.context += request.cached + request.prompt
            self.admitted += 1
            heapq.heappush(self.ends, (request.done_at, self.admitted, request))

    def _leave(self, request: _Request) -> None:
        """A decoding request ends, or is preempted; what it said beyond its end was not said."""
        said = self.progress - request.began_at
        request.gone = True
        self.dead += 1
        self.decoding -= 1
        self.context -= request.cached + request.prompt + said
        self.private -= request.prompt + said + _BLOCK_TOKENS / 2
        self.sums.generated -= max(self.progress - request.done_at, 0.0)

    # ------------------------------------------------------------------------------------- preemption

    def _make_room(self) -> bool:
        """Preempts those that came last until the next tokens of all others fit; whether any had to go."""
        before = self.sums.preemptions
        while self._running() > 1 and self._lacks(self.decoding * self.state.tokens_per_pass):
            if not self._preempt_last():
                break
        if self.dead > 64 and self.dead > len(self.order) / 2:
            self.order = [request for request in self.order if not request.gone]
            self.dead = 0
        return self.sums.preemptions > before

    def _free(self, count: float, asking: _Request) -> bool:
        """Room for the next part of a prompt; false if it was itself the last that could go."""
        while self._lacks(count):
            if self._preempt_last() in (asking, None):
                return False
        return True

    def _lacks(self, tokens: float) -> bool:
        return self.private + tokens > self.state.kv_room

    def _preempt_last(self) -> _Request | None:
        while self.order:
            victim = self.order.pop()
            if not victim.gone:
                self._preempt(victim)
                return victim
            self.dead -= 1
        return None

    def _preempt(self, victim: _Request) -> None:
        self.sums.preemptions += 1
        if victim in self.prefilling:
            self.prefilling.remove(victim)
            self.private -= victim.prompt - victim.left + _BLOCK_TOKENS / 2
            victim.recompute += victim.prompt - victim.left
            self.waiting.appendleft(victim)
            return
        said = self.progress - victim.began_at
        self._leave(victim)
        self.dead -= 1  # it is out of the order already
        again = _Request(victim.prompt + said, victim.cached, max(victim.output - 1.0 - said, 1.0))
        again.recompute = victim.prompt + said
        self.waiting.appendleft(again)


def rehearse(state: State, *, requests: int = 1500, warm_up: float = 0.3) -> Rehearsal:
    """Lets so many requests come, and sums up what happens after the first part of them.

    Args:
        state: the drivers.
        requests: how many arrive.
        warm_up: the part of them that only fills the engine.
    """
    engine = _Engine(state, StepPrices(state.laws, state.gpu_count))
    arrivals = _arrivals(state, requests)
    begin, at = arrivals[int(warm_up * requests)][0], 0
    end = arrivals[-1][0]
    warm = True
    while engine.now < end:
        if warm and engine.now >= begin:
            engine.sums, warm, begin = Rehearsal(), False, engine.now
        while at < requests and arrivals[at][0] <= engine.now:
            if len(engine.waiting) < _SATURATED:
                engine.waiting.append(arrivals[at][1])
            engine.sums.arrived += 1
            at += 1
        if engine._running() or engine.waiting:
            engine.step()
        else:
            until = min(arrivals[at][0], end)
            if warm and until > begin:
                until = max(engine.now, min(until, begin))
            idle = (until - engine.now) * engine.prices.idle_watts
            engine.sums.joules += idle
            engine.sums.idle_joules += idle
            engine.now = until
    sums = engine.sums
    sums.seconds, sums.waiting = engine.now - begin, len(engine.waiting)
    return sums


def _arrivals(state: State, requests: int) -> Sequence[tuple[float, _Request]]:
    """Instants and requests, in order."""
    shares = list(accumulate(cell.weight for cell in state.cells))
    luck = Random(_SEED)
    gaps = [luck.expovariate(1.0) for _ in range(requests)]
    scale = requests / sum(gaps) / state.arrivals_per_second
    now, found = 0.0, []
    for at, gap in enumerate(gaps):
        now += gap * scale
        chosen = (0.5 + at * _GOLDEN) % 1.0 * shares[-1]
        cell = state.cells[min(bisect_right(shares, chosen), len(shares) - 1)]
        prompt = max(cell.prompt_tokens - cell.cached_tokens, 1.0)
        request = _Request(prompt, cell.cached_tokens, max(cell.output_tokens, 1.0))
        found.append((_with_pauses(now, state), request))
    return found


def _with_pauses(time: float, state: State) -> float:
    """An instant of a clock that stands still while nothing arrives, as one of the usual clock."""
    if state.duty >= 1.0:
        return time
    busy = state.duty * state.duty_seconds
    periods, rest = divmod(time * state.duty, busy)
    return periods * state.duty_seconds + rest
