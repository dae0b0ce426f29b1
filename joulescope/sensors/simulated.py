"""A GPU that exists only in a model, seen through the keyhole that NVML leaves.

The truth is a smooth function of time, and the :class:`SimulatedSource` knows it exactly. What a driver
shows of it is less: a counter of whole millijoules that refreshes about every 100 ms, each GPU with
its own phase, and that shows the same old figure in between; and a power that is the mean over a window,
which may be shorter than its own refresh, or ten times longer. :class:`SimulatedSensor` takes the truth
and shows only that, so that everything behind it meets the difficulties of a real GPU.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from joulescope.clock import Clock
from joulescope.model import CallTime, GpuInfo, GpuReading, GpuStatus
from joulescope.units import NANOSECONDS_PER_SECOND, ns_from_seconds

_MILLI = 1000

STATUS_PERIOD_NS = NANOSECONDS_PER_SECOND
"""How often the power limit and the clocks are read."""


@dataclass(frozen=True, slots=True)
class SensorProfile:
    """What one kind of part shows of its energy and power.

    Raises:
        ValueError: if a period or window is not above 0.
    """

    counter_tick_seconds: float | None = 0.1
    """Refresh period of the energy counter; ``None``: there is no counter."""
    power_tick_seconds: float = 0.1
    """Refresh period of the power reading."""
    power_window_seconds: float = 1.0
    """The reading is the mean power of so long before its refresh."""
    gain_spread_ratio: float = 0.0
    """Energy and power of each card are wrong by a factor of its own, up to so much from 1."""
    reset_seconds: tuple[float, ...] = ()
    """After how long the counter starts again at 0, as when a driver is loaded again."""

    def __post_init__(self) -> None:
        for name in ("counter_tick_seconds", "power_tick_seconds", "power_window_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}")


PROFILES = {
    "h100": SensorProfile(),
    "h100-instant": SensorProfile(power_window_seconds=0.025),
    "a100": SensorProfile(power_window_seconds=0.025),
    "v100": SensorProfile(0.02, power_tick_seconds=0.02, power_window_seconds=0.01),
    "l40s": SensorProfile(),
    # A part or a virtual GPU without a counter.
    "power-only": SensorProfile(None, power_window_seconds=0.025),
    "power-only-average": SensorProfile(None),
    # No part is known to be so; for finding out what the tick is worth.
    "tick-10ms": SensorProfile(0.01),
    "tick-1s": SensorProfile(1.0),
    # Ills that befall real ones.
    "gain-error": SensorProfile(gain_spread_ratio=0.05),
    "resets": SensorProfile(reset_seconds=(7.3, 21.9, 40.1)),
}
"""What ``nvmlDeviceGetTotalEnergyConsumption`` and ``nvmlDeviceGetPowerUsage`` show, by part; ``-instant`` is
the field POWER_INSTANT. Periods and windows as measured (arXiv 2312.02741); PowerUsage of parts since
Ampere, but for the A100, is an average over a second (NVML's header). The L40S: by its generation."""

H100_PROFILE = PROFILES["h100"]


class SimulatedSource(Protocol):
    """Where a simulated sensor takes the truth from; the simulation implements it.

    Instants are CLOCK_MONOTONIC nanoseconds (or whatever the injected clock tells). For one GPU they
    are never before the instant at which the sensor was built, and lie at most one tick and one window of
    the sensor's profile before the clock's now. The answers come from the sensor's thread.
    """

    def gpus(self) -> Sequence[GpuInfo]:
        """The simulated GPUs; their ``sensor`` field is filled in by the sensor."""
        ...

    def energy_joules_at(self, gpu: str, time_ns: int) -> float:
        """Joules drawn by ``gpu`` since some fixed origin up to ``time_ns``, exact, never decreasing."""
        ...

    def power_watts_at(self, gpu: str, time_ns: int) -> float:
        """Watts that ``gpu`` draws at ``time_ns``."""
        ...

    def memory_used_bytes_at(self, gpu: str, time_ns: int) -> int | None:
        """Bytes of device memory in use, or ``None`` if that is not simulated."""
        ...

    def sm_utilization_ratio_at(self, gpu: str, time_ns: int) -> float | None:
        """Share of time (0..1) in which a kernel ran lately, or ``None`` if that is not simulated."""
        ...

    def power_limit_watts_at(self, gpu: str, time_ns: int) -> float | None:
        """The power limit that holds at ``time_ns``, or ``None`` if that is not simulated."""
        ...

    def clocks_hertz_at(self, gpu: str, time_ns: int) -> tuple[float, float] | None:
        """Clocks of the SMs and of the memory at ``time_ns``, or ``None`` if that is not simulated."""
        ...


class SimulatedSensor:
    """Shows a :class:`SimulatedSource` as NVML would.

    Energy and power are those of their last refresh, in whole millijoules and milliwatts rounded down. The
    phases of each GPU's refreshes and its gain follow from its UUID, so that a run can be repeated. A GPU
    whose ``energy_source`` is ``power`` shows no counter, like parts older than Volta.
    """

    def __init__(self, source: SimulatedSource, clock: Clock, profile: SensorProfile = H100_PROFILE) -> None:
        self.profile = profile
        self._source = source
        self._clock = clock
        self._opened_ns = clock.now_ns()
        self._resets_ns = [
            self._opened_ns + ns_from_seconds(after) for after in sorted(profile.reset_seconds)
        ]
        self._reset_joules: dict[tuple[str, int], float] = {}
        self._statuses: dict[str, GpuStatus] = {}
        self._gpus = tuple(
            replace(
                info,
                sensor="simulated",
                energy_source=info.energy_source if profile.counter_tick_seconds else "power",
            )
            for info in source.gpus()
        )
        self._counted = frozenset(info.gpu for info in self._gpus if info.energy_source == "counter")

    def gpus(self) -> Sequence[GpuInfo]:
        return self._gpus

    def gain_ratio(self, gpu: str) -> float:
        """What this card shows for each joule that it draws."""
        part = zlib.crc32(b"gain" + gpu.encode()) / 0xFFFFFFFF
        return 1.0 + self.profile.gain_spread_ratio * (2.0 * part - 1.0)

    def read(self) -> Sequence[GpuReading]:
        return [self._read_one(info.gpu) for info in self._gpus]

    def read_failures(self) -> dict[str, int]:
        return {info.gpu: 0 for info in self._gpus}

    def call_times(self) -> Mapping[str, CallTime]:
        return {}

    def close(self) -> None:
        """Nothing is held."""

    def _read_one(self, gpu: str) -> GpuReading:
        now_ns = self._clock.now_ns()
        return GpuReading(
            gpu=gpu,
            time_ns=now_ns,
            energy_joules=self._counter_joules(gpu, now_ns) if gpu in self._counted else None,
            power_watts=self._power_watts(gpu, now_ns),
            memory_used_bytes=self._source.memory_used_bytes_at(gpu, now_ns),
            sm_utilization_ratio=self._source.sm_utilization_ratio_at(gpu, now_ns),
            status=self._status_of(gpu, now_ns),
        )

    def _status_of(self, gpu: str, now_ns: int) -> GpuStatus:
        known = self._statuses.get(gpu)
        if known is None or now_ns - known.time_ns >= STATUS_PERIOD_NS:
            limit_watts = self._source.power_limit_watts_at(gpu, now_ns)
            sm_hertz, memory_hertz = self._source.clocks_hertz_at(gpu, now_ns) or (None, None)
            known = self._statuses[gpu] = GpuStatus(
                gpu,
                now_ns,
                power_limit_watts=limit_watts,
                sm_clock_hertz=sm_hertz,
                memory_clock_hertz=memory_hertz,
            )
        return known

    def _refreshed_ns(self, what: str, gpu: str, tick_seconds: float, now_ns: int) -> int:
        """The last refresh at or before ``now_ns``."""
        tick_ns = ns_from_seconds(tick_seconds)
        phase_ns = zlib.crc32(what.encode() + gpu.encode()) % tick_ns
        return max(now_ns - (now_ns - phase_ns) % tick_ns, self._opened_ns)

    def _counter_joules(self, gpu: str, now_ns: int) -> float:
        assert self.profile.counter_tick_seconds is not None
        seen_ns = self._refreshed_ns("", gpu, self.profile.counter_tick_seconds, now_ns)
        joules = self._source.energy_joules_at(gpu, seen_ns)
        reset_ns = max((each for each in self._resets_ns if each <= seen_ns), default=None)
        if reset_ns is not None:
            # Asked once: a source need not remember for ever.
            if (gpu, reset_ns) not in self._reset_joules:
                self._reset_joules[gpu, reset_ns] = self._source.energy_joules_at(gpu, reset_ns)
            joules -= self._reset_joules[gpu, reset_ns]
        return int(joules * self.gain_ratio(gpu) * _MILLI) / _MILLI

    def _power_watts(self, gpu: str, now_ns: int) -> float:
        """Mean power of the window before the last refresh, as much of it as was seen."""
        seen_ns = self._refreshed_ns("power", gpu, self.profile.power_tick_seconds, now_ns)
        from_ns = max(seen_ns - ns_from_seconds(self.profile.power_window_seconds), self._opened_ns)
        if from_ns < seen_ns:
            joules = self._source.energy_joules_at(gpu, seen_ns) - self._source.energy_joules_at(gpu, from_ns)
            watts = joules * 1e9 / (seen_ns - from_ns)
        else:
            watts = self._source.power_watts_at(gpu, seen_ns)
        return int(watts * self.gain_ratio(gpu) * _MILLI) / _MILLI
