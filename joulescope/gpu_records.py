"""GPUs and their readings as they stand in a trace and on the socket, and back."""

from __future__ import annotations

import math

from joulescope.errors import TraceError
from joulescope.hook import wire
from joulescope.model import GpuInfo, GpuReading


def gpu_record(info: GpuInfo) -> wire.Gpu:
    """The record that comes before the GPU's first sample."""
    return wire.Gpu(
        gpu=info.gpu,
        name=info.name,
        index=info.index,
        power_limit_watts=info.power_limit_watts,
        memory_total_bytes=info.memory_total_bytes,
        driver_version=info.driver_version,
        energy_source=info.energy_source,
        calibration_factor=info.calibration_factor,
    )


def gpu_info(record: wire.Gpu) -> GpuInfo:
    """The GPU that a record tells of; its sensor is ``replayed``.

    Raises:
        TraceError: if its calibration factor cannot be one: all its joules would be wrong.
    """
    factor = record.calibration_factor
    if not 0 < factor < math.inf:
        raise TraceError(
            f"the trace gives GPU {record.gpu} the calibration_factor {factor:g}, which is not above 0; "
            "mend its gpu record"
        )
    return GpuInfo(
        gpu=record.gpu,
        name=record.name,
        index=record.index,
        power_limit_watts=record.power_limit_watts,
        memory_total_bytes=record.memory_total_bytes,
        driver_version=record.driver_version,
        energy_source=record.energy_source,
        calibration_factor=factor,
        sensor="replayed",
    )


def sample_record(reading: GpuReading) -> wire.Sample:
    """One reading as a record."""
    return wire.Sample(
        gpu=reading.gpu,
        time_ns=reading.time_ns,
        energy_joules=reading.energy_joules,
        power_watts=reading.power_watts,
        memory_used_bytes=reading.memory_used_bytes,
        sm_utilization_ratio=reading.sm_utilization_ratio,
    )


def gpu_reading(sample: wire.Sample) -> GpuReading:
    """The reading that a record holds."""
    return GpuReading(
        gpu=sample.gpu,
        time_ns=sample.time_ns,
        energy_joules=sample.energy_joules,
        power_watts=sample.power_watts,
        memory_used_bytes=sample.memory_used_bytes,
        sm_utilization_ratio=sample.sm_utilization_ratio,
    )
