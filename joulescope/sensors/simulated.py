"""A GPU that exists only in a model, seen through the keyhole that NVML leaves.

The truth is a smooth function of time, and the :class:`SimulatedSource` knows it exactly. What a driver
shows of it is less: a counter of whole millijoules that refreshes about every 100 ms, each GPU with
its own phase, and that shows the same old figure in between. :class:`SimulatedSensor` takes the truth
and shows only that, so that everything behind it meets the difficulties of a real GPU.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from joulescope.clock import Clock
from joulescope.model import GpuInfo, GpuReading
from joulescope.units import ns_from_seconds

TICK_SECONDS = 0.1
"""Refresh period of the energy counter on A100, Ada and H100 (arXiv 2312.02741)."""

_MILLI = 1000


class SimulatedSource(Protocol):
    """Where a simulated sensor takes the truth from; the simulation implements it.

    Instants are CLOCK_MONOTONIC nanoseconds (or whatever the injected clock tells). For one GPU they
    never decrease from call to call, are never before the instant at which the sensor was built, and
    lie at most one tick (0.1 s) before the clock's now. The answers come from the sensor's thread.
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


class SimulatedSensor:
    """Shows a :class:`SimulatedSource` as NVML would.

    Energy and power are those of the counter's last refresh, in whole millijoules and milliwatts
    rounded down. The phase of each GPU's refresh follows from its UUID, so that a run can be repeated.
    A GPU whose ``energy_source`` is ``power`` shows no counter, like parts older than Volta.
    """

    def __init__(self, source: SimulatedSource, clock: Clock, *, tick_seconds: float = TICK_SECONDS) -> None:
        if tick_seconds <= 0:
            raise ValueError(f"tick_seconds must be above 0, got {tick_seconds}")
        self._source = source
        self._clock = clock
        self._tick_ns = ns_from_seconds(tick_seconds)
        self._opened_ns = clock.now_ns()
        self._gpus = tuple(replace(info, sensor="simulated") for info in source.gpus())
        self._counted = frozenset(info.gpu for info in self._gpus if info.energy_source == "counter")

    def gpus(self) -> Sequence[GpuInfo]:
        return self._gpus

    def refreshed_ns(self, gpu: str, now_ns: int) -> int:
        """The instant of the last refresh of ``gpu``'s counter at or before ``now_ns``."""
        phase_ns = zlib.crc32(gpu.encode()) % self._tick_ns
        return max(now_ns - (now_ns - phase_ns) % self._tick_ns, self._opened_ns)

    def read(self) -> Sequence[GpuReading]:
        return [self._read_one(info.gpu) for info in self._gpus]

    def read_failures(self) -> dict[str, int]:
        return {info.gpu: 0 for info in self._gpus}

    def close(self) -> None:
        """Nothing is held."""

    def _read_one(self, gpu: str) -> GpuReading:
        now_ns = self._clock.now_ns()
        seen_ns = self.refreshed_ns(gpu, now_ns)
        return GpuReading(
            gpu=gpu,
            time_ns=now_ns,
            energy_joules=self._counter_joules(gpu, seen_ns) if gpu in self._counted else None,
            power_watts=int(self._source.power_watts_at(gpu, seen_ns) * _MILLI) / _MILLI,
            memory_used_bytes=self._source.memory_used_bytes_at(gpu, seen_ns),
            sm_utilization_ratio=self._source.sm_utilization_ratio_at(gpu, seen_ns),
        )

    def _counter_joules(self, gpu: str, seen_ns: int) -> float:
        return int(self._source.energy_joules_at(gpu, seen_ns) * _MILLI) / _MILLI
