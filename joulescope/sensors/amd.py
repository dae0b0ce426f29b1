"""AMD Instinct GPUs through ROCm's own library, AMD SMI.

One poll reads the energy counter and power of each socket, or power alone where the counter cannot be
believed (:mod:`joulescope.sensors.amd_trust`); memory and load are read once a second. AMD SMI is not safe
to use from several threads: its counters were seen to go back (issue 115 of ROCm/amdsmi). A sensor is used
from one thread, and nothing else in this package calls the library.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, ModuleType

from joulescope.clock import Clock
from joulescope.errors import MissingExtra, SensorError, SensorLost
from joulescope.model import CallTime, GpuInfo, GpuReading
from joulescope.sensors.amd_faults import GONE, NO_LIBRARY, code_of, fault, meaning_of
from joulescope.sensors.amd_probe import AmdGpu, Found, answer, memory_bytes, probe
from joulescope.sensors.amd_trust import Verdicts, check_fit, fell, release_doubt, settle_sources, versions
from joulescope.sensors.amd_values import busy_ratio, energy_joules, power_watts
from joulescope.sensors.call_times import CallTimes
from joulescope.units import NANOSECONDS_PER_SECOND

_logger = logging.getLogger(__name__)

SLOW_PERIOD_NS = NANOSECONDS_PER_SECOND
"""How often memory and load are read; in between, the last answer is handed out again."""


class _NonsenseError(Exception):
    """A call succeeded with a value that cannot be true."""


class AmdSensor:
    """Reads energy, power, memory and load of AMD sockets.

    ``skipped`` says by UUID why a GPU that is there is not read. No joules are split among partitions, and no
    setting asks for it: ``unsplit`` is empty.
    """

    unsplit: Mapping[str, str] = MappingProxyType({})

    def __init__(self, api: ModuleType, clock: Clock, found: Found, verdicts: Verdicts) -> None:
        """Use :meth:`open`. ``api`` is an initialised ``amdsmi``, shut down by :meth:`close`."""
        self._api = api
        self._now_ns = clock.now_ns
        self._gpus = found.gpus
        self._verdicts = verdicts
        self.skipped: Mapping[str, str] = MappingProxyType(found.skipped)
        self._times = CallTimes(clock)
        self._open = True
        opened_ns = clock.now_ns()
        for place, gpu in enumerate(self._gpus):
            self._read_slow(gpu, opened_ns)
            gpu.slow_due_ns = opened_ns + SLOW_PERIOD_NS * (place + 1) // len(self._gpus)

    @classmethod
    def open(
        cls, clock: Clock, gpus: Sequence[str] | None = None, verdicts: Verdicts | None = None
    ) -> AmdSensor:
        """Starts AMD SMI, probes the GPUs with these UUIDs (default: all), tries their counters for a second.

        Args:
            verdicts: what is known of the counters. The sensor adds to it; whoever opens it again hands it in
                again, so that a counter that passed its trial is not tried again, and one that lied later
                stays disbelieved.

        Raises:
            MissingExtra: if ``amdsmi`` is not installed.
            SensorError: if AMD SMI cannot be used here, or shows no GPU that can be measured.
            SensorLost: if the same may work later.
        """
        api = _load()
        try:
            api.amdsmi_init()
        except api.AmdSmiException as error:
            raise fault("the GPU driver cannot be reached", code_of(error), meaning_of(error)) from error
        verdicts = verdicts or Verdicts()
        try:
            found_versions = versions(api)
            check_fit(
                found_versions
            )  # before any call that fills a structure; the version's is always the same
            found = probe(api, gpus)
            settle_sources(api, clock, found, release_doubt(found_versions), verdicts)
            sensor = cls(api, clock, found, verdicts)
        except BaseException:
            _shut_down(api)
            raise
        for gpu, reason in found.skipped.items():
            _logger.warning("GPU %s is not read: %s", gpu, reason)
        return sensor

    def gpus(self) -> Sequence[GpuInfo]:
        return [gpu.info for gpu in self._gpus]

    def read(self) -> Sequence[GpuReading]:
        """See :class:`joulescope.sensors.Sensor`; ``time_ns`` is the middle of the energy or power call.

        Raises:
            SensorLost: if every GPU failed for good, or three times running; and once for each counter that
                went back, so that its GPU is opened again by its power.
        """
        readings: list[GpuReading] = []
        for gpu in self._gpus:
            if gpu.health.rests(self._now_ns):
                continue
            try:
                readings.append(self._read_gpu(gpu))
            except (self._api.AmdSmiException, _NonsenseError) as error:
                gpu.health.failed(self._now_ns(), code_of(error), meaning_of(error))
            else:
                gpu.health.answered()
        if not readings:
            self._raise_if_lost()
        return readings

    def read_failures(self) -> dict[str, int]:
        """Calls that failed or told nonsense, by GPU; calls left out while a GPU rests do not count."""
        return {gpu.info.gpu: gpu.health.failures for gpu in self._gpus}

    def call_times(self) -> Mapping[str, CallTime]:
        return self._times.told()

    def close(self) -> None:
        if self._open:
            self._open = False
            _shut_down(self._api)

    def _read_gpu(self, gpu: AmdGpu) -> GpuReading:
        counted = gpu.info.energy_source == "counter"
        call = self._api.amdsmi_get_energy_count if counted else self._api.amdsmi_get_power_info
        start_ns = self._now_ns()
        try:
            told = call(gpu.handle)
        finally:
            end_ns = self._now_ns()
            self._times.add("energy" if counted else "power", end_ns - start_ns)
        joules = energy_joules(told) if counted else None
        watts = self._power_watts(gpu) if counted else power_watts(told)
        if (joules if counted else watts) is None:
            shown = ", ".join(f"{name} {value}" for name, value in told.items())
            raise _NonsenseError(f"{shown}, which is no {'energy' if counted else 'power'}")
        self._check_course(gpu, joules)
        if end_ns >= gpu.slow_due_ns:
            self._read_slow(gpu, end_ns)
        return GpuReading(
            gpu=gpu.info.gpu,
            time_ns=(start_ns + end_ns) // 2,
            energy_joules=joules,
            power_watts=watts,
            memory_used_bytes=gpu.memory_used_bytes,
            sm_utilization_ratio=gpu.busy_ratio,
        )

    def _power_watts(self, gpu: AmdGpu) -> float | None:
        """Power of a GPU that has a counter: welcome, but not needed."""
        told = self._times.timed("power", answer, self._api, self._api.amdsmi_get_power_info, gpu.handle)
        watts = None if told is None else power_watts(told)
        gpu.health.failures += watts is None
        return watts

    def _check_course(self, gpu: AmdGpu, joules: float | None) -> None:
        """Ends belief in a counter that went back; one that was restarted is the meter's to notice."""
        before_joules, gpu.counter_joules = gpu.counter_joules, joules
        if joules is not None and fell(before_joules, joules):
            reason = f"it went back from {before_joules:.3f} to {joules:.3f} J"
            self._verdicts.condemn(gpu.info.gpu, reason)
            raise SensorLost(
                f"the energy counter of GPU {gpu.info.gpu} cannot be believed: {reason}. It is opened again"
                " and measured by its power; ROCm 7 or later may mend it."
            )

    def _read_slow(self, gpu: AmdGpu, now_ns: int) -> None:
        gpu.slow_due_ns = now_ns + SLOW_PERIOD_NS
        if not gpu.whole:
            return
        gpu.memory_used_bytes = memory_bytes(self._api, self._api.amdsmi_get_gpu_memory_usage, gpu.handle)
        activity = answer(self._api, self._api.amdsmi_get_gpu_activity, gpu.handle)
        gpu.busy_ratio = None if activity is None else busy_ratio(activity)
        gpu.health.failures += (gpu.memory_used_bytes is None) + (activity is None)

    def _raise_if_lost(self) -> None:
        """Raises unless some GPU may still come back by itself."""
        if not all(gpu.health.is_lost(GONE) for gpu in self._gpus):
            return
        code, meaning = self._gpus[0].health.error
        raise SensorLost(str(fault("no GPU answers any more", code, meaning)))


