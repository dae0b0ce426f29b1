"""The head's socket for other nodes: a thread that shakes hands, keeps clocks, and queues what relays send.

Nobody here can hold up the accounting: it only empties a bounded queue. A link whose queue is full is not
read until that is emptied, so that its relay has to wait.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
from collections import Counter, deque
from dataclasses import dataclass

from joulescope.clock import Clock
from joulescope.errors import ConfigError
from joulescope.hook import wire
from joulescope.link.channel import Channel, LinkBrokenError
from joulescope.link.peer import Peer
from joulescope.link.records import FromRelay
from joulescope.link.tls import TlsFiles
from joulescope.link_model import LinkState, LinkTotals
from joulescope.periodic import Periodic
from joulescope.units import NANOSECONDS_PER_SECOND

_logger = logging.getLogger(__name__)

TURN_SECONDS = 0.05
MAX_LINKS = 64
MAX_SHAKING = 32
"""Connections that have not said who they are; beyond it the one that has waited longest makes room."""

MAX_QUEUED = 8192
"""Records of one link that wait for the accounting."""

_ACCEPTS_IN_A_TURN = 16
_LOOK_NS = 2 * NANOSECONDS_PER_SECOND
_MAX_REMEMBERED = 64
_PARTINGS = frozenset({"disconnected", "certificates_changed", "closed"})
"""Ends of links that are no refusals."""


@dataclass(frozen=True, slots=True)
class LinkArrival:
    """What one link brought: records by our clock, or its end (``closed`` says why)."""

    link: int
    node: str
    records: list[wire.AnyRecord]
    closed: str = ""


class LinkServer:
    """Listens on ``host:port``; port 0 takes a free one."""

    def __init__(self, host: str, port: int, files: TlsFiles, clock: Clock) -> None:
        self._address = host, port
        self._files = files
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._server: socket.socket | None = None
        self._peers: dict[int, Peer] = {}
        self._next = 1
        self._arrivals: deque[LinkArrival] = deque()
        self._queued: Counter[int] = Counter()
        """By link: put in less taken out, each side counting in a mapping of its own."""
        self._taken: Counter[int] = Counter()
        self._refused: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._gone: dict[str, LinkState] = {}
        self._looked_ns = 0
        self._totals = LinkTotals(listening=True)
        self._thread = Periodic("link", self._step, pause_seconds=1.0)

    # ---------------------------------------------------------------------------------------- life

    def open(self) -> tuple[str, int]:
        """Listens, and returns the bound host and port; :meth:`turn` does the rest.

        Raises:
            ConfigError: if the address cannot be had.
        """
        host, port = self._address
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
            server = socket.create_server((host, port), family=family, backlog=128)
        except OSError as error:
            raise ConfigError(
                f"cannot listen for other nodes on {host}:{port}: {error.strerror or error}; choose an "
                "address of this machine and a free port with link_listen"
            ) from error
        server.setblocking(False)
        self._server = server
        self._selector.register(server, selectors.EVENT_READ, None)
        self._address = host, server.getsockname()[1]
        _logger.info("listening for relays of other nodes on %s:%d", *self._address)
        return self._address

    def start(self) -> tuple[str, int]:
        """:meth:`open`, and a thread."""
        address = self.open()
        self._thread.start()
        return address

    def stop(self, timeout_seconds: float) -> None:
        """Ends the thread and all links."""
        self._thread.stop(timeout_seconds)
        for peer in list(self._peers.values()):
            self._drop(peer, "closed")
        if self._server is not None:
            self._server.close()

    # ------------------------------------------------------------------------- the accounting's side

    def drain(self) -> list[LinkArrival]:
        """What has come since the last call."""
        found = []
        while self._arrivals:
            arrival = self._arrivals.popleft()
            self._taken[arrival.link] += len(arrival.records)
            if arrival.closed:
                self._taken.pop(arrival.link, None)
            found.append(arrival)
        return found

    def totals(self) -> LinkTotals:
        """How the links fared at the last turn; from any thread."""
        return self._totals

    # ------------------------------------------------------------------------------- the own thread

    def _step(self) -> float:
        self.turn(TURN_SECONDS)
        return 0.0

    def turn(self, wait_seconds: float) -> None:
        """Waits so long at most for something to happen, and handles all that has."""
        waiting = any(peer.channel.more_waits for peer in self._peers.values())
        ready = {
            key.data.number if key.data else 0
            for key, _ in self._selector.select(0 if waiting else wait_seconds)
        }
        if 0 in ready:
            self._accept()
        now_ns = self._clock.now_ns()
        if now_ns - self._looked_ns > _LOOK_NS:
            self._looked_ns = now_ns
            if self._files.look():
                for peer in list(self._peers.values()):
                    self._drop(peer, "certificates_changed")
        for peer in list(self._peers.values()):
            try:
                self._serve(peer, peer.number in ready)
            except LinkBrokenError as error:
                self._drop(peer, error.reason, str(error))
        self._publish()

    def _accept(self) -> None:
        assert self._server is not None
        for _ in range(_ACCEPTS_IN_A_TURN):
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            shaking = [peer for peer in self._peers.values() if not peer.node]
            if len(shaking) >= MAX_SHAKING:
                self._drop(shaking[0], "crowded")
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                channel = Channel(sock, self._files.context, FromRelay)
            except OSError:
                sock.close()
                continue
            peer = self._peers[self._next] = Peer(self._next, channel, self._clock.now_ns())
            self._next += 1
            self._selector.register(channel, channel.events, peer)

    def _serve(self, peer: Peer, ready: bool) -> None:
        channel = peer.channel
        if peer.number not in self._peers:
            return
        if (ready or not channel.secure) and not channel.shake():
            peer.check(self._clock.now_ns())
        elif channel.secure:
            if self._has_room(peer):
                records = channel.receive() if ready or channel.more_waits else []
                self._take(peer, records)
            channel.flush()
            now_ns = self._clock.now_ns()
            peer.ask(now_ns)
            peer.check(now_ns)
        self._wait_for(peer)

    def _has_room(self, peer: Peer) -> bool:
        return self._queued[peer.number] - self._taken[peer.number] < MAX_QUEUED

    def _wait_for(self, peer: Peer) -> None:
        """A link whose queue is full is only written to; silence is not held against it."""
        events = peer.channel.events
        if peer.channel.secure and not self._has_room(peer):
            events, peer.heard_ns = selectors.EVENT_WRITE, self._clock.now_ns()
        key = self._selector.get_key(peer.channel)
        if key.events != events:
            self._selector.modify(peer.channel, events, peer)

    def _take(self, peer: Peer, records: list[object]) -> None:
        if not records:
            return
        unknown = not peer.node
        found = peer.take(records, self._clock.now_ns())
        if unknown and peer.node:
            self._came(peer)
        if found:
            self._queued[peer.number] += len(found)
            self._arrivals.append(LinkArrival(peer.number, peer.node, found))

    def _came(self, peer: Peer) -> None:
        for other in list(self._peers.values()):
            if other is not peer and other.node == peer.node:
                self._drop(other, "replaced")
        if sum(bool(other.node) for other in self._peers.values()) > MAX_LINKS:
            raise LinkBrokenError("crowded", f"more than {MAX_LINKS} nodes")
        _logger.info("link of node %s is up", peer.node)

    def _drop(self, peer: Peer, reason: str, message: str = "") -> None:
        if self._peers.pop(peer.number, None) is None:
            return
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(peer.channel)
        peer.channel.close()
        self._rejected.update(peer.rejected + peer.channel.rejected)
        self._queued.pop(peer.number, None)
        if reason == "disconnected" and not peer.channel.secure:
            reason = "handshake"
        if reason not in _PARTINGS:
            self._refused[reason] += 1
        if not peer.node:
            _logger.debug("a connection to the link came to nothing: %s", message or reason)
            return
        _logger.warning("link of node %s is down: %s", peer.node, message or reason)
        self._arrivals.append(LinkArrival(peer.number, peer.node, [], closed=reason))
        self._gone.pop(peer.node, None)
        self._gone[peer.node] = LinkState(peer.node, up=False, clock_jumps=peer.clock.jumps)
        while len(self._gone) > _MAX_REMEMBERED:
            del self._gone[next(iter(self._gone))]

    def _publish(self) -> None:
        now_ns = self._clock.now_ns()
        up = {peer.node: _state(peer, now_ns) for peer in self._peers.values() if peer.welcomed}
        rejected = Counter(self._rejected)
        for peer in self._peers.values():
            rejected.update(peer.rejected + peer.channel.rejected)
        gone = [state for node, state in self._gone.items() if node not in up]
        self._totals = LinkTotals(
            True, (*up.values(), *gone), dict(self._refused), dict(rejected), self._files.error
        )


def _state(peer: Peer, now_ns: int) -> LinkState:
    clock = peer.clock
    return LinkState(
        peer.node,
        up=True,
        offset_seconds=clock.offset_seconds,
        error_seconds=clock.error_seconds(now_ns),
        round_trip_seconds=clock.round_trip_seconds,
        drift_ratio=clock.drift_ratio,
        clock_jumps=clock.jumps,
    )
