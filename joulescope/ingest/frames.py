"""From bytes to records: frames as they come off a socket, with everything hostile counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from joulescope.errors import ProtocolError
from joulescope.hook.wire import LENGTH_BYTES, MAX_FRAME_BYTES, AnyRecord


class FrameDecoder:
    """Cuts a byte stream into frames and frames into records.

    A record of an unknown type or with a wrong field is skipped and counted in ``rejected``; so is a
    frame that is not a msgpack array. A length beyond the limit means the stream is out of step for
    good, and raises.
    """

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES, records: Any = AnyRecord) -> None:
        """``records`` is the union of what may come."""
        self.rejected: Counter[str] = Counter()
        self._max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()
        self._offset = 0
        self._frame = msgspec.msgpack.Decoder(list[records])
        self._raw_frame = msgspec.msgpack.Decoder(list[msgspec.Raw])
        self._record = msgspec.msgpack.Decoder(records)

    @property
    def offset(self) -> int:
        """Bytes of the stream that made complete frames so far."""
        return self._offset

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that has begun and not ended."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[AnyRecord]:
        """The records that ``data`` completes, in order.

        Raises:
            ProtocolError: if a frame announces more than the limit; the stream cannot be read on.
        """
        self._buffer += data
        records: list[AnyRecord] = []
        for payload in self._payloads():
            records.extend(self._decode(payload))
        return records

    def _payloads(self) -> Iterator[bytes]:
        start = 0
        buffer = self._buffer
        try:
            while len(buffer) - start >= LENGTH_BYTES:
                length = int.from_bytes(buffer[start : start + LENGTH_BYTES], "big")
                if length > self._max_frame_bytes:
                    raise ProtocolError(
                        f"frame at byte {self._offset + start} announces {length} bytes, more than the "
                        f"limit of {self._max_frame_bytes}: the peer does not speak this protocol"
                    )
                end = start + LENGTH_BYTES + length
                if end > len(buffer):
                    break
                payload = bytes(buffer[start + LENGTH_BYTES : end])
                start = end
                yield payload
        finally:
            del buffer[:start]
            self._offset += start

    def _decode(self, payload: bytes) -> list[AnyRecord]:
        try:
            return self._frame.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
            return self._decode_singly(payload)

    def _decode_singly(self, payload: bytes) -> list[AnyRecord]:
        """The slow way, taken for a frame with something wrong in it: keeps what is right."""
        try:
            parts = self._raw_frame.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
            self.rejected["malformed_frame"] += 1
            return []
        records: list[AnyRecord] = []
        for part in parts:
            try:
                records.append(self._record.decode(part))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
                self.rejected[rejection_reason(error)] += 1
        return records


def rejection_reason(error: Exception) -> str:
    """``unknown_type`` for a record that a newer peer may know, ``malformed_record`` for the rest."""
    return "unknown_type" if "Invalid value" in str(error) and "$.type" in str(error) else "malformed_record"
