"""An estimate of a request's joules before its account is final: what is settled, and the price of the rest.

Joules are divided half a second to a second after they were drawn. What a request did since is priced by what
its engine's tokens cost of late, prefill and decode apart; a request that has generated enough by then
is priced by its own tokens. ``docs/answer.md`` says how far off this is, as measured.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

from joulescope.export.price_of_prompts import PromptPrice
from joulescope.model import EngineTotals, FinishedRequest, OpenRequest, Snapshot
from joulescope.units import NANOSECONDS_PER_SECOND

LEAST_SECONDS = 1.0
"""A price is the mean of at least so long: one interval of the counter is too rough."""

LEAST_TOKENS = 32
"""... and of at least so many tokens."""

MAX_AGE_NS = 3600 * NANOSECONDS_PER_SECOND
"""A price that is older says nothing: another load, another clock."""

OWN_TOKENS = 8
"""Settled tokens of a request from which on its own price is better than its engine's."""

_HISTORY = 240
"""Points kept of each engine: two minutes at two snapshots a second while it works."""


@dataclass(frozen=True, slots=True)
class Work:
    """What an answer is known to consist of, by whoever asks; ``None`` where that is not known."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    end_ns: int | None = None
    """When the last of it was there; CLOCK_MONOTONIC."""
    instance: str = ""
    """Of the server that answered; see :class:`joulescope.model.EngineInfo`."""

    @property
    def is_told(self) -> bool:
        """Whether an estimate can be made though the request was not heard of yet."""
        return self.output_tokens is not None or self.prompt_tokens is not None


@dataclass(frozen=True, slots=True)
class _Point:
    """Of one engine: tokens decoded until the snapshot, and their joules until all was divided."""

    time_ns: int
    settled_ns: int
    tokens: float
    joules: float


@dataclass(frozen=True, slots=True)
class Price:
    """Joules a token of one phase, as the ratio of two sums."""

    joules: float
    tokens: float
    time_ns: int

    @property
    def per_token(self) -> float:
        return self.joules / self.tokens


class Final(Protocol):
    """A part of an answer that is final."""

    @property
    def attributed_joules(self) -> float | None: ...

    @property
    def output_tokens(self) -> int: ...


_NO_PROMPTS = PromptPrice()


@dataclass(frozen=True, slots=True)
class Prices:
    """What work cost of late; ``None`` where none was seen."""

    prompt: PromptPrice = _NO_PROMPTS
    decode: Price | None = None


class Estimator:
    """Keeps what each engine's tokens cost of late, and estimates by it.

    :meth:`observe` is called with each snapshot by the thread that makes them, the rest by any.
    """

    def __init__(self) -> None:
        self._history: dict[str, deque[_Point]] = {}
        self._decode: dict[str, Price | None] = {}
        self._prompts: dict[str, PromptPrice] = {}
        self._snapshot: Snapshot | None = None

    def observe(self, snapshot: Snapshot) -> None:
        """Takes in the totals of all engines."""
        settled = _settled(snapshot)
        for engine in snapshot.engines:
            label, settled_ns = engine.info.engine, _settled_ns(engine, settled)
            if settled_ns is not None:
                history = self._history.setdefault(label, deque(maxlen=_HISTORY))
                _note(history, _point(engine, snapshot.time_ns, settled_ns))
                self._decode[label] = _price(list(history), self._decode.get(label))
        self._snapshot = snapshot

    def finished(self, requests: Iterable[FinishedRequest]) -> None:
        """Takes in accounts that have become final."""
        for request in requests:
            before = self._prompts.get(request.engine, _NO_PROMPTS)
            self._prompts[request.engine] = before.with_request(request)

    def estimate(
        self, work: Work, opened: Sequence[OpenRequest], finished: Sequence[Final] = ()
    ) -> float | None:
        """Joules of an answer when all is divided; ``None`` where a price that is needed is not known.

        Args:
            work: what the answer itself tells.
            opened: what is known of it; several, if the answer has several parts; none, if nothing is yet.
            finished: its parts that are final already.
        """
        snapshot = self._snapshot
        final = [request.attributed_joules for request in finished]
        if snapshot is None or None in final or not (opened or finished or work.is_told):
            return None
        prices = self._prices_of(work, opened, snapshot)
        total = sum(joules for joules in final if joules is not None)
        heard_output = sum(request.output_tokens for request in finished)
        settled = _settled_of(snapshot, opened)
        seen_ns = snapshot.time_ns if work.end_ns is None else min(snapshot.time_ns, work.end_ns)
        for request in opened:
            joules = _of_open(request, prices, settled.get(request.engine), seen_ns)
            if joules is None:
                return None
            total += joules
            heard_output += request.output_tokens
        unheard = max((work.output_tokens or 0) - heard_output, 0)
        is_known = bool(opened or finished)
        rest = _priced(unheard, prices.decode) if is_known else _unheard_of(work, prices)
        return None if rest is None else total + rest

    def _prices_of(self, work: Work, opened: Sequence[OpenRequest], snapshot: Snapshot) -> Prices:
        """Of the engines that the request runs on, or must run on; of several together."""
        labels = {request.engine for request in opened}
        up = [engine.info for engine in snapshot.engines if engine.up]
        if not labels and work.instance:
            labels = {info.engine for info in up if info.instance_id == work.instance}
        elif not labels and len({info.instance_id for info in up}) == 1:
            labels = {info.engine for info in up}
        oldest_ns = snapshot.time_ns - MAX_AGE_NS
        prompts = [self._prompts.get(label, _NO_PROMPTS) for label in sorted(labels)]
        fresh = [price for price in prompts if price.time_ns >= oldest_ns]
        return Prices(
            reduce(PromptPrice.together, fresh, _NO_PROMPTS),
            _together((self._decode.get(label) for label in sorted(labels)), oldest_ns),
        )


def _of_open(request: OpenRequest, prices: Prices, settled_ns: int | None, seen_ns: int) -> float | None:
    """Joules of what is known of a request: settled, and the price of what it did since."""
    so_far = request.attributed_joules or 0.0
    prefill = request.prefill_joules or 0.0
    first_ns = request.first_token_ns
    if first_ns is None or settled_ns is None or settled_ns < first_ns:
        expected = prices.prompt.joules_of(max(request.prompt_tokens - request.cached_tokens, 1))
        if expected is None:
            return None
        rest = _priced(max(request.output_tokens - 1, 0), prices.decode)
        return None if rest is None else max(so_far, expected) + rest
    decoded = max(request.output_tokens - 1, 0)
    length_ns = max(seen_ns - first_ns, 1)
    settled_tokens = decoded * min((settled_ns - first_ns) / length_ns, 1.0)
    left = decoded - settled_tokens
    rest = _at_own_price(so_far - prefill, settled_tokens, left, prices.decode)
    return None if rest is None else so_far + rest


def _at_own_price(
    decode_joules: float, settled_tokens: float, left: float, price: Price | None
) -> float | None:
    if settled_tokens >= OWN_TOKENS and decode_joules > 0.0:
        return left * decode_joules / settled_tokens
    return _priced(left, price)


def _unheard_of(work: Work, prices: Prices) -> float | None:
    """A request that the sidecar has not heard of yet: its records take up to half a second."""
    computed = prices.prompt.computed_of(work.prompt_tokens or 0, work.cached_tokens)
    prefill = prices.prompt.joules_of(computed)
    rest = _priced((work.output_tokens or 0) - 1, prices.decode)  # one comes out of the prompt's own step
    return None if prefill is None or rest is None else prefill + rest


def _priced(tokens: float, price: Price | None) -> float | None:
    if tokens <= 0:
        return 0.0
    return None if price is None else tokens * price.per_token


# ----------------------------------------------------------------------------------------------- prices


def _settled(snapshot: Snapshot) -> Mapping[str, int]:
    return {
        gpu.info.gpu: gpu.accounted_until_ns for gpu in snapshot.gpus if gpu.accounted_until_ns is not None
    }


def _settled_of(snapshot: Snapshot, opened: Sequence[OpenRequest]) -> Mapping[str, int]:
    """Up to where the joules of these requests' engines are divided."""
    wanted, settled = {request.engine for request in opened}, _settled(snapshot)
    found = {engine.info.engine: _settled_ns(engine, settled) for engine in snapshot.engines}
    return {label: at_ns for label, at_ns in found.items() if label in wanted and at_ns is not None}


