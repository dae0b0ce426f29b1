"""A simulated vLLM engine: plays the loop of the engine's thread and tells of it as the hook does.

The loop is that of ``EngineCore.step_with_batch_queue``: schedule a step and hand it to the GPU; with
asynchronous scheduling do so for one more while the first runs; then wait for the oldest and take in its
output. Time is simulated, and nothing depends on when or in what portions it is asked for: the records
follow from the workload's seed and the instants alone. Differences from a real engine are told where
they are made: :mod:`joulescope.simulation.kv_cache`, :mod:`joulescope.simulation.scheduler`.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from joulescope.hook.wire import AnyRecord, Overhead, Progress, RequestEnd, RequestStart, Step
from joulescope.simulation.book import GpuBook
from joulescope.simulation.gpu import SimulatedGpu
from joulescope.simulation.parts import World
from joulescope.simulation.replica import Replica
from joulescope.simulation.scheduler import Batch, EngineLimits, Request, Scheduler
from joulescope.simulation.truth import TrueLedger
from joulescope.simulation.workload import PlannedRequest
from joulescope.units import ns_from_seconds

MAX_WAITING = 10_000
"""Requests that may queue; whoever comes later is turned away before the engine hears of it."""

_WAVE_NS = 1_000_000
"""How soon an engine without requests learns that another one has some."""


@dataclass(slots=True, eq=False)
class _Flight:
    """A step that the GPU has or will have."""

    number: int
    batch: Batch
    schedule_start_ns: int
    schedule_end_ns: int
    gpu_end_ns: int
    cached: list[tuple[int, int, int]]
    preempted: list[int]


class SimulatedEngine:
    """One engine on simulated GPUs.

    Args:
        world: what steps cost.
        gpus: the engine's own GPU; or the books of its GPUs, in rank order, which engines may share.
        requests: what clients will do, in the order of arrival.
        start_ns: the instant at which the engine begins.
        limits: its arguments; default: the world's.
        ledger: learns who truly caused the joules; without one the engine runs several times faster.
        change_ns: when the world's change of settings comes, if it has one.
        session: number of its session in the trace, for the ledger.
    """

    def __init__(
        self,
        world: World,
        gpus: SimulatedGpu | Sequence[GpuBook],
        requests: Iterable[PlannedRequest],
        *,
        start_ns: int,
        limits: EngineLimits | None = None,
        ledger: TrueLedger | None = None,
        change_ns: int | None = None,
        session: int = 1,
    ) -> None:
        self.world = world
        self.limits = world.limits if limits is None else limits
        self.ledger = ledger
        self.turned_away = 0
        """Clients that came while the queue was full."""
        self.books = (GpuBook(gpus, start_ns),) if isinstance(gpus, SimulatedGpu) else tuple(gpus)
        self.peers: tuple[SimulatedEngine, ...] = ()
        """Engines for which this one computes empty steps while they have requests and it has none."""
        self._replica = Replica(world, self.books, change_ns=change_ns, ledger=ledger, session=session)
        self._scheduler = Scheduler(self.limits, _accepted if world.drafter else None)
        self._arrivals = iter(requests)
        self._submitted = 0
        self._due: list[tuple[int, int, PlannedRequest]] = []
        self._expect_next()
        self._flights: deque[_Flight] = deque()
        self._depth = max(2 if self.limits.async_scheduling else 1, world.parallel.pipeline)
        self._now_ns = start_ns
        self._steps = 0
        self._handles = 0
        self._aborts: list[tuple[int, int, Request]] = []
        self._unreported_preempted: list[int] = []
        self._serving = False
        self._output_is_back = False
        self._dummy_end_ns: int | None = None
        self._readback_ns = ns_from_seconds(world.runtime.readback_seconds)
        self._out: list[AnyRecord] = []

    @property
    def now_ns(self) -> int:
        """Where the engine's thread stands."""
        return self._now_ns

    @property
    def gpus(self) -> tuple[SimulatedGpu, ...]:
        """Its GPUs in rank order."""
        return tuple(book.gpu for book in self.books)

    @property
    def busy(self) -> bool:
        """Whether requests run or wait."""
        return bool(self._flights or self._scheduler.running or self._scheduler.waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits and no client will come any more."""
        return not self.busy and not self._due

    @property
    def pending_since_ns(self) -> int | None:
        """When the oldest step in flight was scheduled, if there is one."""
        return self._flights[0].schedule_end_ns if self._flights else None

    def become(self, world: World) -> None:
        """From the next step on it lives in another world, of the same model on as many GPUs."""
        self.world = world
        self._readback_ns = ns_from_seconds(world.runtime.readback_seconds)
        self._replica.become(world)

    def submit(self, plan: PlannedRequest) -> None:
        """One more request, of a client that decides as it goes; if its arrival is past, it comes now."""
        self._submitted += 1
        heapq.heappush(self._due, (plan.arrival_ns, self._submitted, plan))

    def advance(self, until_ns: int) -> list[AnyRecord]:
        """Lives on until ``until_ns``: the records of everything that ended by then, and a progress."""
        while self.turn(until_ns):
            pass
        return self.told(until_ns)

    def told(self, until_ns: int) -> list[AnyRecord]:
        """The records since the last call, and a progress, once no turn ends by ``until_ns`` any more."""
        records, self._out = self._out, []
        records.append(Progress(time_ns=until_ns, pending_since_ns=self.pending_since_ns))
        return records

    def turn(self, until_ns: int) -> bool:
        """One turn of the engine's loop; false if it would end after ``until_ns``."""
        if self._now_ns > until_ns:
            return False
        if self._dummy_end_ns is not None:
            return self._finish_dummy(self._dummy_end_ns, until_ns)
        if self._output_is_back:
            self._output_is_back = False
            self._abort_due()
            self._take_output(self._flights.popleft())
            return True
        self._admit()
        self._abort_due()
        self._rest_if_quiet(self._now_ns)
        if len(self._flights) < self._depth and self._dispatch():
            return True
        if self._flights:
            return self._wait_for_output(until_ns)
        if any(peer.busy for peer in self.peers):
            self._dummy_end_ns = self._replica.run_dummy(self._now_ns) + self._readback_ns
            return self._finish_dummy(self._dummy_end_ns, until_ns)
        return self._sleep(until_ns)

    def _wait_for_output(self, until_ns: int) -> bool:
        """Waits for the oldest step; its output is taken in by the next turn, when other engines, whose
        turn comes earlier, have had theirs."""
        flight = self._flights[0]
        seen_ns = max(self._now_ns, flight.gpu_end_ns + self._readback_ns)
        if seen_ns + self._update_ns(flight) > until_ns:
            return False
        self._now_ns, self._output_is_back = seen_ns, True
        return True

    def _update_ns(self, flight: _Flight) -> int:
        return self._host_ns(self.world.runtime.update_seconds, flight.batch)

    def _host_ns(self, seconds: float, batch: Batch) -> int:
        """Time of the engine's thread for a step."""
        each = self.world.runtime.host_seconds_per_sequence
        return ns_from_seconds(seconds + each * len(batch.requests))

    def _finish_dummy(self, end_ns: int, until_ns: int) -> bool:
        if end_ns > until_ns:
            return False
        self._out.append(Overhead(start_ns=self._now_ns, end_ns=end_ns, reason="dummy_batch"))
        self._now_ns, self._dummy_end_ns = end_ns, None
        return True

    def _sleep(self, until_ns: int) -> bool:
        """Nothing to do: on to the next arrival or hang-up."""
        instants = [self._aborts[0][0]] if self._aborts else []
        if self._due:
            instants.append(self._due[0][0])
        if self.peers:
            instants.append(self._now_ns + _WAVE_NS)
        if not instants or min(instants) > until_ns:
            return False
        self._now_ns = max(self._now_ns, min(instants))
        return True

    # ------------------------------------------------------------------------- arrivals and hang-ups

    def _expect_next(self) -> None:
        """Puts the next of the planned requests among those that are due."""
        plan = next(self._arrivals, None)
        if plan is not None:
            heapq.heappush(self._due, (plan.arrival_ns, 0, plan))

    def _admit(self) -> None:
        while self._due and self._due[0][0] <= self._now_ns:
            _, submitted, plan = heapq.heappop(self._due)
            if not submitted:
                self._expect_next()
            if len(self._scheduler.waiting) >= MAX_WAITING:
                self.turned_away += 1
                continue
            self._handles += 1
            self._start(Request(handle=self._handles, plan=plan, luck=random.Random(plan.number)))

    def _start(self, request: Request) -> None:
        plan = request.plan
        self._out.append(
            RequestStart(
                request=request.handle,
                request_id=plan.request_id,
                time_ns=self._now_ns,
                external_id=plan.external_id,
                prompt_tokens=plan.prompt_tokens,
                max_tokens=plan.max_tokens,
                trace_parent=plan.trace_parent,
            )
        )
        if self.ledger is not None:
            self.ledger.open(plan.request_id)
        self._scheduler.add(request)
        if plan.prompt_tokens + plan.max_tokens > self.limits.kv_cache_tokens - self.limits.block_size:
            # It could never run; vLLM refuses it too.
            self._end(request, "error", self._now_ns)
        elif plan.abort_after_tokens == 0:
            self._plan_abort(request)

    def _plan_abort(self, request: Request) -> None:
        at_ns = self._now_ns + request.plan.abort_delay_ns
        heapq.heappush(self._aborts, (at_ns, request.handle, request))

    def _abort_due(self) -> None:
        while self._aborts and self._aborts[0][0] <= self._now_ns:
            request = heapq.heappop(self._aborts)[2]
            if not request.finished:
                self._end(request, "abort", self._now_ns)

    def _end(self, request: Request, reason: str, time_ns: int) -> None:
        self._scheduler.free(request)
        self._out.append(
            RequestEnd(
                request=request.handle,
                time_ns=time_ns,
                reason=reason,
                output_tokens=request.generated,
                preemptions=request.preemptions,
                final_step=self._steps or None,
            )
        )

    # ------------------------------------------------------------------------------------- steps

    def _dispatch(self) -> bool:
        """Schedules a step and hands it to the GPU; false if there is nothing to compute."""
        batch = self._scheduler.schedule()
        self._unreported_preempted += [request.handle for request in batch.preempted]
        if not batch.requests:
            return bool(batch.preempted)
        self._steps += 1
        start_ns = self._now_ns
        if not self._serving:
            self._serving = True
            self._replica.begin(start_ns)
        self._now_ns += self._host_ns(self.world.runtime.schedule_seconds, batch)
        prepare_ns = self._host_ns(self.world.runtime.prepare_seconds, batch)
        gpu_end_ns = self._replica.run(batch, self._steps, self._now_ns + prepare_ns)
        preempted, self._unreported_preempted = self._unreported_preempted, []
        self._flights.append(
            _Flight(
                number=self._steps,
                batch=batch,
                schedule_start_ns=start_ns,
                schedule_end_ns=self._now_ns,
                gpu_end_ns=gpu_end_ns,
                cached=[(request.handle, request.hit_tokens, 0) for request in batch.admitted_with_hit],
                preempted=preempted,
            )
        )
        return True

    def _rest_if_quiet(self, time_ns: int) -> None:
        """Once no request runs any more, what the GPUs draw is nobody's."""
        if self._serving and not self._flights and not self._scheduler.running:
            self._serving = False
            self._replica.end(time_ns)

    def _take_output(self, flight: _Flight) -> None:
        """The output of a step is back: tokens come out, requests end, the record is written."""
        output_start_ns, update_ns = self._now_ns, self._update_ns(flight)
        end_ns = output_start_ns + update_ns // 2
        batch = flight.batch
        sampled: list[int] = []
        for request, samples, drafted in zip(batch.requests, batch.samples, batch.drafted, strict=True):
            request.in_flight -= 1
            # The token of a request that ended meanwhile is discarded.
            discarded = not samples or request.finished
            sampled.append(0 if discarded else self._take_tokens(request, samples, drafted, end_ns))
        self._rest_if_quiet(output_start_ns)
        self._now_ns += update_ns
        self._out.append(
            Step(
                step=flight.number,
                schedule_start_ns=flight.schedule_start_ns,
                schedule_end_ns=flight.schedule_end_ns,
                output_start_ns=output_start_ns,
                output_end_ns=self._now_ns,
                request=[request.handle for request in batch.requests],
                context=batch.context,
                scheduled=_all_ones_left_out(batch.scheduled),
                sampled=_all_ones_left_out(sampled),
                drafted=[
                    (request.handle, drafted)
                    for request, drafted in zip(batch.requests, batch.drafted, strict=True)
                    if drafted
                ],
                cached=flight.cached,
                preempted=flight.preempted,
                waiting=len(self._scheduler.waiting),
                running=len(self._scheduler.running),
                kv_usage_ratio=round(self._scheduler.kv.usage_ratio, 6),
            )
        )

    def _take_tokens(self, request: Request, count: int, drafted: int, end_ns: int) -> int:
        """So many more tokens of a request, the last of which may end it; how many of them came out."""
        plan, before = request.plan, request.generated
        request.placeholders -= 1
        if request.computed:  # else it was preempted meanwhile
            request.computed -= drafted - (count - 1)
            if request.computed > request.high_water:
                request.high_water = request.computed
        most = plan.output_tokens if plan.output_tokens < plan.max_tokens else plan.max_tokens
        request.generated = before + count if before + count < most else most
        if self.world.drafter is not None:
            request.drafts = self.world.drafter.tokens
        if request.generated >= plan.output_tokens:
            self._end(request, "stop", end_ns)
        elif request.generated >= plan.max_tokens:
            self._end(request, "length", end_ns)
        elif plan.abort_after_tokens is not None and before < plan.abort_after_tokens <= request.generated:
            self._plan_abort(request)
        return request.generated - before


def advance_together(engines: Sequence[SimulatedEngine], until_ns: int) -> None:
    """Lets engines that share GPUs, or wait for each other, live on in step: each turn is the earliest."""
    going = list(engines)
    while going:
        earliest = min(going, key=_now_ns) if len(going) > 1 else going[0]
        if not earliest.turn(until_ns):
            going.remove(earliest)


def _now_ns(engine: SimulatedEngine) -> int:
    return engine.now_ns


def _accepted(request: Request, drafted: int) -> int:
    """How many of the drafted tokens are right: the first wrong one ends them."""
    accepted = 0
    while accepted < drafted and request.luck.random() < request.plan.acceptance:
        accepted += 1
    return accepted


def _all_ones_left_out(values: list[int]) -> list[int]:
    """The wire's shorthand: an empty column means that every value is 1."""
    return [] if values.count(1) == len(values) else values
