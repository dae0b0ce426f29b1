"""What an engine hands out: requests that are named in steps, and the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType

from joulescope.sdk.checks import whole
from joulescope.sdk.records import MAX_COUNT, Record


class Request:
    """A request that was started and not ended; made by ``Engine.request_started``, and to be read only."""

    __slots__ = ("final_step", "id", "number", "open_steps", "outputs", "reason", "start", "work")

    def __init__(self, number: int, request_id: str, start: Record) -> None:
        self.id = request_id
        """As it will stand in the request log."""
        self.number = number
        """Its handle on the wire."""
        self.start = start
        """The record that announced it."""
        self.work = 0
        """Units of work begun for it so far."""
        self.outputs = 0
        """Units that came out so far."""
        self.open_steps = 0
        """Steps under way that it is in."""
        self.final_step: int | None = None
        """Number of the last step that had it and is over."""
        self.reason = ""
        """Why it ended; empty while it has not."""

    def __repr__(self) -> str:
        state = f"ended: {self.reason}" if self.reason else "open"
        return f"<Request {self.id!r}, {state}, work {self.work}, outputs {self.outputs}>"


Requests = Mapping[Request, int] | Iterable[Request]

EndStep = Callable[["Step", int | None, int | None, dict[Request, int]], None]


class Step:
    """A step under way; made by ``Engine.step``, and ended by leaving its ``with`` or by :meth:`end`.

    Left by an exception, it is reported all the same: its joules were drawn.
    """

    __slots__ = ("_end", "context", "ended", "outputs", "start_ns", "token", "work")

    def __init__(self, end: EndStep, work: dict[Request, int], start_ns: int, token: object) -> None:
        self.token = token
        """By which it is known to be under way."""
        self.work = work
        """Units of work by request."""
        self.start_ns = start_ns
        self.context = [request.work for request in work]
        """Units of work begun for each before."""
        self.outputs: dict[Request, int] = {}
        self.ended = False
        self._end = end
        for request, count in work.items():
            request.work += count
            request.open_steps += 1

    def produced(self, outputs: Requests) -> None:
        """Says what came out of the step: how many units by request, or one of each. Further calls add up.

        Raises:
            ValueError: if the step has ended, a request was not in it, or a number is not whole or below 0.
        """
        if self.ended:
            raise ValueError("the step has ended: call produced() before that, or hand it to end()")
        for request, count in outputs_of(outputs, self.work).items():
            self.outputs[request] = self.outputs.get(request, 0) + count

    def end(self, *, start_ns: int | None = None, end_ns: int | None = None, produced: Requests = ()) -> None:
        """Ends the step and reports it.

        Args:
            start_ns: when the GPU began with it, if that is known better than by the call of
                ``Engine.step``; CLOCK_MONOTONIC nanoseconds.
            end_ns: when its output was there; by default now. Steps end in the order of these instants.
            produced: as for :meth:`produced`.

        Raises:
            ValueError: if it has ended already, or an argument cannot be; it is then still under way.
        """
        self._end(self, start_ns, end_ns, outputs_of(produced, self.work))

    def __enter__(self) -> Step:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.ended:
            self.end()


def outputs_of(outputs: Requests, work: Mapping[Request, int]) -> dict[Request, int]:
    """Outputs by request of a step with this work.

    Raises:
        ValueError: as :func:`counts_of` does, and if a request is not in the step.
    """
    counts = counts_of(outputs, "output", 0)
    for request in counts:
        if request not in work:
            raise ValueError(f"{request!r} was not in this step: name it where the step begins")
    return counts


def counts_of(requests: Requests, what: str, least: int) -> dict[Request, int]:
    """Counts by request, given as such or as requests of which each counts 1.

    Raises:
        ValueError: if one is no request, is named twice, or its count is not whole or below ``least``.
    """
    if isinstance(requests, Mapping):
        pairs = list(requests.items())
    else:
        pairs = [(request, 1) for request in requests]
    counts: dict[Request, int] = {}
    for request, count in pairs:
        if not isinstance(request, Request):
            raise ValueError(f"{request!r} is no request: use what request_started() returned")
        if request in counts:
            raise ValueError(f"{request!r} is named twice in one step: hand in a dict with its count")
        is_plain = type(count) is int and least <= count <= MAX_COUNT  # then the words need not be made
        counts[request] = count if is_plain else whole(count, f"{what} of request {request.id!r}", least)
    return counts
