"""What an engine has open, and the records that follow when something of it is done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from joulescope.sdk import records
from joulescope.sdk.checks import instant_ns
from joulescope.sdk.records import Record
from joulescope.sdk.reporter import Truth
from joulescope.sdk.work import Request, Step

MAX_OPEN_REQUESTS = 65_536
MAX_UNDER_WAY = 1024

log = logging.getLogger("joulescope.sdk")


class Book:
    """Open requests, and steps under way. Not safe for threads by itself: its owner holds a lock.

    Args:
        put: takes each record, in order.
        now_ns: the clock, CLOCK_MONOTONIC nanoseconds.
        first_request: number of the first request; none is ever used twice, not even after a fork.
    """

    def __init__(
        self, put: Callable[[Record], None], now_ns: Callable[[], int], first_request: int = 1
    ) -> None:
        self._put = put
        self._now_ns = now_ns
        self.next_request = first_request
        self._opened_ns = self._last_end_ns = now_ns()
        self._open: dict[int, Request] = {}
        self._under_way: dict[object, int] = {}
        """Steps and overhead that are not reported yet, with their begin."""
        self._steps = 0
        self._has_evicted = False

    def truth(self) -> Truth:
        """How the engine stands now."""
        return Truth(min(self._under_way.values(), default=None), self._starts)

    def _starts(self) -> Mapping[int, Record]:
        return {number: request.start for number, request in self._open.items()}

    # ------------------------------------------------------------------------------------ requests

    def start_request(self, request_id: str, prompt: int, texts: Mapping[str, str]) -> Request:
        number = self.next_request
        self.next_request += 1
        start = records.request_start(number, request_id, self._now_ns(), prompt, texts)
        request = self._open[number] = Request(number, request_id, start)
        self._put(start)
        if len(self._open) > MAX_OPEN_REQUESTS:
            self._evict()
        return request

    def end_request(self, request: Request, reason: str) -> None:
        """Ends a request, or lets it end with the last step that it is in."""
        request.reason = reason
        if request.open_steps:
            return
        del self._open[request.number]
        self._put(records.request_end(request.number, self._now_ns(), reason, request.final_step))

    def check_open(self, requests: Iterable[Request]) -> None:
        """Raises ``ValueError`` if one of them is no open request of this book."""
        for request in requests:
            if not isinstance(request, Request):
                raise ValueError(f"{request!r} is no request: use what request_started() returned")
            if request.reason:
                raise ValueError(f"{request!r} has ended")
            if self._open.get(request.number) is not request:
                raise ValueError(f"{request!r} is not of this engine, or of this process")

    def _evict(self) -> None:
        """So many open requests were forgotten by the engine; the oldest is given up."""
        oldest = next((each for each in self._open.values() if not each.reason), None)
        if oldest is None:
            return
        if not self._has_evicted:
            self._has_evicted = True
            log.warning(
                "joulescope: more than %d requests are open; the oldest (%s) is given up, as others will "
                "be; call request_ended() for each that is done",
                MAX_OPEN_REQUESTS,
                oldest.id,
            )
        self.end_request(oldest, "evicted")

    # --------------------------------------------------------------------------------------- steps

    def begin(self, token: object, start_ns: int | None = None) -> int:
        """Something is under way from now on, or since ``start_ns``; returns since when.

        Raises:
            ValueError: if that instant cannot be, or so much is under way that its ends must be missing.
        """
        if len(self._under_way) >= MAX_UNDER_WAY:
            raise ValueError(
                f"{MAX_UNDER_WAY} steps are under way already: use each in a with, or call its end()"
            )
        self._under_way[token] = begun_ns = self.start_of(start_ns)
        return begun_ns

    def drop(self, token: object) -> bool:
        """It is under way no longer; false if it was not, as after a fork."""
        return self._under_way.pop(token, None) is not None

    def is_under_way(self, token: object) -> bool:
        return token in self._under_way

    def start_of(self, start_ns: int | None) -> int:
        now_ns = self._now_ns()
        return now_ns if start_ns is None else instant_ns(start_ns, "start_ns", self._opened_ns, now_ns)

    def end_of(self, start_ns: int, end_ns: int | None) -> int:
        now_ns, earliest_ns = self._now_ns(), max(start_ns, self._last_end_ns)
        return (
            max(now_ns, earliest_ns) if end_ns is None else instant_ns(end_ns, "end_ns", earliest_ns, now_ns)
        )

    def finish(self, step: Step, span_ns: tuple[int, int], outputs: Mapping[Request, int]) -> None:
        """Reports a step, and the ends that waited for it."""
        step.ended = True
        self._steps += 1
        self._last_end_ns = span_ns[1]
        requests = list(step.work)
        came_out = [step.outputs.get(each, 0) + outputs.get(each, 0) for each in requests]
        self._put(
            records.step(
                self._steps,
                span_ns,
                [request.number for request in requests],
                step.context,
                list(step.work.values()),
                came_out,
                len(self._open) - len(requests),
            )
        )
        for request, count in zip(requests, came_out, strict=True):
            request.outputs += count
            request.open_steps -= 1
            request.final_step = self._steps
            if request.reason:
                self.end_request(request, request.reason)
