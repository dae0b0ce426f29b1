"""The head's end of one link: who it is, what its clock shows, and its records in our time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from joulescope.hook import wire
from joulescope.link.channel import Channel, LinkBrokenError
from joulescope.link.clock import LinkClock
from joulescope.link.records import (
    LINK_PROTOCOL,
    MAX_NODE_CHARACTERS,
    LinkHello,
    LinkPing,
    LinkPong,
    LinkWelcome,
)
from joulescope.units import NANOSECONDS_PER_SECOND

PING_NS = NANOSECONDS_PER_SECOND // 4
"""Between two questions the error grows by 0.3 ms at most, which is little beside a window of half a
second."""

HELLO_NS = 5 * NANOSECONDS_PER_SECOND
"""For the handshake and the first word together."""

SILENT_NS = 10 * NANOSECONDS_PER_SECOND
_MAX_PINGS = 64
_MAX_GPUS = 64


class Peer:
    """State of one connection. ``turn`` times come from the caller; used from one thread."""

    def __init__(self, number: int, channel: Channel, now_ns: int) -> None:
        self.number = number
        self.channel = channel
        self.clock = LinkClock()
        self.node = ""
        self.welcomed = False
        self.rejected: Counter[str] = Counter()
        self.heard_ns = self._begun_ns = now_ns
        self._pings: dict[int, int] = {}
        self._asked_ns = 0
        self._number = 0
        self._latest_ns: dict[str, int] = {}

    def check(self, now_ns: int) -> None:
        """Raises LinkBrokenError if it has been too slow, or silent for too long."""
        if not self.node and now_ns - self._begun_ns > HELLO_NS:
            raise LinkBrokenError("slow", "no hello in time")
        if now_ns - self.heard_ns > SILENT_NS:
            raise LinkBrokenError("silent", "no answer any more")

    def ask(self, now_ns: int) -> None:
        """Asks for its time when that is due. Raises LinkBrokenError if the connection is gone."""
        if not self.node or now_ns - self._asked_ns < PING_NS or len(self._pings) >= _MAX_PINGS:
            return
        self._number += 1
        if self.channel.send([LinkPing(number=self._number, time_ns=now_ns)]):
            self._pings[self._number] = self._asked_ns = now_ns

    def take(self, records: Iterable[Any], now_ns: int) -> list[wire.AnyRecord]:
        """Handles what is the link's own; gives the rest, its instants by our clock.

        Raises:
            LinkBrokenError: if it speaks a newer protocol.
        """
        found: list[wire.AnyRecord] = []
        for record in records:
            if isinstance(record, LinkHello):
                self._greeted(record)
            elif isinstance(record, LinkPong):
                self._answered(record, now_ns)
            elif not self.welcomed:
                self.rejected["before_welcome"] += 1
            elif not self.clock.known:
                self.rejected["clock_unknown"] += 1
            else:
                found.extend(self._turned(record, now_ns))
        return found

    def _greeted(self, hello: LinkHello) -> None:
        if hello.protocol > LINK_PROTOCOL:
            raise LinkBrokenError("newer_protocol", f"its relay speaks protocol {hello.protocol} of links")
        if self.node:
            self.rejected["repeated_hello"] += 1
            return
        name = "".join(each if each.isprintable() else "?" for each in hello.node)
        self.node = name[:MAX_NODE_CHARACTERS] or "unnamed"

    def _answered(self, pong: LinkPong, now_ns: int) -> None:
        asked_ns = self._pings.pop(pong.number, None)
        if asked_ns is None:
            self.rejected["unasked_pong"] += 1
            return
        try:
            self.clock.exchange(asked_ns, pong.heard_ns, pong.answered_ns, now_ns)
        except (ValueError, OverflowError):
            self.rejected["malformed_pong"] += 1
            return
        self.heard_ns = now_ns
        if self.clock.known and not self.welcomed:
            self.welcomed = self.channel.send([LinkWelcome()])

    def _turned(self, record: Any, now_ns: int) -> list[wire.AnyRecord]:
        """Nothing can have happened after it was told of: what the error would allow beyond that is cut."""
        if isinstance(record, wire.Gpu):
            return [record]
        told_ns, error_seconds = self.clock.turn(record.time_ns)
        time_ns = max(min(told_ns, now_ns), 0)
        if not isinstance(record, wire.Sample):
            return [msgspec.structs.replace(record, time_ns=time_ns)]
        latest_ns = self._latest_ns.get(record.gpu, -1)
        if time_ns <= latest_ns:
            if latest_ns - time_ns > 2e9 * error_seconds:
                self.rejected["backward_time"] += 1  # its counter goes on: the next reading has its joules
                return []
            time_ns = latest_ns + 1
        if record.gpu in self._latest_ns or len(self._latest_ns) < _MAX_GPUS:
            self._latest_ns[record.gpu] = time_ns
        return [msgspec.structs.replace(record, time_ns=time_ns, clock_error_seconds=error_seconds)]
