"""How often GPUs without an energy counter are looked at."""

from __future__ import annotations

import pytest

from joulescope.model import GpuCapabilities, GpuInfo
from joulescope.sampling.power import poll_hertz


def info(architecture: str, source: str = "power", sensor: str = "nvml") -> GpuInfo:
    capabilities = GpuCapabilities(architecture=architecture)
    return GpuInfo("GPU-a", energy_source=source, sensor=sensor, capabilities=capabilities)


@pytest.mark.parametrize("architecture", ["pascal", "volta"])
def test_short_windows_are_polled_oftener(architecture: str) -> None:
    """One GPU that shows the power of its last 10 ms is enough, and nobody is polled more seldom than set."""
    gpus = [info("hopper", "counter"), info(architecture)]
    assert poll_hertz(gpus, 20.0, 100.0) == 100.0
    assert poll_hertz(gpus, 200.0, 100.0) == 200.0


@pytest.mark.parametrize(
    "other",
    [info("volta", "counter"), info("hopper"), info("ampere"), info(""), info("pascal", sensor="amd")],
)
def test_others_are_polled_as_set(other: GpuInfo) -> None:
    """A counter, readings renewed every 100 ms and sensors of which nothing is known need no more polls."""
    assert poll_hertz([other], 20.0, 100.0) == 20.0
    assert poll_hertz([], 20.0, 100.0) == 20.0
