"""The emitter and its link against real Unix sockets."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from joulescope.clock import ManualClock
from joulescope.hook.emitter import MAX_ERRORS, SETTLE_NS, Emitter
from joulescope.hook.wire import (
    AnyRecord,
    Bye,
    Gap,
    Hello,
    Overhead,
    Progress,
    RequestEnd,
    RequestStart,
)
from tests.hook.listener import Listener, PatientListener

MakeEmitter = Callable[..., Emitter]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def listener(path: Path) -> Iterator[PatientListener]:
    listener = PatientListener(path)
    yield listener
    listener.close()


@pytest.fixture
def make(path: Path, clock: ManualClock) -> MakeEmitter:
    def make_emitter(**options: object) -> Emitter:
        return Emitter(str(path), lambda: Hello(time_ns=clock.now_ns()), now_ns=clock.now_ns, **options)

    return make_emitter


def start(handle: int) -> RequestStart:
    return RequestStart(request=handle, request_id=f"r{handle}", time_ns=handle)


def end(handle: int) -> RequestEnd:
    return RequestEnd(request=handle, time_ns=handle, reason="stop")


def kinds(records: Sequence[AnyRecord]) -> list[str]:
    return [type(record).__name__ for record in records]


def turn(emitter: Emitter, clock: ManualClock, *items: object) -> None:
    """Queues items, lets 20 ms pass, and lets the emitter do one turn."""
    for item in items:
        emitter.put(item)
    clock.advance(0.02)
    emitter.poll()


def test_records_travel_in_order(listener: PatientListener, make: MakeEmitter, clock: ManualClock) -> None:
    """A session is a hello, the records as they were put, and a progress that vouches for them."""
    emitter = make()
    turn(emitter, clock, start(1), end(1))
    records = listener.read()
    assert kinds(records) == ["Hello", "RequestStart", "RequestEnd", "Progress"]
    assert records[-1] == Progress(time_ns=clock.now_ns() - SETTLE_NS)


def test_heartbeat(listener: PatientListener, make: MakeEmitter, clock: ManualClock) -> None:
    """Silence is broken every 200 ms by a progress record, and not sooner."""
    emitter = make()
    turn(emitter, clock)
    listener.read()
    for _ in range(9):
        turn(emitter, clock)
    assert listener.read() == []
    turn(emitter, clock)
    assert kinds(listener.read()) == ["Progress"]


def test_absent_sidecar(path: Path, make: MakeEmitter, clock: ManualClock) -> None:
    """Without a listener items are drained and dropped; a later one hears of open requests and the gap."""
    emitter = make()
    born_ns = clock.now_ns()
    turn(emitter, clock, start(1), start(2), end(1))
    listener = PatientListener(path)
    clock.advance(1.0)
    turn(emitter, clock)
    hello, gap, resumed, progress = listener.read()
    assert isinstance(hello, Hello)
    assert gap == Gap(start_ns=born_ns, end_ns=clock.now_ns(), dropped=3, reason="disconnected")
    assert resumed == RequestStart(request=2, request_id="r2", time_ns=2, resumed=True)
    assert isinstance(progress, Progress)
    assert progress.dropped == emitter.dropped == 3
    listener.close()


def test_absent_sidecar_releases_references(make: MakeEmitter, clock: ManualClock) -> None:
    """What the engine queued is let go of at the next turn even if nobody listens."""

    class Thing:
        pass

    emitter, thing = make(), Thing()
    watch = weakref.ref(thing)
    emitter.put(thing)
    del thing
    turn(emitter, clock)
    gc.collect()
    assert watch() is None


def test_back_off(path: Path, make: MakeEmitter, clock: ManualClock) -> None:
    """After failed attempts the next one waits longer, at most a second."""
    emitter = make()
    for _ in range(200):
        turn(emitter, clock)
    listener = PatientListener(path)
    attempts = 0
    while emitter.connected is False:
        turn(emitter, clock)
        attempts += 1
    assert 1 <= attempts <= 51
    listener.close()


def test_killed_and_restarted_sidecar(path: Path, make: MakeEmitter, clock: ManualClock) -> None:
    """A new sidecar gets a hello, the gap since the old one's last word, and the open requests; requests
    that ended meanwhile are not mentioned."""
    emitter = make()
    old = PatientListener(path)
    turn(emitter, clock, start(1), start(2))
    last_word_ns = old.read()[-1].time_ns
    old.close()
    turn(emitter, clock, end(1), start(3))
    new = PatientListener(path)
    clock.advance(1.0)
    turn(emitter, clock, start(4))
    records = new.read()
    assert kinds(records) == ["Hello", "Gap", "RequestStart", "RequestStart", "RequestStart", "Progress"]
    assert records[1].start_ns == last_word_ns
    assert records[1].reason == "disconnected"
    assert [(each.request, each.resumed) for each in records[2:5]] == [(2, True), (3, True), (4, False)]
    new.close()


def test_slow_sidecar(listener: PatientListener, make: MakeEmitter, clock: ManualClock) -> None:
    """A peer that never reads costs dropped records, not time or memory; once it reads it learns of the
    gap, of requests whose start was dropped, and of ends that were."""
    emitter = make(max_buffer_bytes=10_000)
    turn(emitter, clock, start(1), start(2))
    filler = Overhead(start_ns=1, end_ns=2, reason="x" * 20_000)
    while emitter.dropped == 0:
        turn(emitter, clock, filler)
    turn(emitter, clock, filler, start(3), end(1))
    dropped = emitter.dropped
    assert dropped >= 4
    before = listener.read()
    turn(emitter, clock)
    after = listener.read()
    while not any(isinstance(each, Gap) for each in after):
        turn(emitter, clock)
        after += listener.read()
    assert "Gap" not in kinds(before)
    gap = next(each for each in after if isinstance(each, Gap))
    assert (gap.dropped, gap.reason) == (dropped, "overload")
    rest = after[after.index(gap) + 1 :]
    assert [each.request for each in rest if isinstance(each, RequestStart)] == [3]
    assert [each.request for each in rest if isinstance(each, RequestEnd)] == [1]


def test_partial_writes(listener: PatientListener, make: MakeEmitter, clock: ManualClock) -> None:
    """A frame larger than the kernel's buffer arrives whole, over several turns."""
    emitter = make()
    turn(emitter, clock, Overhead(start_ns=1, end_ns=2, reason="y" * 3_000_000))
    records: list[AnyRecord] = []
    while not records:
        records = listener.read()
        turn(emitter, clock)
    assert kinds(records)[:2] == ["Hello", "Overhead"]


