"""NVIDIA GPUs through the driver's own library, NVML.

Each read takes energy and power, a few microseconds of driver time a call; everything else is read once a
second (:mod:`joulescope.sensors.nvml_status`). NVML's calls share a lock with the submission of GPU work, so
nothing slower belongs here (process lists, for one, take milliseconds).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType, ModuleType
from typing import Any

from joulescope.clock import Clock
from joulescope.errors import SensorChanged, SensorLost
from joulescope.model import CallTime, GpuInfo, GpuReading
from joulescope.sensors.call_times import CallTimes
from joulescope.sensors.nvml_binding import load
from joulescope.sensors.nvml_capabilities import SCOPE_GPU, answer, missing
from joulescope.sensors.nvml_faults import GONE, fault
from joulescope.sensors.nvml_instances import instances_of
from joulescope.sensors.nvml_mig import MigReader, split_reader
from joulescope.sensors.nvml_probe import MAX_MILLIJOULES, MAX_MILLIWATTS, MILLI, Found, NvmlGpu, probe
from joulescope.sensors.nvml_status import StatusReader
from joulescope.units import NANOSECONDS_PER_SECOND

_logger = logging.getLogger(__name__)

SLOW_PERIOD_NS = NANOSECONDS_PER_SECOND
"""How often memory, utilisation and status are read; in between, the last answer is handed out again."""

RECOUNT_PERIOD_NS = 10 * NANOSECONDS_PER_SECOND
"""How often it is asked how many GPUs there are, so that one that is plugged in is found."""

RETRY_FIRST_NS = NANOSECONDS_PER_SECOND // 4
RETRY_LAST_NS = 30 * NANOSECONDS_PER_SECOND
"""A GPU that failed is left alone for this long; the pause doubles from the first to the last."""

_FAILURES_UNTIL_LOST = 3
_NONSENSE = -1


class _NonsenseError(Exception):
    """A call succeeded with a value that cannot be true."""

    value = _NONSENSE


class NvmlSensor:
    """Reads energy, power and status of NVIDIA GPUs.

    ``skipped`` says by UUID why a GPU that is there is not read, ``unsplit`` why the joules of one are not
    split among its MIG instances although that was asked for. While the sensor is open it keeps the driver
    loaded, and with it the counters running.
    """

    def __init__(self, api: ModuleType, clock: Clock, found: Found, mig: str = "refuse") -> None:
        """Use :meth:`open`. ``api`` is an initialised ``pynvml``, shut down by :meth:`close`."""
        self._api = api
        self._now_ns = clock.now_ns
        self._gpus = found.gpus
        self.skipped: Mapping[str, str] = MappingProxyType(found.skipped)
        self._error = api.NVMLError
        self._energy_mj = api.nvmlDeviceGetTotalEnergyConsumption
        self._power_mw = api.nvmlDeviceGetPowerUsage
        self._times = CallTimes(clock)
        self._status = StatusReader(api, self._times)
        self._visible = found.visible
        self._open = True
        self.unsplit: Mapping[str, str] = MappingProxyType(self._split() if mig == "gpm" else {})
        opened_ns = clock.now_ns()
        self._recount_ns = opened_ns + RECOUNT_PERIOD_NS
        for place, gpu in enumerate(self._gpus):
            self._status.read(gpu, opened_ns)
            gpu.slow_due_ns = opened_ns + SLOW_PERIOD_NS * (place + 1) // len(self._gpus)

    @classmethod
    def open(cls, clock: Clock, gpus: Sequence[str] | None = None, mig: str = "refuse") -> NvmlSensor:
        """Starts NVML and probes the GPUs with these UUIDs, by default all that are visible.

        With ``mig`` at ``gpm`` the MIG instances of each GPU are read too, as GPUs without a meter, so that
        its joules can be split; with ``refuse`` they are only named.

        Raises:
            MissingExtra: if ``pynvml`` is not installed.
            SensorError: if NVML cannot be used here, or shows no GPU that can be measured.
            SensorLost: if the same may work later.
        """
        api = load()
        try:
            api.nvmlInit()
        except api.NVMLError as error:
            raise fault("the GPU driver cannot be reached", error.value, str(error)) from error
        try:
            found = probe(api, gpus)
            sensor = cls(api, clock, found, mig)
        except BaseException:
            _shut_down(api)
            raise
        for gpu, reason in found.skipped.items():
            _logger.warning("GPU %s is not read: %s", gpu, reason)
        for each in found.gpus:
            split = bool(each.info.energy_split) or each.info.gpu in sensor.unsplit
            _log_capabilities(each.info, but_mig=split)
        for gpu, reason in sensor.unsplit.items():
            _logger.warning("mig=gpm, but the joules of GPU %s are not split: %s", gpu, reason)
        return sensor

    def gpus(self) -> Sequence[GpuInfo]:
        """Each GPU, and after it the instances among which its joules are split."""
        return [
            info
            for gpu in self._gpus
            for info in (gpu.info, *(gpu.parts.infos if gpu.parts is not None else ()))
        ]

    def read(self) -> Sequence[GpuReading]:
        """See :class:`joulescope.sensors.Sensor`; ``time_ns`` is the middle of the energy call.

        Raises:
            SensorLost: if every GPU failed for good, or three times running.
            SensorChanged: if other GPUs are there than when it was opened.
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
                if gpu.parts is not None:
                    readings += self._read_instances(gpu, gpu.parts)
        if readings:
            self._recount(readings[-1].time_ns)
        else:
            self._raise_if_lost()
        return readings

    def read_failures(self) -> dict[str, int]:
        """Calls that failed or told nonsense, by GPU; calls left out while a GPU rests do not count."""
        failures = {gpu.info.gpu: gpu.failures for gpu in self._gpus}
        for gpu in self._gpus:
            failures.update({} if gpu.parts is None else gpu.parts.failures)
        return failures

    def call_times(self) -> Mapping[str, CallTime]:
        """How long the driver took, by call; ``energy`` and ``power`` are the fast path's."""
        return self._times.told()

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        for gpu in self._gpus:
            for reader in (gpu.gpm, gpu.parts):
                if reader is not None:
                    reader.close()
        _shut_down(self._api)

    def _read_gpu(self, gpu: NvmlGpu) -> GpuReading:
        if gpu.failures_in_a_row:
            gpu.handle = self._api.nvmlDeviceGetHandleByUUID(gpu.info.gpu)
        counted = gpu.info.energy_source == "counter"
        power_mw = self._instant_mw if gpu.by_instant else self._power_mw
        call, bound = (self._energy_mj, MAX_MILLIJOULES) if counted else (power_mw, MAX_MILLIWATTS)
        start_ns = self._now_ns()
        try:
            value = call(gpu.handle)
        finally:
            end_ns = self._now_ns()
            self._times.add("energy" if counted else "power", end_ns - start_ns)
        if value >= bound:
            raise _NonsenseError(f"a value of {value}")
        power_watts = self._power_watts(gpu) if counted else value / MILLI
        if end_ns >= gpu.slow_due_ns:
            gpu.slow_due_ns = end_ns + SLOW_PERIOD_NS
            self._status.read(gpu, end_ns)
        return GpuReading(
            gpu=gpu.info.gpu,
            time_ns=(start_ns + end_ns) // 2,
            energy_joules=value / MILLI if counted else None,
            power_watts=power_watts,
            memory_used_bytes=gpu.memory_used_bytes,
            sm_utilization_ratio=gpu.sm_utilization_ratio,
            status=gpu.status,
        )

    def _instant_mw(self, handle: Any) -> int:
        (told,) = self._api.nvmlDeviceGetFieldValues(
            handle, [(self._api.NVML_FI_DEV_POWER_INSTANT, SCOPE_GPU)]
        )
        if told.nvmlReturn:
            raise self._error(told.nvmlReturn)
        return int(told.value.uiVal)

    def _power_watts(self, gpu: NvmlGpu) -> float | None:
        """Power of a GPU that has a counter: welcome, but not needed."""
        power_mw = self._status.ask(gpu, "power", self._power_mw)
        if power_mw is None:
            return None
        if power_mw >= MAX_MILLIWATTS:
            gpu.failures += 1
            return None
        return float(power_mw / MILLI)

    def _recount(self, now_ns: int) -> None:
        """Notices GPUs that were plugged in or taken out; those that are read fail by themselves."""
        if now_ns < self._recount_ns:
            return
        self._recount_ns = now_ns + RECOUNT_PERIOD_NS
        try:
            visible = self._times.timed("count", self._api.nvmlDeviceGetCount)
        except self._error:
            return
        if visible != self._visible:
            raise SensorChanged(f"the driver shows {visible} GPUs and showed {self._visible} before")
        for gpu in self._gpus:
            if gpu.info.capabilities.mig is not None:
                self._check_cut(gpu)

    def _split(self) -> dict[str, str]:
        """Prepares the reading of instances; why not, by GPU."""
        refused = {}
        for gpu in self._gpus:
            if not gpu.cut:
                continue
            reader = split_reader(self._api, self._times, gpu.info, gpu.handle, gpu.cut)
            if isinstance(reader, str):
                refused[gpu.info.gpu] = reader
            else:
                gpu.parts, gpu.info = reader, replace(gpu.info, energy_split="gpm")
        return refused

    def _read_instances(self, gpu: NvmlGpu, parts: MigReader) -> list[GpuReading]:
        """Once a second, how busy each instance was; nothing in between."""
        now_ns = self._now_ns()
        if not parts.is_due(now_ns):
            return []
        self._check_cut(gpu)
        return parts.read(gpu.handle, now_ns)

    def _check_cut(self, gpu: NvmlGpu) -> None:
        """Notices instances that were made, unmade or made anew, and MIG mode that was switched."""
        mode = answer(self._api, self._api.nvmlDeviceGetMigMode, gpu.handle)
        if mode is None:
            return
        is_on = bool(mode[0])
        cut = self._times.timed("instances", instances_of, self._api, gpu.handle) if is_on else []
        if (is_on, cut) != (gpu.info.capabilities.mig, gpu.cut):
            raise SensorChanged(f"GPU {gpu.info.gpu} is not cut into the same MIG instances as before")

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


def _log_capabilities(info: GpuInfo, *, but_mig: bool) -> None:
    told = info.capabilities
    meters = [
        name.replace("_", " ")
        for name in ("energy_counter", "power", "power_instant", "module_power", "memory_power", "gpm")
        if getattr(told, name)
    ]
    _logger.info(
        "GPU %s (%s, %s): %s", info.gpu, info.name, told.architecture or "unknown", ", ".join(meters)
    )
    if info.energy_split:
        _logger.info(
            "GPU %s: its joules are split among %d MIG instances by performance counters, an estimate",
            info.gpu,
            len(info.instances),
        )
    for lack in missing(told, but_mig=but_mig):
        _logger.info("GPU %s: %s", info.gpu, lack.said)


def _shut_down(api: ModuleType) -> None:
    try:
        api.nvmlShutdown()
    except api.NVMLError as error:
        _logger.debug("NVML was gone before it could be shut down: %s", error)
