"""Minutes of wall time on the monotonic clock."""

from __future__ import annotations

from collections.abc import Iterator

from joulescope.units import NANOSECONDS_PER_SECOND

MINUTE_NS = 60 * NANOSECONDS_PER_SECOND

_MOST_PIECES = 60
"""A stretch longer than so many minutes is none that is lived through; it counts for its last minute."""


class MinuteClock:
    """Tells the minute of an instant.

    Args:
        wall_offset_ns: wall time less monotonic time.
    """

    def __init__(self, wall_offset_ns: int) -> None:
        self.wall_offset_ns = wall_offset_ns

    def of(self, end_ns: int) -> int:
        """The number, since the epoch, of the minute in which a stretch ends: an end at a minute's very edge
        belongs to the minute before it."""
        return (end_ns - 1 + self.wall_offset_ns) // MINUTE_NS

    def end_ns(self, minute: int) -> int:
        """When a minute is over."""
        return (minute + 1) * MINUTE_NS - self.wall_offset_ns

    def edge_ns(self, end_ns: int) -> int:
        """The end of the minute in which a stretch ends."""
        return self.end_ns(self.of(end_ns))

    def pieces(self, start_ns: int, end_ns: int) -> Iterator[tuple[int, int, int]]:
        """A stretch cut at the edges of minutes: the minute, begin and end of each piece."""
        minute, last = self.of(start_ns + 1), self.of(end_ns)
        if last - minute > _MOST_PIECES:
            minute = last
        while minute < last:
            edge_ns = self.end_ns(minute)
            yield minute, start_ns, edge_ns
            minute, start_ns = minute + 1, edge_ns
        yield last, start_ns, end_ns
