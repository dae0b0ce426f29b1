"""How the reading of one GPU fares: when it is tried again, and when it is given up."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from joulescope.units import NANOSECONDS_PER_SECOND

RETRY_FIRST_NS = NANOSECONDS_PER_SECOND // 4
RETRY_LAST_NS = 30 * NANOSECONDS_PER_SECOND
"""A GPU that failed is left alone for this long; the pause doubles from the first to the last."""

FAILURES_UNTIL_LOST = 3


@dataclass(slots=True)
class Health:
    """Failures of one GPU, whatever library it is read through."""

    failures: int = 0
    """Calls that failed or told nonsense, those that can be done without included."""
    failures_in_a_row: int = 0
    """Reads that gave no joules, since the last that did."""
    retry_ns: int = 0
    error: tuple[int, str] = (0, "")
    """The library's code and words of the last failure."""

    def rests(self, now_ns: Callable[[], int]) -> bool:
        """Whether it failed so lately that it is left alone; of a GPU that is well the clock is not asked."""
        return self.failures_in_a_row > 0 and now_ns() < self.retry_ns

    def failed(self, now_ns: int, code: int, meaning: str) -> None:
        """Counts a read that gave no joules, and puts off the next."""
        self.failures += 1
        self.failures_in_a_row += 1
        self.error = (code, meaning)
        pause_ns = min(RETRY_FIRST_NS << min(self.failures_in_a_row - 1, 10), RETRY_LAST_NS)
        self.retry_ns = now_ns + pause_ns

    def answered(self) -> None:
        """Ends the pauses."""
        self.failures_in_a_row = 0

    def is_lost(self, gone: Collection[int]) -> bool:
        """Whether it will not come back by itself: its last code is of ``gone``, or it failed on and on."""
        return self.error[0] in gone or self.failures_in_a_row >= FAILURES_UNTIL_LOST
