"""One engine's life as attribution sees it: its steps on the clock, and its open requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.cost import CostModel, StepTotals
from joulescope.attribution.endings import Endings
from joulescope.attribution.requests import RequestTable
from joulescope.attribution.spans import Span
from joulescope.attribution.tally import EngineTally, Gauges
from joulescope.model import EngineInfo, FinishedRequest, RequestEnded, RequestStarted, StepDone

FOREVER_NS = 2**62


@dataclass(slots=True, eq=False)
class Special:
    """Requests of a step with more than plain decode: which rows, and what part of their tokens."""

    rows: NDArray[np.int64]
    prefill_ratio: NDArray[np.float64]
    """First-time prefill."""
    recomputed_ratio: NDArray[np.float64]
    """Computed again after a preemption."""
    rejected_ratio: NDArray[np.float64]
    """Speculative tokens that were not accepted."""


@dataclass(slots=True, eq=False)
class LoggedStep:
    """A step on the clock, with what is needed to divide its joules. Columns are per request."""

    start_ns: int
    end_ns: int
    slots: NDArray[np.int64]
    told: StepDone
    special: Special | None
    """The requests of the step that did not just decode; ``None`` if all did."""
    price: Price | None = None
    """Set when the first interval that it lies in is divided."""
    has_taught: bool = False
    measured_ns: int = 0
    """GPU time of this step that lay inside measured intervals, summed over GPUs."""


@dataclass(frozen=True, slots=True, eq=False)
class Price:
    """What a step should cost, by the coefficients of the moment."""

    weight_joules: NDArray[np.float64]
    """Modelled Shapley value of each request."""
    marginal_ratio: NDArray[np.float64]
    """Part of a request's weight that would be saved without it."""
    totals: StepTotals


