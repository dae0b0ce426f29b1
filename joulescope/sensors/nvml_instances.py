"""MIG instances of a GPU: which there are, and how large each is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from joulescope.sensors.nvml_capabilities import answer

MEMORY_SLICES = 8
"""Parts in which the memory of instances is told; where a GPU has half as many, each is two of them."""

_MAX_INSTANCES = 7
_MIB, _GIB = 2**20, 2**30


@dataclass(frozen=True, slots=True)
class MigInstance:
    """One MIG device: a compute instance in a GPU instance."""

    uuid: str
    gpu_instance: int
    compute_instance: int
    slices: int
    """Of its GPU instance, which has the performance counters."""
    compute_slices: int
    memory_mib: int


def instances_of(api: ModuleType, handle: Any) -> list[MigInstance]:
    """The instances that a GPU is cut into; one that will not tell what it is has no slices."""
    found = []
    for index in range(_MAX_INSTANCES):
        device = answer(api, api.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
        uuid = None if device is None else answer(api, api.nvmlDeviceGetUUID, device)
        if uuid is not None:
            found.append(_instance(api, device, str(uuid)))
    return found


def _instance(api: ModuleType, device: Any, uuid: str) -> MigInstance:
    size = answer(api, api.nvmlDeviceGetAttributes, device)
    gpu_instance = answer(api, api.nvmlDeviceGetGpuInstanceId, device)
    compute_instance = answer(api, api.nvmlDeviceGetComputeInstanceId, device)
    return MigInstance(
        uuid=uuid,
        gpu_instance=-1 if gpu_instance is None else int(gpu_instance),
        compute_instance=-1 if compute_instance is None else int(compute_instance),
        slices=0 if size is None else int(size.gpuInstanceSliceCount),
        compute_slices=0 if size is None else int(size.computeInstanceSliceCount),
        memory_mib=0 if size is None else int(size.memorySizeMB),
    )


def memory_slices(instance: MigInstance, memory_total_bytes: int | None) -> int | None:
    """Eighths of the GPU's memory that an instance has; ``None`` where either is not known."""
    if not memory_total_bytes or not instance.memory_mib:
        return None
    return math.ceil(instance.memory_mib * _MIB * MEMORY_SLICES / memory_total_bytes)


def profile_name(instance: MigInstance, memory_total_bytes: int | None) -> str:
    """The profile as ``nvidia-smi`` names it, ``3g.40gb``; without the memory where that is not known."""
    name = f"{instance.slices}g"
    if instance.compute_slices not in (0, instance.slices):
        name = f"{instance.compute_slices}c.{name}"
    eighths = memory_slices(instance, memory_total_bytes)
    if not memory_total_bytes or eighths is None:
        return name
    return f"{name}.{round(eighths / MEMORY_SLICES * math.ceil(memory_total_bytes / _GIB))}gb"
