"""What each GPU is and can tell, asked once when NVML is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from joulescope.errors import SensorError
from joulescope.model import GpuCapabilities, GpuInfo, GpuStatus
from joulescope.sensors.health import Health
from joulescope.sensors.nvml_capabilities import answer, capabilities_of, reasons_call
from joulescope.sensors.nvml_faults import ABSENT, fault
from joulescope.sensors.nvml_gpm import Gpm
from joulescope.sensors.nvml_instances import MigInstance, instances_of
from joulescope.sensors.nvml_mig import MigReader

MILLI = 1000
"""Millijoules in a joule and milliwatts in a watt; NVML counts in both."""

MAX_MILLIJOULES = 2**53
"""Counter values from here on are nonsense: 285,000 years at 1 kW, and not exact as a float."""

MAX_MILLIWATTS = 100_000_000
"""Power readings from here on are nonsense; NVML's "not available" is 2**32 − 1."""

_WHOLE_INSTANT = frozenset({"ampere", "ada"})
"""Where ``POWER_INSTANT`` is at least as good as ``PowerUsage``: the mean of all 100 ms since it was renewed
beside the mean of a second, or, on GA100, the same reading. On Hopper it sees 25 of every 100 ms and may be
off by two thirds (docs/decisions/0017-power-without-a-counter.md)."""

_MIG_PREFIX = "MIG-"


@dataclass(slots=True)
class NvmlGpu:
    """One GPU as the sensor keeps it: what it is, what it can tell, and how it fares."""

    info: GpuInfo
    handle: Any
    tells: frozenset[str]
    """Names of the calls that it answers, beside the one that measures its joules."""
    by_instant: bool = False
    """Without a counter: whether ``POWER_INSTANT`` is integrated in the place of ``PowerUsage``."""
    gpm: Gpm | None = None
    cut: list[MigInstance] = field(default_factory=list)
    """The MIG instances on it."""
    parts: MigReader | None = None
    """What reads these, where its joules are split among them."""
    status: GpuStatus | None = None
    memory_used_bytes: int | None = None
    sm_utilization_ratio: float | None = None
    slow_due_ns: int = 0
    """When memory, utilisation and status are read again."""
    health: Health = field(default_factory=Health)


@dataclass(slots=True)
class Found:
    """The result of a probe."""

    gpus: list[NvmlGpu] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """By UUID, or by index where not even the UUID could be read: why a GPU is not used."""
    unreadable: list[int] = field(default_factory=list)
    """Indices of the GPUs that do not even tell their UUID."""
    visible: int = 0
    """How many GPUs the driver shows, wanted or not."""


def probe(api: ModuleType, wanted: Sequence[str] | None) -> Found:
    """Finds the GPUs among ``wanted`` (UUIDs; default all) whose energy or power can be read.

    A MIG instance's UUID stands for its GPU: the driver measures whole GPUs only.

    Raises:
        SensorError: if NVML cannot even count the GPUs, or none is left.
    """
    found = Found()
    handles = _handles(api, found)
    found.visible = len(handles) + len(found.unreadable)
    chosen = list(handles) if wanted is None else _choose(api, handles, wanted, found.skipped)
    driver_version = _text(api, api.nvmlSystemGetDriverVersion)
    for uuid in chosen:
        index, handle = handles[uuid]
        gpu = _probe_gpu(api, uuid, index, handle, driver_version)
        if isinstance(gpu, str):
            found.skipped[uuid] = gpu
        else:
            found.gpus.append(gpu)
    if not found.gpus:
        raise _nothing_found(handles, found.skipped)
    return found


def _handles(api: ModuleType, found: Found) -> dict[str, tuple[int, Any]]:
    """Index and handle of every GPU that tells its UUID."""
    try:
        count = api.nvmlDeviceGetCount()
    except api.NVMLError as error:
        raise fault("the GPUs cannot be listed", error.value, str(error)) from error
    handles: dict[str, tuple[int, Any]] = {}
    for index in range(count):
        try:
            handle = api.nvmlDeviceGetHandleByIndex(index)
            handles[api.nvmlDeviceGetUUID(handle)] = (index, handle)
        except (api.NVMLError, UnicodeDecodeError) as error:
            found.unreadable.append(index)
            found.skipped[f"index {index}"] = f"its UUID cannot be read: {error}"
    return handles


def _choose(
    api: ModuleType, handles: Mapping[str, object], wanted: Sequence[str], skipped: dict[str, str]
) -> list[str]:
    chosen: dict[str, None] = {}
    for uuid in wanted:
        parent = whole_gpu(api, uuid)
        if parent in handles:
            chosen[parent] = None
        else:
            skipped[uuid] = "no such GPU is visible here"
    return list(chosen)


