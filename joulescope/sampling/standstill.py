"""Counters that have stopped while their GPU goes on drawing power.

Nothing else tells: the GPU answers, its counter is a number, and no joule is measured any more.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from joulescope.model import GpuReading
from joulescope.units import ns_from_seconds, seconds_from_ns

_logger = logging.getLogger(__name__)

LONG_SECONDS = 10.0
"""A hundred refreshes of a counter on known parts. Even an idle GPU draws tens of joules in that time."""


@dataclass(slots=True)
class _Course:
    """When a counter last showed another figure, and whether it has been called stuck since."""

    joules: float
    since_ns: int
    stuck: bool = False


class Standstill:
    """Watches the counters of all GPUs, and logs when one gets stuck and when it runs again.

    Constant memory for each GPU.
    """

    def __init__(self) -> None:
        self._courses: dict[str, _Course] = {}

    def add(self, reading: GpuReading) -> None:
        """Takes a reading. A GPU without a power reading, or one that says 0 W, is not suspected."""
        if reading.energy_joules is None:
            self._courses.pop(reading.gpu, None)
            return
        course = self._courses.get(reading.gpu)
        if course is None or course.joules != reading.energy_joules:
            self._courses[reading.gpu] = _Course(reading.energy_joules, reading.time_ns)
            if course is not None and course.stuck:
                stood_seconds = seconds_from_ns(reading.time_ns - course.since_ns)
                _logger.info(
                    "the energy counter of GPU %s runs again; it had stood still for %.0f s",
                    reading.gpu,
                    stood_seconds,
                )
            return
        stood_ns = reading.time_ns - course.since_ns
        if not course.stuck and reading.power_watts and stood_ns >= ns_from_seconds(LONG_SECONDS):
            course.stuck = True
            _logger.warning(
                "the energy counter of GPU %s has stood still for %.0f s, but it draws %.0f W: none of its"
                " joules are measured. If it does not run again by itself, reset the GPU when it is free"
                " (nvidia-smi --gpu-reset)",
                reading.gpu,
                LONG_SECONDS,
                reading.power_watts,
            )
