"""GPM, the performance counters that Hopper and later GPUs show without a profiler.

A metric is the mean between two samples of a GPU, which must lie at least 100 ms apart (NVML reference,
"GPM Functions"). Counters are off under confidential computing and missing on fractional vGPUs.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

LEAST_NS = 100_000_000
"""Samples nearer to each other tell nothing."""

_PERCENT, _MIB = 0.01, 2.0**20

_METRICS = {
    "graphics_active_ratio": ("NVML_GPM_METRIC_GRAPHICS_UTIL", _PERCENT),
    "sm_active_ratio": ("NVML_GPM_METRIC_SM_UTIL", _PERCENT),
    "sm_occupancy_ratio": ("NVML_GPM_METRIC_SM_OCCUPANCY", _PERCENT),
    "tensor_active_ratio": ("NVML_GPM_METRIC_ANY_TENSOR_UTIL", _PERCENT),
    "dram_active_ratio": ("NVML_GPM_METRIC_DRAM_BW_UTIL", _PERCENT),
    "pcie_sent_bytes_per_second": ("NVML_GPM_METRIC_PCIE_TX_PER_SEC", _MIB),
    "pcie_received_bytes_per_second": ("NVML_GPM_METRIC_PCIE_RX_PER_SEC", _MIB),
    "nvlink_sent_bytes_per_second": ("NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC", _MIB),
    "nvlink_received_bytes_per_second": ("NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC", _MIB),
}
"""Fields of :class:`joulescope.model.GpuStatus`: which metric each is, and what its unit comes to."""

_LARGEST_RATIO = 1.01
"""A little above 1 is rounding, more is nonsense."""


def supports_gpm(api: ModuleType, handle: Any) -> bool:
    """Whether the GPU has these counters and lets this process read them."""
    try:
        if not api.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice:
            return False
        gpm = Gpm(api)
    except (api.NVMLError, AttributeError):
        return False
    try:
        gpm.read(handle, 0)
    except api.NVMLError:
        return False
    finally:
        gpm.close()
    return True


class Gpm:
    """The two latest samples of one GPU, or of one GPU instance of it where ``gpu_instance`` is its number.

    Raises:
        pynvml.NVMLError: if there is no room for samples.
    """

    def __init__(self, api: ModuleType, gpu_instance: int | None = None) -> None:
        self._api = api
        self._gpu_instance = gpu_instance
        self._samples = [api.nvmlGpmSampleAlloc()]
        self._samples.append(api.nvmlGpmSampleAlloc())
        self._taken_ns: int | None = None
        self._query = api.c_nvmlGpmMetricsGet_t()
        self._query.version = api.NVML_GPM_METRICS_GET_VERSION
        self._query.numMetrics = len(_METRICS)
        for place, (metric, _) in enumerate(_METRICS.values()):
            self._query.metrics[place].metricId = getattr(api, metric)

    def read(self, handle: Any, now_ns: int) -> dict[str, float]:
        """Means since the last call, by field of ``GpuStatus``; empty the first time, and too soon after.

        ``handle`` is that of the whole GPU, for an instance of it too.

        Raises:
            pynvml.NVMLError: if the GPU does not answer; what came before counts no more.
        """
        before_ns = self._taken_ns
        if before_ns is not None and now_ns - before_ns < LEAST_NS:
            return {}
        self._samples.reverse()
        self._taken_ns = None
        self._take(handle, self._samples[1])
        self._taken_ns = now_ns
        if before_ns is None:
            return {}
        self._query.sample1, self._query.sample2 = self._samples
        self._api.nvmlGpmMetricsGet(self._query)
        return dict(self._told())

    def restart(self) -> None:
        """Forgets the last sample: the next call is a first one."""
        self._taken_ns = None

    def _take(self, handle: Any, sample: Any) -> None:
        if self._gpu_instance is None:
            self._api.nvmlGpmSampleGet(handle, sample)
        else:
            self._api.nvmlGpmMigSampleGet(handle, self._gpu_instance, sample)

    def _told(self) -> list[tuple[str, float]]:
        found = []
        for place, (name, (_, unit)) in enumerate(_METRICS.items()):
            metric = self._query.metrics[place]
            value = metric.value * unit
            possible = 0.0 <= value <= (_LARGEST_RATIO if unit == _PERCENT else float("inf"))
            if metric.nvmlReturn == 0 and possible:
                found.append((name, min(value, 1.0) if unit == _PERCENT else value))
        return found

    def close(self) -> None:
        """Gives the samples back; a second call does nothing."""
        samples, self._samples = self._samples, []
        for sample in samples:
            self._api.nvmlGpmSampleFree(sample)
