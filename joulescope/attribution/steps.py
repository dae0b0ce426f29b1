"""The steps of one engine on the clock, as columns: what ran when on which stage, and for whom.

Steps come one by one and are used in blocks, so that the work per step and request is a few array
operations. A block is counted as a whole, priced and learned from piece by piece as the measured intervals
move over it, and dropped behind them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.cost import ROWS, STEP_FIGURES, CostModel, StepColumns
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
        if stages == 1:
            busy_ns = spans[0][1] - begins[0]
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
        self.seconds: Floats = np.array([step.busy_ns for step in steps]) / 1e9
        lengths = (self.end_ns - self.start_ns).mean(axis=0)
        self.waited_seconds: Floats = np.maximum(lengths / 1e9 - self.seconds, 0.0)
        self.special: Special | None = None
        self.rows: Floats = np.empty((ROWS, len(self.slots)))
        self.figures: Floats = np.empty((len(steps), STEP_FIGURES))
        self.shared: NDArray[np.bool_] = np.zeros(len(steps), dtype=np.bool_)
        """Whether another engine's steps had the GPU for a part of the time."""
        self.measured_ns: Ints = np.zeros(len(steps), dtype=np.int64)
        """GPU time of each step that lay inside measured intervals, summed over GPUs."""
        self.priced = self.taught = self.left = 0
        """So many steps, from the first, have a price, have taught their duration, have been left behind."""

    def __len__(self) -> int:
        return len(self.told)

    def columns(self, first: int, last: int) -> StepColumns:
        """The steps of a range."""
        begin, end = self.offsets[first], self.offsets[last]
        return StepColumns(
            self.context[begin:end],
            self.scheduled[begin:end],
            self.sampled[begin:end],
            self.offsets[first : last + 1] - begin,
            self.seconds[first:last],
            self.waited_seconds[first:last],
        )

    def price_until(self, last: int, model: CostModel, slowdown: float | None = None) -> None:
        """Prices the steps before ``last`` that have no price yet.

        ``slowdown``: the GPU was shared, so the steps' observed durations say little; they get what they
        should have taken alone, times this.
        """
        first = self.priced
        if first >= last:
            return
        if slowdown is not None:
            self.seconds[first:last] = slowdown * model.expected_seconds(self.columns(first, last))
            self.waited_seconds[first:last] = 0.0
            self.shared[first:last] = True
        rows = self.rows[:, self.offsets[first] : self.offsets[last]]
        self.figures[first:last] = model.price(self.columns(first, last), rows).steps
        self.priced = last


@dataclass(slots=True, eq=False)
class Segment:
    """The steps of one block that overlap an interval."""

    block: StepBlock
    first: int
    last: int
    stage: int
    parts: Floats
    """Of each step, the part that lies in the interval, 0..1."""
    requests: slice = field(init=False)
    """Their requests among the block's."""

    def __post_init__(self) -> None:
        self.requests = slice(int(self.block.offsets[self.first]), int(self.block.offsets[self.last]))

    @property
    def steps(self) -> slice:
        return slice(self.first, self.last)

    @property
    def slots(self) -> Ints:
        return self.block.slots[self.requests]

    @property
    def length_ns(self) -> float:
        """Time of the steps inside the interval."""
        starts, ends = self.block.start_ns[self.stage, self.steps], self.block.end_ns[self.stage, self.steps]
        return float(self.parts @ (ends - starts))

    def row(self, which: int) -> Floats:
        """A row of the requests' prices, as far as it lies in the interval."""
        values = self.block.rows[which, self.requests]
        return values if (self.parts == 1.0).all() else values * self.part_of_requests()

    def part_of_requests(self) -> Floats:
        counts = np.diff(self.block.offsets[self.first : self.last + 1])
        return np.repeat(self.parts, counts)

    def special(self) -> Special | None:
        if self.block.special is None:
            return None
        return self.block.special.between(self.requests.start, self.requests.stop)

    def spans(self) -> Iterator[Span]:
        starts = self.block.start_ns[self.stage, self.steps].tolist()
        return zip(starts, self.block.end_ns[self.stage, self.steps].tolist(), strict=True)


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
            overlap_ns = np.minimum(ends[cut], end_ns) - np.maximum(starts[cut], start_ns)
            block.measured_ns[cut] += overlap_ns
            found.append(Segment(block, first, last, stage, overlap_ns / (ends[cut] - starts[cut])))
        return found

    def learn_times(self, until_ns: int, model: CostModel) -> None:
        """Lets the steps that ended by then, and have a price, teach their durations."""
        lessons = []
        for block in self._blocks:
            last = min(int(np.searchsorted(block.end_ns[-1], until_ns, side="right")), block.priced)
            if block.taught < last:
                alone = ~block.shared[block.taught : last]
                lessons.append(block.figures[block.taught : last][alone])
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
