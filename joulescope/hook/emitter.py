"""A bounded queue, one polling thread, and the records that keep the far end honest.

The engine's thread only appends to a deque; a daemon thread wakes every 20 ms, turns what it finds
into records, encodes them and writes them without blocking. (Waking a thread for each step costs the
engine about 25 µs; polling costs it nothing.) Whatever cannot be delivered is dropped, counted, and
admitted in a ``gap`` record as soon as the far end listens again.

The emitter knows nothing of vLLM: items that are wire records go out as they are, everything else goes
through an injected :class:`Translator`. The simulated engine uses it the same way::

    emitter = Emitter(path, lambda: Hello(time_ns=time.monotonic_ns())).start()
    emitter.put(RequestStart(request=1, request_id="a", time_ns=time.monotonic_ns()))
    emitter.close(timeout_seconds=1.0)
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, cast

import msgspec

from joulescope.hook.arrears import DISCONNECTED, INTERNAL_ERROR, OVERLOAD, Arrears
from joulescope.hook.link import MAX_BUFFER_BYTES, Link
from joulescope.hook.wire import (
    AnyRecord,
    Bye,
    Hello,
    Progress,
    Record,
    encode_frame,
)

POLL_SECONDS = 0.02
HEARTBEAT_SECONDS = 0.2
QUEUE_LIMIT = 8192
PROGRESS = "progress"
"""Capability for the hello of every sender that uses an emitter: its sessions carry progress records."""
RECORDS_PER_FRAME = 256
MAX_ERRORS = 10
ERROR_MEMORY_NS = 60_000_000_000
"""Errors further apart than this do not add up to giving up."""
FAREWELL_TURNS = 50
SETTLE_NS = 1_000_000
"""Progress claims this much less than the instant of the drain: an item gets its timestamp a few
instructions before it is on the queue, and the thread may look between the two."""

log = logging.getLogger("vllm.joulescope")
"""A child of vLLM's logger, so that the few lines the hook writes look like the engine's own."""

_alive: weakref.WeakSet[Emitter] = weakref.WeakSet()


class Translator(Protocol):
    """Turns what the producer queued into records; called by the emitter's thread only."""

    def translate(self, items: Sequence[object], overflowed: int) -> list[AnyRecord]:
        """Records for ``items``, in order; ``overflowed`` items were lost after the last of them."""
        ...

    def pending_since_ns(self) -> int | None:
        """When the oldest work that is begun and not reported yet began."""
        ...


class Companion(Protocol):
    """Heeds what the far end says; called by the emitter's thread only, and raises nothing."""

    def turn(self, payloads: list[bytes]) -> None:
        """As often as there is a heartbeat, with the frames that have come; most often none."""
        ...

    def close(self) -> None:
        """The emitter ends."""
        ...


class Passthrough:
    """The translator of producers that queue nothing but records."""

    def translate(self, items: Sequence[object], overflowed: int) -> list[AnyRecord]:
        return cast("list[AnyRecord]", [item for item in items if isinstance(item, Record)])

    def pending_since_ns(self) -> int | None:
        return None


def _plain(value: Any) -> Any:
    """Numbers that some version of vLLM keeps as numpy or torch scalars. Raises for anything else."""
    return value.item()


class Inlet(NamedTuple):
    """What :meth:`Emitter.put` does, laid open for callers who cannot afford a call:
    ``queue.append(item) if len(queue) < bound[0] else refuse(item)``. Valid for the emitter's whole life."""

    queue: deque[object]
    bound: list[int]
    """One number: 0 while nothing may be queued without asking."""
    refuse: Callable[[object], None]