def _settled_ns(engine: EngineTotals, settled: Mapping[str, int]) -> int | None:
    """The latest instant up to which the joules of all GPUs of an engine are divided."""
    gpus = {gpu for gpu, _ in engine.attributed_joules} | set(engine.info.gpus)
    return min((settled[gpu] for gpu in gpus if gpu in settled), default=None)


def _point(engine: EngineTotals, time_ns: int, settled_ns: int) -> _Point:
    joules = sum(value for (_, phase), value in engine.attributed_joules.items() if phase == "decode")
    return _Point(time_ns, settled_ns, engine.tokens.get("decode", 0), joules)


def _note(history: deque[_Point], point: _Point) -> None:
    """Appends a point; while an engine is idle the last one moves along, and its last busy time is kept."""
    if history and (point.tokens, point.joules) < (history[-1].tokens, history[-1].joules):
        history.clear()  # the engine's account began anew
    if len(history) >= 2 and _same(point, history[-1]) and _same(point, history[-2]):
        history[-1] = point
    else:
        history.append(point)


def _same(one: _Point, other: _Point) -> bool:
    return (one.tokens, one.joules) == (other.tokens, other.joules)


def _price(history: Sequence[_Point], before: Price | None) -> Price | None:
    """Joules a token over the latest stretch that is long enough and has tokens enough, else as before.

    Tokens are known sooner than their joules: those are counted that were there when the joules were.
    """
    times = [point.time_ns for point in history]
    tokens = [point.tokens for point in history]
    last = history[-1]
    last_tokens = _at(last.settled_ns, times, tokens)
    for point in reversed(history[:-1]):
        count = last_tokens - _at(point.settled_ns, times, tokens)
        seconds = (last.settled_ns - point.settled_ns) / NANOSECONDS_PER_SECOND
        if seconds >= LEAST_SECONDS and count >= LEAST_TOKENS:
            joules = last.joules - point.joules
            return Price(joules, count, last.settled_ns) if joules > 0.0 else before
    return before


def _at(time_ns: int, times: Sequence[int], values: Sequence[float]) -> float:
    """A count at an instant between two snapshots."""
    after = bisect_left(times, time_ns)
    if after == 0 or after == len(times):
        return values[0] if after == 0 else values[-1]
    start_ns, end_ns = times[after - 1], times[after]
    part = (time_ns - start_ns) / (end_ns - start_ns)
    return values[after - 1] + part * (values[after] - values[after - 1])


def _together(prices: Iterable[Price | None], oldest_ns: int) -> Price | None:
    known = [price for price in prices if price is not None and price.time_ns >= oldest_ns]
    if not known:
        return None
    return Price(
        sum(price.joules for price in known),
        sum(price.tokens for price in known),
        max(price.time_ns for price in known),
    )
