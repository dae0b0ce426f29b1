"""The simulated engine in real time, speaking through the hook's own emitter and a real socket.

A thread lets the engine live a little ahead of the clock, so that the simulated GPU always knows its power
up to now, and hands each record to the emitter when its time has come.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import Protocol, cast

from joulescope.clock import Clock, WallAnchor
from joulescope.hook.emitter import Emitter
from joulescope.hook.wire import AnyRecord, Hello, Progress, Record, RequestEnd, RequestStart, Step
from joulescope.simulation.changes import PlannedChange, Upheaval, requests
from joulescope.simulation.engine import SimulatedEngine
from joulescope.simulation.facts import hello
from joulescope.simulation.gpu import SimulatedGpu
from joulescope.simulation.parts import GPU_MEMORY_UTILIZATION, World
from joulescope.simulation.scheduler import EngineLimits
from joulescope.simulation.truth import TrueLedger
from joulescope.simulation.worlds import H100_LLAMA_8B
from joulescope.units import ns_from_seconds

TICK_SECONDS = 0.005
AHEAD_SECONDS = 2.0
"""So late may the thread come, where the machine is busy, before the GPU does not know its own power."""
EARLY_SECONDS = 2 * TICK_SECONDS
"""Records go out this much before their time: the emitter says every 20 ms that all that has ended was
sent, and so it must have been handed over by then."""

_logger = logging.getLogger(__name__)


class RecordQueue(Protocol):
    """The part of :class:`joulescope.hook.emitter.Emitter` that is used here."""

    def put(self, item: object) -> None:
        """Queues a record, or a :class:`Pending`."""
        ...


class Pending:
    """Queued behind records: from here on this is the oldest step whose output is not yet told."""

    __slots__ = ("since_ns",)

    def __init__(self, since_ns: int | None) -> None:
        self.since_ns = since_ns


class LiveTranslator:
    """Tells the emitter what is still running, exactly as of the last item that it took."""

    def __init__(self) -> None:
        self._since_ns: int | None = None

    def translate(self, items: Sequence[object], overflowed: int) -> list[AnyRecord]:
        """The records among the items; see :class:`joulescope.hook.emitter.Translator`."""
        records: list[AnyRecord] = []
        for item in items:
            if isinstance(item, Pending):
                self._since_ns = item.since_ns
            elif isinstance(item, Record):
                records.append(cast("AnyRecord", item))
        return records

    def pending_since_ns(self) -> int | None:
        return self._since_ns


class LiveEngine:
    """Runs a :class:`SimulatedEngine` against a clock.

    Args:
        engine: it must begin at about the clock's now.
        queue: where records go, usually an emitter with a :class:`LiveTranslator`.
        clock: decides when a record is due.
        changes: what becomes otherwise meanwhile, counted from where the engine stands now.
    """

    def __init__(
        self,
        engine: SimulatedEngine,
        queue: RecordQueue,
        clock: Clock,
        changes: Sequence[PlannedChange] = (),
    ) -> None:
        self._engine = engine
        self._upheaval = Upheaval(engine.world, changes, engine.become, engine.now_ns)
        self._queue = queue
        self._clock = clock
        self._unsent: deque[AnyRecord] = deque()
        self._told_pending: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="joulescope-simulated-engine", daemon=True)

    def start(self) -> LiveEngine:
        self._thread.start()
        return self

    def stop(self, timeout_seconds: float = 1.0) -> None:
        """Ends the engine: steps already scheduled run to their end and are told, no others begin."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        now_ns = self._clock.now_ns()
        begun = [
            record
            for record in self._unsent
            if isinstance(record, Step) and record.schedule_start_ns <= now_ns
        ]
        end_ns = max((step.output_end_ns for step in begun), default=now_ns)
        for gpu in self._engine.gpus:
            gpu.cut(end_ns)
        while self._unsent and _ended_ns(self._unsent[0]) <= end_ns:
            self._queue.put(self._unsent.popleft())
        self._unsent.clear()
        self._queue.put(Pending(None))

    def turn(self) -> None:
        """Lets the engine live on and hands over what is due. The thread calls it; so may a test."""
        now_ns = self._clock.now_ns()
        ahead_ns = now_ns + ns_from_seconds(AHEAD_SECONDS)
        while (until_ns := self._upheaval.next_ns(ahead_ns)) < ahead_ns:
            self._live_on(until_ns)
            self._upheaval.pass_time(until_ns)
        self._live_on(ahead_ns)
        due_ns = now_ns + ns_from_seconds(EARLY_SECONDS)
        while self._unsent and _ended_ns(self._unsent[0]) <= due_ns:
            self._queue.put(self._unsent.popleft())
        self._tell_pending()

    def _live_on(self, until_ns: int) -> None:
        self._unsent += [
            record for record in self._engine.advance(until_ns) if not isinstance(record, Progress)
        ]

    def _tell_pending(self) -> None:
        steps = (record.schedule_end_ns for record in self._unsent if isinstance(record, Step))
        since_ns = next(steps, self._engine.pending_since_ns)
        if since_ns != self._told_pending:
            self._told_pending = since_ns
            self._queue.put(Pending(since_ns))

    def _run(self) -> None:
        try:
            while not self._stop.wait(TICK_SECONDS):
                self.turn()
        except Exception:
            _logger.exception("the simulated engine stopped: this is a bug in joulescope's simulation")


