"""Faults that last or come back again and again, and who else is there: beyond one row of the table."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.fake_nvml import SUCCESS, TIMEOUT, UNKNOWN, FakeGpu, FakeInstance
from tests.sensors.conftest import MakeDriver
from tests.sensors.nvml_bench import Bench, Engine, Pausing
from tests.sensors.nvml_tampering import H100, A

MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(make_driver: MakeDriver, caplog: pytest.LogCaptureFixture) -> MakeBench:
    def make(gpu: FakeGpu = H100, engine_gpu: str = A) -> Bench:
        caplog.set_level(logging.INFO)
        driver = make_driver(gpu)
        return Bench(driver, Pausing(10**9, driver=driver), [engine_gpu])

    return make


def lines(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in record.getMessage() for record in caplog.records)


def test_a_gpu_that_opens_and_never_answers_is_not_ready(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten minutes of a driver that opens and cannot be read: never ready, one line, and then all is well."""
    bench = make_bench()
    bench.run(5.0)
    caplog.clear()
    bench.driver.set_code(A, "energy", UNKNOWN)
    bench.run(3.0)
    for _ in range(20):
        bench.run(1.0)  # one try, and the pause after it
        assert "daemon-reload" in bench.watch.error
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    bench.driver.set_code(A, "energy", SUCCESS)
    bench.run(35.0)
    assert bench.watch.error == ""
    assert lines(caplog, "reading 1 GPU(s)") == 1
    totals, missing_joules = bench.finish()[A]
    assert totals.residual_joules == 0
    assert abs(missing_joules) < 35.0


def test_a_gpu_that_is_lost_is_absent_at_once(make_bench: MakeBench) -> None:
    """The first read that finds the only GPU lost takes its gauges off the page; its counters stay."""
    bench = make_bench()
    bench.run(5.0)
    measured = bench.page()["joulescope_measured_energy_joules_total", A]
    bench.driver.lose(A)
    bench.step()
    page = bench.page()
    assert page["joulescope_sensor_up", A] == 0
    assert ("joulescope_gpu_power_watts", A) not in page
    assert page["joulescope_measured_energy_joules_total", A] >= measured > 0
    bench.finish()


def test_a_call_that_fails_now_and_then_is_one_trouble(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    """Power that fails every other second for 40 s has one line, and one when it is over."""
    bench = make_bench()
    for _ in range(20):
        bench.driver.set_code(A, "power", TIMEOUT)
        bench.run(1.0)
        bench.driver.set_code(A, "power", SUCCESS)
        bench.run(1.0)
    assert lines(caplog, "power cannot be read") == 1
    assert lines(caplog, "answers again") == 0
    bench.run(60.0)
    assert lines(caplog, f"GPU {A}: power answers again") == 1
    bench.finish()


def test_a_counter_that_falls_again_and_again_is_told_once_a_minute(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    """Fifty falls in a hundred seconds are two lines, and cost a tick's joules each."""
    bench = make_bench()
    for _ in range(50):
        bench.run(2.0)
        bench.tamper(lambda driver: driver.set_counter(A, 0))
    bench.run(1.0)
    assert lines(caplog, "fell, as after a driver reload") == 2
    totals, missing_joules = bench.finish()[A]
    assert totals.counter_resets == 50
    assert totals.residual_joules == 0
    assert 0 <= missing_joules <= 50 * 0.2 * 300


def test_two_sidecars_on_one_driver_measure_the_same(make_driver: MakeDriver) -> None:
    """Another sidecar, and one that comes and goes, change nothing of what is measured."""
    driver = make_driver(H100)
    clock = Pausing(10**9, driver=driver)
    first, second = (Bench(driver, clock, [A]) for _ in range(2))
    for _ in range(200):
        first.step()
        second.step()
    third = Bench(driver, clock, [A])
    for _ in range(200):
        first.step()
        third.step()
        second.step()
    third.finish()
    for _ in range(200):
        first.step()
        second.step()
    assert driver.open_users() == 2
    for bench in (first, second):
        totals, missing_joules = bench.finish()[A]
        assert totals.residual_joules == 0
        assert abs(missing_joules) < 35.0
        assert totals.read_failures == totals.counter_resets == totals.rejected_intervals == 0


def test_an_engine_on_a_new_mig_instance_gets_no_invented_joules(make_bench: MakeBench) -> None:
    """A GPU that is cut is measured on as a whole, and what it draws is nobody's, with the reason."""
    bench = make_bench()
    bench.run(5.0)
    bench.engine.leave(bench.clock.now_ns())
    bench.driver.set_mig_mode(A, True)
    bench.driver.make_instance(A, FakeInstance("MIG-a1"))
    bench.engine = Engine(bench.pipeline, ["MIG-a1"], session=2)
    bench.run(30.0)
    totals, missing_joules = bench.finish()[A]
    assert totals.info.instances == ("MIG-a1",)
    assert totals.unattributed_joules["mig_instance"] > 15 * 300
    assert totals.residual_joules == 0
    assert abs(missing_joules) < 35.0


def test_a_slow_driver_is_asked_less(make_bench: MakeBench) -> None:
    """If each call takes 0.2 s, what is only looked at takes a tenth of the time, and joules go on."""
    bench = make_bench()
    bench.run(2.0)
    bench.driver.set_call_seconds(0.2)
    before = bench.driver.calls(A, "temperature")
    bench.run(60.0)
    assert 2 <= bench.driver.calls(A, "temperature") - before <= 4
    assert bench.driver.calls(A, "energy") > 100
    totals, missing_joules = bench.finish()[A]
    assert totals.residual_joules == 0
    assert abs(missing_joules) < 2.5 * 300  # drawn during the calls after the last reading of the counter


def test_a_persistent_lack_of_persistence_mode_is_told_once(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    """What a GPU cannot tell stands in the log once, although the sensor is opened again and again."""
    bench = make_bench(replace(H100, persistence=False))
    for _ in range(10):
        bench.run(5.0)
        bench.driver.unload()
    bench.run(5.0)
    assert lines(caplog, "persistence mode is off") == 1
    bench.finish()
