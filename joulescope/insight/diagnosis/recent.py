"""Two windows of one source: its last minutes, and as many of some time ago."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from joulescope.errors import MinuteError

LAST_SECONDS, BEFORE_SECONDS = 600.0, 3600.0
"""What is compared where nobody says otherwise."""

NAMES = ("before", "now")
"""What the two windows are called."""


class Timed(Protocol):
    """A minute of an engine, or whatever stands for one."""

    @property
    def start_wall_seconds(self) -> float: ...

    @property
    def end_wall_seconds(self) -> float: ...


Minute = TypeVar("Minute", bound=Timed)


def two_windows(
    source: str, minutes: Sequence[Minute], last: float, before: float
) -> tuple[list[Minute], list[Minute]]:
    """The minutes of a window that ended ``before`` seconds ago, and those of the last ``last`` seconds.

    Both are as long, and time is counted back from the end of the last minute that there is. A minute is in
    the window in which it begins.

    Args:
        source: where the minutes are from, for the message.

    Raises:
        MinuteError: the windows would overlap, there are no minutes at all, or none that old.
    """
    if before < last:
        raise MinuteError(
            f"{source}: windows of {_told(last)} overlap if one ends {_told(before)} before the other: give "
            "a --before that is as long as --last, or longer"
        )
    if not minutes:
        raise MinuteError(f"{source}: there is no minute of an engine in it")
    end = max(minute.end_wall_seconds for minute in minutes)
    new = [each for each in minutes if each.start_wall_seconds >= end - last]
    old = [each for each in minutes if end - before - last <= each.start_wall_seconds < end - before]
    if not old:
        first = min(minute.start_wall_seconds for minute in minutes)
        raise MinuteError(
            f"{source}: no minute begins {_told(before + last)} to {_told(before)} before the last one's "
            f"end; it tells of {_told(end - first)} in all. Give a shorter --before"
        )
    return old, new


def _told(seconds: float) -> str:
    return f"{seconds / 60.0:.0f} min"
