"""GPUs and readings go to records and back without a loss."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields, replace

import pytest

from joulescope.errors import TraceError
from joulescope.gpu_records import gpu_info, gpu_reading, gpu_record, gpu_status, sample_record, status_record
from joulescope.hook import wire
from joulescope.model import GpuCapabilities, GpuInfo, GpuReading, GpuStatus

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
    instances=("MIG-1", "MIG-2"),
    energy_split="gpm",
    parent="GPU-0",
    slices=3,
    slices_total=7,
    capabilities=GpuCapabilities(
        energy_counter=True,
        power=True,
        power_average=True,
        power_instant=True,
        power_samples=True,
        module_power=True,
        memory_power=True,
        gpm=True,
        architecture="hopper",
        mig=True,
        virtualization="none",
        confidential=False,
        persistence=True,
    ),
)
STATUS = GpuStatus(
    "GPU-1",
    4,
    power_limit_watts=600.0,
    power_instant_watts=301.5,
    module_power_watts=402.5,
    memory_power_watts=33.5,
    sm_clock_hertz=1.98e9,
    memory_clock_hertz=2.6e9,
    temperature_celsius=61.0,
    throttle_reasons=frozenset({"power_cap", "thermal"}),
    graphics_active_ratio=0.9,
    sm_active_ratio=0.8,
    sm_occupancy_ratio=0.4,
    tensor_active_ratio=0.3,
    dram_active_ratio=0.7,
    pcie_sent_bytes_per_second=1.0,
    pcie_received_bytes_per_second=2.0,
    nvlink_sent_bytes_per_second=3.0,
    nvlink_received_bytes_per_second=4.0,
)
READING = GpuReading("GPU-1", 5, 6.5, 300.25, 7, 0.5, STATUS, 0.002)


def test_no_field_is_forgotten() -> None:
    """What a record carries comes back as it was, but for the sensor, which is then the replay."""
    for value in (INFO, READING, STATUS, INFO.capabilities):
        assert all(
            field.default is MISSING or getattr(value, field.name) != field.default for field in fields(value)
        )
    assert gpu_info(gpu_record(INFO)) == replace(INFO, sensor="replayed")
    assert gpu_status(status_record(STATUS)) == STATUS
    assert gpu_reading(sample_record(READING), STATUS) == READING


@pytest.mark.parametrize(
    ("parent", "slices", "total"),
    [("", 3, 7), ("MIG-1", 3, 7), ("GPU-1", 0, 7), ("GPU-1", 8, 7), ("GPU-1", 3, None)],
)
def test_an_instance_that_is_no_part_of_a_gpu_is_refused(parent: str, slices: int, total: int | None) -> None:
    """An instance without a parent, or of impossible size, would be split wrongly: the replay says so."""
    record = wire.Gpu(gpu="MIG-1", energy_source="mig_gpm", parent=parent, slices=slices, slices_total=total)
    with pytest.raises(TraceError, match=r"MIG-1, a MIG instance of .* which is no part of a GPU; mend"):
        gpu_info(record)


def test_what_is_not_known_stays_so() -> None:
    """An empty reading is an empty record, and back."""
    empty = GpuReading("GPU-1", 5)
    assert gpu_reading(sample_record(empty)) == empty


@pytest.mark.parametrize("error", [-1.0, math.nan, math.inf])
def test_an_error_that_cannot_be_one_is_none(error: float) -> None:
    """A sample keeps its joules, whatever its sender says of its clock."""
    sample = wire.Sample(gpu="GPU-1", time_ns=5, energy_joules=6.5, clock_error_seconds=error)
    assert gpu_reading(sample) == GpuReading("GPU-1", 5, 6.5)


def test_capabilities_of_another_version_are_left_out() -> None:
    """Names that are not known here, and values of another kind, do not keep a trace from being read."""
    record = wire.Gpu(gpu="GPU-1", capabilities={"gpm": True, "architecture": True, "mind_reading": True})
    assert gpu_info(record).capabilities == GpuCapabilities(gpm=True)


def test_reasons_of_another_version_are_left_out() -> None:
    """A throttle reason that is not known here is dropped; the others stay."""
    record = wire.GpuStatus(gpu="GPU-1", time_ns=1, throttle_reasons=["thermal", "full_moon"])
    assert gpu_status(record).throttle_reasons == frozenset({"thermal"})
