"""What is expected of a GPU before anything was measured: its data sheet, and published regressions.

Effective rates are parts of the data sheet's (what kernels reach); joules follow from the regression of
ML.ENERGY v3 on H100 (0.19 J per GB read, 0.065 J per sequence and step, static power included). Every
figure here is only where learning starts.
"""

from __future__ import annotations

from dataclasses import dataclass

_REACHED_BANDWIDTH = 0.85
_REACHED_ARITHMETIC = 0.62
_ACTIVE_PART_OF_LIMIT = 0.22
_BYTE_PART_OF_LIMIT = 0.64
"""Power of memory traffic at the data sheet's bandwidth, beyond static power, as a part of the limit."""

_FLOP_PART_OF_LIMIT = 1.2
"""Power of arithmetic at the data sheet's rate: above 1, because GPUs cannot sustain it under their cap."""

_LAUNCH_SECONDS = 1.2e-3
_SEQUENCE_SECONDS = 3e-5
_SEQUENCE_JOULES = 0.02


@dataclass(frozen=True, slots=True)
class DataSheet:
    """Peak rates of a GPU: bytes and dense bf16 FLOPs a second, and its power limit."""

    bytes_per_second: float
    flops_per_second: float
    limit_watts: float


_SHEETS = {
    "B200": DataSheet(8.0e12, 2.25e15, 1000.0),
    "H200": DataSheet(4.8e12, 9.89e14, 700.0),
    "H100 PCIE": DataSheet(2.0e12, 7.56e14, 350.0),
    "H100": DataSheet(3.35e12, 9.89e14, 700.0),
    "A100": DataSheet(2.04e12, 3.12e14, 400.0),
    "L40S": DataSheet(8.64e11, 3.62e14, 350.0),
    "L4": DataSheet(3.0e11, 1.21e14, 72.0),
    "A10": DataSheet(6.0e11, 1.25e14, 150.0),
    "V100": DataSheet(9.0e11, 1.25e14, 300.0),
}
_DEFAULT = _SHEETS["H100"]


@dataclass(frozen=True, slots=True)
class Expectation:
    """Where the fit of one GPU starts. See :mod:`joulescope.attribution.cost` for the formulas."""

    launch_seconds: float
    sequence_seconds: float
    seconds_per_byte: float
    seconds_per_flop: float
    joules_per_byte: float
    joules_per_flop: float
    sequence_joules: float
    active_watts: float
    limit_watts: float


def expectation_of(name: str, limit_watts: float | None, size_ratio: float = 1.0) -> Expectation:
    """The expectation for a GPU by the driver's name for it; an unknown one is taken for an H100.

    ``size_ratio``: of a MIG instance, its part of the GPU; ``limit_watts`` is then the instance's own.
    """
    upper = name.upper()
    sheet = next((sheet for key, sheet in _SHEETS.items() if key in upper), _DEFAULT)
    limit = limit_watts or sheet.limit_watts * size_ratio
    return Expectation(
        launch_seconds=_LAUNCH_SECONDS,
        sequence_seconds=_SEQUENCE_SECONDS,
        seconds_per_byte=1.0 / (_REACHED_BANDWIDTH * sheet.bytes_per_second * size_ratio),
        seconds_per_flop=1.0 / (_REACHED_ARITHMETIC * sheet.flops_per_second * size_ratio),
        joules_per_byte=_BYTE_PART_OF_LIMIT * sheet.limit_watts / sheet.bytes_per_second,
        joules_per_flop=_FLOP_PART_OF_LIMIT * sheet.limit_watts / sheet.flops_per_second,
        sequence_joules=_SEQUENCE_JOULES * sheet.limit_watts / _DEFAULT.limit_watts,
        active_watts=_ACTIVE_PART_OF_LIMIT * limit,
        limit_watts=limit,
    )
