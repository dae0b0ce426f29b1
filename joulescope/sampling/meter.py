"""Readings of one GPU in, intervals of measured energy out."""

from __future__ import annotations

import math
from dataclasses import replace

from joulescope.model import EnergyInterval, GpuInfo, GpuReading, GpuStatus
from joulescope.sampling.comparison import Comparison
from joulescope.sampling.counter import CounterMeter, MeterCounters
from joulescope.sampling.power import PowerMeter

WINDOW_NS = 500_000_000
"""Default length of an interval: five refreshes of a counter, so that one more or less is 20 %."""


class Meter:
    """Turns the readings of one GPU, live or from a trace, into :class:`EnergyInterval`.

    Intervals follow each other in time, never overlap, never hold negative energy, and are as long as
    ``window_ns`` or a little longer; much longer where the counter stood still or nobody polled. Where
    nothing is known (a reset, an impossible value, a long silence without a counter) there is none.

    Readings are taken as the GPU shows them; the joules of the intervals and of the comparison are these
    times the GPU's ``calibration_factor``.

    A GPU with an energy counter is measured by it. One whose ``energy_source`` is ``power``, or that
    has never shown a counter, is measured by integrating power, and its intervals say so. Where both
    are shown, :attr:`comparison` holds one against the other. Memory is constant. Pure: no clock, no I/O;
    use from one thread at a time.
    """

    def __init__(self, info: GpuInfo, window_ns: int = WINDOW_NS, former: Meter | None = None) -> None:
        """``former`` is an earlier meter of the GPU: its comparison goes on, and what is older than its last
        reading is late, since the intervals up to there are given.

        Raises:
            ValueError: if ``window_ns`` is not above 0.
        """
        if window_ns <= 0:
            raise ValueError(f"window_ns must be above 0, got {window_ns}")
        self.info = info
        self._factor = info.calibration_factor
        self.comparison: Comparison = Comparison() if former is None else former.comparison
        self._counters = MeterCounters()
        self._counter = CounterMeter(info.gpu, window_ns, self._counters)
        self.set_limit(info.power_limit_watts)
        self._power = PowerMeter(info, window_ns, self._counters)
        self.source = info.energy_source
        """What the joules come from, ``counter`` or ``power``; until something was read, what the GPU is
        said to have."""
        self._counted = False
        """Whether the counter has been seen; from then on power only serves to check it."""
        self._time_ns: int | None = None if former is None else former._time_ns
        self._error_seconds = 0.0
        """The largest clock error of the readings since the open window began."""

    @property
    def counters(self) -> MeterCounters:
        """A copy of what could not be used so far."""
        return replace(self._counters)

    @property
    def resets(self) -> int:
        """Decreases of the counter."""
        return self._counters.resets

    @property
    def rejected(self) -> int:
        """Impossible values."""
        return self._counters.rejected

    @property
    def skipped(self) -> int:
        """Readings that were late, repeated or empty."""
        return self._counters.skipped

    def set_limit(self, power_limit_watts: float | None) -> None:
        """The most that the GPU is set to draw from now on, as it shows it; ``None``: not known."""
        self._counter.limit_watts = (power_limit_watts or 0.0) * self._factor

    @property
    def tick_seconds(self) -> float | None:
        """How often the counter shows another figure, once that is known."""
        return self._counter.tick_seconds

    def add(self, reading: GpuReading) -> list[EnergyInterval]:
        """Takes one reading and gives the intervals that it completes, most often none.

        Raises:
            ValueError: if the reading belongs to another GPU.
        """
        if reading.gpu != self.info.gpu:
            raise ValueError(f"a reading of GPU {reading.gpu} was given to the meter of {self.info.gpu}")
        joules, watts = self._usable(reading)
        late = self._time_ns is not None and reading.time_ns <= self._time_ns
        if late or (joules is None and (watts is None or self._counted)):
            self._counters.skipped += 1
            return []
        self._time_ns = reading.time_ns
        self._error_seconds = max(self._error_seconds, reading.clock_error_seconds)
        if joules is not None:
            intervals = self._count(reading.time_ns, joules, watts)
        else:
            self.source = "power"
            intervals = self._power.add(reading.time_ns, watts or 0.0)
        intervals = self._with_error(intervals)
        if intervals:
            self._error_seconds = reading.clock_error_seconds
        return intervals

    def flush(self) -> list[EnergyInterval]:
        """Closes the open window at the last reading, at the end of a run or a trace.

        Afterwards the intervals of an unbroken counter sum to its whole rise. If the counter did not
        change since the window began, the interval holds 0: its last refresh is in the one before.
        Readings may go on afterwards.
        """
        return self._with_error(self._counter.flush() if self._counted else self._power.flush())

    def _with_error(self, intervals: list[EnergyInterval]) -> list[EnergyInterval]:
        if not self._error_seconds:
            return intervals
        return [replace(interval, clock_error_seconds=self._error_seconds) for interval in intervals]

    def _usable(self, reading: GpuReading) -> tuple[float | None, float | None]:
        reading = calibrated(reading, self._factor)
        joules = reading.energy_joules if self.info.energy_source == "counter" else None
        return _physical(joules), _physical(reading.power_watts)

    def _count(self, time_ns: int, joules: float, watts: float | None) -> list[EnergyInterval]:
        """Feeds the counter; the first time, ends what power had measured until then."""
        intervals = [] if self._counted else self._power.flush()
        self._counted = True
        self.source = "counter"
        breaks = self.resets + self.rejected
        intervals += self._counter.add(time_ns, joules, watts)
        self.comparison.add(time_ns, joules, watts, broken=self.resets + self.rejected > breaks)
        return intervals


def calibrated(reading: GpuReading, factor: float) -> GpuReading:
    """A reading as the GPU would show it if its meters were right; the counter and power have one gain."""
    if factor == 1.0:
        return reading
    joules, watts = reading.energy_joules, reading.power_watts
    return replace(
        reading,
        energy_joules=None if joules is None else joules * factor,
        power_watts=None if watts is None else watts * factor,
        status=_calibrated_status(reading.status, factor),
    )


def _calibrated_status(status: GpuStatus | None, factor: float) -> GpuStatus | None:
    if status is None:
        return None
    powers = ("power_instant_watts", "module_power_watts", "memory_power_watts")
    told = {name: getattr(status, name) for name in powers}
    return replace(status, **{name: watts * factor for name, watts in told.items() if watts is not None})


def _physical(value: float | None) -> float | None:
    """The value if it can be an amount of energy or power, else None."""
    return value if value is not None and math.isfinite(value) and value >= 0 else None
