"""Segments as bytes: a line that says what they are, then one frame for each row.

A frame is ``marker(4) kind(1) sequence(8) length(4) checksum(4) payload``, numbers little-endian, the
checksum the CRC-32 of kind, sequence, length and payload. The marker's first byte stands in no UTF-8 text, so
that a reader finds the next frame after damaged bytes, whatever they are: damage costs the frames it
touches and no other.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

VERSION = 1
MARKER = b"\xf5JLF"

ROW = b"R"
"""A row of the table, as JSON."""
STATE = b"S"
"""What is still open, a JSON array of rows: each voids the one before, and so does a later row."""

_HEAD = struct.Struct("<4scQII")
_SUMMED = struct.Struct("<cQI")

MAX_PAYLOAD_BYTES = 4 * 1024 * 1024


def header(table: str) -> bytes:
    """How a segment begins."""
    return f"joulescope-segment {VERSION} {table}\n".encode()


def frame(kind: bytes, sequence: int, payload: bytes) -> bytes:
    """A frame.

    Raises:
        ValueError: if the payload is too large for one.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a row of {len(payload)} bytes, {MAX_PAYLOAD_BYTES} are the most")
    return _HEAD.pack(MARKER, kind, sequence, len(payload), _checksum(kind, sequence, payload)) + payload


def _checksum(kind: bytes, sequence: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_SUMMED.pack(kind, sequence, len(payload))))


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame that was read whole."""

    kind: bytes
    sequence: int
    payload: bytes


@dataclass(slots=True)
class Damage:
    """What of a segment could not be read."""

    places: list[tuple[int, int]] = field(default_factory=list)
    """Offset and length in bytes of each stretch."""
    torn_bytes: int = 0
    """Length of a frame at the end that was not written whole, as after a crash in the middle of a write."""
    foreign: str = ""
    """Why the file is no segment at all."""

    def __bool__(self) -> bool:
        return bool(self.places or self.torn_bytes or self.foreign)

    def __str__(self) -> str:
        if self.foreign:
            return self.foreign
        parts = []
        if self.places:
            total = sum(length for _, length in self.places)
            where = ", ".join(f"{length} at {offset}" for offset, length in self.places[:3])
            parts.append(f"{total} damaged bytes ({where}{', …' if len(self.places) > 3 else ''})")
        if self.torn_bytes:
            parts.append(f"a last row that was not written whole ({self.torn_bytes} bytes)")
        return " and ".join(parts)


def read_frames(data: bytes, table: str, damage: Damage) -> Iterator[Frame]:
    """The whole frames of a segment, in their order; what else is in it is told to ``damage``."""
    start = header(table)
    if data[: len(start)] != start:
        if start.startswith(data):
            damage.torn_bytes = len(data)
            return
        damage.foreign = (
            f"is no segment of {table} that this version knows: it begins with {bytes(data[:40])!r}"
        )
        if MARKER not in data:
            return
        damage.foreign, at = "", _next_marker(data, 0)
        damage.places.append((0, at))
    else:
        at = len(start)
    while at < len(data):
        found = _frame_at(data, at)
        if found is not None:
            yield found
            at += _HEAD.size + len(found.payload)
            continue
        following = _next_marker(data, at + 1)
        if following == len(data) and _is_torn(data, at):
            damage.torn_bytes = len(data) - at
        else:
            damage.places.append((at, following - at))
        at = following


def _frame_at(data: bytes, at: int) -> Frame | None:
    if len(data) - at < _HEAD.size:
        return None
    marker, kind, sequence, length, checksum = _HEAD.unpack_from(data, at)
    end = at + _HEAD.size + length
    if marker != MARKER or length > MAX_PAYLOAD_BYTES or end > len(data):
        return None
    payload = bytes(data[at + _HEAD.size : end])
    return Frame(kind, sequence, payload) if _checksum(kind, sequence, payload) == checksum else None


def _next_marker(data: bytes, at: int) -> int:
    found = data.find(MARKER, at)
    return len(data) if found < 0 else found


def _is_torn(data: bytes, at: int) -> bool:
    """Whether the bytes from here to the end are the begin of a frame rather than damage."""
    rest = len(data) - at
    if not MARKER.startswith(data[at : at + len(MARKER)]):
        return False
    if rest < _HEAD.size:
        return True
    length: int = _HEAD.unpack_from(data, at)[3]
    return length <= MAX_PAYLOAD_BYTES and rest < _HEAD.size + length
