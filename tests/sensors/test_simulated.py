"""The simulated sensor: what of the truth can be seen."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from joulescope.clock import ManualClock
from joulescope.model import GpuInfo, GpuReading, GpuStatus
from joulescope.sensors import Sensor
from joulescope.sensors.simulated import PROFILES, SensorProfile, SimulatedSensor


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

    def power_limit_watts_at(self, gpu: str, time_ns: int) -> float | None:
        return 700.0

    def clocks_hertz_at(self, gpu: str, time_ns: int) -> tuple[float, float] | None:
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


def test_source_is_not_asked_about_the_time_before_nor_far_back() -> None:
    """No instant lies before the opening, after the clock, or more than a tick and a window ago."""
    clock = ManualClock(time_ns=10**12)
    source = Steady(GpuInfo("GPU-a"))
    sensor = SimulatedSensor(source, clock)
    for _ in range(400):
        source.asked_ns.clear()
        sensor.read()
        assert all(10**12 <= asked_ns <= clock.now_ns() for asked_ns in source.asked_ns)
        assert clock.now_ns() - min(source.asked_ns) < 1_100_000_000
        clock.advance(0.007)


class Alternating(Steady):
    """A GPU that draws 500 W in the first half of every second and 100 W in the second."""

    def energy_joules_at(self, gpu: str, time_ns: int) -> float:
        whole, rest = divmod(time_ns / 1e9, 1.0)
        return 300.0 * whole + 500.0 * min(rest, 0.5) + 100.0 * max(rest - 0.5, 0.0)


def powers(profile: SensorProfile) -> list[float]:
    """The power reading, polled every 10 ms, once it has been open for longer than its window."""
    clock = ManualClock(time_ns=10**12)
    sensor = SimulatedSensor(Alternating(GpuInfo("GPU-a")), clock, profile)
    clock.advance(2.0)
    values = []
    for _ in range(300):
        clock.advance(0.01)
        values.append(sensor.read()[0].power_watts)
    return [value for value in values if value is not None]


def test_power_is_the_mean_of_a_window() -> None:
    """A second's average does not see what alternates within it; a window of 25 ms sees both levels."""
    assert powers(PROFILES["h100"]) == pytest.approx([300.0] * 300, abs=0.002)
    seen = powers(PROFILES["a100"])
    assert {round(value) for value in seen} >= {100, 500}
    changes = sum(before != after for before, after in pairwise(seen))
    assert changes <= 30


def test_power_just_after_the_opening_is_that_of_the_instant() -> None:
    """Where no window has been seen yet the reading is what is drawn now."""
    sensor = SimulatedSensor(Steady(GpuInfo("GPU-a")), ManualClock(time_ns=10**12))
    assert sensor.read()[0].power_watts == 100.0


def test_a_part_without_counter_shows_power_only() -> None:
    """The profile decides for all of its GPUs, and what they say of themselves agrees."""
    sensor = SimulatedSensor(Steady(GpuInfo("GPU-a")), ManualClock(time_ns=5), PROFILES["power-only"])
    assert sensor.gpus()[0].energy_source == "power"
    assert sensor.read()[0].energy_joules is None


def test_the_gain_of_a_card_is_its_own_and_within_bounds() -> None:
    """Cards differ, none by more than the profile says, and energy and power by the same factor."""
    clock = ManualClock(time_ns=10**12)
    sensor = SimulatedSensor(
        Steady(*(GpuInfo(f"GPU-{number}") for number in range(50))), clock, PROFILES["gain-error"]
    )
    gains = [sensor.gain_ratio(info.gpu) for info in sensor.gpus()]
    assert 0.95 <= min(gains) < 0.97 < 1.03 < max(gains) <= 1.05
    clock.advance(5.0)
    for reading, gain in zip(sensor.read(), gains, strict=True):
        assert reading.power_watts == pytest.approx(100.0 * gain, abs=0.01)
        assert reading.energy_joules == pytest.approx(100.0 * gain * 1005.0, rel=0.001)


def test_a_counter_that_is_reset_starts_again_at_nothing() -> None:
    """After each reset the counter falls once and counts on from 0; power does not notice."""
    clock = ManualClock(time_ns=10**12)
    profile = SensorProfile(reset_seconds=(2.05, 4.05))
    sensor = SimulatedSensor(Steady(GpuInfo("GPU-a")), clock, profile)
    values, watts = [], set()
    for _ in range(60):
        (reading,) = sensor.read()
        values.append(reading.energy_joules or 0.0)
        watts.add(reading.power_watts)
        clock.advance(0.1)
    falls = [after for before, after in pairwise(values) if after < before]
    assert falls == pytest.approx([5.0, 5.0], abs=5.0)
    assert values[-1] == pytest.approx(100.0 * (5.9 - 4.05), abs=10.0)
    assert max(watts) - min(watts) < 0.002


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_can_be_read(name: str) -> None:
    """Each shows power, and energy if its part keeps a counter."""
    clock = ManualClock(time_ns=10**12)
    sensor = SimulatedSensor(Steady(GpuInfo("GPU-a")), clock, PROFILES[name])
    clock.advance(3.0)
    (reading,) = sensor.read()
    assert reading.power_watts == pytest.approx(100.0, rel=0.06)
    assert (reading.energy_joules is None) == name.startswith("power-only")


def test_gpu_without_a_counter_shows_power_only() -> None:
    """A simulated GPU of energy source ``power`` hides its energy."""
    info = GpuInfo("GPU-a", energy_source="power")
    sensor = SimulatedSensor(Steady(info), ManualClock(time_ns=5))
    status = GpuStatus("GPU-a", 5, power_limit_watts=700.0)
    assert sensor.read() == [GpuReading("GPU-a", 5, None, 100.0, 42, None, status)]


def test_it_is_a_sensor() -> None:
    """It satisfies the protocol, names its kind, fails never and may be closed twice."""
    sensor = SimulatedSensor(Steady(GpuInfo("GPU-a"), GpuInfo("GPU-b")), ManualClock())
    assert isinstance(sensor, Sensor)
    assert [info.sensor for info in sensor.gpus()] == ["simulated", "simulated"]
    assert sensor.read_failures() == {"GPU-a": 0, "GPU-b": 0}
    sensor.close()
    sensor.close()


@pytest.mark.parametrize("name", ["counter_tick_seconds", "power_tick_seconds", "power_window_seconds"])
def test_periods_must_be_positive(name: str) -> None:
    """A period or window of 0 is refused, and the error names it."""
    with pytest.raises(ValueError, match=name):
        replace(SensorProfile(), **{name: 0})
