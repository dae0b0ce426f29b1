"""As much of msgpack as the records need, written in Python alone.

The format is https://github.com/msgpack/msgpack/blob/master/spec.md. Each value gets the shortest form that
holds it; integers are those of 64 bits.
"""

from __future__ import annotations

from struct import pack

_BITS_64 = 1 << 64


def encode(value: object) -> bytes:
    """Encodes ``None``, booleans, integers, floats, strings, and lists, tuples and dicts of these.

    A lone surrogate in a string, which no UTF-8 can carry, becomes a question mark.

    Raises:
        TypeError: for a value of any other type.
        OverflowError: for an integer below −2⁶³ or above 2⁶⁴ − 1.
    """
    out = bytearray()
    _append(out, value)
    return bytes(out)


def _append(out: bytearray, value: object) -> None:
    kind = type(value)
    if kind is int:
        _append_int(out, value)  # type: ignore[arg-type]
    elif kind is str:
        text = value.encode("utf-8", "replace")  # type: ignore[attr-defined]
        _append_head(out, len(text), (0xA0, 32), (0xD9, 0xDA, 0xDB))
        out += text
    elif value is None:
        out.append(0xC0)
    elif kind is bool:
        out.append(0xC3 if value else 0xC2)
    elif kind is float:
        out += pack(">Bd", 0xCB, value)
    elif isinstance(value, (list, tuple)):
        _append_head(out, len(value), (0x90, 16), (None, 0xDC, 0xDD))
        for item in value:
            _append(out, item)
    elif isinstance(value, dict):
        _append_head(out, len(value), (0x80, 16), (None, 0xDE, 0xDF))
        for key, item in value.items():
            _append(out, key)
            _append(out, item)
    else:
        raise TypeError(f"msgpack: no form for {value!r}, a {kind.__name__}")


def _append_head(
    out: bytearray, length: int, short: tuple[int, int], marks: tuple[int | None, int, int]
) -> None:
    """The mark and length of a string, array or map.

    Args:
        short: the mark of the form that has the length in its own byte, and the length that it ends below.
        marks: those of lengths of 1, 2 and 4 bytes; arrays and maps have no form with 1.
    """
    mark, limit = short
    if length < limit:
        out.append(mark | length)
    elif length < 1 << 8 and marks[0] is not None:
        out += pack(">BB", marks[0], length)
    elif length < 1 << 16:
        out += pack(">BH", marks[1], length)
    else:
        out += pack(">BI", marks[2], length)


def _append_int(out: bytearray, value: int) -> None:
    if 0 <= value < 0x80:
        out.append(value)
    elif -32 <= value < 0:
        out.append(value & 0xFF)
    elif value >= 0:
        _append_positive(out, value)
    elif value >= -(1 << 7):
        out += pack(">Bb", 0xD0, value)
    elif value >= -(1 << 15):
        out += pack(">Bh", 0xD1, value)
    elif value >= -(1 << 31):
        out += pack(">Bi", 0xD2, value)
    elif value >= -(1 << 63):
        out += pack(">Bq", 0xD3, value)
    else:
        raise OverflowError(f"msgpack: {value} is below the least integer of 64 bits")


def _append_positive(out: bytearray, value: int) -> None:
    if value < 1 << 8:
        out += pack(">BB", 0xCC, value)
    elif value < 1 << 16:
        out += pack(">BH", 0xCD, value)
    elif value < 1 << 32:
        out += pack(">BI", 0xCE, value)
    elif value < _BITS_64:
        out += pack(">BQ", 0xCF, value)
    else:
        raise OverflowError(f"msgpack: {value} is above the largest integer of 64 bits")
