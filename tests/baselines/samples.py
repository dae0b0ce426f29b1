"""A baseline made by hand."""

from __future__ import annotations

from joulescope.attribution.baseline import Baseline, CacheUse, Identity
from joulescope.model import CostFacts

IDENTITY = Identity("org/model", "bfloat16", "", 1, 1, "NVIDIA H100 80GB HBM3", 1)


def baseline(**more: object) -> Baseline:
    """Of a dense model on an H100."""
    base: dict[str, object] = {
        "name": "model 0.32.0 2026-01-30T06:00Z",
        "identity": IDENTITY,
        "software": "vllm",
        "version": "0.32.0",
        "created_wall_seconds": 1769752800.0,
        "busy_seconds": 1800.0,
        "cost": CostFacts("vllm", 16e9, 131072.0, 16e9, 5.2e5, 1e9),
        "time_coefficients": (1.4e-3, 4e-5, 3.5e-13, 3.5e-13, 1.6e-15),
        "energy_coefficients": (1.4e-10, 1.4e-10, 7e-13, 0.002, 165.0),
        "time_covariance": _diagonal(5, 1e-4),
        "energy_covariance": _diagonal(5, 1e-3),
        "unevenness": 0.0,
        "limit_watts": 700.0,
        "idle_watts": 100.0,
        "wait_seconds": (1e-4, 1e-6),
        "scale": 1.01,
        "scatter": 0.004,
        "cache": (CacheUse(256, 100, 20_000, 9_000),),
    }
    return Baseline(**{**base, **more})  # type: ignore[arg-type]


def _diagonal(size: int, value: float) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(value if row == column else 0.0 for column in range(size)) for row in range(size))
