"""The manners of the SDK: sidecars come and go, queues fill, and the engine never notices."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulescope.hook import wire
from joulescope.sdk import Engine
from joulescope.sdk import reporter as reporter_module
from tests.hook.listener import Listener
from tests.sdk.bench import GPU, SECOND, Bench, kinds, of


def test_nobody_listens(lonely: Bench) -> None:
    """Without a sidecar every call works, and what was lost is counted."""
    request = lonely.engine.request_started("r1")
    with lonely.engine.step([request]):
        lonely.turn()
    lonely.engine.request_ended(request)
    lonely.turn()
    assert not lonely.engine.connected
    assert lonely.engine.dropped == 3


def test_a_sidecar_that_comes_late_hears_of_the_gap_and_of_who_is_open(lonely: Bench) -> None:
    """What ran before is admitted as a gap; a request that goes on is announced as resumed."""
    over, open_ = lonely.engine.request_started("over"), lonely.engine.request_started("open")
    with lonely.engine.step([over, open_]):
        lonely.turn()
    lonely.engine.request_ended(over)
    lonely.turn()
    lonely.listen()
    records = lonely.turn()
    assert kinds(records) == ["hello", "gap", "request_start"]
    (gap,), (start,) = of(records, wire.Gap), of(records, wire.RequestStart)
    assert (gap.start_ns, gap.dropped) == (5 * SECOND, 4)
    assert (start.request_id, start.resumed) == ("open", True)
    assert lonely.engine.connected


def test_a_sidecar_that_goes_and_comes_back(bench: Bench) -> None:
    """After a break the same engine says hello again, tells of the gap, and goes on numbering."""
    request = bench.engine.request_started("r1")
    bench.engine.step([request]).end()
    (before,) = of(bench.turn(), wire.Hello)
    bench.vanish()
    for _ in range(2):
        bench.engine.step([request]).end()
        bench.turn()
    bench.listen()
    records = bench.turn()
    assert kinds(records) == ["hello", "gap", "request_start"]
    (after,) = of(records, wire.Hello)
    assert after.engine.instance_id == before.engine.instance_id
    assert of(records, wire.RequestStart)[0].resumed
    bench.engine.step([request]).end()
    bench.engine.request_ended(request)
    records = bench.turn()
    assert [each.step for each in of(records, wire.Step)] == [4]
    assert [each.final_step for each in of(records, wire.RequestEnd)] == [4]
    assert of(records, wire.Progress)[0].dropped == bench.engine.dropped > 0


def test_heartbeats(bench: Bench) -> None:
    """In silence a progress comes every 200 ms, so that the sidecar knows idle from unknown."""
    bench.turn()
    beats = [len(of(bench.turn(0.05), wire.Progress)) for _ in range(40)]
    assert sum(beats) == 10


def test_a_full_queue_drops_counts_and_admits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that find no room are lost, counted and told as a gap; starts and ends are made up for."""
    bench.turn()
    monkeypatch.setattr(bench.engine._reporter, "_queue_limit", 4)
    first = bench.engine.request_started("first")
    for _ in range(5):
        bench.engine.step([first]).end()
    late = bench.engine.request_started("late")
    bench.engine.request_ended(first)
    records = bench.turn()
    assert kinds(records) == ["gap", "request_start", "request_start", "step", "step", "step", "request_end"]
    assert of(records, wire.Gap)[0].dropped == bench.engine.dropped == 4
    assert of(records, wire.Gap)[0].reason == "overload"
    resumed, started = of(records, wire.RequestStart)
    assert (resumed.request_id, resumed.resumed) == ("late", True)
    assert (started.request_id, started.resumed) == ("first", False)
    (end,) = of(records, wire.RequestEnd)
    assert (end.request, end.reason) == (1, "unknown")
    bench.engine.request_ended(late, "stop")
    assert kinds(bench.turn()) == ["request_end"]


def test_a_slow_reader_costs_records_not_time(bench: Bench) -> None:
    """A sidecar that reads nothing fills the buffer, not the memory; later it hears what it missed."""
    bench.engine._reporter._link._max_buffer_bytes = 20_000
    requests = [bench.engine.request_started(f"r{number}") for number in range(64)]
    for _ in range(3000):
        bench.engine.step(requests).end()
        bench.clock.advance(0.01)
        bench.engine.poll()
    assert bench.engine.dropped > 0
    assert bench.engine._reporter._link.buffered_bytes <= 20_000
    told = [record for _ in range(50) for record in bench.turn(0.3)]
    gaps = of(told, wire.Gap)
    assert sum(gap.dropped for gap in gaps) == bench.engine.dropped
    assert len(of(told, wire.Step)) + bench.engine.dropped == 3000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["start", "step", "end", "up", "down", "full", "turn"]), max_size=40))
