"""Counters that have stopped while their GPU goes on drawing power.

Nothing else tells: the GPU answers, its counter is a number, and no joule is measured any more.
"""

from __future__ import annotations

from dataclasses import dataclass

from joulescope.model import GpuReading
from joulescope.units import ns_from_seconds, seconds_from_ns

LONG_SECONDS = 10.0
"""A hundred refreshes of a counter on known parts. Even an idle GPU draws tens of joules in that time."""


@dataclass(slots=True)
class _Course:
    """When a counter last showed another figure, and whether it has been called stuck since."""

    joules: float
    since_ns: int
    stuck: bool = False


class Standstill:
    """Watches the counters of all GPUs. Constant memory for each."""

    def __init__(self) -> None:
        self._courses: dict[str, _Course] = {}

    def add(self, reading: GpuReading) -> str:
        """Takes a reading; says when a counter has got stuck or runs again, most often nothing.

        A GPU without a power reading, or one that says 0 W, is not suspected.
        """
        joules = reading.energy_joules
        if joules is None:
            self._courses.pop(reading.gpu, None)
            return ""
        course = self._courses.get(reading.gpu)
        if course is None or course.joules != joules:
            self._courses[reading.gpu] = _Course(joules, reading.time_ns)
            if course is None or not course.stuck:
                return ""
            stood_seconds = seconds_from_ns(reading.time_ns - course.since_ns)
            return f"the energy counter of GPU {reading.gpu} runs again; it had stood still for {stood_seconds:.0f} s"
        if course.stuck or not reading.power_watts:
            return ""
        if reading.time_ns - course.since_ns < ns_from_seconds(LONG_SECONDS):
            return ""
        course.stuck = True
        return (
            f"the energy counter of GPU {reading.gpu} has stood still for {LONG_SECONDS:.0f} s, while it draws "
            f"{reading.power_watts:.0f} W: no joules of it are measured. Reset the GPU (nvidia-smi --gpu-reset) "
            "when it is free"
        )
