"""NVML's calls one by one, as a benchmark of the sensor needs them; the package's own sensor joins them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any

import pynvml  # type: ignore[import-untyped]

MILLI = 1000

Call = Callable[[], float | None]

_FIELDS = {
    "power_instant": pynvml.NVML_FI_DEV_POWER_INSTANT,
    "power_average": pynvml.NVML_FI_DEV_POWER_AVERAGE,
}

_STATUS = {
    "sm_clock": ("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM),
    "temperature": ("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
    "throttle": ("nvmlDeviceGetCurrentClocksEventReasons",),
    "limit": ("nvmlDeviceGetEnforcedPowerLimit",),
}
"""What the sensor asks once a second, for how long it takes."""


class NvmlProbe:
    """One GPU. Each call answers joules, watts, bytes or a ratio, or ``None`` if the driver cannot tell.

    Args:
        uuid: which GPU; the first by default.

    Raises:
        pynvml.NVMLError: if there is no driver or no such GPU.
    """

    def __init__(self, uuid: str | None = None) -> None:
        pynvml.nvmlInit()
        try:
            self.handle = (
                pynvml.nvmlDeviceGetHandleByIndex(0)
                if uuid is None
                else pynvml.nvmlDeviceGetHandleByUUID(uuid)
            )
        except pynvml.NVMLError:
            pynvml.nvmlShutdown()
            raise
        every: dict[str, Call] = {
            "energy": lambda: _scaled(pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)),
            "power": lambda: _scaled(pynvml.nvmlDeviceGetPowerUsage(self.handle)),
            **{name: self._field_call(field) for name, field in _FIELDS.items()},
            "memory": lambda: float(pynvml.nvmlDeviceGetMemoryInfo(self.handle).used),
            "utilization": lambda: pynvml.nvmlDeviceGetUtilizationRates(self.handle).gpu / 100,
            **{name: self._status_call(*call) for name, call in _STATUS.items()},
        }
        self._asked = tuple(every)
        self.calls = {name: _safe(call) for name, call in every.items() if _safe(call)() is not None}
        """What this GPU and driver can tell, by name; what they cannot is left out."""

    def _field_call(self, field: int) -> Call:
        def call() -> float | None:
            (value,) = pynvml.nvmlDeviceGetFieldValues(self.handle, [(field, pynvml.NVML_POWER_SCOPE_GPU)])
            return None if value.nvmlReturn else _scaled(value.value.uiVal)

        return call

    def _status_call(self, function: str, *arguments: int) -> Call:
        return lambda: float(getattr(pynvml, function)(self.handle, *arguments))

    def facts(self) -> dict[str, Any]:
        """What does not change."""
        ask = self._ask
        return {
            "name": ask(pynvml.nvmlDeviceGetName),
            "driver": _safe(pynvml.nvmlSystemGetDriverVersion)(),
            "power_limit_watts": _scaled(ask(pynvml.nvmlDeviceGetEnforcedPowerLimit)),
            "persistence_mode": ask(pynvml.nvmlDeviceGetPersistenceMode),
            "mig_mode": (ask(pynvml.nvmlDeviceGetMigMode) or [None])[0],
            "cannot_tell": sorted(set(self._asked) - set(self.calls)),
        }

    def state(self) -> dict[str, Any]:
        """Clocks, temperature and what holds the clocks back, now."""
        ask = self._ask
        return {
            "sm_mhz": ask(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM),
            "memory_mhz": ask(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_MEM),
            "temperature_celsius": ask(pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU),
            "throttle_reasons": ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons),
        }

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return _safe(lambda: function(self.handle, *arguments))()

    def close(self) -> None:
        pynvml.nvmlShutdown()

    def __enter__(self) -> NvmlProbe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class StateLog:
    """Notes the GPU's state every few seconds in a thread of its own, while something else goes on."""

    def __init__(self, uuid: str | None, period_seconds: float = 2.0) -> None:
        self.states: list[dict[str, Any]] = []
        self._period_seconds = period_seconds
        self._uuid = uuid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> StateLog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def summary(self) -> dict[str, Any]:
        """Least and most of each figure; throttle reasons as they occurred, with how often."""
        found: dict[str, Any] = {"states": len(self.states)}
        for name in ("sm_mhz", "memory_mhz", "temperature_celsius"):
            values = [state[name] for state in self.states if state[name] is not None]
            found[name] = [min(values), max(values)] if values else None
        found["throttle_reasons"] = dict(Counter(str(state["throttle_reasons"]) for state in self.states))
        return found

    def _run(self) -> None:
        with NvmlProbe(self._uuid) as probe:
            while True:
                self.states.append(probe.state())
                if self._stop.wait(self._period_seconds):
                    return


def _safe(call: Callable[[], Any]) -> Callable[[], Any]:
    """The same call, answering ``None`` where the driver refuses."""

    def asked() -> Any:
        try:
            return call()
        except pynvml.NVMLError:
            return None

    return asked


def _scaled(milli: float | None) -> float | None:
    """Millijoules or milliwatts in joules or watts."""
    return None if milli is None else milli / MILLI