def test_whatever_happens_the_sidecar_knows_who_is_open(
    tmp_path_factory: pytest.TempPathFactory, story: list[str]
) -> None:
    """After any sequence of calls, breaks and overloads, the sidecar that is there in the end knows exactly
    the requests that are open."""
    bench = Bench(tmp_path_factory.mktemp("story") / "js.sock")
    reporter, open_, known, number = bench.engine._reporter, [], set(), 0
    for act in [*story, "up", "turn", "turn", "turn"]:
        heard = []
        if act == "start":
            number += 1
            open_.append(bench.engine.request_started(f"r{number}"))
        elif act == "step" and open_:
            bench.engine.step(open_).end()
        elif act == "end" and open_:
            bench.engine.request_ended(open_.pop(0))
        elif act == "up" and bench.sidecar is None:
            bench.listen()
        elif act == "down" and bench.sidecar is not None:
            bench.vanish()
        elif act == "full":
            reporter._queue_limit = len(reporter._queue)
        elif act == "turn":
            heard = bench.turn()
            reporter._queue_limit = reporter_module.QUEUE_LIMIT
        for record in heard:
            if isinstance(record, wire.Hello):
                known = set()
            elif isinstance(record, wire.RequestStart):
                known.add(record.request)
            elif isinstance(record, wire.RequestEnd):
                known.discard(record.request)
    assert known == {request.number for request in open_}
    bench.engine.close()
    bench.vanish()


def test_switched_off(tmp_path: Path) -> None:
    """With JOULESCOPE_DISABLED nothing is connected or queued, and calls are still checked."""
    environ = {"JOULESCOPE_DISABLED": "1", "JOULESCOPE_SOCKET": str(tmp_path / "js.sock")}
    engine = Engine("painter", gpus=[GPU], environ=environ)
    request = engine.request_started("r1")
    with engine.step([request]):
        pass
    engine.poll()
    with pytest.raises(ValueError, match="is -1"):
        engine.step({request: -1})
    assert not engine.enabled
    assert not engine.connected
    assert engine.dropped == 0
    assert engine._reporter._thread is None
    assert engine._reporter._queue == []
    engine.close()


def test_a_variable_that_cannot_be_used_is_told_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """An operator's mistake costs the joules and a line in the log, not the engine's start."""
    engine = Engine("painter", gpus=[GPU], environ={"JOULESCOPE_SOCKET": "/" + "x" * 107})
    engine.request_ended(engine.request_started("r1"))
    assert not engine.enabled
    (line,) = [record.getMessage() for record in caplog.records]
    assert "JOULESCOPE_SOCKET" in line
    assert "choose a shorter one" in line
    engine.close()


def test_many_threads_at_once(tmp_path: Path) -> None:
    """Calls from eight threads reach the sidecar as steps numbered without holes, in order of their ends."""
    with Listener(tmp_path / "js.sock") as sidecar:
        engine = Engine("painter", gpus=[GPU], socket=sidecar.path, environ={})

        def paint(name: str) -> None:
            for number in range(100):
                request = engine.request_started(f"{name}-{number}")
                with engine.step({request: 3}) as step:
                    step.produced([request])
                engine.request_ended(request)

        threads = [threading.Thread(target=paint, args=(str(each),)) for each in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        engine.close(10.0)
        sidecar.wait_for(lambda: bool(sidecar.of(wire.Bye)))
        steps = sidecar.of(wire.Step)
        assert [each.step for each in steps] == list(range(1, 801))
        ends = [each.output_start_ns for each in steps]
        assert ends == sorted(ends)
        assert len(sidecar.of(wire.RequestEnd)) == 800
        assert engine.dropped == 0


def test_the_socket_is_the_variables(tmp_path: Path) -> None:
    """JOULESCOPE_SOCKET says where to report where the engine's author said nothing."""
    bench = Bench(tmp_path / "js.sock")
    bench.listen()
    environ = {"JOULESCOPE_SOCKET": str(bench.path)}
    engine = Engine("painter", gpus=[GPU], environ=environ, thread=False)
    engine.poll()
    assert engine.connected
    engine.close()
    bench.engine.close()
    bench.vanish()


def test_close_says_goodbye_and_silences(bench: Bench) -> None:
    """What is queued goes out with a bye; later calls do no harm."""
    request = bench.engine.request_started("r1")
    bench.turn()
    bench.engine.step([request]).end()
    bench.engine.close()
    bench.engine.close()
    bench.engine.request_ended(request)
    assert kinds(bench.turn()) == ["step", "bye"]
    assert not bench.engine.connected


def test_errors_of_the_thread_end_the_reporting_not_the_engine(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of the SDK itself is told in one line after ten times, and the engine runs on."""
    reporter = bench.engine._reporter
    reporter._hello = lambda: {"type": "hello", "nonsense": object()}  # what no encoder takes
    for _ in range(12):
        bench.clock.advance(2.0)
        reporter._guarded(reporter.poll)
        reporter._link.drop(bench.clock.now_ns())
    request = bench.engine.request_started("r1")
    bench.engine.step([request]).end()
    (line,) = [record.getMessage() for record in caplog.records]
    assert "switched off" in line
    assert reporter._queue == []
