"""The steps of one engine on the clock, as columns: what ran when on which stage, and for whom.

Steps come one by one and are used in blocks, so that the work per step and request is a few array
operations. A block is counted as a whole, priced and learned from piece by piece as the measured intervals
move over it, and dropped behind them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.cost import ROWS, WEIGHT, CostModel, StepColumns
from joulescope.attribution.laws import STEP_FIGURES
from joulescope.attribution.spans import Span
from joulescope.model import EnergyInterval, StepDone

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class PlacedStep:
    """A step with its place on the clock."""

    told: StepDone
    slots: Ints
    spans: list[Span]
    """The stretch of time that it is accounted for, on each pipeline stage."""
    busy_ns: int
    """How long one stage worked on it; the rest of a span it waited for it."""


class StageClock:
    """Tells when each pipeline stage worked on a step, from when it was ready and when its output came.

    One stage: the step runs from the later of its dispatch and the previous output until its own output.
    Several: a step passes through all stages, each busy for the same time, and waits where a stage still
    has the step before it. The stage time is the shortest that explains the observed output.
    """

    def __init__(self, stages: int, start_ns: int) -> None:
        self._free_ns = [start_ns] * stages

    def place(self, ready_ns: int, output_ns: int, continued: bool) -> tuple[list[Span], int]:
        """The step's stretch on each stage, and how long a stage was busy with it.

        ``continued``: a request of the step ran before, so the stage's waiting time is the step's too.
        """
        free_ns = self._free_ns
        stages = len(free_ns)
        if stages == 1:  # what follows comes to the same; this is the usual case, and runs for every step
            start_ns = max(free_ns[0], ready_ns)
            begin_ns = free_ns[0] if continued else start_ns
            free_ns[0] = max(output_ns, start_ns + 1)
            return [(begin_ns, free_ns[0])], free_ns[0] - start_ns
        begins = [max(free_ns[0], ready_ns), *free_ns[1:]]
        busy_ns = max(min((output_ns - at) // (stages - stage) for stage, at in enumerate(begins)), 1)
        spans: list[Span] = []
        reached_ns = begins[0]
        for stage, before_ns in enumerate(free_ns):
            start_ns = max(reached_ns, before_ns)
            reached_ns = start_ns + busy_ns
            if stage == stages - 1:
                reached_ns = max(output_ns, start_ns + 1)
            spans.append((before_ns if continued else start_ns, reached_ns))
            free_ns[stage] = reached_ns
        return spans, busy_ns

    def lost_until(self, time_ns: int) -> None:
        """Until here steps may have run that nobody told of: no later step claims that time."""
        self._free_ns = [max(free_ns, time_ns) for free_ns in self._free_ns]

    @property
    def first_free_ns(self) -> int:
        """When the first stage had done the last step that is known."""
        return self._free_ns[0]


@dataclass(slots=True, eq=False)
class Special:
    """Requests of a block with more than plain decode: which rows, and what part of their tokens."""

    rows: Ints
    prefill_ratio: Floats
    """First-time prefill."""
    recomputed_ratio: Floats
    """Computed again after a preemption."""
    rejected_ratio: Floats
    """Speculative tokens that were not accepted."""

    def between(self, begin: int, end: int) -> Special | None:
        """Those of a range of rows, counted from its begin."""
        low, high = np.searchsorted(self.rows, (begin, end))
        if low == high:
            return None
        cut = slice(low, high)
        return Special(
            self.rows[cut] - begin,
            self.prefill_ratio[cut],
            self.recomputed_ratio[cut],
            self.rejected_ratio[cut],
        )


class StepBlock:
    """Consecutive steps as columns, request by request."""

    def __init__(self, steps: list[PlacedStep]) -> None:
        told = [step.told for step in steps]
        self.told = told
        self.slots: Ints = np.concatenate([step.slots for step in steps])
        self.offsets: Ints = np.zeros(len(steps) + 1, dtype=np.int64)
        np.cumsum([len(step.slots) for step in steps], out=self.offsets[1:])
        self.context: Ints = np.concatenate([step.context for step in told])
        self.scheduled: Ints = np.concatenate([step.scheduled for step in told])
        self.sampled: Ints = np.concatenate([step.sampled for step in told])
        spans = np.array([step.spans for step in steps], dtype=np.int64)
        self.start_ns: Ints = np.ascontiguousarray(spans[:, :, 0].T)
        """Stages × steps."""
        self.end_ns: Ints = np.ascontiguousarray(spans[:, :, 1].T)
        self.busy_ns: Ints = np.array([step.busy_ns for step in steps], dtype=np.int64)
        self.seconds: Floats = self.busy_ns / 1e9
        self.special: Special | None = None
        self.rows: Floats = np.empty((ROWS, len(self.slots)))
        self.figures: Floats = np.empty((len(steps), STEP_FIGURES))
        self.memory_bound: NDArray[np.bool_] = np.zeros(len(steps), dtype=np.bool_)
        self.measured_ns: Ints = np.zeros(len(steps), dtype=np.int64)
        """GPU time of each step that lay inside measured intervals, summed over GPUs."""
        self.priced = self.taught = self.left = 0
        """So many steps, from the first, have a price, have taught their duration, have been left behind."""

    def __len__(self) -> int:
        return len(self.told)

    @cached_property
    def computes_prompt(self) -> NDArray[np.bool_]:
        """Of each step: whether any prompt was computed, or what a preemption lost computed again."""
        found = np.zeros(len(self), dtype=np.bool_)
        if self.special is not None:
            ratio = self.special.prefill_ratio + self.special.recomputed_ratio
            found[self.steps_of(self.special.rows[ratio > 0.0])] = True
        return found

    @cached_property
    def samples(self) -> Ints:
        """Of each step: tokens that came out."""
        return np.asarray(np.add.reduceat(np.minimum(self.sampled, self.scheduled), self.offsets[:-1]))

    def drafted(self) -> Ints | None:
        """Speculative tokens of each request and step; ``None`` where there are none at all."""
        if not any(step.drafted for step in self.told):
            return None
        tokens = (step.drafted.get(handle, 0) for step in self.told for handle in step.request)
        return np.fromiter(tokens, np.int64, len(self.slots))

    def steps_of(self, rows: Ints) -> Ints:
        """The step of each of these rows."""
        return np.asarray(np.searchsorted(self.offsets, rows, side="right") - 1)

    def began_ns(self, rows: Ints) -> Ints:
        """When the scheduler began the step of each of these rows."""
        told_ns = np.array([step.schedule_start_ns for step in self.told])
        return np.asarray(told_ns[self.steps_of(rows)])

    def columns(self, first: int, last: int) -> StepColumns:
        """The steps of a range."""
        begin, end = self.offsets[first], self.offsets[last]
        return StepColumns(
            self.context[begin:end],
            self.scheduled[begin:end],
            self.sampled[begin:end],
            self.offsets[first : last + 1] - begin,
            self.seconds[first:last],
        )

    def price_until(self, last: int, model: CostModel, at_limit: bool) -> None:
        """Prices the steps before ``last`` that have no price yet."""
        first = self.priced
        if first >= last:
            return
        rows = self.rows[:, self.offsets[first] : self.offsets[last]]
        prices = model.price(self.columns(first, last), rows, at_limit)
        self.figures[first:last], self.memory_bound[first:last] = prices.steps, prices.memory_bound
        self.priced = last


@dataclass(slots=True, eq=False)
class Segment:
    """The steps of one block that overlap an interval, on one pipeline stage."""

    block: StepBlock
    first: int
    last: int
    stage: int
    overlap_ns: Ints
    """Of each step's span, what lies in the interval."""
    interval_ns: Span
    parts: Floats = field(init=False)
    """Of each step's work, the part that lies in the interval, 0..1."""
    waited_seconds: Floats = field(init=False)
    """Of the time that the GPU waited for each step, what lies in the interval."""

    def __post_init__(self) -> None:
        worked_ns = self._worked_ns()
        self.waited_seconds = (self.overlap_ns - worked_ns) / 1e9

    def _worked_ns(self) -> Ints:
        """Sets :attr:`parts`: the GPU works on a step at the end of its span, and waits for it before."""
        start_ns, end_ns = self.interval_ns
        ends, busy_ns = self.ends_ns, self.block.busy_ns[self.steps]
        worked_ns: Ints = np.minimum(ends, end_ns) - np.maximum(ends - busy_ns, start_ns)
        np.clip(worked_ns, 0, self.overlap_ns, out=worked_ns)
        self.parts = worked_ns / busy_ns
        return worked_ns

    def take_turns(self, others_ns: Ints) -> None:
        """Another engine's steps ended at these instants (sorted): until then the GPU worked on them.

        Steps that have a price keep their place.
        """
        block, new = self.block, slice(max(self.first, self.block.priced), self.last)
        if new.start < new.stop:
            ends = block.end_ns[self.stage, new]
            before = np.searchsorted(others_ns, ends) - 1
            free_ns = np.where(before >= 0, others_ns[np.maximum(before, 0)], 0)
            block.busy_ns[new] = np.minimum(block.busy_ns[new], np.maximum(ends - free_ns, 1))
            block.seconds[new] = block.busy_ns[new] / 1e9
        self._worked_ns()
        self.waited_seconds = np.zeros_like(self.parts)

    @property
    def ends_ns(self) -> Ints:
        """When each step was done on this stage."""
        ends_ns: Ints = self.block.end_ns[self.stage, self.steps]
        return ends_ns

    @property
    def steps(self) -> slice:
        return slice(self.first, self.last)

    @property
    def requests(self) -> slice:
        """Their requests among the block's."""
        return slice(int(self.block.offsets[self.first]), int(self.block.offsets[self.last]))

    @property
    def slots(self) -> Ints:
        return self.block.slots[self.requests]

    def requests_of(self, step: int) -> slice:
        """Where among the block's requests those of a step are; ``step`` counts from the segment's first."""
        at = self.first + step
        return slice(int(self.block.offsets[at]), int(self.block.offsets[at + 1]))

    def watts_at(self, time_ns: int) -> float | None:
        """What the step that was worked on then is priced at, over its time; ``None`` if there was none."""
        ends_ns, busy_ns = self.ends_ns, self.block.busy_ns[self.steps]
        step = int(np.searchsorted(ends_ns, time_ns))
        if step == len(ends_ns) or ends_ns[step] - busy_ns[step] >= time_ns:
            return None
        joules = self.block.rows[WEIGHT, self.requests_of(step)].sum()
        return float(joules * 1e9 / busy_ns[step])

    def figures(self) -> Floats:
        """Figures of the steps, as far as they lie in the interval, summed."""
        return np.asarray(self.parts @ self.block.figures[self.steps])

    def special(self) -> Special | None:
        if self.block.special is None:
            return None
        return self.block.special.between(self.requests.start, self.requests.stop)

    def spans(self) -> Iterator[Span]:
        starts = self.block.start_ns[self.stage, self.steps].tolist()
        return zip(starts, self.ends_ns.tolist(), strict=True)


