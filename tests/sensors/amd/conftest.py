"""Fixtures: a stand-in library that the real amdsmi loads, machines whose state a test owns, open sensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from joulescope.model import GpuReading
from joulescope.sensors.amd import AmdSensor
from joulescope.sensors.amd_trust import Verdicts
from tests.fake_amdsmi import FakeGpu, FakeRocm, RunningClock, build


@dataclass
class Bench:
    """A machine, the clock by which its counters run, and a way to open sensors on it."""

    rocm: FakeRocm
    clock: RunningClock
    verdicts: Verdicts
    sensors: list[AmdSensor]

    def open(self, *gpus: str) -> AmdSensor:
        sensor = AmdSensor.open(self.clock, gpus or None, self.verdicts)
        self.sensors.append(sensor)
        return sensor

    def read(self, after_seconds: float = 0.05) -> dict[str, GpuReading]:
        """What the sensor that was opened last reads, after some time has gone by."""
        self.clock.advance(after_seconds)
        return {reading.gpu: reading for reading in self.sensors[-1].read()}


MakeBench = Callable[..., Bench]


@pytest.fixture(scope="session")
def rocm_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for ROCM_PATH, built once for all tests."""
    return build(tmp_path_factory.mktemp("rocm"))


@pytest.fixture
def make_bench(rocm_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeBench]:
    """Makes the machine that amdsmi finds in this process until the test ends."""
    monkeypatch.delenv("ROCM_HOME", raising=False)
    monkeypatch.setenv("ROCM_PATH", str(rocm_path))
    made: list[Bench] = []

    def make(*gpus: FakeGpu, library: int = 26, rocm: int = 7) -> Bench:
        machine = FakeRocm(tmp_path / f"state{len(made)}", gpus, library=library, rocm=rocm)
        monkeypatch.setenv("FAKE_AMDSMI_STATE", str(machine.path))
        clock = RunningClock(time_ns=10**9)
        clock.rocm = machine
        made.append(Bench(machine, clock, Verdicts(), []))
        return made[-1]

    yield make
    for bench in made:
        for sensor in bench.sensors:
            sensor.close()
        assert bench.rocm.open_users() == 0, "a sensor was left open"
