"""Reads a source in the background, so that no answer that is late holds up a key."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from joulescope.clock import Clock
from joulescope.periodic import Periodic
from joulescope.terminal.source import Reading, Source, SourceError
from joulescope.units import ns_from_seconds

FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 15.0
_STOP_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Link:
    """How it stands with the source. All instants are of the reader's own clock."""

    reading: Reading | None = None
    """The last one there was, however old."""
    received_ns: int = 0
    count: int = 0
    """Readings so far."""
    changed_ns: int = 0
    """When a reading last differed from the one before: a sidecar publishes twice a second."""
    error: SourceError | None = None
    """Why there is no newer one; ``None`` while all is well."""
    failures: int = 0
    """Tries in a row that brought nothing."""
    retry_ns: int = 0
    """When the next try is due."""

    def age_seconds(self, now_ns: int) -> float:
        """Since the last reading."""
        return max(now_ns - self.received_ns, 0) / 1e9


class Fetcher:
    """Reads every ``interval_seconds``; after a failure with growing pauses.

    Args:
        notify: called after each try, from the reading thread; it must return at once.
    """

    def __init__(
        self,
        source: Source,
        clock: Clock,
        *,
        interval_seconds: float,
        notify: Callable[[], None] = lambda: None,
    ) -> None:
        self.interval_seconds = interval_seconds
        """May be changed at any time; it holds from the next reading on."""
        self.place = source.place
        self._source = source
        self._clock = clock
        self._notify = notify
        self._lock = threading.Lock()
        self._link = Link()
        self._periodic = Periodic("reading", self.step, failed=self._broken, pause_seconds=MAX_PAUSE_SECONDS)

    def start(self) -> None:
        self._periodic.start()

    def stop(self) -> None:
        """Tells the thread to end and hardly waits: a connection that hangs dies with the process."""
        self._periodic.stop(_STOP_SECONDS)

    def link(self) -> Link:
        """How it stands now."""
        with self._lock:
            return self._link

    def step(self) -> float:
        """One try; returns the pause before the next."""
        begun_ns = self._clock.now_ns()
        try:
            reading = self._source.read()
        except SourceError as error:
            return self._failed(error)
        now_ns = self._clock.now_ns()
        before = self._link.reading
        same = before is not None and before.snapshot.time_ns == reading.snapshot.time_ns
        changed_ns = self._link.changed_ns if same else now_ns
        self._put(Link(reading, now_ns, self._link.count + 1, changed_ns))
        return max(self.interval_seconds - (now_ns - begun_ns) / 1e9, 0.05)

    def _failed(self, error: SourceError) -> float:
        failures = self._link.failures + 1
        pause_seconds = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10), MAX_PAUSE_SECONDS)
        retry_ns = self._clock.now_ns() + ns_from_seconds(pause_seconds)
        self._put(replace(self._link, error=error, failures=failures, retry_ns=retry_ns))
        return pause_seconds

    def _broken(self) -> None:
        """A bug in reading costs this reading: the view says so and goes on."""
        self._failed(SourceError("reading failed by a bug in joulescope; please report it"))

    def _put(self, link: Link) -> None:
        with self._lock:
            self._link = link
        self._notify()
