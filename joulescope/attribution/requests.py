"""The open requests of one engine, as columns that a step updates in a few array operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.pauses import Pauses
from joulescope.attribution.uncertainty import NORMAL_90, Doubt
from joulescope.model import MIG_GPM, EngineInfo, FinishedRequest, RequestEnded, RequestStarted
from joulescope.units import joules_from_uj

_INT_COLUMNS = (
    "prompt_tokens",
    "computed_until",
    "recompute_until",
    "prefill_until",
    "scheduled_tokens",
    "generated_tokens",
    "recomputed_tokens",
    "drafted_tokens",
    "accepted_tokens",
    "cached_tokens",
    "preemptions",
    "steps",
    "first_step_ns",
    "first_token_ns",
    "last_step_ns",
    "attributed_uj",
    "prefill_uj",
    "wasted_uj",
    "avoided_uj",
    "sources",
    "adapter",
    "tenant",
    "task",
    "task_due",
)
_Ints = NDArray[np.int64]

SAY_LITTLE = frozenset({"work", "unknown"})
"""Sources of cost facts that say no more than that joules follow the work, or nothing at all: how far off a
division by them is cannot be told, and no interval is stated."""

SOURCE_BITS = {"counter": 1, "power": 2, MIG_GPM: 4}
_SOURCES = {0: "", **{bit: source for source, bit in SOURCE_BITS.items()}}


class RequestTable:
    """Slots for open requests; a slot is used again once its request is finished.

    ``prefill_until`` is the highest of ``prompt_tokens`` and ``recompute_until``: a scheduled token below
    it is not plain decode. ``recompute_until`` is how far a preempted request had come. ``last_step_ns`` is
    the end of the last step that computed it: until then its account cannot be closed. ``sources`` has
    a bit for each kind of meter that measured its joules (:data:`SOURCE_BITS`). ``adapter``, ``tenant``
    and ``task`` are codes of :class:`joulescope.attribution.breakdown.Breakdown`; ``task_due`` is the output
    at which the task may be decided, 0 where it is (:class:`joulescope.attribution.tasks.TaskBook`).
    """

    prompt_tokens: _Ints
    computed_until: _Ints
    recompute_until: _Ints
    prefill_until: _Ints
    scheduled_tokens: _Ints
    generated_tokens: _Ints
    recomputed_tokens: _Ints
    drafted_tokens: _Ints
    accepted_tokens: _Ints
    cached_tokens: _Ints
    preemptions: _Ints
    steps: _Ints
    first_step_ns: _Ints
    first_token_ns: _Ints
    last_step_ns: _Ints
    attributed_uj: _Ints
    prefill_uj: _Ints
    wasted_uj: _Ints
    avoided_uj: _Ints
    sources: _Ints
    adapter: _Ints
    tenant: _Ints
    task: _Ints
    task_due: _Ints

    def __init__(self, capacity: int = 256) -> None:
        self._ints: _Ints = np.zeros((len(_INT_COLUMNS), capacity), dtype=np.int64)
        self._name_columns()
        self.marginal_uj: NDArray[np.float64] = np.zeros(capacity)
        self.doubt = Doubt(capacity)
        self.measured: NDArray[np.bool_] = np.zeros(capacity, dtype=np.bool_)
        self.complete: NDArray[np.bool_] = np.zeros(capacity, dtype=np.bool_)
        self.started: list[RequestStarted | None] = [None] * capacity
        self.slot_of: dict[int, int] = {}
        """Handle to slot, oldest first."""
        self.pauses = Pauses()
        self._free = list(range(capacity - 1, -1, -1))

    def _name_columns(self) -> None:
        """One array holds them, so that a slot is cleared at one stroke; each is reached by its name."""
        for name, column in zip(_INT_COLUMNS, self._ints, strict=True):
            setattr(self, name, column)

    def __len__(self) -> int:
        return len(self.slot_of)

    @property
    def capacity(self) -> int:
        """Slots, used or free."""
        return len(self.started)

    def open(self, request: RequestStarted) -> int:
        """Gives the request a slot with all columns zeroed."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._ints[:, slot] = 0
        self.marginal_uj[slot] = 0.0
        self.doubt.reset(slot)
        self.measured[slot] = False
        self.complete[slot] = not request.resumed
        self.prompt_tokens[slot] = self.prefill_until[slot] = request.prompt_tokens
        self.started[slot] = request
        self.slot_of[request.request] = slot
        return slot

    def preempted(self, slot: int, time_ns: int) -> None:
        """What the request had computed is lost and will be computed again."""
        self.pauses.begin(slot, time_ns)
        self.preemptions[slot] += 1
        until = max(self.recompute_until[slot], self.computed_until[slot])
        self.recompute_until[slot] = until
        self.prefill_until[slot] = max(self.prompt_tokens[slot], until)

    def scheduled(self, slots: _Ints, step_ns: Callable[[_Ints], _Ints]) -> None:
        """Notes when requests ran for the first time, or again. ``step_ns``: when the step of a row began.

        To be called before the rows are counted as steps.
        """
        first = np.flatnonzero(self.steps[slots] == 0)[::-1]
        if len(first):  # of several steps of a request the earliest counts: it is written last
            self.first_step_ns[slots[first]] = step_ns(first)
        if self.pauses.open:
            again = np.flatnonzero(np.isin(slots, list(self.pauses.open)))
            for slot, time_ns in zip(slots[again].tolist(), step_ns(again).tolist(), strict=True):
                self.pauses.end(slot, time_ns)

    def finish(self, ends: Sequence[RequestEnded], info: EngineInfo) -> list[FinishedRequest]:
        """Takes the requests out and returns their final accounts."""
        slots = [self.slot_of[end.request] for end in ends]
        attributed_std, marginal_std = self.doubt.std_joules(slots)
        stds = zip(attributed_std.tolist(), marginal_std.tolist(), strict=True)
        columns = self._ints[:, slots].T.tolist()
        return [
            self._finish(slot, end, info, dict(zip(_INT_COLUMNS, values, strict=True)), std)
            for slot, end, values, std in zip(slots, ends, columns, stds, strict=True)
        ]

    def _finish(
        self, slot: int, end: RequestEnded, info: EngineInfo, now: dict[str, int], stds: tuple[float, float]
    ) -> FinishedRequest:
        started = self.started[slot]
        if started is None:
            raise KeyError(f"slot {slot} holds no request")
        measured = bool(self.measured[slot]) or not now["steps"]
        split = now["sources"] & SOURCE_BITS[MIG_GPM]  # whose error nobody knows
        is_sure = measured and info.cost.source not in SAY_LITTLE and not split
        attributed_uj, prefill_uj = now["attributed_uj"], now["prefill_uj"]
        wasted_uj = attributed_uj if end.reason == "abort" else now["wasted_uj"]
        joules, marginal_joules = joules_from_uj(attributed_uj), float(self.marginal_uj[slot]) / 1e6
        width, marginal_width = NORMAL_90 * stds[0], NORMAL_90 * stds[1]
        finished = FinishedRequest(
            request_id=started.request_id,
            external_id=started.external_id,
            engine=info.engine,
            model=info.served_model,
            lora=started.lora,
            kind=started.kind,
            start_ns=started.time_ns,
            end_ns=max(end.time_ns, started.time_ns),
            first_step_ns=now["first_step_ns"] or None,
            first_token_ns=now["first_token_ns"] or None,
            pauses_ns=self.pauses.take(slot, end.time_ns),
            finish_reason=end.reason,
            prompt_tokens=now["prompt_tokens"],
            cached_tokens=now["cached_tokens"],
            output_tokens=now["generated_tokens"] if end.output_tokens is None else end.output_tokens,
            scheduled_tokens=now["scheduled_tokens"],
            recomputed_tokens=now["recomputed_tokens"],
            drafted_tokens=now["drafted_tokens"],
            accepted_tokens=now["accepted_tokens"],
            preemptions=now["preemptions"],
            steps=now["steps"],
            attributed_joules=joules if measured else None,
            marginal_joules=marginal_joules if measured else None,
            prefill_joules=joules_from_uj(prefill_uj) if measured else None,
            decode_joules=joules_from_uj(attributed_uj - prefill_uj) if measured else None,
            wasted_joules=joules_from_uj(wasted_uj) if measured else None,
            complete=bool(self.complete[slot]) and measured,
            trace_parent=started.trace_parent,
            trace_state=started.trace_state,
            attributed_low_joules=max(joules - width, 0.0) if is_sure else None,
            attributed_high_joules=joules + width if is_sure else None,
            marginal_low_joules=max(marginal_joules - marginal_width, 0.0) if is_sure else None,
            marginal_high_joules=marginal_joules + marginal_width if is_sure else None,
            avoided_joules=joules_from_uj(now["avoided_uj"]) if measured else None,
            energy_source=_SOURCES.get(now["sources"], "mixed"),
            unit=info.unit,
            work_unit=info.work_unit,
            software=info.software,
            tenant=started.tenant,
            task=started.task,
        )
        self._release(slot, started.request)
        return finished

    def _release(self, slot: int, handle: int) -> None:
        self.started[slot] = None
        del self.slot_of[handle]
        self._free.append(slot)

    def _grow(self) -> None:
        old = len(self.started)
        self._ints = np.pad(self._ints, ((0, 0), (0, old)))
        self._name_columns()
        for name in ("marginal_uj", "measured", "complete"):
            setattr(self, name, np.pad(getattr(self, name), (0, old)))
        self.started.extend([None] * old)
        self.doubt.grow(2 * old)
        self._free.extend(range(2 * old - 1, old - 1, -1))


def by_slot(slots: _Ints, values: _Ints, capacity: int) -> _Ints:
    """Sums of whole numbers by slot; exact below 2**53."""
    return np.bincount(slots, values, capacity).astype(np.int64)


def unknown_request(engine: str, handle: int, time_ns: int) -> RequestStarted:
    """A request of whose start nothing is known; what it costs is still its own."""
    return RequestStarted(
        engine=engine, request=handle, request_id=f"unknown-{handle}", time_ns=time_ns, resumed=True
    )
