"""The slow path: what about a GPU is read once a second, beside the fast path's energy and power.

Each call takes the driver's lock, which CUDA's submission of work shares; what is asked twenty times a second
must be little, and nothing here is needed that often.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from joulescope.model import GpuStatus
from joulescope.sensors.call_times import CallTimes
from joulescope.sensors.nvml_capabilities import SCOPE_GPU, SCOPE_MEMORY, SCOPE_MODULE, reasons_call
from joulescope.sensors.nvml_faults import said
from joulescope.sensors.nvml_probe import NvmlGpu, watts
from joulescope.sensors.troubles import Troubles

_MEGA = 1e6

_REASONS = {
    0x002: "application_clocks",
    0x004: "power_cap",
    0x008: "hardware_slowdown",
    0x010: "sync_boost",
    0x020: "thermal",
    0x040: "thermal",
    0x080: "power_brake",
    0x200: "board_limit",
    0x400: "reliability",
}
"""Bits of ``nvmlDeviceGetCurrentClocksEventReasons``. 1 is idle and 0x100 a display's clock: no reasons to
work slower."""

_HOTTEST_CELSIUS = 150


class StatusReader:
    """Asks the slow questions. Those that a GPU cannot answer at all are asked once, when it is opened."""

    def __init__(self, api: ModuleType, times: CallTimes, troubles: Troubles) -> None:
        self._api = api
        self._times = times
        self._troubles = troubles
        self._reasons = reasons_call(api)

    def read(self, gpu: NvmlGpu, now_ns: int) -> None:
        """Sets memory, utilisation and status; what fails is absent, and counted."""
        api = self._api
        memory = self.ask(gpu, "memory", api.nvmlDeviceGetMemoryInfo)
        rates = self.ask(gpu, "utilization", api.nvmlDeviceGetUtilizationRates)
        gpu.memory_used_bytes = memory.used if memory and memory.used <= memory.total else None
        gpu.sm_utilization_ratio = rates.gpu / 100 if rates and rates.gpu <= 100 else None
        limit_mw = self.ask(gpu, "power_limit", api.nvmlDeviceGetEnforcedPowerLimit)
        celsius = self.ask(gpu, "temperature", api.nvmlDeviceGetTemperature, api.NVML_TEMPERATURE_GPU)
        reasons = self.ask(gpu, "throttle", self._reasons)
        powers = self._powers(gpu)
        gpu.status = GpuStatus(
            gpu.info.gpu,
            now_ns,
            power_limit_watts=watts(limit_mw) or None,
            power_instant_watts=powers.get(SCOPE_GPU),
            module_power_watts=powers.get(SCOPE_MODULE),
            memory_power_watts=powers.get(SCOPE_MEMORY),
            sm_clock_hertz=self._hertz(gpu, "sm_clock", api.NVML_CLOCK_SM),
            memory_clock_hertz=self._hertz(gpu, "memory_clock", api.NVML_CLOCK_MEM),
            temperature_celsius=celsius if celsius is not None and celsius <= _HOTTEST_CELSIUS else None,
            throttle_reasons=None if reasons is None else throttle_reasons(reasons),
            **self._gpm(gpu, now_ns),
        )

    def ask(self, gpu: NvmlGpu, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """The answer to a call that a reading can do without, ``None`` if it cannot be had."""
        if name not in gpu.tells:
            return None
        try:
            told = self._times.timed(name, call, gpu.handle, *arguments)
        except self._api.NVMLError as error:
            self.refuse(gpu, name, said(error.value, str(error)))
            return None
        self._troubles.answered(_part(gpu, name))
        return told

    def refuse(self, gpu: NvmlGpu, name: str, why: str) -> None:
        """Counts, and says once, that a call has told nothing that can be used."""
        gpu.health.failures += 1
        self._troubles.failed(_part(gpu, name), f"{why}. Its joules are measured all the same.")

    def _hertz(self, gpu: NvmlGpu, name: str, clock: int) -> float | None:
        megahertz = self.ask(gpu, name, self._api.nvmlDeviceGetClockInfo, clock)
        return None if megahertz is None else megahertz * _MEGA

    def _powers(self, gpu: NvmlGpu) -> dict[int, float]:
        """Nearly instantaneous power by scope."""
        told = gpu.info.capabilities
        wanted = (
            (SCOPE_GPU, told.power_instant),
            (SCOPE_MODULE, told.module_power),
            (SCOPE_MEMORY, told.memory_power),
        )
        scopes = [scope for scope, is_there in wanted if is_there]
        if not scopes:
            return {}
        fields = [(self._api.NVML_FI_DEV_POWER_INSTANT, scope) for scope in scopes]
        answers = self.ask(gpu, "fields", self._api.nvmlDeviceGetFieldValues, fields)
        found: dict[int, float] = {}
        for scope, field in zip(scopes, answers or (), strict=False):
            power_watts = watts(field.value.uiVal) if field.nvmlReturn == 0 else None
            if power_watts is not None:
                found[scope] = power_watts
        return found

    def _gpm(self, gpu: NvmlGpu, now_ns: int) -> dict[str, float]:
        if gpu.gpm is None:
            return {}
        return self.ask(gpu, "gpm", gpu.gpm.read, now_ns) or {}


def _part(gpu: NvmlGpu, name: str) -> str:
    return f"GPU {gpu.info.gpu}: {name.replace('_', ' ')}"


def throttle_reasons(bits: int) -> frozenset[str]:
    """What the bits of NVML's answer say; bits that are not known are left out."""
    return frozenset(reason for bit, reason in _REASONS.items() if bits & bit)
