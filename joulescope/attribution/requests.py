"""The open requests of one engine, as columns that a step updates in a few array operations."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from joulescope.model import EngineInfo, FinishedRequest, RequestEnded, RequestStarted
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
    "first_token_ns",
    "last_step_ns",
    "attributed_uj",
    "prefill_uj",
    "wasted_uj",
)
_Ints = NDArray[np.int64]


class RequestTable:
    """Slots for open requests; a slot is used again once its request is finished.

    ``prefill_until`` is the highest of ``prompt_tokens`` and ``recompute_until``: a scheduled token below
    it is not plain decode. ``recompute_until`` is how far a preempted request had come. ``last_step_ns`` is
    the end of the last step that computed it: until then its account cannot be closed.
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
    first_token_ns: _Ints
    last_step_ns: _Ints
    attributed_uj: _Ints
    prefill_uj: _Ints
    wasted_uj: _Ints

    def __init__(self, capacity: int = 256) -> None:
        for name in _INT_COLUMNS:
            setattr(self, name, np.zeros(capacity, dtype=np.int64))
        self.marginal_uj: NDArray[np.float64] = np.zeros(capacity)
        self.measured: NDArray[np.bool_] = np.zeros(capacity, dtype=np.bool_)
        self.complete: NDArray[np.bool_] = np.zeros(capacity, dtype=np.bool_)
        self.started: list[RequestStarted | None] = [None] * capacity
        self.slot_of: OrderedDict[int, int] = OrderedDict()
        """Handle to slot, oldest first."""
        self._free = list(range(capacity - 1, -1, -1))

    def __len__(self) -> int:
        return len(self.slot_of)

    def open(self, request: RequestStarted) -> int:
        """Gives the request a slot with all columns zeroed."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        for name in _INT_COLUMNS:
            getattr(self, name)[slot] = 0
        self.marginal_uj[slot] = 0.0
        self.measured[slot] = False
        self.complete[slot] = not request.resumed
        self.prompt_tokens[slot] = self.prefill_until[slot] = request.prompt_tokens
        self.started[slot] = request
        self.slot_of[request.request] = slot
        return slot

    def preempted(self, slot: int) -> None:
        """What the request had computed is lost and will be computed again."""
        self.preemptions[slot] += 1
        until = max(self.recompute_until[slot], self.computed_until[slot])
        self.recompute_until[slot] = until
        self.prefill_until[slot] = max(self.prompt_tokens[slot], until)

    def finish(self, slot: int, end: RequestEnded, info: EngineInfo) -> FinishedRequest:
        """Takes the request out and returns its final account."""
        started = self.started[slot]
        if started is None:
            raise KeyError(f"slot {slot} holds no request")
        counted = int(self.generated_tokens[slot])
        measured = bool(self.measured[slot]) or not self.steps[slot]
        attributed_uj, prefill_uj = int(self.attributed_uj[slot]), int(self.prefill_uj[slot])
        first_token_ns = int(self.first_token_ns[slot])
        finished = FinishedRequest(
            request_id=started.request_id,
            external_id=started.external_id,
            engine=info.engine,
            model=info.served_model,
            lora=started.lora,
            kind=started.kind,
            start_ns=started.time_ns,
            end_ns=max(end.time_ns, started.time_ns),
            first_token_ns=first_token_ns or None,
            finish_reason=end.reason,
            prompt_tokens=int(self.prompt_tokens[slot]),
            cached_tokens=int(self.cached_tokens[slot]),
            output_tokens=counted if end.output_tokens is None else end.output_tokens,
            scheduled_tokens=int(self.scheduled_tokens[slot]),
            recomputed_tokens=int(self.recomputed_tokens[slot]),
            drafted_tokens=int(self.drafted_tokens[slot]),
            accepted_tokens=int(self.accepted_tokens[slot]),
            preemptions=int(self.preemptions[slot]),
            steps=int(self.steps[slot]),
            attributed_joules=joules_from_uj(attributed_uj) if measured else None,
            marginal_joules=float(self.marginal_uj[slot]) / 1e6 if measured else None,
            prefill_joules=joules_from_uj(prefill_uj) if measured else None,
            decode_joules=joules_from_uj(attributed_uj - prefill_uj) if measured else None,
            wasted_joules=self._wasted_joules(slot, end) if measured else None,
            complete=bool(self.complete[slot]) and measured,
            trace_parent=started.trace_parent,
            trace_state=started.trace_state,
        )
        self._release(slot, started.request)
        return finished

    def _wasted_joules(self, slot: int, end: RequestEnded) -> float:
        wasted = self.attributed_uj[slot] if end.reason == "abort" else self.wasted_uj[slot]
        return joules_from_uj(int(wasted))

    def _release(self, slot: int, handle: int) -> None:
        self.started[slot] = None
        del self.slot_of[handle]
        self._free.append(slot)

    def _grow(self) -> None:
        old = len(self.started)
        for name in (*_INT_COLUMNS, "marginal_uj", "measured", "complete"):
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.zeros(old, dtype=column.dtype)]))
        self.started.extend([None] * old)
        self._free.extend(range(2 * old - 1, old - 1, -1))