def test_break_in_mid_frame(listener: PatientListener, make: MakeEmitter, clock: ManualClock) -> None:
    """A frame that a break cut off is counted, and the next session starts cleanly."""
    emitter = make()
    turn(emitter, clock, Overhead(start_ns=1, end_ns=2, reason="z" * 3_000_000))
    listener.accept()
    listener.hang_up()
    turn(emitter, clock)
    clock.advance(1.0)
    turn(emitter, clock, start(1))
    records = listener.read()
    assert kinds(records) == ["Hello", "Gap", "RequestStart", "Progress"]
    assert records[1].dropped >= 1


def test_garbage_from_the_peer(listener: PatientListener, make: MakeEmitter, clock: ManualClock) -> None:
    """What the peer writes is ignored."""
    emitter = make()
    turn(emitter, clock)
    listener.accept().send(b"\xff" * 10_000)
    for handle in range(3):
        turn(emitter, clock, start(handle))
    assert kinds(listener.read()).count("RequestStart") == 3


@pytest.mark.parametrize("bad", ["/nowhere/at/all/s", "/" + "long" * 50, "/dev/null", ""])
def test_impossible_path(bad: str, clock: ManualClock) -> None:
    """A path that cannot be connected to never raises."""
    emitter = Emitter(bad, lambda: Hello(time_ns=0), now_ns=clock.now_ns)
    turn(emitter, clock, start(1))
    assert emitter.dropped == 1


def test_full_queue(listener: PatientListener, make: MakeEmitter, clock: ManualClock) -> None:
    """When the queue is full the newest items are dropped, counted, and admitted in gap and progress."""
    emitter = make(queue_limit=3)
    turn(emitter, clock, *[start(handle) for handle in range(5)])
    records = listener.read()
    assert [each.request for each in records if isinstance(each, RequestStart)] == [0, 1, 2]
    assert [each.dropped for each in records if isinstance(each, Gap)] == [2]
    assert [each.dropped for each in records if isinstance(each, Progress)] == [2]
    turn(emitter, clock, start(9))
    assert kinds(listener.read()) == ["RequestStart", "Progress"]


def test_many_records_are_split_into_frames(
    listener: PatientListener, make: MakeEmitter, clock: ManualClock
) -> None:
    """A large batch arrives complete and in order."""
    emitter = make()
    turn(emitter, clock, *[start(handle) for handle in range(1000)])
    started = [each.request for each in listener.read() if isinstance(each, RequestStart)]
    assert started == list(range(1000))


def test_close_says_goodbye(listener: PatientListener, make: MakeEmitter, clock: ManualClock) -> None:
    """Closing sends what is queued and a bye, and later items are ignored."""
    emitter = make()
    emitter.put(start(1))
    emitter.close(reason="shutdown")
    emitter.put(start(2))
    emitter.close()
    records = listener.read()
    assert kinds(records) == ["Hello", "RequestStart", "Progress", "Bye"]
    assert records[-1] == Bye(time_ns=clock.now_ns(), reason="shutdown")
    assert emitter.dropped == 0


def test_thread(path: Path) -> None:
    """With its own thread and the real clock, records arrive and close delivers the rest."""
    with Listener(path) as listener:
        emitter = Emitter(str(path), lambda: Hello(time_ns=0), poll_seconds=0.001).start()
        emitter.put(start(1))
        listener.wait_for(lambda: len(listener.of(RequestStart)) == 1)
        assert emitter.thread_cpu_ns > 0
        emitter.put(start(2))
        emitter.close(timeout_seconds=5)
        assert emitter.thread_cpu_ns == 0
        listener.wait_for(lambda: len(listener.of(Bye)) == 1)
        assert [each.request for each in listener.of(RequestStart)] == [1, 2]


