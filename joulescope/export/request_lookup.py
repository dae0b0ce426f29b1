"""What is known of a request by its id: its account if it is final, its joules so far if it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from joulescope.export.request_ids import MAX_PARTS, has_parts_first, part_id
from joulescope.export.request_store import Kept, RequestStore
from joulescope.model import OpenRequest

OpenBy = Callable[[str], Sequence[OpenRequest]]
"""Open requests with an id, the engine's own or the one outside."""


@dataclass(frozen=True, slots=True)
class Found:
    """All requests that one id names. An answer of several choices or prompts has as many."""

    finished: tuple[Kept, ...] = ()
    open: tuple[OpenRequest, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.finished or self.open)

    @property
    def is_final(self) -> bool:
        """Whether nothing of it can change any more."""
        return bool(self.finished) and not self.open

    @property
    def attributed_joules(self) -> float | None:
        """Sum of what is accounted so far; ``None`` if of one of them it is not known."""
        parts = [kept.attributed_joules for kept in self.finished]
        parts += [request.attributed_joules for request in self.open]
        known = [joules for joules in parts if joules is not None]
        return sum(known) if known and len(known) == len(parts) else None

    def since(self, start_ns: int | None) -> Found:
        """Those that started at this instant or later: an id that was used before means the latest."""
        if start_ns is None:
            return self
        return Found(
            tuple(kept for kept in self.finished if kept.start_ns >= start_ns),
            tuple(request for request in self.open if request.start_ns >= start_ns),
        )


class Lookup:
    """Looks in the store and among open requests, in the order in which an id is most likely meant."""

    def __init__(self, store: RequestStore, open_by: OpenBy) -> None:
        self.store = store
        self._open_by = open_by

    def find(self, name: str) -> Found:
        """Everything that this id names now; takes the same time however many requests there are."""
        order = [self._whole, self._parts]
        if has_parts_first(name):
            order.reverse()
        for look in (self._engines_own, *order):
            found = look(name)
            if found:
                return found
        return Found()

    def _engines_own(self, name: str) -> Found:
        opened = [request for request in self._open_by(name) if request.request_id == name]
        return _without_doubles(self.store.by_request(name), opened)

    def _whole(self, name: str) -> Found:
        return _without_doubles(self.store.by_external(name), self._open_by(name))

    def _parts(self, name: str) -> Found:
        finished = self.store.by_answer(name)
        known = {kept.external_id for kept in finished}
        return _without_doubles(finished, list(self._open_parts(name, known)))

    def _open_parts(self, name: str, finished: set[str]) -> Iterator[OpenRequest]:
        """Parts are numbered from 0 without holes and start together: the first that is neither open nor
        finished is one too many."""
        for number in range(MAX_PARTS):
            part = part_id(name, number)
            opened = self._open_by(part)
            if not opened and part not in finished:
                return
            yield from opened


def _without_doubles(finished: tuple[Kept, ...], opened: Sequence[OpenRequest]) -> Found:
    """The view of open requests is up to half a second old: what has become final since is not open."""
    if not opened:
        return Found(finished)
    final = {(kept.engine, kept.request_id) for kept in finished}
    still = tuple(request for request in opened if (request.engine, request.request_id) not in final)
    return Found(finished, still)
