"""A GPU whose power at every instant is known: constant during a step, idle between steps.

It implements :class:`joulescope.sensors.simulated.SimulatedSource`. The engine appends each step as soon
as it is dispatched, so the history reaches into the future while a step runs. The history is bounded: what
is forgotten is folded into one sum, and a question about a forgotten instant gets the oldest answer known.
"""

from __future__ import annotations

import threading
import uuid
from bisect import bisect_right
from collections.abc import Sequence

from joulescope.model import GpuInfo
from joulescope.simulation.worlds import Hardware
from joulescope.units import seconds_from_ns

HISTORY = 20_000
"""Steps remembered: minutes, where sensors ask about the last tenth of a second."""

_UTILIZATION_WINDOW_NS = 200_000_000
"""NVML averages utilisation over 1/6..1 s, depending on the product."""


class SimulatedGpu:
    """Power history of one GPU as segments of constant power. Safe to read from any thread.

    Args:
        hardware: what it idles at, and its limits.
        start_ns: origin of its energy counter.
        context_ns: from when on a process holds a CUDA context (idle power rises); default ``start_ns``.
        memory_used_bytes: device memory in use once there is a context.
        seed: decides the UUID.
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
        # Parallel lists, one entry a segment; joules is the counter at the segment's start.
        self._starts: list[int] = [start_ns]
        self._ends: list[int] = [start_ns]
        self._watts: list[float] = [0.0]
        self._joules: list[float] = [0.0]

    def append(self, start_ns: int, end_ns: int, power_watts: float) -> None:
        """Adds a step that draws ``power_watts`` from ``start_ns`` to ``end_ns``.

        Raises:
            ValueError: if it begins before the last one ends.
        """
        with self._lock:
            last_ns = self._ends[-1]
            if not last_ns <= start_ns <= end_ns:
                raise ValueError(f"segment {start_ns}..{end_ns} must follow the last one, ended {last_ns}")
            self._joules.append(self._energy_joules(start_ns))
            self._starts.append(start_ns)
            self._ends.append(end_ns)
            self._watts.append(power_watts)
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
            at = self._segment(time_ns)
            if at >= 0 and time_ns < self._ends[at]:
                return self._watts[at]
        return self.hardware.idle_watts if time_ns >= self._context_ns else self.hardware.bare_watts

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

    def _columns(self) -> tuple[list[int], list[int], list[float], list[float]]:
        return self._starts, self._ends, self._watts, self._joules

    def _segment(self, time_ns: int) -> int:
        """Index of the last segment that starts at or before ``time_ns``; −1 if there is none."""
        return bisect_right(self._starts, time_ns) - 1

    def _energy_joules(self, time_ns: int) -> float:
        at = max(self._segment(time_ns), 0)
        end_ns = self._ends[at]
        busy_ns = max(min(time_ns, end_ns) - self._starts[at], 0)
        return (
            self._joules[at] + seconds_from_ns(busy_ns) * self._watts[at] + self._idle_joules(end_ns, time_ns)
        )

    def _idle_joules(self, from_ns: int, to_ns: int) -> float:
        """Joules of an idle stretch; the context may begin inside it."""
        if to_ns <= from_ns:
            return 0.0
        split_ns = min(max(self._context_ns, from_ns), to_ns)
        return (
            seconds_from_ns(split_ns - from_ns) * self.hardware.bare_watts
            + seconds_from_ns(to_ns - split_ns) * self.hardware.idle_watts
        )
