"""What an NVIDIA GPU and its driver can tell, asked once; and what that leaves out, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from joulescope.model import GpuCapabilities
from joulescope.sensors.nvml_gpm import supports_gpm

_ARCHITECTURES = {
    2: "kepler",
    3: "maxwell",
    4: "pascal",
    5: "volta",
    6: "turing",
    7: "ampere",
    8: "ada",
    9: "hopper",
    10: "blackwell",
    13: "rubin",
}
"""``nvmlDeviceArchitecture_t`` of NVIDIA's header."""

WITH_GPM = frozenset({"hopper", "blackwell", "rubin"})
"""Architectures with performance counters that need no profiler."""

_VIRTUALIZATION = {0: "none", 1: "passthrough", 2: "vgpu", 3: "host_vgpu", 4: "host_vsga"}

SCOPE_GPU, SCOPE_MODULE, SCOPE_MEMORY = range(3)
"""``NVML_POWER_SCOPE_*``."""


def capabilities_of(api: ModuleType, handle: Any, *, counts: bool, power: bool) -> GpuCapabilities:
    """Asks everything else once. ``counts``, ``power``: what was found out of the two main meters."""

    def ask(name: str, *arguments: Any) -> Any:
        return answer(api, getattr(api, name, None), *arguments)

    mig, confidential = ask("nvmlDeviceGetMigMode", handle), ask("nvmlSystemGetConfComputeState")
    persistence = ask("nvmlDeviceGetPersistenceMode", handle)
    instant, average = api.NVML_FI_DEV_POWER_INSTANT, api.NVML_FI_DEV_POWER_AVERAGE
    return GpuCapabilities(
        energy_counter=counts,
        power=power,
        power_average=tells_field(api, handle, average, SCOPE_GPU),
        power_instant=tells_field(api, handle, instant, SCOPE_GPU),
        power_samples=ask("nvmlDeviceGetSamples", handle, api.NVML_TOTAL_POWER_SAMPLES, 0) is not None,
        module_power=tells_field(api, handle, instant, SCOPE_MODULE),
        memory_power=tells_field(api, handle, instant, SCOPE_MEMORY),
        gpm=supports_gpm(api, handle),
        architecture=_ARCHITECTURES.get(ask("nvmlDeviceGetArchitecture", handle), ""),
        mig=None if mig is None else bool(mig[0]),
        virtualization=_VIRTUALIZATION.get(ask("nvmlDeviceGetVirtualizationMode", handle), ""),
        confidential=None if confidential is None else bool(confidential.ccFeature),
        persistence=None if persistence is None else bool(persistence),
    )


def tells_field(api: ModuleType, handle: Any, field: int, scope: int) -> bool:
    """Whether the GPU knows a field in a scope."""
    told = answer(api, api.nvmlDeviceGetFieldValues, handle, [(field, scope)])
    return told is not None and told[0].nvmlReturn == 0


def reasons_call(api: ModuleType) -> Callable[[Any], int]:
    """The call that says what holds clocks back, which was renamed in driver 535."""
    renamed = getattr(api, "nvmlDeviceGetCurrentClocksEventReasons", None)
    call: Callable[[Any], int] = renamed or api.nvmlDeviceGetCurrentClocksThrottleReasons
    return call


def answer(api: ModuleType, call: Callable[..., Any] | None, *arguments: Any) -> Any:
    """What a call returns, ``None`` if it fails or the binding has none."""
    if call is None:
        return None
    try:
        return call(*arguments)
    except (api.NVMLError, UnicodeDecodeError):
        return None


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that a GPU cannot tell."""

    name: str
    said: str
    """What and why, half a sentence."""
    mend: str = ""
    costs_accuracy: bool = True
    """Whether joules are less sure, or missing, because of it."""


def missing(told: GpuCapabilities, *, but_mig: bool = False) -> Iterator[Lack]:
    """What this GPU cannot tell; nothing where all is there.

    ``but_mig``: leaves MIG out, where its joules are split or it was said why they are not.
    """
    if not told.energy_counter:
        why = " (a vGPU has none)" if told.virtualization == "vgpu" else ""
        yield Lack(
            "counter",
            "no energy counter: its joules are power readings, integrated, and so less sure where "
            "load changes "
            f"quickly{why}",
        )
    elif not told.power:
        yield Lack("power", "no power reading: the energy counter cannot be checked against a second meter")
    if told.mig and not but_mig:
        yield Lack(
            "mig",
            "cut into MIG instances: the driver measures the whole GPU only, so its joules are "
            "published and not divided among the instances",
            "sudo nvidia-smi -i N -mig 0, where requests are to have measured joules; or JOULESCOPE_MIG=gpm "
            "on Hopper and later, where a split by performance counters will do",
        )
    if told.confidential:
        yield Lack(
            "gpm",
            "confidential computing: performance counters (GPM) are switched off by the driver",
            costs_accuracy=False,
        )
    elif not told.gpm and told.architecture in WITH_GPM:
        why = "a vGPU has none" if told.virtualization == "vgpu" else "the driver does not allow them here"
        yield Lack(
            "gpm",
            f"no performance counters (GPM), which this architecture has: {why}",
            costs_accuracy=False,
        )
    if told.persistence is False:
        yield Lack(
            "persistence",
            "persistence mode is off: when no process uses the GPU its counter may start again",
            "sudo nvidia-smi -pm 1, or enable nvidia-persistenced.service",
        )