class Engine:
    """State of one engine from its hello to the last joule of its last request.

    ``known_until_ns`` is the instant up to which every step is known. A step occupies the GPU from the
    later of "the previous output came" and "it was scheduled" until its own output came: back-to-back
    steps tile the time, also under asynchronous scheduling and pipeline parallelism.
    """

    def __init__(
        self, info: EngineInfo, up_ns: int, tally: EngineTally, model: CostModel, max_open_requests: int
    ) -> None:
        self.info = info
        self.up_ns = up_ns
        self.down_ns: int | None = None
        self.down_reason = ""
        self.steps: deque[LoggedStep] = deque()
        self.requests = RequestTable()
        self.gaps: list[Span] = []
        self.overheads: list[tuple[int, int, str]] = []
        self.tally = tally
        self.last_step: StepDone | None = None
        self.forgotten_ns = 0
        """Up to here steps were dropped from the clock: what they cost can no longer be told."""
        self._dropped = 0
        self.model = model
        self._max_open_requests = max_open_requests
        self._last_output_ns = up_ns
        self._complete_until_ns = up_ns
        self._pending_since_ns: int | None = None
        self._endings = Endings()

    # ----------------------------------------------------------------------------------- what is known

    @property
    def known_until_ns(self) -> int:
        if self.down_ns is not None:
            return FOREVER_NS
        if self._pending_since_ns is None:
            return self._complete_until_ns
        return min(self._complete_until_ns, max(self._pending_since_ns, self._last_output_ns))

    @property
    def sends_progress(self) -> bool:
        return "progress" in self.info.capabilities

    def set_gpus(self, gpus: tuple[str, ...]) -> None:
        self.info = replace(self.info, gpus=gpus)
        self.tally.info = self.info

    def gauges(self, now_ns: int, idle_after_ns: int) -> Gauges:
        """Queue lengths of the latest step; an engine that has since run nothing runs nothing."""
        step = self.last_step
        if self._pending_since_ns is None and now_ns - self._last_output_ns > idle_after_ns:
            return Gauges(running=0, waiting=len(self.requests))
        return Gauges() if step is None else Gauges(step.running, step.waiting, step.kv_usage_ratio)

    def alive_span(self) -> Span:
        return self.up_ns, FOREVER_NS if self.down_ns is None else self.down_ns

    def progress(self, time_ns: int, pending_since_ns: int | None, dropped: int) -> None:
        self._complete_until_ns = max(self._complete_until_ns, time_ns)
        self._pending_since_ns = pending_since_ns
        self.tally.records_dropped += max(dropped - self._dropped, 0)
        self._dropped = max(self._dropped, dropped)
        if pending_since_ns is None:
            self._endings.nothing_pending(time_ns, self._last_output_ns)

    def down(self, time_ns: int, reason: str) -> None:
        self.down_ns = max(time_ns, self._last_output_ns)
        self.down_reason = reason

    def revive(self, info: EngineInfo, time_ns: int) -> None:
        """The same engine is back after a broken connection; what it did meanwhile is not known."""
        if self.down_ns is not None and time_ns > self.down_ns:
            self.gap(self.down_ns, time_ns)
        self.info = replace(info, engine=self.info.engine)
        self.down_ns = None
        self._pending_since_ns = None
        self._complete_until_ns = max(self._complete_until_ns, time_ns)

    def gap(self, start_ns: int, end_ns: int) -> None:
        """Steps may be missing in this stretch; who was open in it is not told whole."""
        self.tally.gaps += 1
        self.gaps.append((start_ns, end_ns))
        self._complete_until_ns = max(self._complete_until_ns, end_ns)
        self.requests.complete[list(self.requests.slot_of.values())] = False

    # ---------------------------------------------------------------------------------------- requests

    def request_started(self, request: RequestStarted) -> None:
        if request.request in self.requests.slot_of:
            if not request.resumed:
                self.tally.ignored["duplicate_start"] += 1
            return
        self.tally.requests_started += 1
        if len(self.requests) >= self._max_open_requests:
            self._evict_oldest(request.time_ns)
        self.requests.open(request)

    def _evict_oldest(self, time_ns: int) -> None:
        handles = (handle for handle in self.requests.slot_of if handle not in self._endings)
        oldest = next(handles, None)
        if oldest is not None:
            self._end_early(oldest, time_ns, "evicted")

    def request_ended(self, end: RequestEnded) -> None:
        if end.request not in self.requests.slot_of or end.request in self._endings:
            self.tally.ignored["end_of_unknown_request"] += 1
        elif end.final_step is None:
            self._endings.await_energy(end, max(end.time_ns, self._last_output_ns))
        elif self.last_step is None or end.final_step > self.last_step.step:
            self._endings.await_step(end)
        else:
            self._endings.await_energy(end, self._last_output_ns)

    def _end_early(self, handle: int, time_ns: int, reason: str) -> None:
        """An end that the engine did not tell."""
        self.requests.complete[self.requests.slot_of[handle]] = False
        end = RequestEnded(self.info.engine, handle, time_ns, reason)
        self._endings.await_energy(end, max(time_ns, self._last_output_ns))

    def finished(self, settled_ns: int) -> Iterator[FinishedRequest]:
        """Takes out the requests whose joules are all accounted, given what is settled."""
        for end in list(self._endings.settled(settled_ns)):
            last_step_ns = int(self.requests.last_step_ns[self.requests.slot_of[end.request]])
            if last_step_ns > settled_ns:  # it was computed beyond the step that was said to be its last
                self._endings.await_energy(end, last_step_ns)
                continue
            done = self.requests.finish(self.requests.slot_of[end.request], end, self.info)
            self.tally.finished(done)
            yield done

    def give_up_awaited_steps(self) -> None:
        """No further step will come: requests that ended wait for theirs no longer."""
        for handle in self._endings.abandon_steps(self._last_output_ns):
            self.requests.complete[self.requests.slot_of[handle]] = False

    def abandon(self, reason: str, time_ns: int) -> None:
        """Ends every request that is still open: nothing more will be heard of them."""
        self.give_up_awaited_steps()
        for handle in [handle for handle in self.requests.slot_of if handle not in self._endings]:
            self._end_early(handle, time_ns, reason)

    # ------------------------------------------------------------------------------------------- steps

    def step_done(self, step: StepDone) -> None:
        """Puts a step on the clock and counts its tokens."""
        slots = self._slots(step)
        start_ns = max(self._last_output_ns, step.schedule_end_ns)
        end_ns = max(step.output_start_ns, start_ns + 1)
        self._note_exceptions(step)
        self.steps.append(LoggedStep(start_ns, end_ns, slots, step, self._special(step, slots)))
        self._count_tokens(step, slots, end_ns)
        self._last_output_ns = end_ns
        self._complete_until_ns = max(self._complete_until_ns, end_ns)
        self._pending_since_ns = None if not self.sends_progress else self._pending_since_ns
        self.last_step = step
        self.tally.steps += 1
        self._endings.step_came(step.step, end_ns)

    def price_of(self, step: LoggedStep) -> Price:
        """The step's price. It is set once, when its first interval is divided, so that it depends on what
        earlier intervals taught and on nothing else: a replay comes to the same."""
        if step.price is None:
            told, seconds = step.told, (step.end_ns - step.start_ns) / 1e9
            cost = self.model.step_cost(told.context, told.scheduled, told.sampled, seconds)
            weights, saved = cost.shapley_joules, cost.saved_joules
            ratio = np.divide(saved, weights, where=weights > 0, out=saved)
            step.price = Price(weights, ratio, cost.totals)
        return step.price

    def learn_times(self, until_ns: int) -> None:
        """Lets the steps that ended by then, and have a price, teach their durations."""
        lessons: list[StepTotals] = []
        for step in self.steps:
            if step.end_ns > until_ns:
                break
            if step.price is not None and not step.has_taught:
                step.has_taught = True
                lessons.append(step.price.totals)
        self.model.learn_times(lessons)

    def _slots(self, step: StepDone) -> NDArray[np.int64]:
        slot_of = self.requests.slot_of
        try:
            return np.fromiter(map(slot_of.__getitem__, step.request), np.int64, len(step.request))
        except KeyError:
            for handle in step.request:
                if handle not in slot_of:  # its start was lost; what it costs is still its own
                    self.tally.ignored["step_of_unknown_request"] += 1
                    self.request_started(_unknown(self.info.engine, handle, step.schedule_start_ns))
            return np.array([slot_of[handle] for handle in step.request], dtype=np.int64)

    def _note_exceptions(self, step: StepDone) -> None:
        table = self.requests
        for handle in step.preempted:
            self.tally.preemptions += 1
            if handle in table.slot_of:
                table.preempted(table.slot_of[handle])
        for handle, local, external in step.cached:
            if handle in table.slot_of and min(local, external) >= 0:
                table.cached_tokens[table.slot_of[handle]] += local + external
                self.tally.tokens["cached_local"] += local
                self.tally.tokens["cached_external"] += external

    def _special(self, step: StepDone, slots: NDArray[np.int64]) -> Special | None:
        """Counts the computed tokens by kind, and finds the requests that did not just decode."""
        until = self.requests.prefill_until[slots]
        is_special = step.context < until
        total = int(step.scheduled.sum())
        if step.drafted:
            is_special |= np.array([handle in step.drafted for handle in step.request])
        rows = np.flatnonzero(is_special)
        if not len(rows):
            self.tally.tokens["decode"] += total
            return None
        scheduled, slots = step.scheduled[rows], slots[rows]
        prefill, recomputed = self._phases(step.context[rows], scheduled, slots)
        rejected = self._rejected(step, rows, slots)
        counts = {"prefill": prefill, "recomputed": recomputed, "rejected": rejected}
        for kind, tokens in counts.items():
            self.tally.tokens[kind] += int(tokens.sum())
            total -= int(tokens.sum())
        self.tally.tokens["decode"] += total
        divisor = np.maximum(scheduled, 1)
        return Special(rows, prefill / divisor, recomputed / divisor, rejected / divisor)

    def _phases(
        self, context: NDArray[np.int64], scheduled: NDArray[np.int64], slots: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens of first-time prefill and of recompute, by request."""
        table = self.requests
        after = context + scheduled
        recompute_until = table.recompute_until[slots]
        recomputed = np.maximum(np.minimum(after, recompute_until) - context, 0)
        below_prompt = np.minimum(after, table.prompt_tokens[slots])
        prefill = np.maximum(below_prompt - np.maximum(context, recompute_until), 0)
        table.recomputed_tokens[slots] += recomputed
        return prefill, recomputed

    def _rejected(
        self, step: StepDone, rows: NDArray[np.int64], slots: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Drafted tokens that were not accepted; drafts follow a whole prompt, so prefill has none."""
        handles = [step.request[row] for row in rows]
        drafted = np.array([step.drafted.get(handle, 0) for handle in handles], dtype=np.int64)
        drafted[step.context[rows] < self.requests.prefill_until[slots]] = 0
        drafted = np.minimum(drafted, step.scheduled[rows])
        accepted = np.minimum(np.maximum(step.sampled[rows] - 1, 0), drafted)
        self.requests.drafted_tokens[slots] += drafted
        self.requests.accepted_tokens[slots] += accepted
        return drafted - accepted

    def _count_tokens(self, step: StepDone, slots: NDArray[np.int64], end_ns: int) -> None:
        table = self.requests
        generated = table.generated_tokens[slots]
        if not generated.all():
            first = slots[(generated == 0) & (step.sampled > 0)]
            table.first_token_ns[first] = step.output_start_ns
        table.generated_tokens[slots] = generated + step.sampled
        table.scheduled_tokens[slots] += step.scheduled
        table.computed_until[slots] = np.maximum(table.computed_until[slots], step.context + step.scheduled)
        table.steps[slots] += 1
        table.last_step_ns[slots] = end_ns
        self.tally.tokens["generated"] += int(step.sampled.sum())

    def forget(self, settled_ns: int, gpu_count: int) -> None:
        """Drops what no interval can reach any more; notes which steps were not fully measured."""
        self.gaps = [gap for gap in self.gaps if gap[1] > settled_ns]
        self.overheads = [stretch for stretch in self.overheads if stretch[1] > settled_ns]
        steps = self.steps
        while steps and steps[0].end_ns <= settled_ns:
            step = steps.popleft()
            self.forgotten_ns = step.end_ns
            length_ns = (step.end_ns - step.start_ns) * max(gpu_count, 1)
            if step.measured_ns < length_ns - length_ns // 1000:
                self.requests.complete[step.slots] = False


def _unknown(engine: str, handle: int, time_ns: int) -> RequestStarted:
    return RequestStarted(
        engine=engine, request=handle, request_id=f"unknown-{handle}", time_ns=time_ns, resumed=True
    )
