"""Reading through real pynvml: units, cadence, failures and recovery."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import pytest

from joulescope.clock import ManualClock
from joulescope.errors import SensorLost
from joulescope.model import GpuReading
from joulescope.sensors.nvml import NvmlSensor
from tests.fake_nvml import (
    GPU_IS_LOST,
    NOT_SUPPORTED,
    PARTS,
    TIMEOUT,
    UNKNOWN,
    DriverClock,
    FakeDriver,
    FakeGpu,
)
from tests.sensors.conftest import MakeDriver

A, B = "GPU-a", "GPU-b"


@dataclass
class Bench:
    """A driver with two GPUs, and a sensor on it with a clock of the test's own."""

    driver: FakeDriver
    clock: ManualClock
    sensor: NvmlSensor

    def read(self, after_seconds: float = 0.0) -> dict[str, GpuReading]:
        self.clock.advance(after_seconds)
        return {reading.gpu: reading for reading in self.sensor.read()}


@pytest.fixture
def bench(make_driver: MakeDriver) -> Iterator[Bench]:
    driver = make_driver(FakeGpu(A), FakeGpu(B, energy_mj=1))
    clock = ManualClock(time_ns=10**9)
    sensor = NvmlSensor.open(clock)
    yield Bench(driver, clock, sensor)
    sensor.close()


def test_units_are_si(bench: Bench) -> None:
    """Millijoules, milliwatts and percent become joules, watts and a ratio; memory stays in bytes."""
    bench.driver.set_counter(A, 123_456_789)
    bench.driver.set_power(A, 321.987)
    bench.driver.set_raw(A, memory_used=7 * 1024**3, utilization_gpu=37)
    reading = bench.read(after_seconds=1.0)[A]
    assert reading.energy_joules == 123_456.789
    assert reading.power_watts == 321.987
    assert reading.memory_used_bytes == 7 * 1024**3
    assert reading.sm_utilization_ratio == 0.37


def test_time_is_the_middle_of_the_energy_call(make_driver: MakeDriver) -> None:
    """With a clock that moves 10 ns a look, a GPU's instant lies between the looks around its call."""

    class Ticking(ManualClock):
        def now_ns(self) -> int:
            self.time_ns += 10
            return self.time_ns

    make_driver(FakeGpu(A), FakeGpu(B))
    clock = Ticking()
    sensor = NvmlSensor.open(clock)
    before_ns = clock.time_ns
    assert [reading.time_ns - before_ns for reading in sensor.read()] == [15, 55]
    sensor.close()


def test_slow_values_are_read_once_a_second(bench: Bench) -> None:
    """Forty reads in two seconds ask 40 times for energy and power, but twice for memory and utilisation."""
    functions = ("energy", "power", "memory", "utilization")
    before = [bench.driver.calls(A, function) for function in functions]
    for _ in range(40):
        bench.read(after_seconds=0.05)
    after = [bench.driver.calls(A, function) for function in functions]
    assert [late - early for early, late in zip(before, after, strict=True)] == [40, 40, 2, 2]


def test_slow_values_of_different_gpus_are_read_at_different_times(bench: Bench) -> None:
    """The once-a-second calls are spread, so that no read pays for all GPUs at once."""
    counts = [bench.driver.calls(gpu, "memory") for gpu in (A, B)]
    bench.read(after_seconds=0.6)
    assert [bench.driver.calls(gpu, "memory") for gpu in (A, B)] == [counts[0] + 1, counts[1]]


def test_slow_value_is_carried_and_then_absent_when_it_fails(bench: Bench) -> None:
    """Memory is handed out between its reads, and is absent, not old, once it cannot be read."""
    bench.driver.set_raw(A, memory_used=123)
    assert bench.read(after_seconds=1.0)[A].memory_used_bytes == 123
    bench.driver.set_code(A, "memory", UNKNOWN)
    assert bench.read(after_seconds=0.5)[A].memory_used_bytes == 123
    reading = bench.read(after_seconds=0.5)[A]
    assert (reading.memory_used_bytes, reading.sm_utilization_ratio) == (None, 0.0)
    assert bench.sensor.read_failures() == {A: 1, B: 0}


def test_reset_of_the_counter_is_passed_on(bench: Bench) -> None:
    """The sensor shows a counter that fell as it is; telling resets is the meter's work."""
    assert bench.read()[A].energy_joules == 5000.0
    bench.driver.set_counter(A, 2)
    assert bench.read()[A].energy_joules == 0.002


