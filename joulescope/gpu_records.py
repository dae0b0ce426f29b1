"""GPUs and their readings as they stand in a trace and on the socket, and back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from joulescope.errors import TraceError
from joulescope.hook import wire
from joulescope.model import MIG_GPM, THROTTLE_REASONS, GpuCapabilities, GpuInfo, GpuReading, GpuStatus


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
        instances=list(info.instances),
        energy_split=info.energy_split,
        parent=info.parent,
        slices=info.slices,
        slices_total=info.slices_total,
        capabilities={
            name: value
            for name, value in dataclasses.asdict(info.capabilities).items()
            if value not in (None, "")
        },
    )


def gpu_info(record: wire.Gpu) -> GpuInfo:
    """The GPU that a record tells of; its sensor is ``replayed``.

    Raises:
        TraceError: if its calibration factor, or its part of a GPU, cannot be one: all its joules would be
            wrong.
    """
    factor = record.calibration_factor
    if not 0 < factor < math.inf:
        raise TraceError(
            f"the trace gives GPU {record.gpu} the calibration_factor {factor:g}, which is not above 0; "
            "mend its gpu record"
        )
    if record.energy_source == MIG_GPM and not _is_part(record):
        raise TraceError(
            f"the trace gives GPU {record.gpu}, a MIG instance of {record.parent or 'no GPU'}, "
            f"{record.slices} of {record.slices_total} slices, which is no part of a GPU; mend its gpu record"
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
        instances=tuple(record.instances),
        energy_split=record.energy_split,
        parent=record.parent,
        slices=record.slices,
        slices_total=record.slices_total,
        capabilities=_capabilities(record.capabilities),
        sensor="replayed",
    )


def _is_part(record: wire.Gpu) -> bool:
    slices, total = record.slices or 0, record.slices_total or 0
    return record.parent not in ("", record.gpu) and 0 < slices <= total


def _capabilities(told: Mapping[str, bool | str]) -> GpuCapabilities:
    """Names that are not known, and values of another kind than they have here, are left out."""
    known = {field.name: field.default for field in dataclasses.fields(GpuCapabilities)}
    usable = {
        name: value
        for name, value in told.items()
        if name in known and isinstance(value, str) == isinstance(known[name], str)
    }
    return GpuCapabilities(**usable)  # type: ignore[arg-type]


def sample_record(reading: GpuReading) -> wire.Sample:
    """One reading as a record."""
    return wire.Sample(
        gpu=reading.gpu,
        time_ns=reading.time_ns,
        energy_joules=reading.energy_joules,
        power_watts=reading.power_watts,
        memory_used_bytes=reading.memory_used_bytes,
        sm_utilization_ratio=reading.sm_utilization_ratio,
        clock_error_seconds=reading.clock_error_seconds,
    )


def status_record(status: GpuStatus) -> wire.GpuStatus:
    """What is read once a second, as a record."""
    told = {name: getattr(status, name) for name in _STATUS_FIELDS}
    reasons = status.throttle_reasons
    return wire.GpuStatus(**told, throttle_reasons=None if reasons is None else sorted(reasons))


def gpu_status(record: wire.GpuStatus) -> GpuStatus:
    """What a record tells; reasons that are not known are left out."""
    told = {name: getattr(record, name) for name in _STATUS_FIELDS}
    reasons = record.throttle_reasons
    return GpuStatus(
        **told,
        throttle_reasons=None if reasons is None else frozenset(reasons).intersection(THROTTLE_REASONS),
    )


_STATUS_FIELDS = tuple(
    field.name for field in dataclasses.fields(GpuStatus) if field.name != "throttle_reasons"
)


def gpu_reading(sample: wire.Sample, status: GpuStatus | None = None) -> GpuReading:
    """The reading that a record holds, with the latest status of its GPU."""
    return GpuReading(
        gpu=sample.gpu,
        time_ns=sample.time_ns,
        energy_joules=sample.energy_joules,
        power_watts=sample.power_watts,
        memory_used_bytes=sample.memory_used_bytes,
        sm_utilization_ratio=sample.sm_utilization_ratio,
        status=status,
        clock_error_seconds=_possible_error(sample.clock_error_seconds),
    )


def _possible_error(seconds: float | None) -> float:
    """What is no error at all counts as none: a reading is not lost for it."""
    return seconds if seconds is not None and 0 < seconds < math.inf else 0.0
