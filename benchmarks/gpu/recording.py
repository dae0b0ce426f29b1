"""What was measured in each block, read from a trace; the same for silicon and for simulation.

Everything is taken from the records of the trace: joules from the samples of the energy counter, steps and
their composition from what the engine told, and joulescope's own figures from a replay of that trace.
Energy is measured from the first tick of the counter that was seen in a block to the last one.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.plan import Block, Plan, block_of
from joulescope.hook import wire
from joulescope.model import FinishedRequest
from joulescope.replay import Replay
from joulescope.units import ns_from_seconds, seconds_from_ns


class Truth(Protocol):
    """Knows what steps truly cost. A simulated bench has one."""

    def step(self, step: wire.Step, blocks: Sequence[int | None]) -> None:
        """Sees every step; ``blocks`` names, for each of its requests, the block that it was injected in."""
        ...

    def single_joules(self, request_ids: Iterable[str]) -> float:
        """Joules that these requests truly added, the sum over each left out alone."""
        ...

    def group_joules(self, block: int) -> float | None:
        """Joules that all requests of a block truly added, left out together; ``None`` if not known."""
        ...


@dataclass(frozen=True, slots=True)
class Window:
    """One block on one GPU, from tick to tick."""

    gpu: str
    start_ns: int
    end_ns: int
    energy_joules: float
    background_steps: float
    """Steps that computed background; those cut by an end count by their part."""
    background_tokens: float
    """Tokens that came out of these for the background."""
    idle_seconds: float

    @property
    def seconds(self) -> float:
        return seconds_from_ns(self.end_ns - self.start_ns)


@dataclass(frozen=True, slots=True)
class BlockFigures:
    """One block: what the meters say, and what joulescope says of the requests injected in it."""

    block: Block
    windows: tuple[Window, ...]
    """One for each GPU."""
    attributed_joules: float
    """Sum over the injected requests, as is the next."""
    marginal_joules: float
    true_single_joules: float | None
    """What they truly added, each left out alone; ``None`` where nobody knows, as is the next."""
    true_group_joules: float | None
    """What they truly added, all left out together."""
    problems: tuple[str, ...]
    """Why this block cannot be used; empty if it can."""

    @property
    def requests(self) -> int:
        return len(self.block.offsets_seconds)


@dataclass(slots=True)
class _Life:
    """When a request came and was last computed."""

    request_id: str
    start_ns: int
    end_ns: int = 0


@dataclass(slots=True)
class _Counter:
    """Polls at which the counter was seen to have changed."""

    times_ns: array[int] = field(default_factory=lambda: array("q"))
    joules: array[float] = field(default_factory=lambda: array("d"))
    polls: int = 0
    first_ns: int = 0
    last_ns: int = 0

    @property
    def poll_seconds(self) -> float:
        return seconds_from_ns(self.last_ns - self.first_ns) / max(self.polls - 1, 1)

    def add(self, time_ns: int, joules: float) -> None:
        self.polls += 1
        self.first_ns, self.last_ns = self.first_ns or time_ns, time_ns
        if not self.joules or joules != self.joules[-1]:
            self.times_ns.append(time_ns)
            self.joules.append(joules)


class Recording:
    """A trace, taken in once.

    Args:
        plan: what was done.
        start_ns: the instant of the plan's second 0, on the clock of the trace.
        records: the trace.
        truth: is shown every step.
    """

    def __init__(
        self,
        plan: Plan,
        start_ns: int,
        records: Iterable[wire.AnyRecord],
        *,
        truth: Truth | None = None,
    ) -> None:
        self.plan = plan
        self.start_ns = start_ns
        self._truth = truth
        self._counters: dict[str, _Counter] = defaultdict(_Counter)
        self._lives: dict[tuple[int, int], _Life] = {}
        self._by_block: dict[int, list[_Life]] = defaultdict(list)
        self._outputs: dict[int, int] = {}
        self._lost: list[tuple[int, int]] = []
        self._named: set[str] = set()
        self.engine: dict[str, Any] = {}
        """What the engine said of itself."""
        self._columns: tuple[array[int], ...] = tuple(array("q") for _ in range(4))
        self.finished: dict[str, FinishedRequest] = {}
        """joulescope's account of every request, injected or background, by id."""
        replay = Replay(self._watch(records))
        for request in replay:
            self.finished[request.request_id] = request
        snapshot = replay.snapshot
        self.residual_joules = (
            max((abs(gpu.residual_joules) for gpu in snapshot.gpus), default=0.0) if snapshot else 0.0
        )
        self._starts, self._ends, self._background, self._tokens = (
            np.frombuffer(column, dtype=np.int64) if column else np.empty(0, np.int64)
            for column in self._columns
        )

    # ------------------------------------------------------------------------------- taking it in

    def _watch(self, records: Iterable[wire.AnyRecord]) -> Iterator[wire.AnyRecord]:
        for record in records:
            if isinstance(record, wire.Step):
                self._take_step(record)
            elif isinstance(record, wire.Sample):
                if record.energy_joules is not None:
                    self._counters[record.gpu].add(record.time_ns, record.energy_joules)
            elif isinstance(record, wire.RequestStart):
                self._take_start(record)
            elif isinstance(record, wire.Gap):
                self._lost.append((record.start_ns, record.end_ns))
            elif isinstance(record, wire.Hello):
                self._take_hello(record)
            yield record

    def _take_hello(self, record: wire.Hello) -> None:
        if record.engine is not None:
            self.engine = {
                "model": (record.engine.served_model or record.engine.model).rstrip("/").rpartition("/")[2],
                "vllm": record.engine.vllm_version,
                "cost": record.engine.cost.source,
                "asynchronous": record.engine.async_scheduling,
            }
            self._outputs[record.session] = record.time_ns
            self._named.update(record.engine.gpus)
        if record.worker is not None and record.worker.gpu:
            self._named.add(record.worker.gpu)

    def _take_start(self, record: wire.RequestStart) -> None:
        life = _Life(record.request_id, record.time_ns)
        self._lives[record.session, record.request] = life
        block = block_of(record.request_id)
        if block is not None:
            self._by_block[block].append(life)

    def _take_step(self, step: wire.Step) -> None:
        """A step holds the GPU from when it was planned, or the previous output came, to its output."""
        start_ns = max(self._outputs.get(step.session, 0), step.schedule_end_ns)
        end_ns = self._outputs[step.session] = max(step.output_start_ns, start_ns + 1)
        blocks: list[int | None] = []
        for handle in step.request:
            life = self._lives.get((step.session, handle))
            if life is None:
                blocks.append(None)
                continue
            life.end_ns = end_ns
            blocks.append(block_of(life.request_id))
        sampled = step.sampled or [1] * len(step.request)
        tokens = sum(count for count, block in zip(sampled, blocks, strict=True) if block is None)
        for column, value in zip(self._columns, (start_ns, end_ns, blocks.count(None), tokens), strict=True):
            column.append(value)
        if self._truth is not None:
            self._truth.step(step, blocks)

    # ------------------------------------------------------------------------------------ figures

    def blocks(self) -> list[BlockFigures]:
        """All blocks of the plan, in order."""
        return [self._figures(block) for block in self.plan.blocks]

    @property
    def poll_seconds(self) -> float:
        """Mean time between two polls of a counter: how late a tick of it may be seen."""
        spans = [counter.poll_seconds for counter in self._counters.values()]
        return max(spans, default=0.0)

    def _figures(self, block: Block) -> BlockFigures:
        problems: list[str] = []
        gpus = sorted(self._named & set(self._counters) or self._counters)
        windows = [self._window(gpu, block, problems) for gpu in gpus]
        found = [window for window in windows if window is not None]
        if not windows:
            problems.append("no energy counter in the trace")
        accounts = self._accounts(block, found, problems)
        truth = self._truth
        ids = [life.request_id for life in self._by_block.get(block.number, [])]
        return BlockFigures(
            block=block,
            windows=tuple(found),
            attributed_joules=sum(account.attributed_joules or 0.0 for account in accounts),
            marginal_joules=sum(account.marginal_joules or 0.0 for account in accounts),
            true_single_joules=None if truth is None else truth.single_joules(ids),
            true_group_joules=None if truth is None else truth.group_joules(block.number),
            problems=tuple(dict.fromkeys(problems)),
        )

    def _window(self, gpu: str, block: Block, problems: list[str]) -> Window | None:
        """The block between the first and the last tick that were seen in it."""
        counter = self._counters[gpu]
        times = np.frombuffer(counter.times_ns, dtype=np.int64)
        first = int(np.searchsorted(times, self.start_ns + ns_from_seconds(block.start_seconds)))
        last = int(np.searchsorted(times, self.start_ns + ns_from_seconds(block.end_seconds), "right")) - 1
        if last <= first:
            problems.append("the counter did not tick in it")
            return None
        joules = counter.joules[first : last + 1]
        if any(after < before for before, after in pairwise(joules)):
            problems.append("the counter was reset in it")
            return None
        start_ns, end_ns = int(times[first]), int(times[last])
        if any(begin < end_ns and finish > start_ns for begin, finish in self._lost):
            problems.append("records were lost in it")
        parts, busy_ns = self._parts(start_ns, end_ns)
        within = self._background[parts[0]] > 0
        return Window(
            gpu=gpu,
            start_ns=start_ns,
            end_ns=end_ns,
            energy_joules=joules[-1] - joules[0],
            background_steps=float(parts[1][within].sum()),
            background_tokens=float((parts[1] * self._tokens[parts[0]]).sum()),
            idle_seconds=seconds_from_ns(end_ns - start_ns - busy_ns),
        )

    def _parts(self, start_ns: int, end_ns: int) -> tuple[tuple[slice, NDArray[np.float64]], int]:
        """Which steps lie in a stretch, what part of each does, and the nanoseconds that they fill."""
        first = int(np.searchsorted(self._ends, start_ns, "right"))
        after = int(np.searchsorted(self._starts, end_ns))
        span = slice(first, max(after, first))
        starts, ends = self._starts[span], self._ends[span]
        inside = np.minimum(ends, end_ns) - np.maximum(starts, start_ns)
        return (span, inside / (ends - starts)), int(inside.sum())

    def _accounts(
        self, block: Block, windows: Sequence[Window], problems: list[str]
    ) -> list[FinishedRequest]:
        """joulescope's accounts of what was injected in the block, all within all windows."""
        lives = self._by_block.get(block.number, [])
        if len(lives) != len(block.offsets_seconds):
            problems.append(f"{len(lives)} of {len(block.offsets_seconds)} requests came")
        for window in windows:
            if any(life.start_ns < window.start_ns or life.end_ns > window.end_ns for life in lives):
                problems.append("a request was not over in time")
            if self._strangers(block.number, window):
                problems.append("a request of another block ran in it")
        accounts = [self.finished[life.request_id] for life in lives if life.request_id in self.finished]
        whole = [account for account in accounts if account.complete and account.marginal_joules is not None]
        if len(whole) != len(lives):
            problems.append("a request has no whole account")
        return whole

    def _strangers(self, block: int, window: Window) -> bool:
        near = (number for number in (block - 1, block + 1) if number in self._by_block)
        return any(
            life.start_ns < window.end_ns and life.end_ns > window.start_ns
            for number in near
            for life in self._by_block[number]
        )
