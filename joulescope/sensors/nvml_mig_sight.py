"""Whether this process sees all MIG instances of a GPU.

In a container the driver lists only the instances that were given to it, unless it may monitor all. What
others draw would be charged to those that are listed. NVIDIA's MIG guide, "Device Nodes and Capabilities":
whoever has CAP_SYS_ADMIN has every capability, and so sees all.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from joulescope.sensors.nvml_capabilities import answer
from joulescope.sensors.nvml_instances import MEMORY_SLICES, MigInstance, memory_slices


def blind_spot(
    api: ModuleType,
    handle: Any,
    instances: Sequence[MigInstance],
    slices_total: int,
    memory_total_bytes: int | None,
) -> str:
    """Why there may be an instance that is not among ``instances``; empty where there can be none."""
    free = slices_total - sum(each.slices for each in instances)
    taken = sum(memory_slices(each, memory_total_bytes) or 0 for each in instances)
    if free <= 0 or taken >= MEMORY_SLICES or _may_list(api, handle):
        return ""
    return (
        f"this process sees instances of {slices_total - free} of its {slices_total} slices, and may not see "
        "whether there are others; give it CAP_SYS_ADMIN, and in a container NVIDIA_VISIBLE_DEVICES=all and "
        "NVIDIA_MIG_MONITOR_DEVICES=all too"
    )


def _may_list(api: ModuleType, handle: Any) -> bool:
    """Whether GPU instances may be listed as a whole, which takes the rights that show all of them."""
    for profile in range(api.NVML_GPU_INSTANCE_PROFILE_COUNT):
        told = answer(api, api.nvmlDeviceGetGpuInstanceProfileInfo, handle, profile)
        if told is not None:
            room = (api.c_nvmlGpuInstance_t * max(int(told.instanceCount), 1))()
            count = ctypes.byref(ctypes.c_uint(0))
            return answer(api, api.nvmlDeviceGetGpuInstances, handle, told.id, room, count) is not None
    return False
