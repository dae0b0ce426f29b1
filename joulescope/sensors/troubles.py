"""What is wrong with parts of a sensor, said once when it begins and once when it is over.

A GPU is read twenty times a second. What fails each time is one trouble and not twenty, and what fails
now and then is one too, until it has been well for a while: the log says little, and its last line is true.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from joulescope.clock import Clock
from joulescope.units import NANOSECONDS_PER_SECOND, seconds_from_ns

WELL_NS = 60 * NANOSECONDS_PER_SECOND
"""A part that answers is well if it last failed longer ago; longer than any pause between two tries."""


@dataclass(slots=True)
class _Trouble:
    began_ns: int
    failed_ns: int
    times: int = 1


class Troubles:
    """Keeps what was said of each part, over all openings of a sensor. Use from one thread at a time.

    Memory grows with the number of parts: of GPUs, and of kinds of calls.
    """

    def __init__(self, clock: Clock, logger: logging.Logger) -> None:
        self._now_ns = clock.now_ns
        self._logger = logger
        self._said: dict[str, str] = {}
        self._open: dict[str, _Trouble] = {}

    def note(self, level: int, part: str, line: str) -> None:
        """Logs a line about a part, unless it is what was noted of it last."""
        if self._said.get(part) != line:
            self._said[part] = line
            self._logger.log(level, "%s", line)

    def failed(self, part: str, why: str) -> None:
        """Logs that a part cannot be read, and why, unless that is known."""
        now_ns = self._now_ns()
        trouble = self._open.get(part)
        if trouble is None:
            self._open[part] = _Trouble(now_ns, now_ns)
            self._logger.warning("%s cannot be read: %s", part, why)
        else:
            trouble.failed_ns = now_ns
            trouble.times += 1

    def answered(self, part: str) -> None:
        """Logs that a part's trouble is over, if it had one and has been well since for long enough."""
        trouble = self._open.get(part)
        if trouble is not None and self._now_ns() - trouble.failed_ns >= WELL_NS:
            del self._open[part]
            lasted_seconds = seconds_from_ns(trouble.failed_ns - trouble.began_ns)
            self._logger.info(
                "%s answers again; it had failed %d times in %.0f s", part, trouble.times, lasted_seconds
            )
