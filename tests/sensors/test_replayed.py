"""The replayed sensor."""

from __future__ import annotations

import pytest

from joulescope.errors import SensorLost
from joulescope.model import GpuInfo, GpuReading
from joulescope.sensors import Sensor
from joulescope.sensors.replayed import ReplayedSensor

INFOS = [GpuInfo("GPU-a", sensor="nvml"), GpuInfo("GPU-b")]


def test_hands_out_batches_unchanged_and_is_lost_at_the_end() -> None:
    """Each read gives the next batch as it was recorded; after the last the sensor is lost."""
    batches = [[GpuReading("GPU-a", 1, 2.0), GpuReading("GPU-b", 1)], [GpuReading("GPU-b", 5)]]
    sensor = ReplayedSensor(INFOS, batches)
    assert isinstance(sensor, Sensor)
    assert [info.sensor for info in sensor.gpus()] == ["replayed", "replayed"]
    assert [sensor.read(), sensor.read()] == batches
    assert sensor.read_failures() == {"GPU-a": 1, "GPU-b": 0}
    with pytest.raises(SensorLost, match="recording is over"):
        sensor.read()


def test_closed_replay_is_over() -> None:
    """After close() nothing more is handed out; a second close does nothing."""
    sensor = ReplayedSensor(INFOS, [[GpuReading("GPU-a", 1)]])
    sensor.close()
    sensor.close()
    with pytest.raises(SensorLost):
        sensor.read()
