"""The relay's end of the link: connects, answers at once when it is asked for the time, and comes back."""

from __future__ import annotations

import logging
import selectors
import socket
from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from joulescope import __version__
from joulescope.clock import Clock
from joulescope.hook.wire import Record
from joulescope.link.channel import Channel, LinkBrokenError
from joulescope.link.records import FromHead, LinkHello, LinkPing, LinkPong, LinkWelcome
from joulescope.link.tls import TlsFiles
from joulescope.periodic import Periodic
from joulescope.units import NANOSECONDS_PER_SECOND

_logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.5, 30.0
TURN_SECONDS = 0.05
SILENT_NS = 10 * NANOSECONDS_PER_SECOND
CONNECT_SECONDS = 5.0
MAX_QUEUED_FRAMES = 64
_LOOK_NS = 2 * NANOSECONDS_PER_SECOND

Dial = Callable[[], socket.socket]


def dial(host: str, port: int) -> Dial:
    """Connects within :data:`CONNECT_SECONDS`, or raises OSError."""
    return lambda: socket.create_connection((host, port), CONNECT_SECONDS)


class LinkClient:
    """One link at a time. :meth:`turn` is called by a thread of its own; the rest from any.

    Args:
        dial: opens a connection.
        server_name: what the head's certificate must be for.
        node: this node's name at the head.
    """

    def __init__(self, dial: Dial, files: TlsFiles, clock: Clock, *, server_name: str, node: str) -> None:
        self._dial = dial
        self._files = files
        self._clock = clock
        self._server_name = server_name
        self._node = node
        self._channel: Channel | None = None
        self._outgoing: deque[tuple[int, Sequence[Record]]] = deque()
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._next_ns = self._heard_ns = self._looked_ns = 0
        self._random = Random()
        self._epoch = 0
        self._thread = Periodic("link", self._step, pause_seconds=1.0)
        self.connects = 0
        self.failures = 0
        self.error = "not connected yet"
        """Why there is no link; empty while there is one."""

    def start(self) -> None:
        """Begins to connect, in a thread."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Ends thread and link."""
        self._thread.stop(timeout_seconds)
        self._close()

    @property
    def epoch(self) -> int:
        """Another number for each link that the head has welcomed; 0 while there is none."""
        return self._epoch

    def send(self, epoch: int, records: Sequence[Record]) -> bool:
        """Queues a frame for that link; False if it is gone, or too much waits already."""
        if not epoch or epoch != self._epoch or len(self._outgoing) >= MAX_QUEUED_FRAMES:
            return False
        self._outgoing.append((epoch, records))
        return True

    # ------------------------------------------------------------------------------- the own thread

    def _step(self) -> float:
        self.turn(TURN_SECONDS)
        return TURN_SECONDS if self._channel is None else 0.0

    def turn(self, wait_seconds: float) -> None:
        """Connects if it is time to, listens, waiting so long at most, and sends what is queued."""
        now_ns = self._clock.now_ns()
        if now_ns - self._looked_ns > _LOOK_NS:
            self._looked_ns = now_ns
            if self._files.look() and self._channel is not None:
                self._lose("the certificates have changed", now_ns)
        if self._channel is None:
            if now_ns >= self._next_ns:
                self._connect()
            return
        try:
            self._serve(self._channel, wait_seconds)
        except LinkBrokenError as error:
            self._lose(str(error), self._clock.now_ns())

    def _connect(self) -> None:
        try:
            sock = self._dial()
        except OSError as error:
            self._lose(f"cannot connect: {error.strerror or error}", self._clock.now_ns())
            return
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._channel = Channel(sock, self._files.context, FromHead, server_hostname=self._server_name)
        except (OSError, ValueError) as error:
            sock.close()
            self._lose(str(error), self._clock.now_ns())
            return
        self._heard_ns = self._clock.now_ns()

    def _serve(self, channel: Channel, wait_seconds: float) -> None:
        if not channel.secure:
            _wait(channel, wait_seconds)
            if channel.shake():
                channel.send([LinkHello(node=self._node, version=__version__)])
        else:
            if not channel.more_waits:
                _wait(channel, wait_seconds)
            for record in channel.receive():
                self._heed(channel, record)
            self._send_queued(channel)
            channel.flush()
        if self._clock.now_ns() - self._heard_ns > SILENT_NS:
            raise LinkBrokenError("silent", "the head says nothing any more")

    def _heed(self, channel: Channel, record: object) -> None:
        self._heard_ns = self._clock.now_ns()
        if isinstance(record, LinkPing):
            channel.send(
                [LinkPong(number=record.number, heard_ns=self._heard_ns, answered_ns=self._clock.now_ns())]
            )
        elif isinstance(record, LinkWelcome) and not self._epoch:
            self.connects += 1
            self._epoch = self.connects
            self._pause_seconds = FIRST_PAUSE_SECONDS
            self.error = ""
            _logger.info("the link to the head is up")

    def _send_queued(self, channel: Channel) -> None:
        while self._outgoing:
            epoch, records = self._outgoing[0]
            if epoch == self._epoch and not channel.send(records):
                return
            self._outgoing.popleft()

    def _lose(self, why: str, now_ns: int) -> None:
        self.failures += 1
        if self.error != why:
            _logger.warning("no link to the head: %s (trying again)", why)
        self._close()
        self.error = why
        self._next_ns = now_ns + round(self._pause_seconds * self._random.uniform(0.75, 1.25) * 1e9)
        self._pause_seconds = min(2 * self._pause_seconds, LAST_PAUSE_SECONDS)

    def _close(self) -> None:
        self._epoch = 0
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        self._outgoing.clear()


def _wait(channel: Channel, seconds: float) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(channel, channel.events)
        selector.select(seconds)