def opener(clock: Clock, gpus: Sequence[str] | None) -> Callable[[], AmdSensor]:
    """Opens the sensor as often as is needed, and remembers in between what is known of the counters.

    Raises:
        MissingExtra: if ``amdsmi`` is not installed: at once, since waiting does not mend it.
    """
    _require()
    verdicts = Verdicts()
    return lambda: AmdSensor.open(clock, gpus, verdicts)


def _require() -> None:
    if importlib.util.find_spec("amdsmi") is None:
        raise MissingExtra(
            "reading AMD GPUs needs the package amdsmi, of your ROCm's release: "
            "pip install 'joulescope-inference[sidecar,amd]', or pip install /opt/rocm/share/amd_smi"
        )


def _load() -> ModuleType:
    """Imports ``amdsmi``, which loads the library in passing, and prints where it should raise."""
    _require()
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            return importlib.import_module("amdsmi")
    except (ImportError, OSError, KeyError, AttributeError) as error:
        detail = said.getvalue().strip().partition("\n")[0] or meaning_of(error)
        raise SensorError(NO_LIBRARY.format(detail=detail)) from error


def _shut_down(api: ModuleType) -> None:
    try:
        api.amdsmi_shut_down()
    except api.AmdSmiException as error:
        _logger.debug("AMD SMI was gone before it could be shut down: %s", meaning_of(error))
