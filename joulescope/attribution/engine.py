"""One engine's life as attribution sees it: its steps on the clock, and its open requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.cost import CostModel
from joulescope.attribution.endings import Endings
from joulescope.attribution.minutes_time import MinuteClock
from joulescope.attribution.minutes_watch import StepWatch
from joulescope.attribution.next_token import next_token_joules
from joulescope.attribution.requests import RequestTable, by_slot, unknown_request
from joulescope.attribution.spans import Span
from joulescope.attribution.steps import PlacedStep, Segment, Special, StageClock, StepBlock, StepLog
from joulescope.attribution.tally import EngineTally, Gauges
from joulescope.attribution.uncertainty import priced_by
from joulescope.model import (
    EnergyInterval,
    EngineInfo,
    FinishedRequest,
    RequestEnded,
    RequestStarted,
    StepDone,
)

FOREVER_NS = 2**62

_LONGEST_WAIT_NS = 1_000_000_000
"""A longer pause between two steps of one request is a pause of the engine, and idle."""


class Engine:
    """State of one engine from its hello to the last joule of its last request.

    ``known_until_ns`` is the instant up to which every step is known. A step occupies the GPU from the
    later of "the previous output came" and "it was scheduled" until its own output came: back-to-back
    steps tile the time, also under asynchronous scheduling. While a request that ran before runs on, the
    time between two steps belongs to the second: the GPU waits for that request's host work.
    """

    def __init__(
        self,
        info: EngineInfo,
        up_ns: int,
        tally: EngineTally,
        model: CostModel,
        max_open_requests: int,
        watch: StepWatch | None = None,
    ) -> None:
        self.info = info
        self.up_ns = up_ns
        self.down_ns: int | None = None
        self.down_reason = ""
        self.steps = StepLog(self._count)
        self.requests = RequestTable()
        self.gaps: list[Span] = []
        self.overheads: list[tuple[int, int, str]] = []
        self.tally = tally
        self.last_step: StepDone | None = None
        self._dropped = 0
        self.model = model
        self.priced = priced_by(model)
        """What the latest steps were priced by."""
        self._max_open_requests = max_open_requests
        self._last_output_ns = up_ns
        self._clock = StageClock(max(info.pipeline_parallel, 1), up_ns)
        self._last_slots: NDArray[np.int64] | None = None
        self._complete_until_ns = up_ns
        self._pending_since_ns: int | None = None
        self._endings = Endings()
        self._watch = watch
        self._minutes, self._edge_ns = MinuteClock(tally.wall_offset_ns), 0

    # ----------------------------------------------------------------------------------- what is known

    @property
    def known_until_ns(self) -> int:
        if self.down_ns is not None:
            return FOREVER_NS
        until_ns, free_ns = self._complete_until_ns, self._clock.first_free_ns
        if self._pending_since_ns is not None:
            until_ns = min(until_ns, max(self._pending_since_ns, free_ns))
        if free_ns < until_ns <= free_ns + _LONGEST_WAIT_NS and self._may_continue():
            return free_ns  # the next step may claim the wait for it
        return until_ns

    def _may_continue(self) -> bool:
        """Whether a request has run and may run on."""
        table = self.requests
        return any(
            table.last_step_ns[slot] and handle not in self._endings for handle, slot in table.slot_of.items()
        )

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
            return Gauges(running=0, waiting=len(self.requests), batch_tokens=0)
        if step is None:
            return Gauges()
        joules = next_token_joules(self.model, self.info, step)
        tokens = int(step.scheduled.sum())
        return Gauges(step.running, step.waiting, step.kv_usage_ratio, tokens, joules)

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
        self._clock.lost_until(end_ns)
        if self._watch is not None:
            self._watch.lost(self, start_ns, end_ns)
        self._complete_until_ns = max(self._complete_until_ns, end_ns)
        self.requests.complete[list(self.requests.slot_of.values())] = False

    # ---------------------------------------------------------------------------------------- requests

    def request_started(self, request: RequestStarted) -> None:
        if request.request in self.requests.slot_of:
            if not request.resumed:
                self.tally.ignored["duplicate_start"] += 1
            return
        self.tally.requests_started += 1
        if self._watch is not None:
            self._watch.started(self, request.time_ns)
        if len(self.requests) >= self._max_open_requests:
            self._evict_oldest(request.time_ns)
        self.tally.open(self.requests, request)

    def _evict_oldest(self, time_ns: int) -> None:
        handles = (handle for handle in self.requests.slot_of if handle not in self._endings)
        oldest = next(handles, None)
        if oldest is not None:
            self._end_early(oldest, time_ns, "evicted")

    def has_ended(self, handle: int) -> bool:
        """Whether the engine said that it is over, though its account is still open."""
        return handle in self._endings

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
        self.steps.flush()
        ends = []
        for end in list(self._endings.settled(settled_ns)):
            last_step_ns = int(self.requests.last_step_ns[self.requests.slot_of[end.request]])
            if last_step_ns > settled_ns:  # it was computed beyond the step that was said to be its last
                self._endings.await_energy(end, last_step_ns)
            else:
                ends.append(end)
        if not ends:
            return
        self.tally.ending(self.requests, ends)
        for done in self.requests.finish(ends, self.info):
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
        """Puts a step on the clock."""
        table = self.requests
        slots = self._slots(step)
        continued = (
            step.schedule_end_ns - self._last_output_ns <= _LONGEST_WAIT_NS
            and (table.last_step_ns[slots[0]] > 0 or bool(table.last_step_ns[slots].any()))
        )  # fmt: skip
        spans, busy_ns = self._clock.place(step.schedule_end_ns, step.output_start_ns, continued)
        end_ns = spans[-1][1]
        if end_ns > self._edge_ns:  # all steps of a block are counted for one minute
            self._edge_ns = self._minutes.edge_ns(end_ns)
            self.steps.flush()
        self._note_exceptions(step)
        self.steps.add(PlacedStep(step, slots, spans, busy_ns))
        table.last_step_ns[slots] = end_ns
        self._last_output_ns = end_ns
        self._complete_until_ns = max(self._complete_until_ns, end_ns)
        self._pending_since_ns = None if not self.sends_progress else self._pending_since_ns
        self.last_step, self._last_slots = step, slots
        self.tally.steps += 1
        self._endings.step_came(step.step, end_ns)

    def stage_of(self, gpu: str) -> int:
        """The pipeline stage that a GPU works on: workers are ranked stage by stage."""
        info = self.info
        if len(info.gpus) != info.tensor_parallel * info.pipeline_parallel or gpu not in info.gpus:
            return info.pipeline_parallel - 1
        return info.gpus.index(gpu) // info.tensor_parallel

    def steps_in(self, interval: EnergyInterval) -> list[Segment]:
        """The steps that overlap an interval of one of the engine's GPUs."""
        return self.steps.overlapping(interval, self.stage_of(interval.gpu))

    def price(self, segments: list[Segment], at_limit: bool) -> None:
        """Gives a price to those of the steps that have none yet.

        A price is set once, when the first interval that the step lies in is divided, so that it depends on
        what earlier intervals taught and on nothing else: a replay comes to the same. ``at_limit``: the power
        limit held the GPU back in this interval.
        """
        if any(segment.block.priced < segment.last for segment in segments):
            self.priced = priced_by(self.model)
        for segment in segments:
            first = segment.block.priced
            segment.block.price_until(segment.last, self.model, at_limit)
            for told in segment.block.told[first : segment.last]:
                self._note_avoided(told)

    def _note_avoided(self, step: StepDone) -> None:
        """Prices the prefill that prefix-cache hits spared."""
        for handle, local, external in step.cached:
            slot = self.requests.slot_of.get(handle)
            if slot is not None and min(local, external) >= 0:
                local_uj = round(1e6 * self.model.avoided_joules(local))
                avoided_uj = max(round(1e6 * self.model.avoided_joules(local + external)), local_uj)
                self.requests.avoided_uj[slot] += avoided_uj
                self.tally.avoided_uj["local_cache"] += local_uj
                self.tally.avoided_uj["external_cache"] += avoided_uj - local_uj

    def learn_times(self, until_ns: int) -> None:
        """Lets the steps that ended by then, and have a price, teach their durations."""
        self.steps.learn_times(until_ns, self.model)

    def _slots(self, step: StepDone) -> NDArray[np.int64]:
        if (
            self.last_step is not None
            and step.request == self.last_step.request
            and self._last_slots is not None
        ):
            return self._last_slots
        slot_of = self.requests.slot_of
        try:
            return np.fromiter(map(slot_of.__getitem__, step.request), np.int64, len(step.request))
        except KeyError:
            for handle in step.request:
                if handle not in slot_of:  # its start was lost; what it costs is still its own
                    self.tally.ignored["step_of_unknown_request"] += 1
                    self.request_started(unknown_request(self.info.engine, handle, step.schedule_start_ns))
            return np.array([slot_of[handle] for handle in step.request], dtype=np.int64)

    def _note_exceptions(self, step: StepDone) -> None:
        table = self.requests
        if step.preempted:
            self.steps.flush()  # they are counted by how far each request had come
        for handle in step.preempted:
            self.tally.preemptions += 1
            if handle in table.slot_of:
                table.preempted(table.slot_of[handle], step.schedule_start_ns)
        for handle, local, external in step.cached:
            if handle in table.slot_of and min(local, external) >= 0:
                table.cached_tokens[table.slot_of[handle]] += local + external
                self.tally.tokens["cached_local"] += local
                self.tally.tokens["cached_external"] += external

    def _count(self, block: StepBlock) -> None:
        """Counts the tokens of a block by request and by kind. No request is preempted within one."""
        table, tally, slots = self.requests, self.tally, block.slots
        block.special = self._special(block)
        capacity = len(table.started)
        first = np.flatnonzero((table.generated_tokens[slots] == 0) & (block.sampled > 0))[::-1]
        if len(first):  # of several steps of a request the earliest counts: it is written last
            output_ns = np.array([step.output_start_ns for step in block.told])
            came_ns = output_ns[np.searchsorted(block.offsets, first, side="right") - 1]
            table.first_token_ns[slots[first]] = came_ns
        table.scheduled(slots, block.began_ns)
        generated = by_slot(slots, block.sampled, capacity)
        table.generated_tokens += generated
        tally.generated(table, generated)
        table.scheduled_tokens += by_slot(slots, block.scheduled, capacity)
        table.steps += np.bincount(slots, minlength=capacity)
        table.computed_until[slots] = block.context + block.scheduled  # the latest is written last
        if self._watch is not None:
            self._watch.counted(self, block)

    def _special(self, block: StepBlock) -> Special | None:
        """Counts the computed tokens by kind, and finds the requests that did not just decode."""
        is_special = block.context < self.requests.prefill_until[block.slots]
        drafted = block.drafted()
        if drafted is not None:
            is_special |= drafted > 0
        rows = np.flatnonzero(is_special)
        total = int(block.scheduled.sum())
        if len(rows):
            scheduled, slots = block.scheduled[rows], block.slots[rows]
            prefill, recomputed = self._phases(block.context[rows], scheduled, slots)
            rejected = (
                np.zeros_like(prefill) if drafted is None else self._rejected(block, rows, drafted[rows])
            )
            for kind, tokens in (("prefill", prefill), ("recomputed", recomputed), ("rejected", rejected)):
                self.tally.tokens[kind] += int(tokens.sum())
                total -= int(tokens.sum())
        self.tally.tokens["decode"] += total
        if not len(rows):
            return None
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
        np.add.at(table.recomputed_tokens, slots, recomputed)
        return prefill, recomputed

    def _rejected(
        self, block: StepBlock, rows: NDArray[np.int64], drafted: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Drafted tokens that were not accepted; drafts follow a whole prompt, so prefill has none."""
        slots, table = block.slots[rows], self.requests
        drafted = np.where(block.context[rows] < table.prefill_until[slots], 0, drafted)
        drafted = np.minimum(drafted, block.scheduled[rows])
        accepted = np.minimum(np.maximum(block.sampled[rows] - 1, 0), drafted)
        np.add.at(table.drafted_tokens, slots, drafted)
        np.add.at(table.accepted_tokens, slots, accepted)
        self.tally.drafted += int(drafted.sum())
        self.tally.accepted += int(accepted.sum())
        return drafted - accepted

    def forget(self, settled_ns: int, gpu_count: int) -> None:
        """Drops what no interval can reach any more; notes which steps were not fully measured."""
        self.gaps = [gap for gap in self.gaps if gap[1] > settled_ns]
        self.overheads = [stretch for stretch in self.overheads if stretch[1] > settled_ns]
        stages = max(self.info.pipeline_parallel, 1)
        for slots in self.steps.leave_behind(settled_ns, max(gpu_count // stages, 1)):
            self.requests.complete[slots] = False
