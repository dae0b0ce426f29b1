"""What sensors read of GPUs, summed over time for the minutes of the engines that drive them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.engine import Engine
from joulescope.attribution.gpu import GpuState
from joulescope.attribution.minutes_open import OpenMinute
from joulescope.attribution.minutes_time import MinuteClock
from joulescope.minute_model import GpuSums
from joulescope.model import EnergyInterval, GpuStatus
from joulescope.units import NANOSECONDS_PER_SECOND

Floats = NDArray[np.float64]
Owners = Sequence[tuple[Engine | None, float]]
"""The engines that drive a GPU, and how much of its time is each one's."""

_AT = {field.name: at for at, field in enumerate(fields(GpuSums))}
_SECONDS, _LIMIT, _LIMIT_KNOWN = (
    _AT[name] for name in ("seconds", "power_limit_joules", "power_limit_known_seconds")
)
_MEANS = tuple(
    (told, _AT[f"{name}_seconds"], _AT[f"{name.removesuffix('_hertz')}_known_seconds"])
    for told, name in (
        ("sm_clock_hertz", "sm_clock_hertz"),
        ("memory_clock_hertz", "memory_clock_hertz"),
        ("sm_active_ratio", "sm_active"),
        ("dram_active_ratio", "dram_active"),
        ("tensor_active_ratio", "tensor_active"),
    )
)

_THROTTLES = {
    "power_cap": "throttled_power_seconds",
    "power_brake": "throttled_power_seconds",
    "board_limit": "throttled_power_seconds",
    "thermal": "throttled_thermal_seconds",
}
_THROTTLE_KNOWN, _THROTTLED_OTHER = _AT["throttle_known_seconds"], "throttled_other_seconds"

LONGEST_NS = 5 * NANOSECONDS_PER_SECOND
"""A status says nothing of a time longer ago than this: stale is not fresh."""

_MOST_STATUSES = 256
"""Of one GPU, kept until its joules of that time are divided."""


class GpuWatch:
    """Statuses that wait until it is known whose GPU it was then."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[GpuStatus]] = {}
        self._before_ns: dict[str, int] = {}
        """The latest status of each GPU that was summed."""

    def status(self, status: GpuStatus) -> None:
        """Takes what was read; it holds for the time since the status before."""
        self._waiting.setdefault(status.gpu, deque(maxlen=_MOST_STATUSES)).append(status)

    def take(
        self,
        gpu: GpuState,
        interval: EnergyInterval,
        clock: MinuteClock,
        owners: Owners,
        minute_of: Callable[[Engine | None, int], OpenMinute],
    ) -> None:
        """An interval of a GPU was divided: its time, and the statuses up to its end, are these engines'."""
        limit_watts = gpu.info.power_limit_watts
        for minute, start_ns, end_ns in clock.pieces(interval.start_ns, interval.end_ns):
            for engine, part in owners:
                sums, seconds = minute_of(engine, minute).gpu, part * (end_ns - start_ns) / 1e9
                sums[_SECONDS] += seconds
                if limit_watts is not None:
                    sums[_LIMIT] += limit_watts * gpu.info.calibration_factor * seconds
                    sums[_LIMIT_KNOWN] += seconds
        waiting = self._waiting.get(gpu.info.gpu)
        while waiting and waiting[0].time_ns <= interval.end_ns:
            status = waiting.popleft()
            before_ns = self._before_ns.get(status.gpu)
            self._before_ns[status.gpu] = max(status.time_ns, before_ns or 0)
            if before_ns is None or before_ns >= status.time_ns:
                continue
            each = _of_status(status)
            begin_ns = max(before_ns, status.time_ns - LONGEST_NS)
            for minute, start_ns, end_ns in clock.pieces(begin_ns, status.time_ns):
                for engine, part in owners:
                    minute_of(engine, minute).gpu += (part * (end_ns - start_ns) / 1e9) * each


def _of_status(status: GpuStatus) -> Floats:
    """What a second with this status adds."""
    sums = np.zeros(len(_AT))
    for told, at, known in _MEANS:
        value = getattr(status, told)
        if value is not None:
            sums[at], sums[known] = value, 1.0
    if status.throttle_reasons is not None:
        sums[_THROTTLE_KNOWN] = 1.0
        for reason in status.throttle_reasons:
            sums[_AT[_THROTTLES.get(reason, _THROTTLED_OTHER)]] = 1.0
    return sums
