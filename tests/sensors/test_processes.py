"""CPU time of engines: of real processes, and of a table where real ones cannot be steered."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
import pytest

from joulescope.clock import ManualClock
from joulescope.host_model import CpuTimes, EngineProcess
from joulescope.sensors.processes import FORGET_NS, SCAN_NS, EngineProcesses, PsutilTable
from joulescope.units import seconds_from_ns

BURN = """
import sys, time
start = time.process_time()
while time.process_time() < start + float(sys.argv[1]):
    pass
print(time.process_time() - start, flush=True)
sys.stdin.read()
"""
SPIN = "import sys; sys.stdin.readline()" + BURN
PARENT = """
import subprocess, sys
sys.stdin.readline()
child = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]])
child.wait()
"""


def spin(seconds: float) -> subprocess.Popen[str]:
    """A process that on a word burns so much CPU time, says how much, and waits."""
    return subprocess.Popen(
        [sys.executable, "-c", SPIN, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ended with the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def go(process: subprocess.Popen[str]) -> None:
    """The word for which a process waits."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def said(process: subprocess.Popen[str]) -> float:
    """The CPU seconds that a spinner says it burned, once it has."""
    assert process.stdout is not None
    return float(process.stdout.readline())


def test_a_real_process_is_credited_with_what_it_burned(children: list[subprocess.Popen[str]]) -> None:
    """An engine that spins for half a second of CPU time is credited with it, and no wall clock is asked."""
    processes = EngineProcesses(ManualClock())
    engine = spin(0.5)
    children.append(engine)
    peers = {"llama-0": [EngineProcess(1, engine.pid)]}
    first = processes.read(peers)
    go(engine)
    burned = said(engine)
    last = processes.read(peers)
    assert first is not None
    assert last is not None
    spent = last.engine_seconds["llama-0"] - first.engine_seconds["llama-0"]
    assert spent >= burned - 0.05
    assert last.busy_seconds - first.busy_seconds >= 0.5 * spent
    assert last.total_seconds >= last.busy_seconds
    assert last.unseen_engines == ()


