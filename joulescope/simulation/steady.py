"""A trace of a perfectly regular engine, made so cheaply that millions of requests take minutes.

Every step admits the same number of requests, every request has the same lengths, and none is cut short. In
the steady state every step looks the same but for the request numbers, so most columns are made once and
shared. It is for benchmarks of what reads traces; for anything else use :class:`SimulatedRun`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from joulescope.clock import ManualClock
from joulescope.gpu_records import gpu_record, sample_record
from joulescope.hook.wire import AnyRecord, Bye, Progress, RequestEnd, RequestStart, Step
from joulescope.sensors.simulated import SimulatedSensor
from joulescope.simulation.facts import hello
from joulescope.simulation.gpu import SimulatedGpu
from joulescope.simulation.group import law_of
from joulescope.simulation.parts import World
from joulescope.simulation.physics import Law, features_of
from joulescope.simulation.scheduler import EngineLimits
from joulescope.simulation.traces import SESSION, START_NS, TAIL_SECONDS, trace_header
from joulescope.simulation.worlds import H100_LLAMA_8B
from joulescope.units import ns_from_seconds

_HOST_NS = 60_000
"""Time of scheduling a step, and again of taking in its output."""


@dataclass(frozen=True, slots=True)
class SteadyLoad:
    """What the regular engine does.

    A step holds ``admitted_per_step · output_tokens`` requests once the engine is full.
    """

    requests: int
    admitted_per_step: int = 2
    output_tokens: int = 128
    prompt_tokens: int = 100

    @property
    def batch(self) -> int:
        return self.admitted_per_step * self.output_tokens

    @property
    def steps(self) -> int:
        """Steps until the last request is done."""
        return self._admissions + self.output_tokens - 1

    @property
    def _admissions(self) -> int:
        return -(-self.requests // self.admitted_per_step)

    def ages(self, step: int) -> tuple[int, int]:
        """Age in steps of the oldest and of the youngest requests in ``step`` (counted from 1)."""
        return min(step, self.output_tokens) - 1, max(step - self._admissions, 0)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What all steps with requests of the same ages have in common."""

    context: list[int]
    scheduled: list[int]
    seconds: float
    joules: float


@dataclass
class _Shapes:
    """Makes each shape once: the filling, the steady state, the emptying."""

    load: SteadyLoad
    law: Law
    known: dict[tuple[int, int], _Shape] = field(default_factory=dict)

    def of(self, oldest: int, youngest: int) -> _Shape:
        shape = self.known.get((oldest, youngest))
        if shape is None:
            shape = self.known[oldest, youngest] = self._make(oldest, youngest)
        return shape

    def _make(self, oldest: int, youngest: int) -> _Shape:
        load = self.load
        age = np.repeat(np.arange(oldest, youngest - 1, -1, dtype=np.int64), load.admitted_per_step)
        context = np.where(age == 0, 0, load.prompt_tokens + age - 1)
        scheduled = np.where(age == 0, load.prompt_tokens, 1)
        cost = self.law.cost(features_of(context, scheduled, np.ones_like(age)).sum(axis=1))
        return _Shape(context.tolist(), scheduled.tolist(), float(cost.seconds[0]), float(cost.joules[0]))


def steady_trace(load: SteadyLoad, *, sample_hz: float = 20.0, seed: int = 0) -> Iterator[AnyRecord]:
    """The trace of a regular engine: records of session 1 and samples, as :class:`SimulatedRun` tells them.

    The number of requests is rounded up to a whole number of admissions.
    """
    world = H100_LLAMA_8B
    gpu = SimulatedGpu(world.hardware, START_NS, seed=seed)
    clock = ManualClock(START_NS)
    sensor = SimulatedSensor(gpu, clock)
    yield trace_header(START_NS)
    yield from map(gpu_record, sensor.gpus())
    yield from map(sample_record, sensor.read())
    yield _greeting(world, load, gpu.uuid)
    period_ns = ns_from_seconds(1.0 / sample_hz)
    shapes = _Shapes(load, law_of(world))
    now_ns = START_NS
    for number in range(1, load.steps + 1):
        shape = shapes.of(*load.ages(number))
        start_ns = now_ns
        gpu_end_ns = start_ns + _HOST_NS + ns_from_seconds(shape.seconds)
        gpu.append(start_ns + _HOST_NS, gpu_end_ns, shape.joules / shape.seconds)
        now_ns = gpu_end_ns + _HOST_NS
        while clock.time_ns + period_ns < now_ns:
            clock.time_ns += period_ns
            yield Progress(session=SESSION, time_ns=clock.time_ns, pending_since_ns=start_ns)
            yield from map(sample_record, sensor.read())
        yield from _step_records(load, number, shape, (start_ns, gpu_end_ns))
    last_ns = now_ns + ns_from_seconds(TAIL_SECONDS)
    while clock.time_ns < last_ns:
        clock.time_ns += period_ns
        yield Progress(session=SESSION, time_ns=clock.time_ns)
        yield from map(sample_record, sensor.read())
    yield Bye(session=SESSION, time_ns=clock.time_ns)


def _greeting(world: World, load: SteadyLoad, gpu: str) -> AnyRecord:
    limits = EngineLimits(max_num_seqs=load.batch, async_scheduling=False)
    greeting = hello(world, limits, [gpu], time_ns=START_NS)
    greeting.session = SESSION
    return greeting


def _step_records(
    load: SteadyLoad, number: int, shape: _Shape, span_ns: tuple[int, int]
) -> Iterator[AnyRecord]:
    """Starts, step and ends of one step that was scheduled and came back at the two instants."""
    start_ns, output_ns = span_ns
    each = load.admitted_per_step
    oldest, youngest = load.ages(number)
    first = (number - oldest - 1) * each + 1
    after_last = (number - youngest) * each + 1
    if youngest == 0:
        for handle in range(after_last - each, after_last):
            yield RequestStart(
                session=SESSION,
                request=handle,
                request_id=f"steady-{handle}",
                time_ns=start_ns,
                prompt_tokens=load.prompt_tokens,
                max_tokens=load.output_tokens,
            )
    if oldest == load.output_tokens - 1:
        for handle in range(first, first + each):
            yield RequestEnd(
                session=SESSION,
                request=handle,
                time_ns=output_ns,
                reason="length",
                output_tokens=load.output_tokens,
                final_step=number,
            )
    yield Step(
        session=SESSION,
        step=number,
        schedule_start_ns=start_ns,
        schedule_end_ns=start_ns + _HOST_NS,
        output_start_ns=output_ns,
        output_end_ns=output_ns + _HOST_NS,
        request=list(range(first, after_last)),
        context=shape.context,
        scheduled=shape.scheduled,
        waiting=0,
        running=after_last - first,
    )
