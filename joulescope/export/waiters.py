"""Clients that wait for a request to become final: no thread each, and a bounded number."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

MAX_WAITERS = 16
"""Of one server: each holds a connection, and scrapers need some too."""

Names = frozenset[str] | None


class Waiters:
    """Wakes those who wait for an id. Used from one event loop; news come from another thread.

    Args:
        subscribe: gives a callback that is called with the names in each piece of news, from any thread,
            or with ``None`` for all names; what it returns ends that.
    """

    def __init__(self, subscribe: Callable[[Callable[[Names], None]], Callable[[], None]]) -> None:
        self._subscribe = subscribe
        self._unsubscribe: Callable[[], None] | None = None
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._count = 0

    async def until(self, name: str, is_there: Callable[[], bool], timeout_seconds: float) -> None:
        """Returns once ``is_there``, which is asked at each news of ``name``; after the time at the latest,
        or at once if too many wait already."""
        if self._count >= MAX_WAITERS:
            return
        event = self._enter(name)
        try:
            await asyncio.wait_for(self._watch(event, is_there), timeout_seconds)
        except asyncio.TimeoutError:
            return
        finally:
            self._leave(name, event)

    async def _watch(self, event: asyncio.Event, is_there: Callable[[], bool]) -> None:
        while not is_there():  # asked after the subscription: news in between are not lost
            await event.wait()
            event.clear()

    def _enter(self, name: str) -> asyncio.Event:
        if self._unsubscribe is None:
            loop = asyncio.get_running_loop()
            self._unsubscribe = self._subscribe(lambda names: _tell(loop, self._wake, names))
        self._count += 1
        event = asyncio.Event()
        self._waiting.setdefault(name, set()).add(event)
        return event

    def _leave(self, name: str, event: asyncio.Event) -> None:
        self._count -= 1
        events = self._waiting[name]
        events.discard(event)
        if not events:
            del self._waiting[name]
        if not self._count and self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _wake(self, names: Names) -> None:
        for name in self._waiting.keys() if names is None else names & self._waiting.keys():
            for event in self._waiting[name]:
                event.set()


def _tell(loop: asyncio.AbstractEventLoop, wake: Callable[[Names], None], names: Names) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and with it those who waited
        loop.call_soon_threadsafe(wake, names)
