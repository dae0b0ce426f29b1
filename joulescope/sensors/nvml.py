"""NVIDIA GPUs through the driver's own library, NVML.

Each read takes energy and power, a few microseconds of driver time a call; memory and utilisation are
read once a second. NVML's calls share a lock with the submission of GPU work, so nothing slower
belongs here (process lists, for one, take milliseconds).
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import Any

from joulescope.clock import Clock
from joulescope.errors import MissingExtra, SensorLost
from joulescope.model import GpuInfo, GpuReading
from joulescope.sensors.nvml_faults import GONE, fault
from joulescope.sensors.nvml_probe import MAX_MILLIJOULES, MAX_MILLIWATTS, MILLI, Found, NvmlGpu, probe
from joulescope.units import NANOSECONDS_PER_SECOND

_logger = logging.getLogger(__name__)

SLOW_PERIOD_NS = NANOSECONDS_PER_SECOND
"""How often memory and utilisation are read; in between, the last answer is handed out again."""

RETRY_FIRST_NS = NANOSECONDS_PER_SECOND // 4
RETRY_LAST_NS = 30 * NANOSECONDS_PER_SECOND
"""A GPU that failed is left alone for this long; the pause doubles from the first to the last."""

_FAILURES_UNTIL_LOST = 3
_NONSENSE = -1


class _NonsenseError(Exception):
    """A call succeeded with a value that cannot be true."""

    value = _NONSENSE


class NvmlSensor:
    """Reads energy, power, memory and SM utilisation of NVIDIA GPUs.

    ``skipped`` says by UUID why a GPU that is there is not read. While the sensor is open it keeps the
    driver loaded, and with it the counters running.
    """

    def __init__(self, api: ModuleType, clock: Clock, found: Found) -> None:
        """Use :meth:`open`. ``api`` is an initialised ``pynvml``, shut down by :meth:`close`."""
        self._api = api
        self._now_ns = clock.now_ns
        self._gpus = found.gpus
        self.skipped: Mapping[str, str] = MappingProxyType(found.skipped)
        self._error = api.NVMLError
        self._energy_mj = api.nvmlDeviceGetTotalEnergyConsumption
        self._power_mw = api.nvmlDeviceGetPowerUsage
        self._open = True
        opened_ns = clock.now_ns()
        for place, gpu in enumerate(self._gpus):
            self._read_slow(gpu, opened_ns)
            gpu.slow_due_ns = opened_ns + SLOW_PERIOD_NS * (place + 1) // len(self._gpus)

    @classmethod
    def open(cls, clock: Clock, gpus: Sequence[str] | None = None) -> NvmlSensor:
        """Starts NVML and probes the GPUs with these UUIDs, by default all that are visible.

        Raises:
            MissingExtra: if ``pynvml`` is not installed.
            SensorError: if NVML cannot be used here, or shows no GPU that can be measured.
            SensorLost: if the same may work later.
        """
        api = _load()
        try:
            api.nvmlInit()
        except api.NVMLError as error:
            raise fault("the GPU driver cannot be reached", error.value, str(error)) from error
        try:
            found = probe(api, gpus)
            sensor = cls(api, clock, found)
        except BaseException:
            _shut_down(api)
            raise
        for gpu, reason in found.skipped.items():
            _logger.warning("GPU %s is not read: %s", gpu, reason)
        return sensor

    def gpus(self) -> Sequence[GpuInfo]:
        return [gpu.info for gpu in self._gpus]

    def read(self) -> Sequence[GpuReading]:
        """See :class:`joulescope.sensors.Sensor`; ``time_ns`` is the middle of the energy call.

        Raises:
            SensorLost: if every GPU failed for good, or three times running.
        """
        readings: list[GpuReading] = []
        for gpu in self._gpus:
            if gpu.failures_in_a_row and self._now_ns() < gpu.retry_ns:
                continue
            try:
                readings.append(self._read_gpu(gpu))
            except (self._error, _NonsenseError) as error:
                self._fail(gpu, error.value, str(error))
            else:
                gpu.failures_in_a_row = 0
        if not readings:
            self._raise_if_lost()
        return readings

    def read_failures(self) -> dict[str, int]:
        """Calls that failed or told nonsense, by GPU; calls left out while a GPU rests do not count."""
        return {gpu.info.gpu: gpu.failures for gpu in self._gpus}

    def close(self) -> None:
        if self._open:
            self._open = False
            _shut_down(self._api)

    def _read_gpu(self, gpu: NvmlGpu) -> GpuReading:
        if gpu.failures_in_a_row:
            gpu.handle = self._api.nvmlDeviceGetHandleByUUID(gpu.info.gpu)
        counted = gpu.info.energy_source == "counter"
        call, bound = (self._energy_mj, MAX_MILLIJOULES) if counted else (self._power_mw, MAX_MILLIWATTS)
        start_ns = self._now_ns()
        value = call(gpu.handle)
        end_ns = self._now_ns()
        if value >= bound:
            raise _NonsenseError(f"a value of {value}")
        power_watts = self._power_watts(gpu) if counted else value / MILLI
        if end_ns >= gpu.slow_due_ns:
            self._read_slow(gpu, end_ns)
        return GpuReading(
            gpu=gpu.info.gpu,
            time_ns=(start_ns + end_ns) // 2,
            energy_joules=value / MILLI if counted else None,
            power_watts=power_watts,
            memory_used_bytes=gpu.memory_used_bytes,
            sm_utilization_ratio=gpu.sm_utilization_ratio,
        )

    def _power_watts(self, gpu: NvmlGpu) -> float | None:
        """Power of a GPU that has a counter: welcome, but not needed."""
        if not gpu.tells_power:
            return None
        power_mw = self._ask(gpu, self._power_mw)
        if power_mw is None:
            return None
        if power_mw >= MAX_MILLIWATTS:
            gpu.failures += 1
            return None
        return float(power_mw / MILLI)

    def _read_slow(self, gpu: NvmlGpu, now_ns: int) -> None:
        gpu.slow_due_ns = now_ns + SLOW_PERIOD_NS
        memory = self._ask(gpu, self._api.nvmlDeviceGetMemoryInfo) if gpu.tells_memory else None
        rates = self._ask(gpu, self._api.nvmlDeviceGetUtilizationRates) if gpu.tells_utilization else None
        gpu.memory_used_bytes = memory.used if memory and memory.used <= memory.total else None
        gpu.sm_utilization_ratio = rates.gpu / 100 if rates and rates.gpu <= 100 else None

    def _ask(self, gpu: NvmlGpu, call: Callable[[Any], Any]) -> Any:
        """The answer to a call that a reading can do without, ``None`` if it fails."""
        try:
            return call(gpu.handle)
        except self._error:
            gpu.failures += 1
            return None

    def _fail(self, gpu: NvmlGpu, code: int, meaning: str) -> None:
        gpu.failures += 1
        gpu.failures_in_a_row += 1
        gpu.error = (code, meaning)
        pause_ns = min(RETRY_FIRST_NS << min(gpu.failures_in_a_row - 1, 10), RETRY_LAST_NS)
        gpu.retry_ns = self._now_ns() + pause_ns

    def _raise_if_lost(self) -> None:
        """Raises unless some GPU may still come back by itself."""
        for gpu in self._gpus:
            if gpu.error[0] not in GONE and gpu.failures_in_a_row < _FAILURES_UNTIL_LOST:
                return
        code, meaning = self._gpus[0].error
        reason = fault("no GPU answers any more", code, meaning)
        raise SensorLost(str(reason))


def _load() -> ModuleType:
    try:
        return importlib.import_module("pynvml")
    except ImportError as error:
        raise MissingExtra(
            "reading NVIDIA GPUs needs the package nvidia-ml-py: pip install 'joulescope-inference[sidecar]'"
        ) from error


def _shut_down(api: ModuleType) -> None:
    try:
        api.nvmlShutdown()
    except api.NVMLError as error:
        _logger.debug("NVML was gone before it could be shut down: %s", error)
