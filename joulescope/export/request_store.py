"""Accounts of finished requests, kept for a while so that clients can ask for them by id."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from joulescope.clock import Clock, WallAnchor
from joulescope.export.records import finished_line
from joulescope.export.request_ids import MAX_PARTS, answer_id
from joulescope.model import FinishedRequest
from joulescope.units import NANOSECONDS_PER_SECOND, ns_from_seconds

ENTRY_BYTES = 900
"""What an account takes beside its line: its ids, and its places in the indexes (measured, CPython 3.11)."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept, and for how long; whichever bound is met first."""

    seconds: float = 900.0
    count: int = 20_000
    bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """One finished request: its line, and what is needed to find and to sum it."""

    request_id: str
    external_id: str
    engine: str
    start_ns: int
    attributed_joules: float | None
    output_tokens: int
    line: bytes
    """As it stands in the request log, without the line end."""
    kept_ns: int

    @classmethod
    def of(cls, request: FinishedRequest, anchor: WallAnchor, now_ns: int) -> Kept:
        return cls(
            request.request_id,
            request.external_id,
            request.engine,
            request.start_ns,
            request.attributed_joules,
            request.output_tokens,
            finished_line(request, anchor).rstrip(b"\n"),
            now_ns,
        )

    @property
    def names(self) -> Iterable[str]:
        """All ids by which it is found."""
        return {self.request_id, self.external_id, answer_id(self.external_id)} - {""}

    @property
    def size(self) -> int:
        return len(self.line) + ENTRY_BYTES


Woken = Callable[[frozenset[str] | None], None]
"""Takes the names in a piece of news; ``None``: there will be no more news."""


class RequestStore:
    """The last finished requests by all their ids; a :class:`joulescope.export.RequestSink`.

    Written by the thread that hands out finished requests, read by those that answer clients. A look-up
    takes the same time however many are kept. Outcomes: ``kept``.
    """

    name = "requests_api"

    def __init__(self, clock: Clock, anchor: WallAnchor, retention: Retention | None = None) -> None:
        self.retention = retention or Retention()
        self._clock = clock
        self._anchor = anchor
        self._lock = threading.Lock()
        self._queue: deque[Kept] = deque()
        self._bytes = 0
        self._taken = 0
        self._by_request: dict[str, list[Kept]] = {}
        self._by_external: dict[str, list[Kept]] = {}
        self._by_answer: dict[str, list[Kept]] = {}
        self._listeners: list[Woken] = []
        self.closed = False
        """Nothing becomes final any more: who waits, waits in vain."""

    # ------------------------------------------------------------------------------------------ writing

    def export(self, requests: Sequence[FinishedRequest]) -> None:
        """Keeps a batch, forgets what is beyond the bounds, and wakes those who wait for these ids."""
        now_ns = self._clock.now_ns()
        kept = [Kept.of(request, self._anchor, now_ns) for request in requests]
        with self._lock:
            for each in kept:
                self._add(each)
            self._forget(now_ns)
            listeners = tuple(self._listeners)
        if listeners:
            woken = frozenset(name for each in kept for name in each.names)
            for wake in listeners:
                wake(woken)

    def counts(self) -> Mapping[str, int]:
        """All that were ever kept, those forgotten since included."""
        with self._lock:
            return {"kept": self._taken}

    def close(self, timeout_seconds: float) -> None:
        """Nothing to flush, what is kept ends with the process; but nobody is to wait any longer."""
        with self._lock:
            self.closed = True
            listeners = tuple(self._listeners)
        for wake in listeners:
            wake(None)

    def _add(self, kept: Kept) -> None:
        self._queue.append(kept)
        self._bytes += kept.size
        self._taken += 1
        for index, name in self._places(kept):
            found = index.setdefault(name, [])
            found.append(kept)
            if len(found) > MAX_PARTS:
                del found[0]

    def _forget(self, now_ns: int) -> None:
        oldest_ns = now_ns - ns_from_seconds(self.retention.seconds)
        while self._queue and (
            len(self._queue) > self.retention.count
            or self._bytes > self.retention.bytes
            or self._queue[0].kept_ns < oldest_ns
        ):
            kept = self._queue.popleft()
            self._bytes -= kept.size
            for index, name in self._places(kept):
                found = index.get(name)
                if found and found[0] is kept:  # the oldest of a name stands first, as in the queue
                    del found[0]
                    if not found:
                        del index[name]

    def _places(self, kept: Kept) -> Iterable[tuple[dict[str, list[Kept]], str]]:
        yield self._by_request, kept.request_id
        if kept.external_id:
            yield self._by_external, kept.external_id
            answer = answer_id(kept.external_id)
            if answer != kept.external_id:
                yield self._by_answer, answer

    # ------------------------------------------------------------------------------------------ reading

    def by_request(self, name: str) -> tuple[Kept, ...]:
        """Those that the engine calls so, oldest first."""
        return self._found(self._by_request, name)

    def by_external(self, name: str) -> tuple[Kept, ...]:
        """Those that have this id outside the engine; several, if a client used it again."""
        return self._found(self._by_external, name)

    def by_answer(self, name: str) -> tuple[Kept, ...]:
        """The numbered parts of the answer with this id."""
        return self._found(self._by_answer, name)

    def _found(self, index: dict[str, list[Kept]], name: str) -> tuple[Kept, ...]:
        with self._lock:
            self._forget(self._clock.now_ns())
            return tuple(index.get(name, ()))

    def oldest_seconds(self) -> float | None:
        """How long ago the oldest that is kept became final; ``None`` if nothing is kept."""
        with self._lock:
            now_ns = self._clock.now_ns()
            self._forget(now_ns)
            return (now_ns - self._queue[0].kept_ns) / NANOSECONDS_PER_SECOND if self._queue else None

    @property
    def bytes(self) -> int:
        """Memory that is used, as it is counted against the bound."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._queue)

    # ------------------------------------------------------------------------------------------ waiting

    def subscribe(self, wake: Woken) -> Callable[[], None]:
        """Calls ``wake`` with the names of each batch, from the writing thread, until what is returned is
        called."""
        with self._lock:
            self._listeners.append(wake)
        return lambda: self._listeners.remove(wake)