def test_two_emitters_in_one_process(path: Path) -> None:
    """Two engines of one process have a session each."""
    with Listener(path) as listener:
        emitters = [Emitter(str(path), lambda: Hello(time_ns=0), poll_seconds=0.001) for _ in range(2)]
        for handle, emitter in enumerate(emitters):
            emitter.start().put(start(handle))
        listener.wait_for(lambda: len(listener.of(RequestStart)) == 2)
        for emitter in emitters:
            emitter.close(timeout_seconds=5)
        assert sorted(session.of(RequestStart)[0].request for session in listener.sessions) == [0, 1]


def test_fork(path: Path) -> None:
    """A forked child gives up the parent's connection, sends nothing by itself, and gets a session of its
    own if it uses the emitter; the parent's session goes on."""
    with Listener(path) as listener:
        emitter = Emitter(str(path), lambda: Hello(time_ns=0, pid=os.getpid()), poll_seconds=0.001).start()
        emitter.put(start(1))
        listener.wait_for(lambda: len(listener.of(RequestStart)) == 1)
        child = os.fork()
        if child == 0:
            emitter.put(start(2))
            emitter.close(timeout_seconds=5)
            os._exit(0)
        os.waitpid(child, 0)
        listener.wait_for(lambda: len(listener.sessions) == 2 and listener.sessions[1].ended)
        emitter.put(end(1))
        emitter.close(timeout_seconds=5)
        listener.wait_for(lambda: listener.sessions[0].ended)
        parents, childs = (session.records for session in listener.sessions)
        assert [each.request for each in childs if isinstance(each, RequestStart)] == [2]
        assert childs[0].pid == child
        assert [type(each) for each in parents if isinstance(each, (RequestStart, RequestEnd, Bye))] == [
            RequestStart,
            RequestEnd,
            Bye,
        ]


class Breaking:
    """A translator that fails."""

    def translate(self, items: Sequence[object], overflowed: int) -> list[AnyRecord]:
        if items:
            raise ZeroDivisionError("broken on purpose")
        return []

    def pending_since_ns(self) -> int | None:
        return 42


def test_internal_errors_switch_off(
    listener: PatientListener, make: MakeEmitter, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """After ten errors in short order the emitter stops, says so once, and tells its owner."""
    reasons: list[str] = []
    emitter = make(translator=Breaking(), on_failure=reasons.append)
    for _ in range(MAX_ERRORS + 5):
        turn(emitter, clock, object())
    assert reasons == ["ZeroDivisionError: broken on purpose"]
    assert len(caplog.records) == 1
    gaps = [each for each in listener.read() if isinstance(each, Gap)]
    assert gaps[0].reason == "internal_error"


def test_numbers_of_other_libraries(listener: PatientListener, make: MakeEmitter, clock: ManualClock) -> None:
    """A count that vLLM keeps as a numpy scalar arrives as a plain number."""
    record = start(1)
    record.prompt_tokens = np.int64(7)  # type: ignore[assignment]
    turn(make(), clock, record)
    assert listener.read()[1].prompt_tokens == 7


def test_record_that_cannot_be_encoded(
    listener: PatientListener, make: MakeEmitter, clock: ManualClock
) -> None:
    """A record with something foreign in it is left out and admitted; those around it arrive."""
    bad = start(2)
    bad.request_id = object()  # type: ignore[assignment]
    emitter = make()
    turn(emitter, clock, start(1), bad, start(3))
    assert [each.request for each in listener.read() if isinstance(each, RequestStart)] == [1, 3]
    turn(emitter, clock)
    (gap, progress) = listener.read()
    assert (gap.dropped, gap.reason, progress.dropped) == (1, "internal_error", 1)


def test_rare_errors_are_survived(make: MakeEmitter, clock: ManualClock) -> None:
    """Errors that are minutes apart never add up."""
    reasons: list[str] = []
    emitter = make(translator=Breaking(), on_failure=reasons.append)
    for _ in range(MAX_ERRORS + 5):
        turn(emitter, clock, object())
        clock.advance(61)
    assert reasons == []


def test_failing_hello(listener: PatientListener, path: Path, clock: ManualClock) -> None:
    """A session never begins without its hello: if making one fails, another connection is tried, and
    what was queued meanwhile counts as lost."""
    attempts = iter([ZeroDivisionError, None])

    def hello() -> Hello:
        error = next(attempts)
        if error is not None:
            raise error
        return Hello(time_ns=1)

    emitter = Emitter(str(path), hello, now_ns=clock.now_ns)
    turn(emitter, clock, start(1))
    clock.advance(1.0)
    turn(emitter, clock)
    assert listener.accept().recv(1) == b""
    listener.hang_up()
    assert kinds(listener.read()) == ["Hello", "Gap", "RequestStart", "Progress"]


def test_pending_work_is_told(listener: PatientListener, make: MakeEmitter, clock: ManualClock) -> None:
    """Progress carries the translator's word on unfinished work."""
    turn(make(translator=Breaking()), clock)
    assert listener.read()[-1].pending_since_ns == 42