class StepLog:
    """The blocks of one engine that intervals may still reach.

    Args:
        count: called with each new block, before anything else happens with it.
    """

    def __init__(self, count: Callable[[StepBlock], None]) -> None:
        self._count = count
        self._pending: list[PlacedStep] = []
        self._blocks: deque[StepBlock] = deque()
        self.forgotten_ns = 0
        """Up to here steps were dropped from the clock: what they cost can no longer be told."""

    def add(self, step: PlacedStep) -> None:
        self._pending.append(step)

    def flush(self) -> None:
        """Makes a block of the steps that came since the last one."""
        if self._pending:
            pending, self._pending = self._pending, []
            block = StepBlock(pending)
            self._count(block)
            self._blocks.append(block)

    def overlapping(self, interval: EnergyInterval, stage: int) -> list[Segment]:
        """The steps that overlap an interval of a GPU of this stage; notes that they were measured."""
        self.flush()
        start_ns, end_ns = interval.start_ns, interval.end_ns
        found: list[Segment] = []
        for block in self._blocks:
            starts, ends = block.start_ns[stage], block.end_ns[stage]
            if starts[0] >= end_ns:
                break
            first = int(np.searchsorted(ends, start_ns, side="right"))
            last = int(np.searchsorted(starts, end_ns, side="left"))
            if first >= last:
                continue
            cut = slice(first, last)
            starts, ends = starts[cut], ends[cut]
            overlap_ns = np.minimum(ends, end_ns) - np.maximum(starts, start_ns)
            block.measured_ns[cut] += overlap_ns
            found.append(Segment(block, first, last, stage, overlap_ns, (start_ns, end_ns)))
        return found

    def learn_times(self, until_ns: int, model: CostModel) -> None:
        """Lets the steps that ended by then, and have a price, teach their durations."""
        lessons = []
        for block in self._blocks:
            last = min(int(np.searchsorted(block.end_ns[-1], until_ns, side="right")), block.priced)
            if block.taught < last:
                lessons.append(block.figures[block.taught : last])
                block.taught = last
            if last < len(block):
                break
        if lessons:
            model.learn_times(np.concatenate(lessons))

    def leave_behind(self, settled_ns: int, gpus_per_stage: int) -> Iterator[Ints]:
        """Drops what no interval can reach any more; gives the slots of steps not measured in full."""
        while self._blocks:
            block = self._blocks[0]
            last = int(np.searchsorted(block.end_ns[-1], settled_ns, side="right"))
            if block.left < last:
                cut = slice(block.left, last)
                length_ns = (block.end_ns[:, cut] - block.start_ns[:, cut]).sum(axis=0) * gpus_per_stage
                lacking = block.measured_ns[cut] < length_ns - length_ns // 1000
                for step in np.flatnonzero(lacking) + block.left:
                    yield block.slots[block.offsets[step] : block.offsets[step + 1]]
                self.forgotten_ns = int(block.end_ns[-1, last - 1])
                block.left = last
            if last < len(block):
                return
            self._blocks.popleft()
