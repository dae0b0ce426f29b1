"""One TLS connection that carries frames of records: never waits, bounded both ways."""

from __future__ import annotations

import selectors
import socket
import ssl
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from joulescope.errors import JoulescopeError, ProtocolError
from joulescope.hook.wire import Record, encode_frame
from joulescope.ingest.frames import FrameDecoder
from joulescope.link.records import MAX_LINK_FRAME_BYTES
from joulescope.link.tls import refusal

MAX_UNSENT_BYTES = 1024 * 1024
_READ_BYTES = 64 * 1024
_READS_IN_A_TURN = 8


class LinkBrokenError(JoulescopeError):
    """The connection is of no use any more. ``reason`` is one word, for a counter."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class Channel:
    """Wraps a connected socket. Used from one thread.

    Args:
        records: the union of what the other end may send.
        server_hostname: what the other end's certificate must be for; ``None`` for the side that listens.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        records: Any,
        *,
        server_hostname: str | None = None,
    ) -> None:
        sock.setblocking(False)
        self._tls = context.wrap_socket(
            sock,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
            do_handshake_on_connect=False,
        )
        self._decoder = FrameDecoder(MAX_LINK_FRAME_BYTES, records)
        self._encoder = msgspec.msgpack.Encoder()
        self._unsent = bytearray()
        self._wants_write = False
        self.secure = False
        """Whether the handshake is done: both ends have shown their certificates."""

    def fileno(self) -> int:
        return self._tls.fileno()

    @property
    def rejected(self) -> Counter[str]:
        """Frames and records that could not be read."""
        return self._decoder.rejected

    @property
    def events(self) -> int:
        """What to wait for, as :mod:`selectors` has it."""
        writes = self._wants_write or (self.secure and bool(self._unsent))
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if writes else 0)

    def shake(self) -> bool:
        """Goes on with the handshake; True when it is done.

        Raises:
            LinkBrokenError: if it came to nothing.
        """
        if self.secure:
            return True
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._wants_write = False
        except ssl.SSLWantWriteError:
            self._wants_write = True
        except (OSError, ValueError) as error:
            raise LinkBrokenError(refusal(error), str(error)) from None
        else:
            self.secure, self._wants_write = True, False
        return self.secure

    def receive(self) -> list[Any]:
        """The records that have come, in order; none if there are none yet.

        Raises:
            LinkBrokenError: if the other end is gone, or sends what is no frame.
        """
        records: list[Any] = []
        for _ in range(_READS_IN_A_TURN):
            try:
                data = self._tls.recv(_READ_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return records
            except ssl.SSLError as error:
                raise LinkBrokenError(refusal(error), str(error)) from None
            except OSError as error:
                raise LinkBrokenError("disconnected", str(error)) from None
            if not data:
                if records:  # what came before the end counts; the next call meets the end again
                    return records
                raise LinkBrokenError("disconnected", "the other end hung up")
            try:
                records += self._decoder.feed(data)
            except ProtocolError as error:
                raise LinkBrokenError("not_this_protocol", str(error)) from None
        return records

    @property
    def more_waits(self) -> bool:
        """Whether TLS holds bytes already, of which the kernel knows nothing any more."""
        return self.secure and self._tls.pending() > 0

    def send(self, records: Sequence[Record]) -> bool:
        """Takes a frame whole, or not at all if too much is unsent.

        Raises:
            LinkBrokenError: if the connection is gone.
        """
        frame = encode_frame(records, self._encoder)
        if len(self._unsent) + len(frame) > MAX_UNSENT_BYTES:
            return False
        self._unsent += frame
        self.flush()
        return True

    def flush(self) -> None:
        """Writes what the kernel takes. Raises LinkBrokenError if the connection is gone."""
        while self.secure and self._unsent:
            try:
                sent = self._tls.send(bytes(self._unsent[:16384]))
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                raise LinkBrokenError("disconnected", str(error)) from None
            del self._unsent[:sent]

    def close(self) -> None:
        """Closes without ceremony: a reader takes the end for what it is."""
        self._tls.close()
