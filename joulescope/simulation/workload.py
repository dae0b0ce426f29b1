"""What clients ask for: a seeded stream of requests of several classes, with Poisson arrivals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from joulescope.units import ns_from_seconds


@dataclass(frozen=True, slots=True)
class RequestClass:
    """A kind of request. Lengths are log-normal, given by median and spread, and cut at both ends."""

    name: str
    weight: float
    """Share of arrivals, relative to the other classes."""
    prompt_median: float
    """Tokens of the prompt that follow the shared prefix."""
    prompt_sigma: float
    output_median: float
    output_sigma: float
    max_tokens: int
    """Limit that the client sets; an answer that would be longer ends with reason ``length``."""
    prefix_tokens: int = 0
    """Tokens at the front that requests with the same prefix share."""
    prefixes: int = 1
    """How many different prefixes there are; each request draws one."""
    abort_ratio: float = 0.0
    """Share of clients that hang up before the answer is complete."""
    acceptance: float = 0.7
    """Chance that a drafted token is right, if those before it are; matters where there is a drafter."""


CHAT = RequestClass(
    "chat", 0.55, 220, 0.7, 260, 0.7, 1024, prefix_tokens=96, abort_ratio=0.06, acceptance=0.6
)
RAG = RequestClass("rag", 0.15, 350, 0.5, 150, 0.6, 512, prefix_tokens=5600, prefixes=6, abort_ratio=0.03)
SUMMARISE = RequestClass("summarise", 0.12, 3200, 0.6, 180, 0.5, 400, acceptance=0.75)
CODE = RequestClass("code", 0.18, 700, 0.6, 40, 0.8, 128, prefix_tokens=48, abort_ratio=0.15, acceptance=0.88)

MIXED = (CHAT, RAG, SUMMARISE, CODE)
"""A service with chat, retrieval over a few shared documents, summaries and code completion."""


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request as its client will behave, known to the simulation only."""

    number: int
    kind: str
    request_id: str
    external_id: str
    arrival_ns: int
    prompt_tokens: int
    output_tokens: int
    """Tokens after which the model ends the answer by itself (the end token included)."""
    max_tokens: int
    prefix: str
    """Names the shared prefix; empty if there is none."""
    prefix_tokens: int
    abort_after_tokens: int | None
    """The client hangs up once it has received so many tokens (0: while still waiting)."""
    abort_delay_ns: int
    trace_parent: str
    acceptance: float = 0.7
    """Chance that a token drafted for it is right."""


class Workload:
    """Requests in the order of arrival; the same seed gives the same stream.

    Args:
        rate_per_second: mean arrivals per second.
        start_ns: the instant from which arrivals are counted.
        classes: what arrives.
        seed: decides everything.
        max_prompt_tokens: prompts are cut so that prompt and answer fit the model.
        first_number: that of the first request.
    """

    def __init__(
        self,
        rate_per_second: float,
        start_ns: int,
        *,
        classes: Sequence[RequestClass] = MIXED,
        seed: int = 0,
        max_prompt_tokens: int = 30_000,
        first_number: int = 1,
    ) -> None:
        if rate_per_second <= 0:
            raise ValueError(f"rate_per_second must be above 0, got {rate_per_second}")
        self._mean_gap_seconds = 1.0 / rate_per_second
        self._time_ns = start_ns
        self._classes = tuple(classes)
        self._max_prompt_tokens = max_prompt_tokens
        self._first_number = first_number
        self._rng = np.random.default_rng(seed)
        total = sum(kind.weight for kind in self._classes)
        self._shares = [kind.weight / total for kind in self._classes]

    def __iter__(self) -> Iterator[PlannedRequest]:
        for number in count(self._first_number):
            self._time_ns += ns_from_seconds(self._rng.exponential(self._mean_gap_seconds))
            kind = self._classes[self._rng.choice(len(self._classes), p=self._shares)]
            yield self._plan(number, kind)

    def _plan(self, number: int, kind: RequestClass) -> PlannedRequest:
        rng = self._rng
        prefix_tokens = min(kind.prefix_tokens, self._max_prompt_tokens // 2)
        own = self._length(kind.prompt_median, kind.prompt_sigma, self._max_prompt_tokens - prefix_tokens)
        output = self._length(kind.output_median, kind.output_sigma, 4 * kind.max_tokens)
        aborts = rng.random() < kind.abort_ratio
        external_id = f"{kind.name}-{number:06d}"
        return PlannedRequest(
            number=number,
            kind=kind.name,
            # vLLM adds eight hex digits to the client's id to make it unique.
            request_id=f"{external_id}-{rng.integers(2**32):08x}",
            external_id=external_id,
            arrival_ns=self._time_ns,
            prompt_tokens=prefix_tokens + own,
            output_tokens=output,
            max_tokens=kind.max_tokens,
            prefix=f"{kind.name}/{rng.integers(kind.prefixes)}" if prefix_tokens else "",
            prefix_tokens=prefix_tokens,
            abort_after_tokens=int(rng.integers(0, min(output, kind.max_tokens))) if aborts else None,
            abort_delay_ns=ns_from_seconds(rng.uniform(0.002, 0.040)),
            trace_parent=f"00-{rng.bytes(16).hex()}-{rng.bytes(8).hex()}-01" if rng.random() < 0.25 else "",
            acceptance=kind.acceptance,
        )

    def _length(self, median: float, sigma: float, limit: int) -> int:
        drawn = median * float(np.exp(sigma * self._rng.standard_normal()))
        return max(1, min(round(drawn), limit))
