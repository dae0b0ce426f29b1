"""Checks of what a caller hands in: each message names what is wrong, what it is, and what it should be."""

from __future__ import annotations

import operator

from joulescope.sdk.records import MAX_COUNT

AHEAD_NS = 100_000_000
"""An instant may lie so far in the future: clocks of GPUs are matched with the host's, not equal to it."""

MAX_TEXT, MAX_TRACE_STATE = 256, 512
"""Characters that the sidecar keeps."""


def whole(value: object, what: str, least: int) -> int:
    """A count as an ``int``; numpy's integers are taken too.

    Raises:
        ValueError: if it is no whole number, below ``least``, or above what the sidecar takes.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(
            f"{what} is {value!r}: it must be a whole number; if it can be a fraction, choose a smaller unit"
        ) from None
    if not least <= count <= MAX_COUNT:
        raise ValueError(f"{what} is {count}: it must lie between {least} and {MAX_COUNT}")
    return count


def text(value: object, what: str, *, may_be_empty: bool = False, longest: int = MAX_TEXT) -> str:
    """A name, cut to the length that the sidecar keeps.

    Raises:
        ValueError: if it is no string, or empty where it may not be.
    """
    if not isinstance(value, str):
        raise ValueError(f"{what} is {value!r}: it must be a string")
    if not value and not may_be_empty:
        raise ValueError(f"{what} is empty")
    return value[:longest]


def instant_ns(value: object, what: str, earliest_ns: int, now_ns: int) -> int:
    """An instant of CLOCK_MONOTONIC between two others.

    Raises:
        ValueError: if it is no whole number, or lies outside; most often it is of another clock.
    """
    try:
        instant = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(
            f"{what} is {value!r}: it must be whole nanoseconds of time.monotonic_ns()"
        ) from None
    if instant > now_ns + AHEAD_NS:
        raise ValueError(
            f"{what} lies {(instant - now_ns) / 1e9:.3f} s in the future: it must be of time.monotonic_ns()"
        )
    if instant < earliest_ns:
        raise ValueError(
            f"{what} lies {(earliest_ns - instant) / 1e9:.3f} s before what it must follow: the engine's "
            "making, the step's start, or the end of the last step; it must be of time.monotonic_ns()"
        )
    return min(instant, now_ns)
