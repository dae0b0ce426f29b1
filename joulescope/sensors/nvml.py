"""NVIDIA GPUs through the driver's own library, NVML.

Each read takes energy and power, a few microseconds of driver time a call; everything else is read once a
second (:mod:`joulescope.sensors.nvml_status`). NVML's calls share a lock with the submission of GPU work, so
nothing slower belongs here (process lists, for one, take milliseconds).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType, ModuleType
from typing import Any

from joulescope.clock import Clock
from joulescope.errors import SensorChanged, SensorLost
from joulescope.model import CallTime, GpuInfo, GpuReading
from joulescope.sensors.call_times import CallTimes
from joulescope.sensors.nvml_binding import load
from joulescope.sensors.nvml_capabilities import SCOPE_GPU, missing
from joulescope.sensors.nvml_changes import Changes
from joulescope.sensors.nvml_faults import GONE, NONSENSE, fault, said
from joulescope.sensors.nvml_gpm import Gpm
from joulescope.sensors.nvml_mig import MigReader, split_reader
from joulescope.sensors.nvml_probe import MAX_MILLIJOULES, MAX_MILLIWATTS, MILLI, Found, NvmlGpu, probe
from joulescope.sensors.nvml_status import StatusReader
from joulescope.sensors.troubles import Troubles
from joulescope.units import NANOSECONDS_PER_SECOND

_logger = logging.getLogger(__name__)

SLOW_PERIOD_NS = NANOSECONDS_PER_SECOND
"""How often memory, utilisation and status are read; in between, the last answer is handed out again."""

SLOW_SHARE = 10
"""They are read less often where the driver is slow: a tenth of the time at most goes into them."""


class _NonsenseError(Exception):
    """A call succeeded with a value that cannot be true."""

    value = NONSENSE


class NvmlSensor:
    """Reads energy, power and status of NVIDIA GPUs.

    ``skipped`` says by UUID why a GPU that is there is not read, ``unsplit`` why the joules of one are not
    split among its MIG instances although that was asked for. While the sensor is open it keeps the driver
    loaded, and with it the counters running.
    """

    def __init__(
        self, api: ModuleType, clock: Clock, found: Found, troubles: Troubles, mig: str = "refuse"
    ) -> None:
        """Use :meth:`open`. ``api`` is an initialised ``pynvml``, shut down by :meth:`close`."""
        self._api = api
        self._now_ns = clock.now_ns
        self._gpus = found.gpus
        self.skipped: Mapping[str, str] = MappingProxyType(found.skipped)
        self._error = api.NVMLError
        self._energy_mj = api.nvmlDeviceGetTotalEnergyConsumption
        self._power_mw = api.nvmlDeviceGetPowerUsage
        self._times = CallTimes(clock)
        self._troubles = troubles
        self._status = StatusReader(api, self._times, troubles)
        self._open = True
        self.unsplit: Mapping[str, str] = MappingProxyType(self._split() if mig == "gpm" else {})
        opened_ns = clock.now_ns()
        self._changes = Changes(api, found, self._times, opened_ns)
        for place, gpu in enumerate(self._gpus):
            self._status.read(gpu, opened_ns)
            gpu.slow_due_ns = opened_ns + SLOW_PERIOD_NS * (place + 1) // len(self._gpus)

    @classmethod
    def open(
        cls,
        clock: Clock,
        gpus: Sequence[str] | None = None,
        mig: str = "refuse",
        troubles: Troubles | None = None,
    ) -> NvmlSensor:
        """Starts NVML and probes the GPUs with these UUIDs, by default all that are visible.

        With ``mig`` at ``gpm`` the MIG instances of each GPU are read too, as GPUs without a meter, so that
        its joules can be split; with ``refuse`` they are only named. ``troubles`` is what earlier openings
        have said in the log, so that it is not said again.

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
        troubles = troubles or Troubles(clock, _logger)
        try:
            found = probe(api, gpus)
            sensor = cls(api, clock, found, troubles, mig)
        except api.NVMLError as error:
            _shut_down(api)
            raise fault("the GPUs cannot be asked what they are", error.value, str(error)) from error
        except BaseException:
            _shut_down(api)
            raise
        for gpu, reason in found.skipped.items():
            troubles.note(logging.WARNING, gpu, f"GPU {gpu} is not read: {reason}")
        for each in found.gpus:
            split = bool(each.info.energy_split) or each.info.gpu in sensor.unsplit
            troubles.note(logging.INFO, each.info.gpu, _described(each.info, but_mig=split))
        for gpu, reason in sensor.unsplit.items():
            troubles.note(
                logging.WARNING, f"mig {gpu}", f"mig=gpm, but the joules of GPU {gpu} are not split: {reason}"
            )
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
            SensorChanged: if other GPUs can be measured than when it was opened, or can be otherwise.
        """
        readings: list[GpuReading] = []
        failed: list[NvmlGpu] = []
        for gpu in self._gpus:
            if gpu.health.rests(self._now_ns):
                continue
            try:
                readings.append(self._read_gpu(gpu))
            except (self._error, _NonsenseError) as error:
                gpu.health.failed(self._now_ns(), error.value, str(error))
                failed.append(gpu)
            else:
                gpu.health.answered()
                self._troubles.answered(f"GPU {gpu.info.gpu}")
                if gpu.parts is not None:
                    readings += self._read_instances(gpu, gpu.parts)
        if not readings:
            self._raise_if_lost()
            return readings
        for gpu in failed:  # where none answers the sensor will say so, for all of them
            self._troubles.failed(f"GPU {gpu.info.gpu}", said(*gpu.health.error))
        self._look_around(readings[-1].time_ns)
        return readings

    def read_failures(self) -> dict[str, int]:
        """Calls that failed or told nonsense, by GPU; calls left out while a GPU rests do not count."""
        failures = {gpu.info.gpu: gpu.health.failures for gpu in self._gpus}
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
                    _give_back(self._api, reader)
        _shut_down(self._api)

    def _read_gpu(self, gpu: NvmlGpu) -> GpuReading:
        if gpu.health.failures_in_a_row:
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
            raise _NonsenseError(f"{value} {'mJ' if counted else 'mW'}")
        power_watts = self._power_watts(gpu) if counted else value / MILLI
        if end_ns >= gpu.slow_due_ns:
            self._status.read(gpu, end_ns)
            took_ns = self._now_ns() - end_ns
            gpu.slow_due_ns = end_ns + max(SLOW_PERIOD_NS, SLOW_SHARE * took_ns)
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
            self._status.refuse(gpu, "power", said(NONSENSE, f"{power_mw} mW"))
            return None
        return float(power_mw / MILLI)

    def _look_around(self, now_ns: int) -> None:
        """Has the sensor opened anew if GPUs came or went; those that are read fail by themselves."""
        seen = self._changes.seen(now_ns)
        if seen:
            raise SensorChanged(seen)

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
        changed = self._changes.of_instances(gpu)
        if changed:
            raise SensorChanged(changed)
        return parts.read(gpu.handle, now_ns)

    def _raise_if_lost(self) -> None:
        """Raises unless some GPU may still come back by itself."""
        if not all(gpu.health.is_lost(GONE) for gpu in self._gpus):
            return
        code, meaning = self._gpus[0].health.error
        raise SensorLost(str(fault("no GPU answers any more", code, meaning)))


def opener(clock: Clock, gpus: Sequence[str] | None, mig: str = "refuse") -> Callable[[], NvmlSensor]:
    """Opens the sensor as often as is needed, and remembers in between what it has said in the log."""
    troubles = Troubles(clock, _logger)
    return lambda: NvmlSensor.open(clock, gpus, mig, troubles)


def _described(info: GpuInfo, *, but_mig: bool) -> str:
    told = info.capabilities
    meters = [
        name.replace("_", " ")
        for name in ("energy_counter", "power", "power_instant", "module_power", "memory_power", "gpm")
        if getattr(told, name)
    ]
    lines = [f"GPU {info.gpu} ({info.name}, {told.architecture or 'unknown'}): {', '.join(meters)}"]
    if info.energy_split:
        count = len(info.instances)
        lines.append(f"its joules are split among {count} MIG instances by performance counters, an estimate")
    return "; ".join(lines + [lack.said for lack in missing(told, but_mig=but_mig)])


def _give_back(api: ModuleType, reader: Gpm | MigReader) -> None:
    try:
        reader.close()
    except api.NVMLError as error:
        _logger.debug("the driver was gone before GPM's samples could be given back: %s", error)


def _shut_down(api: ModuleType) -> None:
    try:
        api.nvmlShutdown()
    except api.NVMLError as error:
        _logger.debug("NVML was gone before it could be shut down: %s", error)
