"""Energy between two instants from power readings, for GPUs that keep no energy counter.

Each reading holds until the next one, but not for ever: over a longer silence nobody knows what was
drawn, and that stretch is left out rather than guessed.
"""

from __future__ import annotations

from collections.abc import Sequence

from joulescope.model import EnergyInterval, GpuInfo
from joulescope.sampling.counter import POWER_CAP_WATTS, MeterCounters
from joulescope.units import ns_from_seconds

HOLD_SECONDS = 2.0
"""How long a power reading may stand for what came after it."""

_SHORT_WINDOWS = frozenset({"pascal", "volta"})
"""Architectures whose power reading is the mean of 10 ms and renewed every 20 ms (arXiv 2312.02741)."""

MICROWATTS_PER_WATT = 1_000_000
FEMTOJOULES_PER_MICROJOULE = 1_000_000_000


def poll_hertz(gpus: Sequence[GpuInfo], hertz: float, power_hertz: float) -> float:
    """Polls a second that these GPUs need.

    ``power_hertz``, if it is more than ``hertz``, where one of them is measured by readings of windows so
    short that most of the time would go unseen. Later GPUs renew theirs every 100 ms: asking oftener shows no
    more.
    """
    short = any(
        info.sensor == "nvml"
        and info.energy_source == "power"
        and info.capabilities.architecture in _SHORT_WINDOWS
        for info in gpus
    )
    return max(hertz, power_hertz) if short else hertz


class PowerMeter:
    """Integrates power and cuts the sum into intervals of at least ``window_ns``.

    The sum is kept in whole femtojoules (microwatts times nanoseconds), so that nothing drifts.
    """

    def __init__(self, info: GpuInfo, window_ns: int, counters: MeterCounters) -> None:
        self._gpu = info.gpu
        self._window_ns = window_ns
        self._hold_ns = ns_from_seconds(HOLD_SECONDS)
        self._counters = counters
        self._microwatts: int | None = None
        self._start_ns = self._seen_ns = 0
        self._total_fj = 0
        self._closed_uj = 0

    def add(self, time_ns: int, power_watts: float) -> list[EnergyInterval]:
        """Takes one poll, later than the one before; gives the intervals that it completes."""
        if power_watts > POWER_CAP_WATTS:
            self._counters.rejected += 1
            return []
        before, self._microwatts = self._microwatts, round(power_watts * MICROWATTS_PER_WATT)
        if before is None:
            self._start_ns = self._seen_ns = time_ns
            return []
        if time_ns - self._seen_ns > self._hold_ns:
            return self._skip_hole(time_ns)
        self._total_fj += before * (time_ns - self._seen_ns)
        self._seen_ns = time_ns
        return self.flush() if time_ns - self._start_ns >= self._window_ns else []

    def flush(self) -> list[EnergyInterval]:
        """Closes the open window at the last poll."""
        if self._seen_ns <= self._start_ns:
            return []
        total_uj = self._total_fj // FEMTOJOULES_PER_MICROJOULE
        energy_uj = total_uj - self._closed_uj
        interval = EnergyInterval(self._gpu, self._start_ns, self._seen_ns, energy_uj, source="power")
        self._start_ns = self._seen_ns
        self._closed_uj = total_uj
        return [interval]

    def _skip_hole(self, time_ns: int) -> list[EnergyInterval]:
        intervals = self.flush()
        self._counters.holes += 1
        self._counters.dropped_ns += time_ns - self._seen_ns
        self._start_ns = self._seen_ns = time_ns
        return intervals
