"""How busy each MIG instance of a GPU is, and why its joules cannot be split among them where they cannot.

The driver measures energy of whole GPUs only. With the setting ``mig: gpm`` each instance is a GPU of its own
to the rest of the program, which splits the whole GPU's joules by what is read here: the slices of its GPU
instance, and once a second the performance counters of that (:mod:`joulescope.sensors.nvml_gpm`). It is done
for all instances of a GPU or for none: what one of them draws is only told from what the others do not.

GPM is asked through the whole GPU's handle and the number of the GPU instance, never through an instance's
own handle: users of the latter saw other calls fail afterwards.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

from joulescope.model import MIG_GPM, GpuCapabilities, GpuInfo, GpuReading, GpuStatus
from joulescope.sensors.call_times import CallTimes
from joulescope.sensors.nvml_capabilities import WITH_GPM, answer
from joulescope.sensors.nvml_gpm import Gpm
from joulescope.sensors.nvml_instances import MigInstance, profile_name
from joulescope.sensors.nvml_mig_sight import blind_spot
from joulescope.units import NANOSECONDS_PER_SECOND

_logger = logging.getLogger(__name__)

PERIOD_NS = NANOSECONDS_PER_SECOND
"""How often activity is read, and the list of instances compared."""


class MigReader:
    """Reads the activity of the instances of one GPU. Use from one thread at a time."""

    def __init__(self, api: ModuleType, times: CallTimes, parts: Sequence[tuple[GpuInfo, Gpm]]) -> None:
        self._api = api
        self._times = times
        self._parts = parts
        self._due_ns = 0
        self._read_before: set[str] = set()
        self._silent: set[str] = set()
        self.failures: Counter[str] = Counter({info.gpu: 0 for info, _ in parts})
        """Failed reads by instance."""

    @property
    def infos(self) -> list[GpuInfo]:
        return [info for info, _ in self._parts]

    def is_due(self, now_ns: int) -> bool:
        """Whether a second has passed since the last read began."""
        return now_ns >= self._due_ns

    def read(self, handle: Any, now_ns: int) -> list[GpuReading]:
        """Reads all instances through their GPU's handle; one that fails is left out, and counted.

        The first reading of each says only from when on the next one's means will hold.
        """
        self._due_ns = now_ns + PERIOD_NS
        readings = []
        for info, gpm in self._parts:
            try:
                told = self._times.timed("gpm_instance", gpm.read, handle, now_ns)
            except self._api.NVMLError:
                self.failures[info.gpu] += 1
                self._read_before.discard(info.gpu)
                continue
            self._notice(info, told)
            readings.append(GpuReading(info.gpu, now_ns, status=GpuStatus(info.gpu, now_ns, **told)))
        return readings

    def close(self) -> None:
        """Gives the samples back."""
        for _, gpm in self._parts:
            gpm.close()

    def _notice(self, info: GpuInfo, told: dict[str, float]) -> None:
        """Says once that an instance answers and does not tell what the split needs."""
        asked_before = info.gpu in self._read_before
        self._read_before.add(info.gpu)
        if asked_before and "sm_active_ratio" not in told and info.gpu not in self._silent:
            self._silent.add(info.gpu)
            _logger.warning(
                "MIG instance %s tells no SM activity, or an impossible one: while that is so, the joules of "
                "GPU %s are not split",
                info.gpu,
                info.parent,
            )


def split_reader(
    api: ModuleType, times: CallTimes, info: GpuInfo, handle: Any, instances: Sequence[MigInstance]
) -> MigReader | str:
    """What reads the instances of a GPU, or why its joules cannot be split."""
    slices_total = answer(api, api.nvmlDeviceGetMaxMigDeviceCount, handle)
    refusal = _refusal(api, info.capabilities, handle, instances, slices_total or 0) or blind_spot(
        api, handle, instances, slices_total, info.memory_total_bytes
    )
    if refusal:
        return refusal
    parts: list[tuple[GpuInfo, Gpm]] = []
    for instance in instances:
        try:
            gpm = Gpm(api, gpu_instance=instance.gpu_instance)
            parts.append((_info_of(instance, info, slices_total), gpm))
            gpm.read(handle, 0)
        except api.NVMLError as error:
            MigReader(api, times, parts).close()
            return (
                f"performance counters (GPM) of {instance.uuid} cannot be read: NVML says {str(error)!r} "
                f"(code {error.value})"
            )
        gpm.restart()
    return MigReader(api, times, parts)


def _refusal(
    api: ModuleType,
    told: GpuCapabilities,
    handle: Any,
    instances: Sequence[MigInstance],
    slices_total: int,
) -> str:
    """What stands in the way of a split, empty if nothing does."""
    unknown = [each.uuid for each in instances if each.slices <= 0 or each.gpu_instance < 0]
    if unknown:
        return f"the driver does not tell the size of {', '.join(unknown)}"
    if sum(each.slices for each in instances) > slices_total:
        return f"its instances have more slices than the {slices_total} that the driver says it has"
    shared = [
        number for number, count in Counter(each.gpu_instance for each in instances).items() if count > 1
    ]
    if shared:
        return (
            f"GPU instance {shared[0]} holds several compute instances, and performance counters (GPM) tell "
            "only of it as a whole"
        )
    if told.confidential:
        return "confidential computing: performance counters (GPM) are switched off by the driver"
    if not hasattr(api, "nvmlGpmMigSampleGet"):
        return "the installed nvidia-ml-py knows no performance counters (GPM) of instances: upgrade it"
    support = answer(api, getattr(api, "nvmlGpmQueryDeviceSupport", None), handle)
    if support is not None and support.isSupportedDevice:
        return ""
    if told.architecture in WITH_GPM:
        return "the driver does not allow performance counters (GPM) here"
    this = told.architecture or "of an unknown kind"
    return f"performance counters (GPM) need Hopper or later, and this is {this}"


def _info_of(instance: MigInstance, whole: GpuInfo, slices_total: int) -> GpuInfo:
    told = whole.capabilities
    return GpuInfo(
        gpu=instance.uuid,
        name=f"{whole.name} MIG {profile_name(instance, whole.memory_total_bytes)}".strip(),
        driver_version=whole.driver_version,
        energy_source=MIG_GPM,
        sensor=whole.sensor,
        capabilities=replace(GpuCapabilities(), gpm=True, architecture=told.architecture, mig=True),
        parent=whole.gpu,
        slices=instance.slices,
        slices_total=slices_total,
    )