def test_nonsense_energy_leaves_the_gpu_out(bench: Bench) -> None:
    """A counter of all ones in the middle of a run is a failed read, and the next true one counts again."""
    bench.driver.set_counter(A, 2**64 // 1000)
    assert list(bench.read()) == [B]
    bench.driver.set_counter(A, 5_000_100)
    assert bench.read(after_seconds=1.0)[A].energy_joules == 5000.1
    assert bench.sensor.read_failures() == {A: 1, B: 0}


def test_nonsense_beside_energy_is_absent(bench: Bench) -> None:
    """Power of all ones, more memory than there is and 250 % utilisation are absent; energy stays."""
    bench.driver.set_raw(A, power_mw=2**32 - 1, memory_used=2**60, utilization_gpu=250)
    reading = bench.read(after_seconds=1.0)[A]
    assert reading.energy_joules == 5000.0
    assert (reading.power_watts, reading.memory_used_bytes, reading.sm_utilization_ratio) == (
        None,
        None,
        None,
    )


def test_failing_power_does_not_cost_the_energy(bench: Bench) -> None:
    """A GPU with a counter is still read when only its power call fails; the failure is counted."""
    bench.driver.set_code(A, "power", TIMEOUT)
    reading = bench.read()[A]
    assert (reading.energy_joules, reading.power_watts) == (5000.0, None)
    assert bench.sensor.read_failures()[A] == 1


@pytest.mark.parametrize("code", [GPU_IS_LOST, UNKNOWN, TIMEOUT])
def test_one_failing_gpu_is_left_out_and_comes_back(bench: Bench, code: int) -> None:
    """The other GPU is read on; the failing one rests between tries and is read again once it answers."""
    bench.driver.lose(A, code)
    for _ in range(40):
        assert list(bench.read(after_seconds=0.05)) == [B]
    failures = bench.sensor.read_failures()
    assert failures[B] == 0
    assert failures[A] == 4
    bench.driver.lose(A, 0)
    assert list(bench.read(after_seconds=4.0)) == [A, B]
    assert list(bench.read()) == [A, B]


def test_gpu_that_was_reattached_is_read_by_a_new_handle(bench: Bench) -> None:
    """After a reset that kills the handle the sensor asks for a new one by UUID."""
    bench.driver.reattach(A)
    assert list(bench.read()) == [B]
    assert list(bench.read(after_seconds=0.3)) == [A, B]


def test_rest_of_a_failing_gpu_is_bounded(bench: Bench) -> None:
    """However long a GPU was away, it is tried again within 30 s."""
    bench.driver.lose(A)
    for _ in range(600):
        bench.read(after_seconds=1.0)
    bench.driver.lose(A, 0)
    assert A in bench.read(after_seconds=30.0)


def test_lost_gpus_end_the_sensor(bench: Bench) -> None:
    """When every GPU fell off the bus the first read says so, with advice."""
    bench.driver.lose(A)
    bench.driver.lose(B)
    with pytest.raises(SensorLost, match=r"no GPU answers any more.*off the bus"):
        bench.read()


def test_passing_trouble_of_all_gpus_ends_the_sensor_only_if_it_stays(bench: Bench) -> None:
    """One unknown error of every GPU gives an empty batch; the third in a row ends the sensor."""
    bench.driver.lose(A, UNKNOWN)
    bench.driver.lose(B, UNKNOWN)
    assert bench.read() == {}
    assert bench.read(after_seconds=0.3) == {}
    with pytest.raises(SensorLost, match="daemon-reload"):
        bench.read(after_seconds=0.6)
    bench.driver.lose(A, 0)
    bench.driver.lose(B, 0)
    again = NvmlSensor.open(bench.clock)
    assert len(again.read()) == 2
    again.close()


def test_mixed_trouble_waits_for_the_gpu_that_may_come_back(bench: Bench) -> None:
    """One GPU gone and one timing out: no reading, but the sensor stays until that one is given up too."""
    bench.driver.lose(A)
    bench.driver.lose(B, TIMEOUT)
    assert bench.read() == {}
    bench.driver.lose(B, 0)
    assert list(bench.read(after_seconds=0.3)) == [B]


def test_closed_sensor_has_given_nvml_back(bench: Bench) -> None:
    """close() shuts NVML down once, however often it is called."""
    bench.sensor.close()
    bench.sensor.close()
    assert bench.driver.open_users() == 0


@pytest.mark.parametrize(
    ("part", "field_calls", "usage_calls", "watts"),
    [("l40s", 1, 0, 315.0), ("a100", 1, 0, 360.0), ("h100", 0, 1, 365.0), ("v100", 0, 1, 270.0)],
)
def test_without_a_counter_the_better_power_reading_is_taken(
    make_driver: MakeDriver, part: str, field_calls: int, usage_calls: int, watts: float
) -> None:
    """Half a second into a load Ada shows it at once by POWER_INSTANT; Hopper shows the mean of a second."""
    gpu = replace(PARTS[part], uuid=A, live=True, codes=(("energy", NOT_SUPPORTED),))
    driver = make_driver(gpu)
    clock = DriverClock(10**9, driver=driver)
    limit = gpu.power_limit_watts
    with closing(NvmlSensor.open(clock)) as sensor:
        driver.set_wave(A, 100.0, 0.9 * limit, 2.0, 1.0)
        clock.advance(2.45)
        sensor.read()  # the slow questions of this second, which are not counted below
        clock.advance(0.05)
        before = [driver.calls(A, function) for function in ("fields", "power")]
        (reading,) = sensor.read()
        after = [driver.calls(A, function) for function in ("fields", "power")]
    assert [late - early for early, late in zip(before, after, strict=True)] == [field_calls, usage_calls]
    assert reading.energy_joules is None
    assert reading.power_watts == pytest.approx(watts)


def test_an_instant_power_that_fails_leaves_the_gpu_out(make_driver: MakeDriver) -> None:
    """Without counter and answer there is no reading, the failure is counted, and it comes back by itself."""
    driver = make_driver(replace(PARTS["l40s"], uuid=A, codes=(("energy", NOT_SUPPORTED),)))
    clock = ManualClock(10**9)
    with closing(NvmlSensor.open(clock)) as sensor:
        driver.set_code(A, "fields", TIMEOUT)
        assert list(sensor.read()) == []
        assert sensor.read_failures() == {A: 1}
        driver.set_code(A, "fields", 0)
        clock.advance(1.0)
        assert [reading.power_watts for reading in sensor.read()] == [100.0]
