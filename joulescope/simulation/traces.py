"""Simulated runs as traces: what ``joulescope record`` would have written of them.

The engines' records (sessions from 1 on) and the sensor's samples come interleaved in the order in which a
sidecar would have taken them in. The sensor is :class:`joulescope.sensors.simulated.SimulatedSensor`, the
same ticking counter that the demo reads; it is the one thing above the value types, besides the wire, that
this room uses.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from joulescope import __version__
from joulescope.clock import ManualClock
from joulescope.gpu_records import gpu_record, sample_record, status_record
from joulescope.hook.wire import AnyRecord, Bye, TraceHeader
from joulescope.model import GpuStatus
from joulescope.sensors.simulated import H100_PROFILE, SensorProfile, SimulatedSensor
from joulescope.simulation.changes import PlannedChange, Upheaval, requests
from joulescope.simulation.fleet import Fleet
from joulescope.simulation.gpu import SimulatedGpu
from joulescope.simulation.parts import World
from joulescope.simulation.polling import USUAL_POLLING, Polling
from joulescope.simulation.scheduler import EngineLimits
from joulescope.simulation.truth import TrueLedger
from joulescope.simulation.workload import RequestClass
from joulescope.simulation.worlds import H100_LLAMA_8B
from joulescope.units import ns_from_seconds

SESSION = 1
START_NS = 1_000_000_000
TAIL_SECONDS = 1.0
"""Idle time after the last request, so that the last tick of the counter covers the last step."""


class SimulatedRun:
    """The engines of one world on its GPUs for a while, and after it the truth.

    Args:
        seconds: how long clients come; whoever came is still served to the end.
        seed: decides arrivals, lengths, hang-ups and the GPUs' UUIDs.
        rate_per_second: mean arrivals a second, of all engines together.
        classes: what arrives; default: the world's.
        world: what serves them: any of :data:`joulescope.simulation.worlds.WORLDS`, or another.
        limits: arguments of each engine; default: the world's.
        sample_hz: polls of the sensor a second.
        sensor: what the GPUs show of their energy: any of :data:`joulescope.sensors.simulated.PROFILES`.
        polling: how punctual whoever polls is.
        truth: whether :attr:`truth` learns who truly caused the joules (costs most of the time).
        keep_steps: whether ``truth.steps`` tells the true joules of every step.
        changes: what becomes otherwise meanwhile, at the poll that follows.
    """

    def __init__(
        self,
        seconds: float,
        *,
        seed: int = 0,
        rate_per_second: float = 8.0,
        classes: Sequence[RequestClass] | None = None,
        world: World = H100_LLAMA_8B,
        limits: EngineLimits | None = None,
        sample_hz: float = 20.0,
        sensor: SensorProfile = H100_PROFILE,
        polling: Polling = USUAL_POLLING,
        start_ns: int = START_NS,
        truth: bool = True,
        keep_steps: bool = False,
        changes: Sequence[PlannedChange] = (),
    ) -> None:
        self.limits = world.limits if limits is None else limits
        self.world = world
        self.start_ns = start_ns
        self._end_ns = start_ns + ns_from_seconds(seconds)
        workload = requests(
            rate_per_second,
            start_ns,
            classes=world.classes if classes is None else classes,
            seed=seed,
            max_prompt_tokens=world.max_prompt_tokens,
            changes=changes,
        )
        self.truth = TrueLedger(keep_steps=keep_steps)
        self.fleet = Fleet(
            world,
            takewhile(lambda plan: plan.arrival_ns < self._end_ns, workload),
            start_ns=start_ns,
            limits=self.limits,
            ledger=self.truth if truth else None,
            seed=seed,
            change_ns=start_ns + ns_from_seconds(seconds * world.change.at_ratio) if world.change else None,
        )
        self._upheaval = Upheaval(world, changes, self.fleet.become, start_ns)
        self._clock = ManualClock(start_ns)
        self._sensor = SimulatedSensor(self.fleet, self._clock, sensor)
        self._told: dict[str, GpuStatus] = {}
        self._polling, self._luck = polling, random.Random(seed)
        self._period_ns, self._periods, self._stamped_ns = ns_from_seconds(1.0 / sample_hz), 0, 0

    @property
    def gpus(self) -> tuple[SimulatedGpu, ...]:
        """Engine by engine, in rank order."""
        return self.fleet.gpus_by_rank

    @property
    def gpu(self) -> SimulatedGpu:
        """The first of :attr:`gpus`, in many worlds the only one."""
        return self.gpus[0]

    @property
    def time_ns(self) -> int:
        """How far the run has been told."""
        return self._clock.now_ns()

    def balances(self) -> list[TrueBalance]:
        """Where the joules of each GPU went until now; what is told of idle time holds once all is done."""
        return [
            TrueBalance(
                gpu=book.gpu.uuid,
                drawn_joules=book.gpu.energy_joules_at(book.gpu.uuid, self.time_ns),
                request_joules=book.request_joules,
                overhead_joules=book.overhead_joules,
                idle_joules=book.idle_joules(self.time_ns),
            )
            for book in self.fleet.books
        ]

    def records(self) -> Iterator[AnyRecord]:
        """The trace, told once."""
        yield trace_header(self.start_ns)
        for info in self._sensor.gpus():
            yield gpu_record(info)
        yield from self._samples()
        yield from self.fleet.hellos(self.start_ns)
        while not (self.fleet.idle and self.time_ns >= self._end_ns):
            yield from self._period()
        last_ns = self.time_ns + ns_from_seconds(TAIL_SECONDS)
        while self.time_ns < last_ns:
            yield from self._period()
        for session in range(1, len(self.fleet.engines) + 1):
            yield Bye(session=session, time_ns=max(self.time_ns, self._stamped_ns))

    def _period(self) -> Iterator[AnyRecord]:
        """One poll: on a grid that never drifts, moved a little, and never before what is told already."""
        self._periods += 1
        due_ns = self.start_ns + self._periods * self._period_ns
        due_ns += int(self._luck.random() * self._polling.jitter_ratio * self._period_ns)
        self._clock.time_ns = max(due_ns, self._stamped_ns + 1)
        yield from self.fleet.advance(self.time_ns)
        self._upheaval.pass_time(self.time_ns)
        yield from self._samples()

    def _samples(self) -> Iterator[AnyRecord]:
        for reading in self._sensor.read():
            if reading.status is not None and self._told.get(reading.gpu) is not reading.status:
                self._told[reading.gpu] = reading.status
                yield status_record(reading.status)
            delay_ns = ns_from_seconds(self._polling.delay_seconds(self._luck))
            self._stamped_ns = max(self._stamped_ns, reading.time_ns + delay_ns)
            yield sample_record(replace(reading, time_ns=reading.time_ns + delay_ns))


@dataclass(frozen=True, slots=True)
class TrueBalance:
    """Where the joules of one GPU truly went: drawn = requests + overhead + idle."""

    gpu: str
    drawn_joules: float
    request_joules: float
    overhead_joules: float
    idle_joules: float


def simulate_trace(seconds: float, seed: int = 0, *, rate_per_second: float = 8.0) -> Iterator[AnyRecord]:
    """The trace of a service with mixed requests; :class:`SimulatedRun` takes more choices."""
    return SimulatedRun(seconds, seed=seed, rate_per_second=rate_per_second, truth=False).records()


def trace_header(time_ns: int) -> TraceHeader:
    """First line of a simulated trace; there is no wall clock in a simulation."""
    return TraceHeader(time_ns=time_ns, joulescope_version=__version__, note="simulated")
