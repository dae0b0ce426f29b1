"""When requests were pushed out of the KV cache, and when they ran again."""

from __future__ import annotations

MAX_PAUSES = 16
"""Stretches kept of one request; how often it was preempted is counted in any case."""


class Pauses:
    """The stretches of each slot between a preemption and the step that took the request in again."""

    def __init__(self) -> None:
        self.open: dict[int, int] = {}
        """Slots that are out now, and since when."""
        self._closed: dict[int, list[tuple[int, int]]] = {}

    def begin(self, slot: int, time_ns: int) -> None:
        """The request was pushed out; a second word of it changes nothing."""
        self.open.setdefault(slot, time_ns)

    def end(self, slot: int, time_ns: int) -> None:
        """The request runs again, or has ended."""
        begin_ns = self.open.pop(slot, None)
        if begin_ns is None:
            return
        closed = self._closed.setdefault(slot, [])
        if len(closed) < MAX_PAUSES:
            closed.append((begin_ns, max(time_ns, begin_ns)))

    def take(self, slot: int, end_ns: int) -> tuple[tuple[int, int], ...]:
        """The request ended: its stretches, the first first, and the slot is clear for another."""
        self.end(slot, end_ns)
        return tuple(self._closed.pop(slot, ()))
