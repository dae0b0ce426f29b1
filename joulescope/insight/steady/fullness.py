"""What happens while the KV cache is full and requests wait for room in it.

A running request grows by a token with each that it generates, until it ends and gives all back. Whoever
waits first is taken in as soon as its next chunk fits. If growth fills the cache before the next one ends,
the request that came last is pushed out, goes to the head of the queue, and computes everything again. A
prompt longer than a step's budget is taken in when its first chunk fits, and pushed out at once if the rest
does not: until there is room for all of it, every few steps compute a chunk in vain.

What matters of this is the free space, which falls by one token with every token that grows and jumps when a
request ends; so it is followed over some thousand ends, always by the same luck, in tokens of growth
instead of seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from joulescope.insight.steady.requests import Mean
from joulescope.insight.steady.values import LengthClass

_ENDS, _SETTLE = 3000, 300
_REMEMBERED = 64
"""Of the running requests, so many that came last can be told apart; of the others one is as another."""

_MOST_IN_VAIN = 64
"""Chunks computed in vain for one request that ends: a bound for services in which nothing fits."""


@dataclass(frozen=True, slots=True)
class Full:
    """A cache that is always as full as can be."""

    free: float
    """Tokens of room that are left, mean over time."""
    preemptions: float
    """By request that ends: of those that came last."""
    victim_tokens: float
    """That one of them must compute again, mean."""
    vain_chunks: float
    """By request that ends: chunks of the whole budget, computed in vain."""
    vain_preemptions: float


NEVER_FULL = Full(0.0, 0.0, 0.0, 0.0, 0.0)


class _Cache:
    """The free space and those who came last."""

    def __init__(self, running: float, budget: float, mean: Mean) -> None:
        self.running, self.budget, self.mean = running, budget, mean
        self.free = 0.0
        self.time = 0.0
        """Tokens of growth so far, of all requests together."""
        self.latest: list[tuple[float, float]] = []
        """Size at admission, and when, of those that came last."""
        self.out: list[float] = []
        """Sizes of those that were pushed out; the last is the head of the queue."""
        self.head = 0.0
        self.area = self.pushed = self.pushed_tokens = self.chunks = self.thrown = 0.0

    def grow(self, tokens: float) -> None:
        """All requests together grow by so much."""
        while tokens > self.free:
            tokens -= self.free
            self._pass(self.free)
            self._push_out()
        self._pass(tokens)

    def _pass(self, tokens: float) -> None:
        if tokens <= 0.0:
            return
        end = self.free - tokens
        self.area += 0.5 * (self.free + end) * tokens
        self.time += tokens
        if self.head > self.budget:
            fitting = math.floor(0.5 * (self.free + end) / self.budget)
            if fitting:
                steps = tokens / self.running
                self.chunks += steps * fitting / (fitting + 1.0)
                self.thrown += steps / (fitting + 1.0)
        self.free = end

    def _push_out(self) -> None:
        size, since = self.latest.pop() if self.latest else (self.mean.held, self.time)
        size += min((self.time - since) / self.running, self.mean.output_tokens)
        self.out.append(self.head)
        self.head = self.free = size
        self.pushed += 1.0
        self.pushed_tokens += size

    def admit(self, following: list[float]) -> None:
        """Takes in who fits; ``following`` holds who comes next, last first."""
        while self.free >= self.head and following:
            self.free -= self.head
            self.latest = [*self.latest[-_REMEMBERED:], (self.head, self.time)]
            self.head = self.out.pop() if self.out else following.pop()


@cache
def _luck() -> tuple[list[float], list[float], list[float]]:
    """Exponential gaps with mean 1, and two sequences that spread evenly over 0..1."""
    rng = np.random.default_rng(2601)
    at = np.arange(1.0, 4.0 * _ENDS + 1.0)
    gaps = rng.exponential(size=_ENDS)
    return (
        (gaps / gaps.mean()).tolist(),
        ((at * 0.618033988749895) % 1.0).tolist(),
        rng.random(_ENDS).tolist(),
    )


def while_full(classes: Sequence[LengthClass], mean: Mean, running: float, budget: float) -> Full:
    """What a full cache does to requests of these classes.

    Args:
        classes: with their weights.
        mean: of the same.
        running: how many run at a time, about.
        budget: tokens of a step that are left for prompts.
    """
    if mean.output_tokens <= 0.0:
        return NEVER_FULL
    gaps, evenly, ends = _luck()
    weights = np.cumsum([each.weight for each in classes])
    own = np.array([max(each.prompt_tokens - each.cached_tokens, 1.0) for each in classes])
    peak = own + np.array([each.output_tokens for each in classes])
    comers = own[np.searchsorted(weights / weights[-1], evenly).clip(0, len(own) - 1)].tolist()
    leavers = peak[np.searchsorted(weights / weights[-1], ends).clip(0, len(own) - 1)].tolist()
    begun = 0.0
    cache_ = _Cache(max(running, 1.0), max(budget, 1.0), mean)
    cache_.head = comers.pop()
    for number, (gap, leaves) in enumerate(zip(gaps, leavers, strict=True)):
        if number == _SETTLE:
            cache_.area = cache_.pushed = cache_.pushed_tokens = cache_.chunks = cache_.thrown = 0.0
            begun = cache_.time
        cache_.grow(gap * mean.output_tokens)
        cache_.free += leaves
        cache_.admit(comers)
    counted = float(_ENDS - _SETTLE)
    return Full(
        free=float(cache_.area / max(cache_.time - begun, 1e-9)),
        preemptions=cache_.pushed / counted,
        victim_tokens=cache_.pushed_tokens / max(cache_.pushed, 1.0),
        vain_chunks=min(float(cache_.chunks) / counted, _MOST_IN_VAIN),
        vain_preemptions=min(float(cache_.thrown) / counted, _MOST_IN_VAIN),
    )
