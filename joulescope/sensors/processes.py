"""CPU time of engines' processes, and of the whole host, through psutil.

An engine's processes are those that speak for it over the socket, by the pid that the kernel gives for the
other end (``SO_PEERCRED`` of unix(7)), and all their descendants. The pid that a process tells of itself is
of no use here: in another pid namespace the same number is a stranger's.

Only CPU time that was seen counts. A process that ends keeps what was seen of it; what it spent after
the last read, one poll at most, is nobody's and so goes to the rest of the host.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import psutil

from joulescope.clock import Clock
from joulescope.host_model import CpuTimes, EngineProcess
from joulescope.units import NANOSECONDS_PER_SECOND

SCAN_NS = 10 * NANOSECONDS_PER_SECOND
"""New descendants are looked for at least so often. What they spent before they were found counts, if they
were born since the last look."""

REST_RATIO = 50
"""A look takes in every process of the host. So long a rest follows it, as a multiple of what it took: on a
small host there is one with each read, on one with thousands of processes every few seconds."""

PROC = "/proc"

FORGET_NS = 60 * NANOSECONDS_PER_SECOND
"""An engine that left is told of so much longer, so that a domain that could not be read meanwhile still
finds its share."""


class ProcessTable(Protocol):
    """What the operating system knows of processes."""

    def read(self, pid: int) -> tuple[object, float] | None:
        """Who has this pid, as an object that equals itself only, and its CPU seconds; or ``None``."""
        ...

    def parents(self) -> Mapping[int, int]:
        """The parent of every visible process, by pid."""
        ...

    def host_seconds(self) -> tuple[float, float] | None:
        """Busy and all CPU seconds of the host since boot; ``None`` if they cannot be read."""
        ...


class PsutilTable:
    """The processes of this machine, as far as the own pid namespace goes."""

    def read(self, pid: int) -> tuple[object, float] | None:
        """``psutil.Process`` compares by pid and start time, so that a reused pid is another process."""
        try:
            process = psutil.Process(pid)
            times = process.cpu_times()
        except (psutil.Error, OSError):
            return None
        return process, times.user + times.system

    def parents(self) -> Mapping[int, int]:
        """Read here: psutil offers it four times slower, or once for each engine (measured)."""
        found = {}
        for name in os.listdir(PROC):
            if not name.isdecimal():
                continue
            try:
                with open(f"{PROC}/{name}/stat", "rb") as file:
                    stat = file.read()
                # proc_pid_stat(5): pid (name) state ppid; the name may hold anything, brackets too
                found[int(name)] = int(stat[stat.rindex(b")") + 2 :].split(None, 2)[1])
            except (OSError, ValueError, IndexError):  # it has just ended
                continue
        return found

    def host_seconds(self) -> tuple[float, float] | None:
        """From ``/proc/stat``. ``user`` contains the guests' time; ``steal`` was another machine's."""
        try:
            times = psutil.cpu_times()
        except (psutil.Error, OSError, ValueError):
            return None
        busy = times.user + times.nice + times.system + times.irq + times.softirq
        return busy, busy + times.idle + times.iowait


@dataclass(slots=True)
class _Process:
    """A process whose CPU time goes to an engine."""

    engine: str
    session: int
    identity: object
    seen_seconds: float


@dataclass(slots=True)
class _Session:
    """A connection whose process was looked up, once and for all."""

    engine: str
    pid: int | None
    """``None``: its process is not visible."""
    scanned: bool = False
    """Its descendants were looked for: any that turns up later was born since."""


@dataclass(slots=True)
class _Engine:
    seconds: float = 0.0
    left_ns: int | None = None
    unseen: bool = False


class EngineProcesses:
    """Follows the processes of engines; each :meth:`read` is one poll."""

    def __init__(self, clock: Clock, table: ProcessTable | None = None) -> None:
        self._clock = clock
        self._table = table or PsutilTable()
        self._processes: dict[int, _Process] = {}
        self._sessions: dict[int, _Session] = {}
        self._engines: dict[str, _Engine] = {}
        self._shared: frozenset[int] = frozenset()
        """Processes that speak for several engines: whose their CPU time is cannot be told."""
        self._let_go: dict[int, object] = {}
        """Processes of connections that ended, by pid: not born since, should they be found again."""
        self._scan_due_ns = 0

    def read(self, engines: Mapping[str, Collection[EngineProcess]]) -> CpuTimes | None:
        """CPU times now; ``engines`` are those that are connected. ``None`` if the host's cannot be read."""
        now_ns = self._clock.now_ns()
        self._leave(engines, now_ns)
        self._count()
        for engine, processes in engines.items():
            self._join(engine, processes)
        self._tell_apart(engines)
        if now_ns >= self._scan_due_ns or self._unscanned():
            self._scan()
            took_ns = self._clock.now_ns() - now_ns
            self._scan_due_ns = now_ns + min(REST_RATIO * took_ns, SCAN_NS)
        host = self._table.host_seconds()
        if host is None:
            return None
        return CpuTimes(
            busy_seconds=host[0],
            total_seconds=host[1],
            engine_seconds={
                name: engine.seconds for name, engine in self._engines.items() if self._has_seen(name, engine)
            },
            unseen_engines=tuple(name for name, engine in self._engines.items() if engine.unseen),
        )

    def _has_seen(self, name: str, engine: _Engine) -> bool:
        """Whether its figure means something: 0 s of an engine that is invisible would be a lie."""
        return engine.seconds > 0 or any(
            self._knows(session) for session in self._sessions.values() if session.engine == name
        )

    def _knows(self, session: _Session) -> bool:
        """Whether what its process spends is its engine's."""
        return session.pid is not None and session.pid not in self._shared

    def _leave(self, engines: Mapping[str, Collection[EngineProcess]], now_ns: int) -> None:
        """Lets go of connections that ended, counting for the last time what their processes spent."""
        open_sessions = {process.session for processes in engines.values() for process in processes}
        gone = self._sessions.keys() - open_sessions
        heirs = {each.pid: number for number, each in self._sessions.items() if number not in gone}
        for pid, process in list(self._processes.items()):
            if process.session in gone:
                self._see(pid, process)
                heir = heirs.get(self._sessions[process.session].pid)
                if heir is not None:
                    process.session, process.engine = heir, self._sessions[heir].engine
                    continue
                del self._processes[pid]
                self._let_go[pid] = process.identity
        for session in gone:
            del self._sessions[session]
        for name, engine in list(self._engines.items()):
            if name in engines:
                engine.left_ns = None
                continue
            engine.unseen = False
            engine.left_ns = now_ns if engine.left_ns is None else engine.left_ns
            if now_ns - engine.left_ns > FORGET_NS:
                del self._engines[name]

    def _count(self) -> None:
        for pid, process in list(self._processes.items()):
            if not self._see(pid, process):
                del self._processes[pid]

    def _see(self, pid: int, process: _Process) -> bool:
        """Credits what a process spent since the last look; false if it is gone, its pid taken or not."""
        found = self._table.read(pid)
        if found is None or found[0] != process.identity:
            return False
        spent_seconds = found[1] - process.seen_seconds
        if spent_seconds > 0:
            if self._knows(self._sessions[process.session]):
                self._engines[process.engine].seconds += spent_seconds
            process.seen_seconds = found[1]
        return True

    def _join(self, engine: str, processes: Collection[EngineProcess]) -> None:
        self._engines.setdefault(engine, _Engine())
        for each in processes:
            known = self._sessions.get(each.session)
            if known is None:
                self._sessions[each.session] = self._meet(engine, each)
            elif known.engine != engine:
                self._move(each.session, engine)

    def _tell_apart(self, engines: Mapping[str, Collection[EngineProcess]]) -> None:
        """Finds the processes that several engines share, and the engines of which not all is seen."""
        first: dict[int, str] = {}
        self._shared = frozenset(
            session.pid
            for session in self._sessions.values()
            if session.pid is not None and first.setdefault(session.pid, session.engine) != session.engine
        )
        for engine, processes in engines.items():
            self._engines[engine].unseen = not processes or not all(
                self._knows(self._sessions[process.session]) for process in processes
            )

    def _meet(self, engine: str, process: EngineProcess) -> _Session:
        """Looks a connection's process up. It is done once: a pid that was free then is never taken later."""
        found = None if process.pid is None else self._table.read(process.pid)
        if process.pid is None or found is None:
            return _Session(engine, None)
        known = self._processes.get(process.pid)
        if known is None or known.identity != found[0] or self._sessions[known.session].pid != process.pid:
            self._processes[process.pid] = _Process(engine, process.session, *found)
        return _Session(engine, process.pid)

    def _move(self, session: int, engine: str) -> None:
        """A worker turned out to be another engine's: from now on its CPU time goes there."""
        self._sessions[session].engine = engine
        for process in self._processes.values():
            if process.session == session:
                process.engine = engine

    def _unscanned(self) -> bool:
        return any(session.pid is not None and not session.scanned for session in self._sessions.values())

    def _scan(self) -> None:
        """Finds descendants; each belongs to the nearest ancestor that belongs to an engine."""
        parents = self._table.parents()
        found = {
            pid: ancestor
            for pid in parents
            if pid not in self._processes and (ancestor := self._ancestor(pid, parents)) is not None
        }
        for pid, ancestor in found.items():
            read = self._table.read(pid)
            if read is not None:
                self._adopt(pid, ancestor, *read)
        for session in self._sessions.values():
            session.scanned = True
        self._let_go = {pid: identity for pid, identity in self._let_go.items() if pid in parents}

    def _adopt(self, pid: int, ancestor: _Process, identity: object, seconds: float) -> None:
        born_since = self._sessions[ancestor.session].scanned and self._let_go.get(pid) != identity
        process = _Process(ancestor.engine, ancestor.session, identity, seconds)
        self._processes[pid] = process
        if born_since and self._knows(self._sessions[ancestor.session]):
            self._engines[process.engine].seconds += seconds

    def _ancestor(self, pid: int, parents: Mapping[int, int]) -> _Process | None:
        visited = set()
        while pid in parents and pid not in visited:
            visited.add(pid)
            pid = parents[pid]
            if pid in self._processes:
                return self._processes[pid]
        return None