class LiveSimulation:
    """A whole simulated server: GPU, engine, and the emitter that reports to a sidecar's socket.

    Args:
        socket_path: where the sidecar listens.
        clock: it must tell CLOCK_MONOTONIC, for the emitter does.
        seed: decides what clients do.
        rate_per_second: mean arrivals a second.
        changes: what becomes otherwise meanwhile.
    """

    def __init__(
        self,
        socket_path: str,
        clock: Clock,
        *,
        seed: int = 0,
        rate_per_second: float = 8.0,
        world: World = H100_LLAMA_8B,
        limits: EngineLimits | None = None,
        changes: Sequence[PlannedChange] = (),
    ) -> None:
        start_ns = clock.now_ns()
        limits = EngineLimits() if limits is None else limits
        self.gpu = SimulatedGpu(
            world.hardware,
            start_ns,
            memory_used_bytes=int(GPU_MEMORY_UTILIZATION * world.hardware.memory_bytes),
            seed=seed,
        )
        workload = requests(rate_per_second, start_ns, classes=world.classes, seed=seed, changes=changes)
        self.truth = TrueLedger()
        self.engine = SimulatedEngine(
            world, self.gpu, workload, start_ns=start_ns, limits=limits, ledger=self.truth
        )
        anchor = WallAnchor.now()

        def greeting() -> Hello:
            now_ns = clock.now_ns()
            return hello(
                world,
                limits,
                [self.gpu.uuid],
                time_ns=now_ns,
                wall_ns=anchor.wall_of(now_ns),
                pid=os.getpid(),
                instance_id=f"simulated-{seed}",
            )

        self._emitter = Emitter(socket_path, greeting, translator=LiveTranslator())
        self._live = LiveEngine(self.engine, self._emitter, clock, changes)

    def start(self) -> None:
        """Starts the engine and its reports; the GPU knows its power from here on."""
        self._live.turn()
        self._emitter.start()
        self._live.start()

    def quiesce(self, timeout_seconds: float = 1.0) -> None:
        """Ends the engine's work; it stays connected, idle, until :meth:`stop`."""
        self._live.stop(timeout_seconds)

    def stop(self, timeout_seconds: float = 1.0) -> None:
        """Says goodbye to the sidecar."""
        self._emitter.close(timeout_seconds)


def _ended_ns(record: AnyRecord) -> int:
    """When what the record tells of was over."""
    if isinstance(record, Step):
        return record.output_end_ns
    if isinstance(record, (RequestStart, RequestEnd)):
        return record.time_ns
    return 0
