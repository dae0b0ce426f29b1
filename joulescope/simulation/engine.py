"""A simulated vLLM engine: plays the loop of the engine's thread and tells of it as the hook does.

The loop is that of ``EngineCore.step_with_batch_queue``: schedule a step and hand it to the GPU; with
asynchronous scheduling do so for one more while the first runs; then wait for the oldest and take in its
output. Time is simulated, and nothing depends on when or in what portions it is asked for: the records
follow from the workload's seed and the instants alone. Differences from a real engine are told where
they are made: :mod:`joulescope.simulation.kv_cache`, :mod:`joulescope.simulation.scheduler`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from joulescope.hook.wire import AnyRecord, Progress, RequestEnd, RequestStart, Step
from joulescope.simulation.book import GpuBook
from joulescope.simulation.gpu import SimulatedGpu
from joulescope.simulation.physics import Floats, Roofline, features_of, flops_of
from joulescope.simulation.scheduler import Batch, EngineLimits, Request, Scheduler
from joulescope.simulation.shapley import shares_of
from joulescope.simulation.truth import StepEnergy, StepWork, TrueLedger, charges_of
from joulescope.simulation.workload import PlannedRequest
from joulescope.simulation.worlds import World
from joulescope.units import ns_from_seconds

MAX_WAITING = 10_000
"""Requests that may queue; whoever comes later is turned away before the engine hears of it."""


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
    """One engine on one simulated GPU.

    Args:
        world: what steps cost.
        gpu: is told every step's power; it must be idle.
        requests: what clients will do, in the order of arrival.
        start_ns: the instant at which the engine begins.
        limits: its arguments.
        ledger: learns who truly caused the joules; without one the engine runs several times faster.
    """

    def __init__(
        self,
        world: World,
        gpu: SimulatedGpu,
        requests: Iterable[PlannedRequest],
        *,
        start_ns: int,
        limits: EngineLimits | None = None,
        ledger: TrueLedger | None = None,
    ) -> None:
        self.world = world
        self.gpu = gpu
        self.limits = EngineLimits() if limits is None else limits
        self.ledger = ledger
        self.turned_away = 0
        """Clients that came while the queue was full."""
        self.book = GpuBook(gpu, start_ns)
        self._law = Roofline(world)
        self._scheduler = Scheduler(self.limits)
        self._arrivals = iter(requests)
        self._submitted = 0
        self._due: list[tuple[int, int, PlannedRequest]] = []
        self._expect_next()
        self._flights: deque[_Flight] = deque()
        self._depth = 2 if self.limits.async_scheduling else 1
        self._now_ns = start_ns
        self._steps = 0
        self._handles = 0
        self._aborts: list[tuple[int, int, Request]] = []
        self._unreported_preempted: list[int] = []
        self._active_since_ns: int | None = None
        self._latest: Batch | None = None
        runtime = world.runtime
        self._schedule_ns = ns_from_seconds(runtime.schedule_seconds)
        self._update_ns = ns_from_seconds(runtime.update_seconds)
        self._readback_ns = ns_from_seconds(runtime.readback_seconds)
        self._out: list[AnyRecord] = []

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits and no client will come any more."""
        return (
            not self._flights
            and not self._scheduler.running
            and not self._scheduler.waiting
            and not self._due
        )

    @property
    def pending_since_ns(self) -> int | None:
        """When the oldest step in flight was scheduled, if there is one."""
        return self._flights[0].schedule_end_ns if self._flights else None

    def submit(self, plan: PlannedRequest) -> None:
        """One more request, of a client that decides as it goes; if its arrival is past, it comes now."""
        self._submitted += 1
        heapq.heappush(self._due, (plan.arrival_ns, self._submitted, plan))

    def advance(self, until_ns: int) -> list[AnyRecord]:
        """Lives on until ``until_ns``: the records of everything that ended by then, and a progress."""
        while self._turn(until_ns):
            pass
        records, self._out = self._out, []
        records.append(Progress(time_ns=until_ns, pending_since_ns=self.pending_since_ns))
        return records

    def _turn(self, until_ns: int) -> bool:
        """One turn of the engine's loop; false if it would end after ``until_ns``."""
        if self._now_ns > until_ns:
            return False
        self._admit()
        self._abort_due()
        self._rest_if_quiet(self._now_ns)
        if len(self._flights) < self._depth and self._dispatch():
            return True
        if self._flights:
            seen_ns = max(self._now_ns, self._flights[0].gpu_end_ns + self._readback_ns)
            if seen_ns + self._update_ns > until_ns:
                return False
            self._now_ns = seen_ns
            self._abort_due()
            self._take_output(self._flights.popleft())
            return True
        return self._sleep(until_ns)

    def _sleep(self, until_ns: int) -> bool:
        """Nothing to do: on to the next arrival or hang-up."""
        instants = [self._aborts[0][0]] if self._aborts else []
        if self._due:
            instants.append(self._due[0][0])
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
            self._start(Request(handle=self._handles, plan=plan))

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
        if self._active_since_ns is None:
            self._active_since_ns = start_ns
        self._now_ns += self._schedule_ns
        gpu_end_ns = self._run(batch, self._active_since_ns, max(self._now_ns, self.gpu.busy_until_ns))
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

    def _run(self, batch: Batch, since_ns: int, gpu_start_ns: int) -> int:
        """Lets the GPU do the step and charges its joules; the instant at which it ends.

        Requests have been running since ``since_ns``: what the GPU drew meanwhile is theirs too.
        """
        context, scheduled, heads = (
            np.array(column, dtype=np.int64) for column in (batch.context, batch.scheduled, batch.samples)
        )
        features = features_of(context, scheduled, heads)
        cost = self._law.cost(features.sum(axis=1))
        seconds, joules = float(cost.seconds[0]), float(cost.joules[0])
        gpu_end_ns = gpu_start_ns + ns_from_seconds(seconds)
        gap_joules = self.book.claim(since_ns, gpu_start_ns)
        # Rounding to whole nanoseconds must not lose energy.
        self.gpu.append(gpu_start_ns, gpu_end_ns, joules * 1e9 / (gpu_end_ns - gpu_start_ns))
        self.book.step(gpu_end_ns, joules)
        self._latest = batch
        if self.ledger is not None:
            self.ledger.note(
                StepEnergy(self._steps, self.gpu.uuid, gpu_start_ns, gpu_end_ns, joules, gap_joules)
            )
            self._charge(batch, features, gap_joules)
        return gpu_end_ns

    def _charge(self, batch: Batch, features: Floats, gap_joules: float) -> None:
        """Tells the ledger who caused the joules of a step and of the gap before it."""
        assert self.ledger is not None
        work = StepWork(
            scheduled=features[1],
            sampled=features[5],
            recomputed=np.array(batch.recomputed, dtype=np.float64),
            flops=flops_of(self.world.model, features),
        )
        shares = shares_of(self._law, features, self._steps)
        self.ledger.charge(_ids(batch), charges_of(shares, work, gap_joules))

    def _rest_if_quiet(self, time_ns: int) -> None:
        """Once nothing runs any more the requests of the last step pay for the time since it ended."""
        if self._active_since_ns is None or self._flights or self._scheduler.running:
            return
        joules = self.book.claim(self._active_since_ns, time_ns)
        self._active_since_ns = None
        if self.ledger is not None and self._latest is not None and joules:
            self.ledger.charge_gap(_ids(self._latest), joules)

    def _take_output(self, flight: _Flight) -> None:
        """The output of a step is back: tokens come out, requests end, the record is written."""
        output_start_ns = self._now_ns
        end_ns = output_start_ns + self._update_ns // 2
        batch = flight.batch
        sampled: list[int] = []
        for request, samples in zip(batch.requests, batch.samples, strict=True):
            request.in_flight -= 1
            # The token of a request that ended meanwhile is discarded.
            sampled.append(int(samples and not request.finished))
            if sampled[-1]:
                self._take_token(request, end_ns)
        self._rest_if_quiet(output_start_ns)
        self._now_ns += self._update_ns
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
                cached=flight.cached,
                preempted=flight.preempted,
                waiting=len(self._scheduler.waiting),
                running=len(self._scheduler.running),
                kv_usage_ratio=round(self._scheduler.kv.usage_ratio, 6),
            )
        )

    def _take_token(self, request: Request, end_ns: int) -> None:
        """One more token of a request, which may be its last."""
        plan = request.plan
        request.placeholders -= 1
        request.generated += 1
        if request.generated >= plan.output_tokens:
            self._end(request, "stop", end_ns)
        elif request.generated >= plan.max_tokens:
            self._end(request, "length", end_ns)
        elif request.generated == plan.abort_after_tokens:
            self._plan_abort(request)


def _ids(batch: Batch) -> list[str]:
    return [request.plan.request_id for request in batch.requests]


def _all_ones_left_out(values: list[int]) -> list[int]:
    """The wire's shorthand: an empty column means that every value is 1."""
    return [] if all(value == 1 for value in values) else values
