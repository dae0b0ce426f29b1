"""GPUs and readings go to records and back without a loss."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace

from joulescope.gpu_records import gpu_info, gpu_reading, gpu_record, sample_record
from joulescope.model import GpuInfo, GpuReading

INFO = GpuInfo(
    gpu="GPU-1",
    name="NVIDIA H100",
    index=3,
    power_limit_watts=700.0,
    memory_total_bytes=80 << 30,
    driver_version="570.86",
    energy_source="power",
    sensor="nvml",
    calibration_factor=1.055,
)
READING = GpuReading("GPU-1", 5, 6.5, 300.25, 7, 0.5)


def test_no_field_is_forgotten() -> None:
    """What a record carries comes back as it was, but for the sensor, which is then the replay."""
    for value in (INFO, READING):
        assert all(
            field.default is MISSING or getattr(value, field.name) != field.default for field in fields(value)
        )
    assert gpu_info(gpu_record(INFO)) == replace(INFO, sensor="replayed")
    assert gpu_reading(sample_record(READING)) == READING


def test_what_is_not_known_stays_so() -> None:
    """An empty reading is an empty record, and back."""
    empty = GpuReading("GPU-1", 5)
    assert gpu_reading(sample_record(empty)) == empty
