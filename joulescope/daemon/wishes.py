"""What peers of the socket are to read, said to each when it changes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import msgspec

from joulescope.hook import wire
from joulescope.ingest.listener import Listener
from joulescope.units import NANOSECONDS_PER_SECOND

ASK_AGAIN_NS = 10 * NANOSECONDS_PER_SECOND
"""Who was asked for a sampler and has sent none is asked again after this time."""

READABLE = "GPU-"
"""Of a MIG instance there is no meter, and its GPU belongs to others too: samplers are not asked for one."""

Place = tuple[str, int]
"""Instance and data-parallel index: by these samplers are joined to their engines."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a peer heard last, and when."""

    wanted: wire.Wanted
    time_ns: int


class Wishes:
    """Remembers what each session has heard. Used from one thread."""

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._said: dict[int, Said] = {}

    def said(self, session: int) -> Said | None:
        """What it has heard last; ``None`` if nothing."""
        return self._said.get(session)

    def say(
        self, listener: Listener, session: int, wish: wire.Wanted, now_ns: int, *, again: bool = False
    ) -> None:
        """Says it if it is new to the session; with ``again`` also after :data:`ASK_AGAIN_NS`."""
        said = self._said.get(session)
        is_new = said is None or said.wanted != wish
        is_due = again and said is not None and now_ns - said.time_ns >= ASK_AGAIN_NS
        if not (is_new or is_due):
            return
        if listener.say(session, wire.encode_frame([wish], self._encoder)):
            self._said[session] = Said(wish, now_ns)

    def forget_all_but(self, connected: Collection[int]) -> None:
        """Sessions that have ended heard nothing."""
        self._said = {number: said for number, said in self._said.items() if number in connected}
