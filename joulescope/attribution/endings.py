"""Requests that have ended and wait for their last joules."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from joulescope.model import RequestEnded


class Endings:
    """Ends in two stages: waiting for the final step to come, then for its energy to be settled.

    Asynchronous scheduling computes one more step of a request that has just stopped; that step costs
    joules, so the request's account stays open until it is in.
    """

    def __init__(self) -> None:
        self._awaiting_step: dict[int, RequestEnded] = {}
        self._awaiting_energy: list[tuple[int, int, RequestEnded]] = []
        self._handles: set[int] = set()

    def __contains__(self, handle: int) -> bool:
        return handle in self._handles

    def await_step(self, end: RequestEnded) -> None:
        """The end came before the step named in ``end.final_step``."""
        self._handles.add(end.request)
        self._awaiting_step[end.request] = end

    def await_energy(self, end: RequestEnded, until_ns: int) -> None:
        """All steps are in; final once all energy up to ``until_ns`` is settled."""
        self._handles.add(end.request)
        heapq.heappush(self._awaiting_energy, (until_ns, end.request, end))

    def step_came(self, step: int, until_ns: int) -> None:
        """Moves those on whose final step was this one (or an earlier one that was lost)."""
        if not self._awaiting_step:
            return
        self._move([end for end in self._awaiting_step.values() if (end.final_step or 0) <= step], until_ns)

    def nothing_pending(self, time_ns: int, until_ns: int) -> None:
        """The engine ran nothing at ``time_ns``: who ended before it has no step to wait for."""
        self._move([end for end in self._awaiting_step.values() if end.time_ns < time_ns], until_ns)

    def abandon_steps(self, until_ns: int) -> list[int]:
        """No further step will come; returns the handles that were waiting for one."""
        waiting = list(self._awaiting_step)
        self._move(list(self._awaiting_step.values()), until_ns)
        return waiting

    def _move(self, due: list[RequestEnded], until_ns: int) -> None:
        for end in due:
            del self._awaiting_step[end.request]
            self.await_energy(end, until_ns)

    def settled(self, settled_ns: int) -> Iterator[RequestEnded]:
        """Takes out the ends whose energy is settled, oldest first."""
        while self._awaiting_energy and self._awaiting_energy[0][0] <= settled_ns:
            _, handle, end = heapq.heappop(self._awaiting_energy)
            self._handles.discard(handle)
            yield end
