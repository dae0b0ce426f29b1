"""Whatever happens to the connection, the far end is never misled."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from joulescope.clock import ManualClock
from joulescope.hook.emitter import Emitter
from joulescope.hook.wire import AnyRecord, Gap, Hello, Overhead, Progress, RequestEnd, RequestStart
from tests.examples import examples
from tests.hook.listener import PatientListener

BIG = "x" * 60_000


class Wire(RuleBasedStateMachine):
    """An emitter with a short queue and a small buffer, and a listener that comes, goes and dawdles."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "s"
        self.clock = ManualClock(1_000_000_000)
        self.emitter = Emitter(
            str(self.path),
            lambda: Hello(time_ns=self.clock.now_ns()),
            now_ns=self.clock.now_ns,
            queue_limit=20,
            max_buffer_bytes=100_000,
        )
        self.listener: PatientListener | None = None
        self.heard: list[AnyRecord] = []
        self.truly_open: set[int] = set()
        self.queued = 0
        self.next_handle = 0

    def put(self, record: AnyRecord) -> bool:
        """Queues a record unless the queue is full: starts and ends that a full queue refuses are the
        translator's affair."""
        if self.queued >= 20:
            return False
        self.queued += 1
        self.emitter.put(record)
        return True

    @rule()
    def start_request(self) -> None:
        self.next_handle += 1
        start = RequestStart(request=self.next_handle, request_id="r", time_ns=self.clock.now_ns())
        if self.put(start):
            self.truly_open.add(self.next_handle)

    @rule(choice=st.integers(0, 1000))
    def end_request(self, choice: int) -> None:
        if self.truly_open:
            handle = sorted(self.truly_open)[choice % len(self.truly_open)]
            if self.put(RequestEnd(request=handle, time_ns=self.clock.now_ns(), reason="stop")):
                self.truly_open.discard(handle)

    @rule(count=st.integers(1, 8))
    def chatter(self, count: int) -> None:
        for _ in range(count):
            self.put(Overhead(start_ns=1, end_ns=2, reason=BIG))

    @rule(count=st.integers(1, 5))
    def overflow(self, count: int) -> None:
        for _ in range(20 - self.queued + count):
            self.emitter.put(Overhead(start_ns=1, end_ns=2, reason="y"))
        self.queued = 20

    @rule(pause_seconds=st.sampled_from([0.02, 0.02, 0.5, 2.0]))
    def turn(self, pause_seconds: float) -> None:
        self.clock.advance(pause_seconds)
        self.emitter.poll()
        self.queued = 0

    @rule()
    def sidecar_comes(self) -> None:
        if self.listener is None:
            self.listener = PatientListener(self.path)
            self.heard = []

    @rule()
    def sidecar_goes(self) -> None:
        if self.listener is not None:
            self.listener.close()
            self.listener = None
            self.heard = []

    @rule()
    def sidecar_reads(self) -> None:
        if self.listener is not None:
            with contextlib.suppress(BlockingIOError):
                self.heard += self.listener.read()

    @invariant()
    def what_was_heard_makes_sense(self) -> None:
        """A session begins with its hello; progress and gaps only move forward."""
        assert not self.heard or isinstance(self.heard[0], Hello)
        assert sum(isinstance(record, Hello) for record in self.heard) <= 1
        instants = [record.time_ns for record in self.heard if isinstance(record, Progress)]
        assert instants == sorted(instants)
        assert all(gap.start_ns <= gap.end_ns for gap in self.heard if isinstance(gap, Gap))

    def teardown(self) -> None:
        """Once the sidecar listens and reads, it knows exactly the requests that are open, and every loss
        is admitted."""
        self.sidecar_comes()
        assert self.listener is not None
        for _ in range(200):
            self.turn(0.5)
            self.sidecar_reads()
            last = self.heard[-1] if self.heard else None
            if isinstance(last, Progress) and last.time_ns > self.clock.now_ns() - 500_000_000:
                break
        known: set[int] = set()
        for record in self.heard:
            if isinstance(record, RequestStart):
                known.add(record.request)
            elif isinstance(record, RequestEnd):
                known.discard(record.request)
        assert known == self.truly_open
        told = [record.dropped for record in self.heard if isinstance(record, Progress)]
        assert told[-1] == self.emitter.dropped
        self.listener.close()
        self.emitter.close()
        self.directory.cleanup()


TestWire = Wire.TestCase
TestWire.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)


@given(st.binary(max_size=200_000))
@settings(max_examples=examples(20), deadline=None)
def test_any_bytes_from_the_peer_are_ignored(garbage: bytes) -> None:
    """The peer may write anything: records still arrive."""
    with tempfile.TemporaryDirectory() as directory:
        listener = PatientListener(Path(directory) / "s")
        emitter = Emitter(str(listener.path), lambda: Hello(time_ns=0), now_ns=ManualClock().now_ns)
        emitter.poll()
        with contextlib.suppress(BlockingIOError):
            listener.accept().send(garbage)
        emitter.put(RequestStart(request=1, request_id="r", time_ns=0))
        emitter.poll()
        assert [type(record) for record in listener.read()] == [Hello, Progress, RequestStart, Progress]
        listener.close()
        emitter.close()