def whole_gpu(api: ModuleType, uuid: str) -> str:
    """The UUID of the GPU that a MIG instance is a part of, empty if there is none; of a GPU its own."""
    if not uuid.startswith(_MIG_PREFIX):
        return uuid
    try:
        instance = api.nvmlDeviceGetHandleByUUID(uuid)
        parent = api.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance)
        return str(api.nvmlDeviceGetUUID(parent))
    except api.NVMLError:
        return ""


def _probe_gpu(api: ModuleType, uuid: str, index: int, handle: Any, driver_version: str) -> NvmlGpu | str:
    """The GPU, or the reason why it is of no use."""
    counts = _tells(api, api.nvmlDeviceGetTotalEnergyConsumption, handle, MAX_MILLIJOULES)
    power = _tells(api, api.nvmlDeviceGetPowerUsage, handle, MAX_MILLIWATTS)
    if not (counts or power):
        return "it has neither an energy counter nor a power reading (old part, vGPU, or no permission)"
    memory = answer(api, api.nvmlDeviceGetMemoryInfo, handle)
    capabilities = capabilities_of(api, handle, counts=counts, power=power)
    cut = instances_of(api, handle) if capabilities.mig else []
    info = GpuInfo(
        gpu=uuid,
        name=_text(api, api.nvmlDeviceGetName, handle),
        index=index,
        power_limit_watts=watts(answer(api, api.nvmlDeviceGetEnforcedPowerLimit, handle)) or None,
        memory_total_bytes=int(memory.total) or None if memory is not None else None,
        driver_version=driver_version,
        energy_source="counter" if counts else "power",
        sensor="nvml",
        capabilities=capabilities,
        instances=tuple(instance.uuid for instance in cut),
    )
    gpm = Gpm(api) if capabilities.gpm else None
    return NvmlGpu(
        info=info,
        handle=handle,
        tells=_answered(api, handle, capabilities),
        by_instant=capabilities.power_instant and capabilities.architecture in _WHOLE_INSTANT,
        gpm=gpm,
        cut=cut,
    )


def _answered(api: ModuleType, handle: Any, capabilities: GpuCapabilities) -> frozenset[str]:
    calls: dict[str, Callable[[Any], Any]] = {
        "memory": api.nvmlDeviceGetMemoryInfo,
        "utilization": api.nvmlDeviceGetUtilizationRates,
        "power_limit": api.nvmlDeviceGetEnforcedPowerLimit,
        "temperature": lambda gpu: api.nvmlDeviceGetTemperature(gpu, api.NVML_TEMPERATURE_GPU),
        "throttle": reasons_call(api),
        "sm_clock": lambda gpu: api.nvmlDeviceGetClockInfo(gpu, api.NVML_CLOCK_SM),
        "memory_clock": lambda gpu: api.nvmlDeviceGetClockInfo(gpu, api.NVML_CLOCK_MEM),
    }
    known = {"power": capabilities.power, "fields": capabilities.power_instant, "gpm": capabilities.gpm}
    told = {name for name, call in calls.items() if _tells(api, call, handle)}
    return frozenset(told | {name for name, is_there in known.items() if is_there})


def _tells(
    api: ModuleType, call: Callable[[Any], Any], handle: Any, impossible: float = float("inf")
) -> bool:
    """False if the GPU cannot answer, or answers nonsense; a passing trouble counts as True."""
    try:
        told = call(handle)
    except api.NVMLError as error:
        return error.value not in ABSENT
    return not isinstance(told, int) or told < impossible


def _text(api: ModuleType, call: Callable[..., Any], *arguments: Any) -> str:
    return answer(api, call, *arguments) or ""


def watts(milliwatts: int | None) -> float | None:
    """Power from NVML's milliwatts, ``None`` where they are missing or nonsense."""
    return milliwatts / MILLI if milliwatts is not None and milliwatts < MAX_MILLIWATTS else None


def _nothing_found(handles: Mapping[str, object], skipped: Mapping[str, str]) -> SensorError:
    if not handles and not skipped:
        return SensorError(
            "NVML works but shows no GPU. In a container, ask for GPUs (--gpus all, nvidia.com/gpu, or"
            " NVIDIA_VISIBLE_DEVICES)."
        )
    reasons = "; ".join(f"{gpu}: {reason}" for gpu, reason in skipped.items())
    return SensorError(f"no GPU can be measured ({reasons}). Visible: {', '.join(handles) or 'none'}.")
