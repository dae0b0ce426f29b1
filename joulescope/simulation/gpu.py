"""A GPU whose power at every instant is known: constant during a step, and while it rests between steps.

Its leakage may follow its temperature, which follows its power: then power falls exponentially towards the
level of the rest, and each step begins with the leakage that the ones before it left behind.

It implements :class:`joulescope.sensors.simulated.SimulatedSource`. The engine appends each step as soon
as it is dispatched, so the history reaches into the future while a step runs. The history is bounded: what
is forgotten is folded into one sum, and a question about a forgotten instant gets the oldest answer known.
"""

from __future__ import annotations

import math
import threading
import uuid
from bisect import bisect_right
from collections.abc import Sequence

from joulescope.model import GpuInfo
from joulescope.simulation.parts import Hardware
from joulescope.units import seconds_from_ns

HISTORY = 20_000
"""Steps remembered: minutes, where sensors ask about the last tenth of a second."""

_UTILIZATION_WINDOW_NS = 200_000_000
"""NVML averages utilisation over 1/6..1 s, depending on the product."""


class SimulatedGpu:
    """Power history of one GPU as steps of constant power and rests. Safe to read from any thread.

    Args:
        hardware: what it idles at, and its limits.
        start_ns: origin of its energy counter.
        context_ns: from when on a process holds a CUDA context (idle power rises); default ``start_ns``.
        memory_used_bytes: device memory in use once there is a context.
        seed, index: decide the UUID.
    """

    def __init__(
        self,
        hardware: Hardware,
        start_ns: int,
        *,
        context_ns: int | None = None,
        memory_used_bytes: int | None = None,
        seed: int = 0,
        index: int = 0,
    ) -> None:
        self.hardware = hardware
        self.uuid = "GPU-" + str(uuid.uuid5(uuid.NAMESPACE_OID, f"joulescope-simulated-{seed}-{index}"))
        self._index = index
        self._start_ns = start_ns
        self._context_ns = start_ns if context_ns is None else context_ns
        self._memory_used_bytes = memory_used_bytes
        self._lock = threading.Lock()
        thermal = hardware.thermal
        # Leakage warms too, and so leaks more: that is the denominator.
        self._gain = thermal.leak_per_watt / (1.0 - thermal.leak_per_watt) if thermal else 0.0
        self._tau_seconds = thermal.time_constant_seconds / (1.0 - thermal.leak_per_watt) if thermal else 1.0
        # Parallel lists, one entry a step: its span, its watts, the counter at its start, and the watts
        # and the leakage with which the rest after it begins, both without what relaxes meanwhile.
        self._starts: list[int] = [start_ns]
        self._ends: list[int] = [start_ns]
        self._watts: list[float] = [0.0]
        self._joules: list[float] = [0.0]
        self._rest_watts: list[float] = [hardware.idle_watts]
        self._leaks: list[float] = [self._steady_leak_watts(hardware.bare_watts)]
        if self._context_ns > start_ns:
            self._rest_watts = [hardware.bare_watts]
            self.rest(self._context_ns, hardware.idle_watts)

    def append(self, start_ns: int, end_ns: int, power_watts: float) -> None:
        """Adds a step that draws ``power_watts`` from ``start_ns`` to ``end_ns``.

        Raises:
            ValueError: if it begins before the last one ends.
        """
        gap_watts = self.hardware.gap_watts
        with self._lock:
            rest_watts = self._rest_watts[-1] if gap_watts is None else gap_watts
            self._append(start_ns, end_ns, power_watts, rest_watts)

    def rest(self, time_ns: int, power_watts: float) -> None:
        """From ``time_ns`` until the next step the GPU draws so much, leakage of a warm GPU apart."""
        with self._lock:
            self._append(time_ns, time_ns, 0.0, power_watts)

    def idle(self, time_ns: int) -> None:
        """From ``time_ns`` until the next step no request is running."""
        if self.hardware.gap_watts is not None:
            self.rest(time_ns, self.hardware.idle_watts)

    def leak_watts_at(self, time_ns: int) -> float:
        """Static power at ``time_ns`` beyond the hardware's figure; the last step must be over."""
        with self._lock:
            return self._leak_watts(len(self._ends) - 1, seconds_from_ns(time_ns - self._ends[-1]))

    def _append(self, start_ns: int, end_ns: int, power_watts: float, rest_watts: float) -> None:
        last_ns = self._ends[-1]
        if not last_ns <= start_ns <= end_ns:
            raise ValueError(f"segment {start_ns}..{end_ns} must follow the last one, ended {last_ns}")
        leak_watts = self._leak_watts(len(self._ends) - 1, seconds_from_ns(start_ns - last_ns))
        self._joules.append(self._energy_joules(start_ns))
        self._starts.append(start_ns)
        self._ends.append(end_ns)
        self._watts.append(power_watts)
        self._rest_watts.append(rest_watts)
        steady_watts = self._steady_leak_watts(power_watts - leak_watts)
        faded = math.exp(-seconds_from_ns(end_ns - start_ns) / self._tau_seconds)
        self._leaks.append(steady_watts + (leak_watts - steady_watts) * faded)
        if len(self._starts) > 2 * HISTORY:
            for column in self._columns():
                del column[:HISTORY]

    def cut(self, time_ns: int) -> None:
        """Nothing runs from ``time_ns`` on, whatever was to come: the process is gone."""
        with self._lock:
            while len(self._starts) > 1 and self._starts[-1] >= time_ns:
                for column in self._columns():
                    column.pop()
            self._ends[-1] = min(self._ends[-1], max(time_ns, self._starts[-1]))

    @property
    def busy_until_ns(self) -> int:
        """End of the last step that is known."""
        with self._lock:
            return self._ends[-1]

    def gpus(self) -> Sequence[GpuInfo]:
        return (self.info(),)

    def info(self) -> GpuInfo:
        """What a driver would say about it."""
        return GpuInfo(
            gpu=self.uuid,
            name=self.hardware.name,
            index=self._index,
            power_limit_watts=self.hardware.power_limit_watts,
            memory_total_bytes=self.hardware.memory_bytes,
            driver_version="simulated",
        )

    def energy_joules_at(self, gpu: str, time_ns: int) -> float:
        """Joules drawn since ``start_ns``, exact."""
        with self._lock:
            return self._energy_joules(time_ns)

    def power_watts_at(self, gpu: str, time_ns: int) -> float:
        with self._lock:
            at = max(self._segment(time_ns), 0)
            if time_ns < self._ends[at]:
                return self._watts[at]
            rested_seconds = seconds_from_ns(max(time_ns - self._ends[at], 0))
            return self._rest_watts[at] + self._leak_watts(at, rested_seconds)

    def memory_used_bytes_at(self, gpu: str, time_ns: int) -> int | None:
        return self._memory_used_bytes if time_ns >= self._context_ns else 0

    def sm_utilization_ratio_at(self, gpu: str, time_ns: int) -> float | None:
        """Share of the last 200 ms in which a step ran."""
        from_ns = max(time_ns - _UTILIZATION_WINDOW_NS, self._start_ns)
        busy_ns = 0
        with self._lock:
            at = self._segment(time_ns)
            while at >= 0 and self._ends[at] > from_ns:
                busy_ns += min(self._ends[at], time_ns) - max(self._starts[at], from_ns)
                at -= 1
        return busy_ns / (time_ns - from_ns) if time_ns > from_ns else 0.0

    def power_limit_watts_at(self, gpu: str, time_ns: int) -> float | None:
        return self.hardware.power_limit_watts

    def clocks_hertz_at(self, gpu: str, time_ns: int) -> tuple[float, float] | None:
        return self.hardware.clocks_hertz

    def _columns(self) -> tuple[list[int], list[int], list[float], list[float], list[float], list[float]]:
        return self._starts, self._ends, self._watts, self._joules, self._rest_watts, self._leaks

    def _segment(self, time_ns: int) -> int:
        """Index of the last segment that starts at or before ``time_ns``; −1 if there is none."""
        return bisect_right(self._starts, time_ns) - 1

    def _energy_joules(self, time_ns: int) -> float:
        at = max(self._segment(time_ns), 0)
        start_ns, end_ns = self._starts[at], self._ends[at]
        busy_seconds = seconds_from_ns(max(min(time_ns, end_ns) - start_ns, 0))
        rested_seconds = seconds_from_ns(max(time_ns - end_ns, 0))
        return self._joules[at] + busy_seconds * self._watts[at] + self._rest_joules(at, rested_seconds)

    def _steady_leak_watts(self, power_watts: float) -> float:
        """Leakage beyond the hardware's figure once this power, leakage apart, has been drawn for long."""
        thermal = self.hardware.thermal
        return self._gain * (power_watts - thermal.reference_watts) if thermal else 0.0

    def _leak_watts(self, at: int, rested_seconds: float) -> float:
        """Leakage when the GPU has rested for so long after a segment."""
        if not self._gain:
            return 0.0
        steady_watts = self._steady_leak_watts(self._rest_watts[at])
        return steady_watts + (self._leaks[at] - steady_watts) * math.exp(-rested_seconds / self._tau_seconds)

    def _rest_joules(self, at: int, rested_seconds: float) -> float:
        """Joules of the first seconds of the rest after a segment."""
        joules = rested_seconds * self._rest_watts[at]
        if self._gain:
            steady_watts = self._steady_leak_watts(self._rest_watts[at])
            faded = -math.expm1(-rested_seconds / self._tau_seconds)
            joules += steady_watts * rested_seconds
            joules += (self._leaks[at] - steady_watts) * self._tau_seconds * faded
        return joules
