"""The clock, injected everywhere so that tests decide what time it is.

One clock rules: ``CLOCK_MONOTONIC`` in nanoseconds, shared by all containers of a node (Linux
``time_namespaces(7)`` offsets excepted). Wall time is read once a process, as an anchor.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits."""

    def now_ns(self) -> int:
        """CLOCK_MONOTONIC, nanoseconds."""
        ...

    def sleep(self, duration_seconds: float) -> None:
        """Waits; a test clock only advances itself."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def sleep(self, duration_seconds: float) -> None:
        time.sleep(duration_seconds)


@dataclass
class ManualClock:
    """A clock that moves only when told to: sleeping advances it."""

    time_ns: int = 0
    sleeps: list[float] = field(default_factory=list)

    def now_ns(self) -> int:
        return self.time_ns

    def sleep(self, duration_seconds: float) -> None:
        self.sleeps.append(duration_seconds)
        self.advance(duration_seconds)

    def advance(self, duration_seconds: float) -> None:
        self.time_ns += round(duration_seconds * 1e9)


@dataclass(frozen=True)
class WallAnchor:
    """A pair of simultaneous readings that turns monotonic instants into wall time."""

    monotonic_ns: int
    wall_ns: int

    @classmethod
    def now(cls) -> WallAnchor:
        return cls(monotonic_ns=time.monotonic_ns(), wall_ns=time.time_ns())

    def wall_of(self, monotonic_ns: int) -> int:
        """Wall time, nanoseconds since the epoch, of a monotonic instant."""
        return self.wall_ns + (monotonic_ns - self.monotonic_ns)


def utc_instant(text: str) -> datetime:
    """An ISO 8601 instant such as ``2026-01-31T12:00:00.123456Z``; UTC is meant where no offset is given.

    Raises:
        ValueError: if it is none.
    """
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))  # before Python 3.11 it knew no Z
    if found.tzinfo is None:
        return found.replace(tzinfo=timezone.utc)
    try:
        return found.astimezone(timezone.utc)
    except OverflowError as error:
        raise ValueError(f"{text!r} is beyond the calendar") from error
