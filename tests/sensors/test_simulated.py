"""The simulated sensor: what of the truth can be seen."""

from __future__ import annotations

from itertools import pairwise

import pytest

from joulescope.clock import ManualClock
from joulescope.model import GpuInfo, GpuReading
from joulescope.sensors import Sensor
from joulescope.sensors.simulated import SimulatedSensor


class Steady:
    """GPUs that draw 100 W for ever, and remember the instants they were asked about."""

    def __init__(self, *gpus: GpuInfo) -> None:
        self._gpus = gpus
        self.asked_ns: list[int] = []

    def gpus(self) -> tuple[GpuInfo, ...]:
        return self._gpus

    def energy_joules_at(self, gpu: str, time_ns: int) -> float:
        self.asked_ns.append(time_ns)
        return time_ns * 100 / 1e9

    def power_watts_at(self, gpu: str, time_ns: int) -> float:
        return 100.0001

    def memory_used_bytes_at(self, gpu: str, time_ns: int) -> int | None:
        return 42

    def sm_utilization_ratio_at(self, gpu: str, time_ns: int) -> float | None:
        return None


def energies(gpu: str, seconds: float = 1.0) -> list[float]:
    """The counter, polled every 10 ms."""
    clock = ManualClock(time_ns=10**12)
    sensor = SimulatedSensor(Steady(GpuInfo(gpu)), clock)
    values = []
    for _ in range(round(seconds * 100)):
        clock.advance(0.01)
        values.append(sensor.read()[0].energy_joules)
    return [value for value in values if value is not None]


def test_counter_shows_the_old_value_between_ticks() -> None:
    """Polled every 10 ms for a second it shows ten or eleven values, each rise a tick's 10 J."""
    values = energies("GPU-a")
    assert len(values) == 100
    distinct = sorted(set(values))
    assert len(distinct) in (10, 11)
    rises = [after - before for before, after in pairwise(distinct[1:])]
    assert rises == pytest.approx([10.0] * len(rises))


def test_each_gpu_ticks_at_its_own_instants() -> None:
    """Two GPUs do not refresh together, and the same GPU always refreshes at the same instants."""
    assert energies("GPU-a") == energies("GPU-a")
    assert energies("GPU-a") != energies("GPU-b")


def test_figures_have_millijoule_and_milliwatt_steps() -> None:
    """Nothing finer than NVML's own units is shown, and rounding never runs ahead of the truth."""
    clock = ManualClock(time_ns=123_456_789)
    source = Steady(GpuInfo("GPU-a"))
    (reading,) = SimulatedSensor(source, clock).read()
    assert reading.power_watts == 100.0
    assert reading.energy_joules == 12.345
    assert reading.time_ns == 123_456_789


def test_source_is_asked_in_order_and_never_about_the_time_before() -> None:
    """The instants never fall, never lie before the opening, and are at most one tick old."""
    clock = ManualClock(time_ns=10**12)
    source = Steady(GpuInfo("GPU-a"))
    sensor = SimulatedSensor(source, clock)
    for _ in range(200):
        sensor.read()
        assert 10**12 <= source.asked_ns[-1] <= clock.now_ns()
        assert clock.now_ns() - source.asked_ns[-1] < 100_000_000
        clock.advance(0.007)
    assert source.asked_ns == sorted(source.asked_ns)


def test_gpu_without_a_counter_shows_power_only() -> None:
    """A simulated GPU of energy source ``power`` hides its energy."""
    info = GpuInfo("GPU-a", energy_source="power")
    sensor = SimulatedSensor(Steady(info), ManualClock(time_ns=5))
    assert sensor.read() == [GpuReading("GPU-a", 5, None, 100.0, 42, None)]


def test_it_is_a_sensor() -> None:
    """It satisfies the protocol, names its kind, fails never and may be closed twice."""
    sensor = SimulatedSensor(Steady(GpuInfo("GPU-a"), GpuInfo("GPU-b")), ManualClock())
    assert isinstance(sensor, Sensor)
    assert [info.sensor for info in sensor.gpus()] == ["simulated", "simulated"]
    assert sensor.read_failures() == {"GPU-a": 0, "GPU-b": 0}
    sensor.close()
    sensor.close()


def test_tick_must_be_positive() -> None:
    """A refresh period of 0 is refused."""
    with pytest.raises(ValueError, match="tick_seconds"):
        SimulatedSensor(Steady(), ManualClock(), tick_seconds=0)
