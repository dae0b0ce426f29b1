"""Requests whose accounts are still open, as one immutable view that any thread may read.

The owner of the tables copies a few columns (tens of microseconds for thousands of requests); objects are
made from the copy by whoever asks, and only for the requests that were asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from heapq import nlargest

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.engine import Engine
from joulescope.model import EngineInfo, OpenRequest, RequestStarted
from joulescope.units import joules_from_uj

_COLUMNS = (
    "steps",
    "first_token_ns",
    "prompt_tokens",
    "computed_until",
    "prefill_until",
    "cached_tokens",
    "generated_tokens",
    "preemptions",
    "attributed_uj",
    "prefill_uj",
    "task_due",
)


@dataclass(frozen=True, slots=True, eq=False)
class _Page:
    """The open requests of one engine, parallel columns."""

    info: EngineInfo
    started: tuple[RequestStarted | None, ...]
    columns: NDArray[np.int64]
    """:data:`_COLUMNS` × requests."""
    marginal_uj: NDArray[np.float64]
    measured: NDArray[np.bool_]
    ended: tuple[bool, ...]
    paused: tuple[bool, ...]
    """Who was preempted, and has not run since."""

    def request(self, row: int) -> OpenRequest | None:
        started = self.started[row]
        if started is None:
            return None
        now = dict(zip(_COLUMNS, self.columns[:, row].tolist(), strict=True))
        measured = bool(self.measured[row])
        return OpenRequest(
            request_id=started.request_id,
            external_id=started.external_id,
            engine=self.info.engine,
            model=self.info.served_model,
            lora=started.lora,
            kind=started.kind,
            start_ns=started.time_ns,
            first_token_ns=now["first_token_ns"] or None,
            phase=self._phase(row, now),
            prompt_tokens=now["prompt_tokens"],
            cached_tokens=now["cached_tokens"],
            output_tokens=now["generated_tokens"],
            preemptions=now["preemptions"],
            attributed_joules=joules_from_uj(now["attributed_uj"]) if measured else None,
            prefill_joules=joules_from_uj(now["prefill_uj"]) if measured else None,
            marginal_joules=float(self.marginal_uj[row]) / 1e6 if measured else None,
            task="" if now["task_due"] else started.task,
        )

    def _phase(self, row: int, now: dict[str, int]) -> str:
        if self.ended[row]:
            return "ended"
        if not now["steps"] or self.paused[row]:
            return "waiting"
        return "prefill" if now["computed_until"] < now["prefill_until"] else "decode"


class OpenRequests:
    """What was open at one instant. Reading changes nothing; two readers see the same."""

    def __init__(self, engines: Iterable[Engine] = ()) -> None:
        self._pages = tuple(_page_of(engine) for engine in engines)
        self.total = sum(len(page.started) for page in self._pages)

    def costliest(self, limit: int) -> list[OpenRequest]:
        """The requests with the most joules so far, the costliest first."""
        at = _COLUMNS.index("attributed_uj")
        rows = (
            (joules_uj, page, row)
            for page in self._pages
            for row, joules_uj in enumerate(page.columns[at].tolist())
        )
        chosen = nlargest(limit, rows, key=lambda each: each[0])
        found = (page.request(row) for _, page, row in chosen)
        return [request for request in found if request is not None]

    def of(self, request_id: str) -> list[OpenRequest]:
        """Those with this id, the engine's own or the client's; of the latter there may be several."""
        found = (page.request(row) for page, row in self._places.get(request_id, ()))
        return [request for request in found if request is not None]

    @cached_property
    def _places(self) -> dict[str, list[tuple[_Page, int]]]:
        places: dict[str, list[tuple[_Page, int]]] = {}
        for page in self._pages:
            for row, started in enumerate(page.started):
                for name in {started.request_id, started.external_id} - {""} if started is not None else ():
                    places.setdefault(name, []).append((page, row))
        return places


def _page_of(engine: Engine) -> _Page:
    table = engine.requests
    slots = list(table.slot_of.values())
    return _Page(
        info=engine.info,
        started=tuple(table.started[slot] for slot in slots),
        columns=np.stack([getattr(table, name)[slots] for name in _COLUMNS]),
        marginal_uj=table.marginal_uj[slots],
        measured=table.measured[slots],
        ended=tuple(engine.has_ended(handle) for handle in table.slot_of),
        paused=tuple(slot in table.pauses.open for slot in slots),
    )