def test_children_born_later_belong_to_the_engine_whole(children: list[subprocess.Popen[str]]) -> None:
    """What a worker burned before it was found counts, since it was born after the last look."""
    clock = ManualClock()
    processes = EngineProcesses(clock)
    engine = subprocess.Popen(
        [sys.executable, "-c", PARENT, "0.4", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    children.append(engine)
    peers = {"llama-0": [EngineProcess(1, engine.pid)]}
    first = processes.read(peers)
    go(engine)
    burned = said(engine)
    clock.advance(seconds_from_ns(SCAN_NS))
    last = processes.read(peers)
    assert first is not None
    assert last is not None
    spent = last.engine_seconds["llama-0"] - first.engine_seconds["llama-0"]
    assert burned - 0.05 <= spent
    (worker,) = psutil.Process(engine.pid).children()
    worker.kill()


def test_this_process_is_in_the_real_table() -> None:
    """The table knows this process and its parent, says nothing of one that is gone, and time passes."""
    table = PsutilTable()
    assert table.parents()[os.getpid()] == os.getppid()
    before = table.read(os.getpid())
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    after = table.read(os.getpid())
    assert before is not None
    assert after is not None
    assert before[0] == after[0]
    assert after[1] > before[1]
    gone = spin(0)
    gone.communicate("")
    assert table.read(gone.pid) is None


@dataclass
class Table:
    """Processes by pid: who it is, CPU seconds, parent."""

    rows: dict[int, tuple[str, float, int]] = field(default_factory=dict)
    host: tuple[float, float] | None = (100.0, 400.0)

    def read(self, pid: int) -> tuple[object, float] | None:
        row = self.rows.get(pid)
        return None if row is None else row[:2]

    def parents(self) -> dict[int, int]:
        return {pid: row[2] for pid, row in self.rows.items()}

    def host_seconds(self) -> tuple[float, float] | None:
        return self.host


class World:
    """A table and what is read of it, with time that the test moves."""

    def __init__(self) -> None:
        self.table = Table()
        self.clock = ManualClock()
        self.processes = EngineProcesses(self.clock, self.table)

    def read(self, later_ns: int = SCAN_NS, **engines: list[tuple[int, int | None]]) -> CpuTimes:
        self.clock.time_ns += later_ns
        times = self.processes.read(
            {name: [EngineProcess(*each) for each in peers] for name, peers in engines.items()}
        )
        assert times is not None
        return times


def test_what_a_process_spent_before_it_was_met_is_not_the_engines() -> None:
    """The joules of that time were not measured under it."""
    world = World()
    world.table.rows = {7: ("a", 50.0, 1), 8: ("b", 20.0, 7)}
    assert world.read(llama=[(1, 7)]).engine_seconds == {"llama": 0.0}
    world.table.rows = {7: ("a", 51.0, 1), 8: ("b", 22.0, 7)}
    assert world.read(llama=[(1, 7)]).engine_seconds == {"llama": 3.0}


def test_a_process_that_ends_keeps_what_was_seen_of_it() -> None:
    """The engine's figure never falls when a worker goes."""
    world = World()
    world.table.rows = {7: ("a", 0.0, 1), 8: ("b", 0.0, 7)}
    world.read(llama=[(1, 7)])
    world.table.rows[8] = ("b", 4.0, 7)
    world.read(llama=[(1, 7)])
    del world.table.rows[8]
    assert world.read(llama=[(1, 7)]).engine_seconds == {"llama": 4.0}


def test_a_reused_pid_credits_no_stranger() -> None:
    """A stranger that got the pid of a dead worker, or of the dead engine, is not the engine's."""
    world = World()
    world.table.rows = {7: ("a", 1.0, 1), 8: ("b", 1.0, 7)}
    world.read(llama=[(1, 7)])
    world.table.rows = {7: ("stranger", 500.0, 1), 8: ("other stranger", 900.0, 1)}
    assert world.read(llama=[(1, 7)]).engine_seconds == {"llama": 0.0}
    world.table.rows = {7: ("stranger", 600.0, 1), 8: ("other stranger", 990.0, 1)}
    assert world.read(llama=[(1, 7)]).engine_seconds == {"llama": 0.0}


def test_each_process_belongs_to_its_nearest_engine() -> None:
    """Where one engine's processes descend from another's, none counts twice."""
    world = World()
    world.table.rows = {7: ("a", 0.0, 1), 8: ("b", 0.0, 7), 9: ("c", 0.0, 8), 5: ("stranger", 0.0, 1)}
    peers: dict[str, list[tuple[int, int | None]]] = {"one": [(1, 7)], "two": [(2, 8)]}
    world.read(**peers)
    world.table.rows = {7: ("a", 1.0, 1), 8: ("b", 2.0, 7), 9: ("c", 4.0, 8), 5: ("stranger", 8.0, 1)}
    assert world.read(**peers).engine_seconds == {"one": 1.0, "two": 6.0}


def test_a_worker_that_speaks_for_itself_is_not_counted_twice() -> None:
    """A worker is the engine's descendant and connects too: its CPU time counts once, before and after."""
    world = World()
    world.table.rows = {7: ("a", 0.0, 1), 8: ("b", 0.0, 7)}
    world.read(llama=[(1, 7)])
    world.table.rows[8] = ("b", 2.0, 7)
    world.read(llama=[(1, 7), (2, 8)])
    world.table.rows[8] = ("b", 5.0, 7)
    assert world.read(llama=[(1, 7), (2, 8)]).engine_seconds == {"llama": 5.0}
    world.table.rows[8] = ("b", 6.0, 7)
    assert world.read(llama=[(1, 7)]).engine_seconds == {"llama": 6.0}
    world.table.rows[8] = ("b", 7.0, 7)
    world.read(llama=[(1, 7)])
    world.table.rows[8] = ("b", 9.0, 7)
    assert 8.0 <= world.read(llama=[(1, 7)]).engine_seconds["llama"] <= 9.0


def test_an_engine_out_of_sight_has_no_figure_and_is_named() -> None:
    """From another pid namespace nothing is known of an engine: not 0 s, but nothing, and its name."""
    times = World().read(llama=[(1, None)])
    assert times.engine_seconds == {}
    assert times.unseen_engines == ("llama",)


def test_an_engine_seen_in_part_has_a_figure_and_is_named() -> None:
    """One worker out of sight: what is seen counts, and the engine is still named as not wholly visible."""
    world = World()
    world.table.rows = {7: ("a", 1.0, 1)}
    times = world.read(llama=[(1, 7), (2, None)])
    assert times.engine_seconds == {"llama": 0.0}
    assert times.unseen_engines == ("llama",)


def test_an_engine_that_left_is_told_of_for_a_while() -> None:
    """Its figure stays long enough for every domain to see it, and is then forgotten: memory is bounded."""
    world = World()
    world.table.rows = {7: ("a", 0.0, 1)}
    world.read(llama=[(1, 7)])
    world.table.rows[7] = ("a", 3.0, 1)
    assert world.read().engine_seconds == {"llama": 3.0}
    world.table.rows[7] = ("a", 9.0, 1)
    assert world.read(later_ns=FORGET_NS).engine_seconds == {"llama": 3.0}
    assert world.read(later_ns=FORGET_NS).engine_seconds == {}


def test_a_worker_may_turn_out_to_be_another_engines() -> None:
    """From then on its CPU time goes to the right one."""
    world = World()
    world.table.rows = {7: ("a", 0.0, 1), 8: ("b", 0.0, 1)}
    world.read(one=[(1, 7), (2, 8)])
    world.table.rows[8] = ("b", 1.0, 1)
    world.read(one=[(1, 7)], two=[(2, 8)])
    world.table.rows[8] = ("b", 4.0, 1)
    assert world.read(one=[(1, 7)], two=[(2, 8)]).engine_seconds == {"one": 1.0, "two": 3.0}


def test_a_slow_look_at_all_processes_is_followed_by_a_rest() -> None:
    """On a host with very many processes they are looked at seldom, and a worker is still found whole."""
    world = World()

    def slowly() -> dict[int, int]:
        world.clock.advance(0.1)
        return Table.parents(world.table)

    world.table.parents = slowly  # type: ignore[method-assign]
    world.table.rows = {7: ("a", 0.0, 1)}
    world.read(llama=[(1, 7)])
    world.table.rows[8] = ("b", 3.0, 7)
    second = 1_000_000_000
    assert world.read(later_ns=second, llama=[(1, 7)]).engine_seconds == {"llama": 0.0}
    assert world.read(later_ns=4 * second, llama=[(1, 7)]).engine_seconds == {"llama": 3.0}


def test_parents_in_a_circle_end_the_search() -> None:
    """A table read while pids are reused may hold a circle; the search for an ancestor ends."""
    world = World()
    world.table.rows = {7: ("a", 0.0, 1), 20: ("x", 1.0, 21), 21: ("y", 1.0, 20)}
    assert world.read(llama=[(1, 7)]).engine_seconds == {"llama": 0.0}


def test_without_the_hosts_own_time_there_is_no_share() -> None:
    """If ``/proc/stat`` cannot be read nothing is told: a part without its whole would be no share."""
    world = World()
    world.table.host = None
    assert world.processes.read({}) is None


def test_engines_that_share_a_process_are_not_told_apart() -> None:
    """Two engines of the SDK in one program: neither gets the other's time, and no figure is better than 0 s.
    When one of them leaves, what the process spends from then on is the other's."""
    world = World()
    both: dict[str, list[tuple[int, int | None]]] = {"a": [(1, 10)], "b": [(2, 10)]}
    world.table.rows = {10: ("x", 1.0, 1)}
    world.read(**both)
    world.table.rows = {10: ("x", 3.0, 1), 11: ("child", 5.0, 10)}
    told = world.read(**both)
    assert (told.engine_seconds, told.unseen_engines) == ({}, ("a", "b"))
    for remaining in ("a", "b"):
        world = World()
        world.table.rows = {10: ("x", 1.0, 1)}
        world.read(**both)
        world.table.rows = {10: ("x", 3.0, 1)}
        world.read(**{remaining: both[remaining]})
        world.table.rows = {10: ("x", 4.5, 1)}
        told = world.read(**{remaining: both[remaining]})
        assert (told.engine_seconds[remaining], told.unseen_engines) == (1.5, ())


def test_a_process_stays_its_engines_while_one_connection_is_left() -> None:
    """Engine and worker may be one process with two connections, of which the later may end first."""
    world = World()
    world.table.rows = {10: ("x", 1.0, 1)}
    world.read(a=[(1, 10), (2, 10)])
    world.table.rows = {10: ("x", 3.0, 1)}
    world.read(a=[(1, 10)])
    world.table.rows = {10: ("x", 4.0, 1)}
    assert world.read(a=[(1, 10)]).engine_seconds == {"a": 3.0}
