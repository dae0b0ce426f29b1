"""What happens on one connection: room is found for it, TLS where it is asked for, then HTTP in time."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from joulescope.errors import ConfigError
from joulescope.export.http_counts import HttpCounts
from joulescope.export.web_config_rules import Rules, WebRules
from joulescope.export.web_config_tls import allowed

MOST_UNREAD_BYTES = 1 << 26
"""Of all pages that were made and not taken by their clients yet."""


class Crowd:
    """The open connections, of which there may be so many.

    A new one is never turned away: health must be told to whoever asks, however many others hold the
    door. In its place the one goes that has had the longest, of the address that holds the most. The same
    befalls those that let pages lie unread, once these take too much memory together.
    """

    def __init__(self, most: int, counts: HttpCounts) -> None:
        self._most = most
        self._counts = counts
        self._seats: dict[Gate, str] = {}

    def enter(self, gate: Gate, peer: str) -> None:
        """Makes room for a connection and counts it in, until it leaves."""
        if len(self._seats) >= self._most:
            self._counts.refused("crowded")
            self._longest(self._seats).abort()
        self._seats[gate] = peer

    def leave(self, gate: Gate) -> None:
        """Forgets a connection; a second call does nothing."""
        self._seats.pop(gate, None)

    def stand_back(self, gate: Gate) -> None:
        """The connection has made progress: it is the last now that would have to go."""
        if gate in self._seats:
            self._seats[gate] = self._seats.pop(gate)
        unread = {each: each.unread_bytes for each in self._seats if each.unread_bytes}
        while sum(unread.values()) > MOST_UNREAD_BYTES and len(unread) > 1:
            lazy = self._longest(unread)
            del unread[lazy]
            self._counts.refused("crowded")
            lazy.abort()

    def _longest(self, among: Iterable[Gate]) -> Gate:
        """The one that has had the longest, of the address that has the most of them."""
        peers = [(gate, self._seats[gate]) for gate in among]
        held = Counter(peer for _, peer in peers)
        return max(peers, key=lambda entry: held[entry[1]])[0]


@dataclass(frozen=True)
class House:
    """What all connections of a server share."""

    rules: WebRules
    crowd: Crowd
    counts: HttpCounts
    timeout_seconds: float


class DeadlineProtocol(H11Protocol):
    """uvicorn's h11 protocol, with a deadline for the client to ask and for it to take the answer.

    uvicorn itself waits for ever for a request's head, and for a client that does not read.
    """

    gate: Gate
    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        self.set_deadline()

    def data_received(self, data: bytes) -> None:
        if self.answering or self.gate.still_welcome():
            super().data_received(data)
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        self.gate.made_progress()
        super().on_response_complete()
        self.set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop_deadline()
        self.gate.left()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self.gate.house.counts.answered(400)
        super().send_400_response(msg)

    @property
    def answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def set_deadline(self) -> None:
        self.drop_deadline()
        self.deadline = self.loop.call_later(self.gate.house.timeout_seconds, self.too_late)

    def drop_deadline(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()

    def too_late(self) -> None:
        self.gate.house.counts.refused("slow")
        self.transport.abort()


class Gate(asyncio.Protocol):
    """The first protocol of a connection; hands it over to HTTP once whoever knocks may come in.

    uvicorn has one context of TLS for its whole life. Here each connection is wrapped by the one in
    force, so that new certificates, suites and client rules hold for the next, and no other is disturbed.
    """

    def __init__(self, house: House, make_http: Callable[[], DeadlineProtocol], state: ServerState) -> None:
        self.house = house
        self._make_http = make_http
        self._state = state
        self._transport: asyncio.Transport | None = None
        self._top: asyncio.Transport | None = None
        self._rules = house.rules.last
        self._early = b""
        self._task: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------ as a protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._state.connections.add(self)  # type: ignore[arg-type]  # so that uvicorn's end ends it too
        address = transport.get_extra_info("peername")
        self.house.crowd.enter(self, str(address[0]) if address else "")
        try:
            self._rules = self.house.rules.current()
        except ConfigError:
            if self._rules.context is not None:
                self._refuse("configuration")
                return
        if self._rules.context is None:
            self._hand_over(transport)
        else:
            self._task = asyncio.get_running_loop().create_task(self._shake(transport, self._rules))

    def data_received(self, data: bytes) -> None:
        """Keeps what comes in the moment between handshake and hand-over."""
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.left()

    def shutdown(self) -> None:
        """Called by uvicorn when the server ends."""
        self.abort()

    # ---------------------------------------------------------------------------- as HTTP sees it

    def abort(self) -> None:
        """Ends the connection, whatever it is at."""
        self.left()
        if self._transport is not None:
            self._transport.abort()

    def left(self) -> None:
        """The connection is gone; a second call does nothing."""
        self.house.crowd.leave(self)
        self._state.connections.discard(self)

    @property
    def unread_bytes(self) -> int:
        """What was written and not sent yet, encrypted or not."""
        layers = {id(layer): layer for layer in (self._transport, self._top) if layer is not None}
        return sum(layer.get_write_buffer_size() for layer in layers.values())

    def made_progress(self) -> None:
        """The connection is worth keeping for longer."""
        self.house.crowd.stand_back(self)

    def still_welcome(self) -> bool:
        """Whether a client that was let in would be so today. A changed password shows at each request."""
        is_open = self._rules.context is None
        try:
            rules = self.house.rules.current()
        except ConfigError:
            return is_open  # then each request is told so
        return (rules.context is None) == is_open and rules.client_rule == self._rules.client_rule

    # ------------------------------------------------------------------------------------- inside

    async def _shake(self, transport: asyncio.Transport, rules: Rules) -> None:
        assert rules.context is not None
        if transport.is_closing():
            return
        transport.pause_reading()  # the first bytes are for TLS
        try:
            tls = await asyncio.get_running_loop().start_tls(
                transport,
                self,
                rules.context,
                server_side=True,
                ssl_handshake_timeout=self.house.timeout_seconds,
            )
        except (OSError, ssl.CertificateError):
            self._refuse("handshake")
            return
        if tls is None or tls.is_closing():
            self.left()
            return
        peer = tls.get_extra_info("ssl_object")
        names = None if rules.config.tls is None else rules.config.tls.allowed_sans
        if not allowed(peer, names):
            self._refuse("client_certificate")
            return
        self._hand_over(tls)

    def _hand_over(self, transport: asyncio.Transport) -> None:
        self._top = transport
        http = self._make_http()
        http.gate = self
        self._state.connections.discard(self)  # HTTP enters itself
        transport.set_protocol(http)
        http.connection_made(transport)
        if self._early:
            http.data_received(self._early)
            self._early = b""

    def _refuse(self, reason: str) -> None:
        self.house.counts.refused(reason)
        self.abort()


def protocol(house: House) -> Any:
    """What uvicorn makes of each connection: the setting ``http`` of :class:`uvicorn.Config`."""

    def make(
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> Gate:
        return Gate(house, lambda: DeadlineProtocol(config, server_state, app_state, _loop), server_state)

    return make
