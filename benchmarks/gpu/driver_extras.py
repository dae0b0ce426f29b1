"""What an NVIDIA driver keeps beside its plain readings: performance counters (GPM) and a buffer of power."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pynvml  # type: ignore[import-untyped]

from joulescope.clock import Clock

GPM_GAPS_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
GPM_TRIES = 20
GPM_SECONDS = GPM_TRIES * sum(GPM_GAPS_SECONDS)
"""How long :func:`gpm_of` takes."""

METRIC = pynvml.NVML_GPM_METRIC_SM_UTIL


def gpm_of(handle: Any, clock: Clock, tries: int = GPM_TRIES) -> dict[str, Any] | None:
    """How near two samples may lie and what the calls take; ``None`` without GPM.

    ``answered`` is the part of pairs of samples that gave a figure, by their distance in milliseconds;
    ``distinct`` how many figures there were: one that comes again and again is not renewed that often.
    """
    try:
        if not pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice:
            return None
        samples = [pynvml.nvmlGpmSampleAlloc() for _ in range(2)]
    except pynvml.NVMLError:
        return None
    found: dict[str, Any] = {"answered": {}, "distinct": {}}
    took: dict[str, list[int]] = {"sample": [], "metrics": []}
    try:
        for gap_seconds in GPM_GAPS_SECONDS:
            values = [_gpm_pair(handle, samples, clock, gap_seconds, took) for _ in range(tries)]
            told = [value for value in values if value is not None]
            name = f"{gap_seconds * 1000:g}"
            found["answered"][name] = len(told) / tries
            found["distinct"][name] = len(set(told))
    finally:
        for sample in samples:
            pynvml.nvmlGpmSampleFree(sample)
    return found | {"call_us": {name: _spread_us(values) for name, values in took.items()}}


def _gpm_pair(
    handle: Any, samples: list[Any], clock: Clock, gap_seconds: float, took: dict[str, list[int]]
) -> float | None:
    """The figure between two samples so far apart, ``None`` if the driver gives none."""
    query = pynvml.c_nvmlGpmMetricsGet_t()
    query.version, query.numMetrics = pynvml.NVML_GPM_METRICS_GET_VERSION, 1
    query.metrics[0].metricId = METRIC
    query.sample1, query.sample2 = samples
    try:
        for number, sample in enumerate(samples):
            if number:
                clock.sleep(gap_seconds)
            begin_ns = clock.now_ns()
            pynvml.nvmlGpmSampleGet(handle, sample)
            took["sample"].append(clock.now_ns() - begin_ns)
        begin_ns = clock.now_ns()
        pynvml.nvmlGpmMetricsGet(query)
        took["metrics"].append(clock.now_ns() - begin_ns)
    except pynvml.NVMLError:
        return None
    return float(query.metrics[0].value) if query.metrics[0].nvmlReturn == 0 else None


def _spread_us(values: list[int]) -> dict[str, float] | None:
    if not values:
        return None
    p50, p99, most = np.quantile(values, [0.5, 0.99, 1.0]) / 1e3
    return {"count": float(len(values)), "p50": float(p50), "p99": float(p99), "max": float(most)}


def buffer_of(handle: Any, clock: Clock) -> dict[str, Any] | None:
    """The driver's own buffer of power: its length, its beat and its clock; ``None`` without one.

    Whether a sample is the mean of all time since the one before, nobody says: ``watts`` beside what the
    counter says of the same seconds, under a load that changes, tells.
    """
    try:
        begin_ns = clock.now_ns()
        _, samples = pynvml.nvmlDeviceGetSamples(handle, pynvml.NVML_TOTAL_POWER_SAMPLES, 0)
        took_ns = clock.now_ns() - begin_ns
    except pynvml.NVMLError:
        return None
    samples = [sample for sample in samples if sample.timeStamp]
    if len(samples) < 2:
        return None
    stamps_us = np.array([sample.timeStamp for sample in samples])
    clocks_us = {"monotonic": clock.now_ns() // 1000, "wall": time.time_ns() // 1000}
    return {
        "count": len(samples),
        "spans_seconds": float(stamps_us[-1] - stamps_us[0]) / 1e6,
        "tick_ms": float(np.median(np.diff(stamps_us))) / 1e3,
        "clock": min(clocks_us, key=lambda name: abs(clocks_us[name] - int(stamps_us[-1]))),
        "watts": float(np.mean([sample.sampleValue.uiVal for sample in samples])) / 1e3,
        "call_us": took_ns / 1e3,
    }
