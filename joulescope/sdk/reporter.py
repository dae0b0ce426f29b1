"""A bounded queue, one polling thread, and the socket: the SDK's end of the wire.

The manners are those of :mod:`joulescope.hook.emitter`, whose link it shares; it differs in that it knows
dicts only and needs nothing beyond the standard library. Who reports holds :attr:`Reporter.lock` for an
append; the thread holds it while it takes the queue over, never while it encodes or writes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

from joulescope.hook.link import Link
from joulescope.sdk.arrears import DISCONNECTED, OVERLOAD, Arrears
from joulescope.sdk.msgpack import encode
from joulescope.sdk.records import LENGTH_BYTES, STEP, Record, bye, progress

POLL_SECONDS = 0.02
HEARTBEAT_NS = 200_000_000
QUEUE_LIMIT = 8192
RECORDS_PER_FRAME = 256
MAX_ERRORS = 10
FAREWELL_TURNS = 50
SETTLE_NS = 1_000_000
"""Progress claims this much less than the instant of the drain."""

log = logging.getLogger("joulescope.sdk")


class Truth(NamedTuple):
    """How the engine stands at the instant at which the queue is taken over."""

    pending_since_ns: int | None
    """When the oldest work that is begun and not reported yet began."""
    open_requests: Callable[[], Mapping[int, Record]]
    """Start records by handle; asked, under the lock, only where some were lost."""


class Reporter:
    """Carries records from an engine that must not be disturbed to a socket that may not be there.

    Args:
        path: the sidecar's Unix stream socket.
        hello: makes the first record of a session; called at each connect.
        truth: how the engine stands; called with :attr:`lock` held.
        now_ns: the clock, CLOCK_MONOTONIC nanoseconds.
        late_ns: how long after its begin a piece of work may still be reported.
        queue_limit: records kept between two turns; what comes on top is dropped and counted.
    """

    def __init__(
        self,
        path: str,
        hello: Callable[[], Record],
        truth: Callable[[], Truth],
        *,
        now_ns: Callable[[], int],
        late_ns: int = 0,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        self.lock = threading.Lock()
        self._hello = hello
        self._truth = truth
        self._now_ns = now_ns
        self._late_ns = late_ns
        self._queue_limit = queue_limit
        self._link = Link(path)
        self._reset()

    def _reset(self) -> None:
        self._queue: list[Record] = []
        self._overflow = 0
        self._starts_or_ends_lost = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._errors = 0
        self._sessions = 0
        self._last_sent_ns = 0
        self._farewell: list[Record] = []
        self._arrears = Arrears(self._now_ns())

    @property
    def dropped(self) -> int:
        """Records that were lost so far, those included that the next turn will notice."""
        return self._arrears.dropped + self._overflow

    @property
    def closed(self) -> bool:
        """Whether nothing is reported any more."""
        return self._closed

    @property
    def connected(self) -> bool:
        return self._link.connected

    # --------------------------------------------------------------------------- the engine's side

    def put(self, record: Record) -> None:
        """Queues a record; :attr:`lock` is held. Full or closed, it is lost and at most counted."""
        if self._closed:
            return
        if len(self._queue) < self._queue_limit:
            self._queue.append(record)
        else:
            self._overflow += 1
            self._starts_or_ends_lost |= record["type"] != STEP

    def start(self) -> None:
        """Starts the thread. A process that cannot start threads any more reports nothing."""
        self._thread = threading.Thread(target=self._run, name="joulescope-sdk", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._give_up(f"no thread: {error}")

    def close(self, timeout_seconds: float) -> None:
        """Sends what is queued and a bye, waiting no longer than the timeout; again is harmless."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
        self._stop.set()
        if self._thread is None:
            self._say_goodbye()
        elif timeout_seconds > 0 and self._thread is not threading.current_thread():
            self._thread.join(timeout_seconds)

    def forget_parent(self) -> None:
        """In a forked child: the queue, the lock and the socket are the parent's business."""
        self.lock = threading.Lock()
        self._link.abandon()
        closed = self._closed
        self._reset()
        self._closed = closed

    # ---------------------------------------------------------------------------- the thread's side

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._guarded(self.poll)
        if self._errors < MAX_ERRORS:
            self._say_goodbye()

    def _guarded(self, act: Callable[[], None]) -> None:
        """The engine never sees an error of the thread; the tenth ends the reporting."""
        try:
            act()
        except Exception as error:
            self._errors += 1
            if self._errors >= MAX_ERRORS:
                self._give_up(f"{type(error).__name__}: {error}")

    def _give_up(self, reason: str) -> None:
        if self._closed:
            return
        log.warning("joulescope: switched off in this process after internal errors (%s)", reason)
        with self.lock:
            self._closed = True
            self._queue.clear()
        self._stop.set()
        self._link.abandon()

    def poll(self) -> None:
        """One turn: take the queue over, connect if need be, send. The thread calls it; so may a test."""
        now_ns, records, pending_since_ns = self._take_over()
        greeting = self._greet(now_ns)
        self._arrears.observe(records)
        if not self._link.connected:
            self._arrears.lose_records(records, DISCONNECTED)
        elif records or greeting or self._farewell or self._arrears.pressing or self._is_due(now_ns):
            self._send(now_ns, pending_since_ns, greeting, records)
        else:
            self._link.flush(now_ns)
        self._notice_delivery()

    def _take_over(self) -> tuple[int, list[Record], int | None]:
        """The instant, what was queued before it, and since when work is under way then."""
        with self.lock:
            now_ns = self._now_ns()
            records, self._queue = self._queue, []
            overflow, self._overflow = self._overflow, 0
            lost, self._starts_or_ends_lost = self._starts_or_ends_lost, False
            truth = self._truth()
            open_requests = truth.open_requests() if lost else {}
        if overflow:
            self._arrears.lose(overflow, OVERLOAD)
        if lost:
            self._arrears.observe(records)
            records += self._arrears.reconcile(open_requests, now_ns)
        return now_ns, records, truth.pending_since_ns

    def _is_due(self, now_ns: int) -> bool:
        return now_ns - self._last_sent_ns >= HEARTBEAT_NS

    def _greet(self, now_ns: int) -> list[Record]:
        """Connects if there is no connection; returns the record with which a new session begins."""
        if self._link.connected or not self._link.connect(now_ns):
            if complaint := self._link.complaint():
                log.warning("joulescope: %s", complaint)
            return []
        self._arrears.new_session(first=self._sessions == 0)
        self._sessions += 1
        return [self._hello()]

    def _send(
        self, now_ns: int, pending_since_ns: int | None, greeting: list[Record], records: list[Record]
    ) -> None:
        claimed_ns = now_ns - SETTLE_NS - self._late_ns
        outgoing = [*greeting, *self._arrears.settle(now_ns), *records]
        outgoing += [progress(claimed_ns, pending_since_ns, self._arrears.dropped), *self._farewell]
        for first in range(0, len(outgoing), RECORDS_PER_FRAME):
            part = outgoing[first : first + RECORDS_PER_FRAME]
            payload = encode(part)
            frame = len(payload).to_bytes(LENGTH_BYTES, "big") + payload
            if not self._link.send(frame, len(part), now_ns):
                reason = OVERLOAD if self._link.connected else DISCONNECTED
                self._arrears.lose_records(outgoing[first:], reason)
                return
        self._last_sent_ns = now_ns
        self._arrears.offered_ns = claimed_ns

    def _notice_delivery(self) -> None:
        if self._link.connected:
            if not self._link.buffered_bytes:
                self._arrears.delivered_ns = self._arrears.offered_ns
        else:
            lost, self._link.lost_records = self._link.lost_records, 0
            self._arrears.lose(lost, DISCONNECTED)

    def _say_goodbye(self) -> None:
        """The last turn: what is queued, and a bye; a slow reader gets :data:`FAREWELL_TURNS` chances."""
        self._farewell = [bye(self._now_ns(), "closed")]
        self._guarded(self.poll)
        for _ in range(FAREWELL_TURNS):
            if not self._link.buffered_bytes:
                break
            self._guarded(self._push)
        self._link.abandon()

    def _push(self) -> None:
        self._link.wait_writable(POLL_SECONDS)
        self._link.flush(self._now_ns())