class Emitter:
    """Carries items from a thread that must not be disturbed to a socket that may not be there.

    :param path: the sidecar's Unix stream socket.
    :param hello: makes the first record of a session; called in the emitter's thread at each connect.
    :param translator: turns queued items that are not records into records.
    :param poll_seconds: how long the thread sleeps between two turns.
    :param queue_limit: items kept between two turns; what comes on top is dropped and counted.
    :param now_ns: the clock, CLOCK_MONOTONIC nanoseconds.
    :param on_failure: called once, with the reason, when internal errors make the emitter give up.
    :param companion: heeds what the far end says; without one it is not read.
    """

    def __init__(
        self,
        path: str,
        hello: Callable[[], Hello],
        *,
        translator: Translator | None = None,
        poll_seconds: float = POLL_SECONDS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        queue_limit: int = QUEUE_LIMIT,
        max_buffer_bytes: int = MAX_BUFFER_BYTES,
        now_ns: Callable[[], int] = time.monotonic_ns,
        on_failure: Callable[[str], None] | None = None,
        companion: Companion | None = None,
    ) -> None:
        self._hello = hello
        self._translator: Translator = Passthrough() if translator is None else translator
        self._poll_seconds = poll_seconds
        self._heartbeat_ns = round(heartbeat_seconds * 1e9)
        self._queue_limit = queue_limit
        self.inlet = Inlet(deque(), [queue_limit], self._refuse)
        self._now_ns = now_ns
        self._on_failure = on_failure
        self._companion = companion
        self._encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
        self._link = Link(path, max_buffer_bytes=max_buffer_bytes)
        self._reset()
        _alive.add(self)

    def _reset(self) -> None:
        """The state of an emitter that has sent nothing: at birth, and in a forked child."""
        self.inlet.queue.clear()
        self.inlet.bound[0] = self._queue_limit
        self._overflow = 0
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._closed = False
        self._asleep = False
        self._errors = 0
        self._last_error_ns = 0
        self._goodbye = "closed"
        self._farewell: list[AnyRecord] = []
        self._sessions = 0
        self._last_sent_ns = self._heeded_ns = 0
        self._arrears = Arrears(self._now_ns())

    @property
    def dropped(self) -> int:
        """Records and items that were lost since the emitter was made."""
        return self._arrears.dropped

    @property
    def connected(self) -> bool:
        return self._link.connected

    @property
    def thread_cpu_ns(self) -> int:
        """CPU time that the thread has used, nanoseconds; 0 if there is none."""
        thread = self._thread
        if thread is None or thread.ident is None or not thread.is_alive():
            return 0
        return time.clock_gettime_ns(time.pthread_getcpuclockid(thread.ident))

    # ------------------------------------------------------------------------- the producer's side

    def put(self, item: object) -> None:
        """Queues an item from any thread; costs an append. When the queue is full the item is lost."""
        queue, bound, refuse = self.inlet
        if len(queue) < bound[0]:
            queue.append(item)
        else:
            refuse(item)

    def start(self) -> Emitter:
        """Starts the thread; again is harmless. A process that cannot start threads loses the records."""
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="joulescope-emitter", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:
                self._give_up(f"no thread: {error}")
        return self

    def close(self, timeout_seconds: float = 0.2, reason: str = "closed") -> None:
        """Sends what is queued and a bye, waiting no longer than the timeout; later items are ignored."""
        if self._closed:
            return
        self._closed = True
        self.inlet.bound[0] = 0
        self._goodbye = reason
        self._stop.set()
        thread = self._thread
        if thread is None:
            self._say_goodbye()
        elif timeout_seconds > 0 and thread is not threading.current_thread():
            thread.join(timeout_seconds)

    def _refuse(self, item: object) -> None:
        if self._asleep:
            self._asleep = False
            self.inlet.bound[0] = self._queue_limit
            self.inlet.queue.append(item)
            self.start()
        elif not self._closed:
            self._overflow += 1

    # ---------------------------------------------------------------------------- the thread's side

    def _run(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            self._guarded_poll()
        self._say_goodbye()

    def _guarded_poll(self) -> None:
        try:
            self.poll()
        except Exception as error:
            self.count_error(error)

    def count_error(self, error: Exception) -> None:
        """Takes note of an internal error; at the tenth within a minute of each other the emitter stops."""
        now_ns = self._now_ns()
        if now_ns - self._last_error_ns > ERROR_MEMORY_NS:
            self._errors = 0
        self._last_error_ns = now_ns
        self._errors += 1
        if self._errors >= MAX_ERRORS:
            self._give_up(f"{type(error).__name__}: {error}")

    def _give_up(self, reason: str) -> None:
        """Stops for good after too many internal errors, with the one line that the log gets."""
        if self._closed:
            return
        log.warning("joulescope: switched off in this process after repeated internal errors (%s)", reason)
        self._closed = True
        self.inlet.bound[0] = 0
        self._goodbye = "disabled"
        self._stop.set()
        self.inlet.queue.clear()
        if self._on_failure is not None:
            self._on_failure(reason)

    def poll(self) -> None:
        """One turn: drain, translate, connect if need be, send. The thread calls it; so may a test."""
        now_ns = self._now_ns()
        items, overflowed = self._drain()
        records = self._translate(items, overflowed)
        greeting = self._greet(now_ns)
        self._arrears.observe(records)
        if not self._link.connected:
            self._arrears.lose_records(records, DISCONNECTED)
        elif records or greeting or self._farewell or self._arrears.pressing or self._heartbeat_due(now_ns):
            self._send(now_ns, greeting, records)
        else:
            self._link.flush(now_ns)
        self._notice_delivery()
        if self._companion is not None and now_ns - self._heeded_ns >= self._heartbeat_ns:
            self._heeded_ns = now_ns
            self._companion.turn(self._link.receive())

    def _translate(self, items: list[object], overflowed: int) -> list[AnyRecord]:
        self._arrears.lose(overflowed, OVERLOAD)
        try:
            return self._translator.translate(items, overflowed)
        except Exception as error:
            self._arrears.lose(len(items), INTERNAL_ERROR)
            self.count_error(error)
            return []

    def _drain(self) -> tuple[list[object], int]:
        queue = self.inlet.queue
        items = [queue.popleft() for _ in range(len(queue))]
        overflowed, self._overflow = self._overflow, 0
        return items, overflowed

    def _heartbeat_due(self, now_ns: int) -> bool:
        return now_ns - self._last_sent_ns >= self._heartbeat_ns

    def _greet(self, now_ns: int) -> list[AnyRecord]:
        """Connects if there is no connection; returns the record with which a new session begins."""
        if self._link.connected or not self._link.connect(now_ns):
            if complaint := self._link.complaint():
                log.warning("joulescope: %s", complaint)
            return []
        try:
            hello = self._hello()
            self._encoder.encode(hello)  # a session must not begin without it
        except Exception as error:
            self._link.drop(now_ns)
            self.count_error(error)
            return []
        self._arrears.new_session(first=self._sessions == 0)
        self._sessions += 1
        return [hello]

    def _send(self, now_ns: int, greeting: list[AnyRecord], records: list[AnyRecord]) -> None:
        outgoing = greeting + self._arrears.settle(now_ns) + records
        progress = Progress(
            time_ns=now_ns - SETTLE_NS,
            pending_since_ns=self._translator.pending_since_ns(),
            dropped=self._arrears.dropped,
        )
        outgoing.append(progress)
        outgoing += self._farewell
        for first in range(0, len(outgoing), RECORDS_PER_FRAME):
            part = outgoing[first : first + RECORDS_PER_FRAME]
            if not self._link.send(self._encode(part), len(part), now_ns):
                reason = OVERLOAD if self._link.connected else DISCONNECTED
                self._arrears.lose_records(outgoing[first:], reason)
                return
        self._last_sent_ns = now_ns
        self._arrears.offered_ns = progress.time_ns

    def _encode(self, part: list[AnyRecord]) -> bytes:
        try:
            return encode_frame(part, self._encoder)
        except Exception as error:
            self.count_error(error)
        sound = [record for record in part if self._is_sound(record)]
        self._arrears.lose(len(part) - len(sound), INTERNAL_ERROR)
        return encode_frame(sound, self._encoder)

    def _is_sound(self, record: AnyRecord) -> bool:
        try:
            self._encoder.encode(record)
        except Exception:
            return False
        return True

    def _notice_delivery(self) -> None:
        if self._link.connected:
            if not self._link.buffered_bytes:
                self._arrears.delivered_ns = self._arrears.offered_ns
        else:
            lost, self._link.lost_records = self._link.lost_records, 0
            self._arrears.lose(lost, DISCONNECTED)

    def _say_goodbye(self) -> None:
        """The last turn: what is queued, and a bye; a slow reader gets :data:`FAREWELL_TURNS` chances."""
        self._farewell = [Bye(time_ns=self._now_ns(), reason=self._goodbye)]
        self._guarded_poll()
        if self._companion is not None:
            self._companion.close()
        for _ in range(FAREWELL_TURNS):
            if not self._link.buffered_bytes:
                break
            self._link.wait_writable(POLL_SECONDS)
            self._link.flush(self._now_ns())
        self._link.abandon()

    def fall_asleep(self) -> None:
        """Forgets everything that belongs to the parent; the first item put wakes a thread of its own.

        Called in a forked child, which has copies of the queue and of the socket but not the thread. A
        copy of the socket left open would hide the parent's death from the far end.
        """
        closed = self._closed
        self._link.abandon()
        self._reset()
        self.inlet.bound[0] = 0
        self._closed = closed
        self._asleep = not closed


def _after_fork_in_child() -> None:
    for emitter in list(_alive):
        emitter.fall_asleep()


os.register_at_fork(after_in_child=_after_fork_in_child)
