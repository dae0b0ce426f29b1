"""Notices that other GPUs can be measured than when NVML was opened, or can be measured better.

Asked every ten seconds, a few calls a GPU: what was found out when it was opened may not hold any more. GPUs
are plugged in and taken out, permissions given, a driver that was starting up has started, and instances of
MIG come and go while the server runs.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from joulescope.sensors.call_times import CallTimes
from joulescope.sensors.nvml_capabilities import answer
from joulescope.sensors.nvml_instances import instances_of
from joulescope.sensors.nvml_probe import MAX_MILLIJOULES, MAX_MILLIWATTS, Found, NvmlGpu, whole_gpu
from joulescope.units import NANOSECONDS_PER_SECOND

PERIOD_NS = 10 * NANOSECONDS_PER_SECOND
"""How often it is asked."""


class Changes:
    """Holds what is there now against what was found when the sensor was opened."""

    def __init__(self, api: ModuleType, found: Found, times: CallTimes, opened_ns: int) -> None:
        self._api = api
        self._found = found
        self._times = times
        self._due_ns = opened_ns + PERIOD_NS

    def seen(self, now_ns: int) -> str:
        """Why the sensor should be opened anew, in words; empty if it need not, or was asked just now."""
        if now_ns < self._due_ns:
            return ""
        self._due_ns = now_ns + PERIOD_NS
        return (
            self._count() or self._skipped() or next(filter(None, map(self._otherwise, self._found.gpus)), "")
        )

    def _count(self) -> str:
        visible = self._ask(self._api.nvmlDeviceGetCount)
        if visible in (None, self._found.visible):
            return ""
        return f"the driver shows {visible} GPU(s) and showed {self._found.visible} before"

    def _skipped(self) -> str:
        """GPUs that were left out and can be measured now."""
        for gpu in self._found.unreadable:
            handle = self._ask(self._api.nvmlDeviceGetHandleByIndex, gpu)
            if handle is not None and self._ask(self._api.nvmlDeviceGetUUID, handle) is not None:
                return f"the GPU with index {gpu} tells its UUID now"
        for uuid in self._found.skipped:
            handle = self._handle(uuid)
            if handle is not None and (self._counts(handle) or self._shows_power(handle)):
                return f"GPU {uuid} can be measured now"
        return ""

    def _handle(self, uuid: str) -> Any:
        whole = whole_gpu(self._api, uuid)
        return self._ask(self._api.nvmlDeviceGetHandleByUUID, whole) if whole else None

    def _otherwise(self, gpu: NvmlGpu) -> str:
        """What a GPU that is read can tell now, and could not before."""
        info = gpu.info
        if info.energy_source == "power" and self._counts(gpu.handle):
            return f"GPU {info.gpu} shows an energy counter now"
        return "" if info.capabilities.mig is None else self.of_instances(gpu)

    def of_instances(self, gpu: NvmlGpu) -> str:
        """MIG instances that were made, unmade or made anew, and MIG mode that was switched."""
        mode = self._ask(self._api.nvmlDeviceGetMigMode, gpu.handle)
        if mode is None:
            return ""
        is_on = bool(mode[0])
        cut = self._times.timed("instances", instances_of, self._api, gpu.handle) if is_on else []
        if (is_on, cut) != (gpu.info.capabilities.mig, gpu.cut):
            return f"the MIG instances of GPU {gpu.info.gpu} have changed"
        return ""

    def _counts(self, handle: Any) -> bool:
        millijoules = self._ask(self._api.nvmlDeviceGetTotalEnergyConsumption, handle)
        return millijoules is not None and millijoules < MAX_MILLIJOULES

    def _shows_power(self, handle: Any) -> bool:
        milliwatts = self._ask(self._api.nvmlDeviceGetPowerUsage, handle)
        return milliwatts is not None and milliwatts < MAX_MILLIWATTS

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """What a call answers, ``None`` if it fails. Their time is told like that of all others."""
        return self._times.timed("changes", answer, self._api, call, *arguments)
