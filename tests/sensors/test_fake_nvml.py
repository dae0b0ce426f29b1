"""The stand-in driver library itself: a fake that other tests rest on has to be right."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pynvml
import pytest

from tests.fake_nvml import DriverClock, FakeDriver, FakeGpu, environment, run_python
from tests.sensors.conftest import MakeDriver

READ_FOR_A_WHILE = """
import time, pynvml
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
values = []
while time.monotonic_ns() < {until}:
    values.append(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
pynvml.nvmlShutdown()
assert values == sorted(values), "the counter fell"
print(values[0], values[-1], len(set(values)))
"""


def read_mj() -> int:
    pynvml.nvmlInit()
    try:
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0)))
    finally:
        pynvml.nvmlShutdown()


def test_python_computes_the_counter_as_the_library_does(make_driver: MakeDriver) -> None:
    """What pynvml reads from a live counter lies between the formula's values just before and after."""
    driver = make_driver(FakeGpu("GPU-a", live=True, power_watts=123.456, tick_seconds=0.001))
    for power_watts in (123.456, 700.0, 0.0, 33.333):
        driver.set_power("GPU-a", power_watts)
        for _ in range(200):
            before, value, after = driver.counter_mj("GPU-a"), read_mj(), driver.counter_mj("GPU-a")
            assert before <= value <= after


def test_live_counter_follows_the_power(tmp_path: Path) -> None:
    """In ticks of 100 ms: nothing before the first, then power times time, and no jump at a change."""
    driver = FakeDriver(tmp_path / "state", [FakeGpu("GPU-a", live=True, power_watts=100.0, energy_mj=7)])
    entry = driver.entry("GPU-a")
    start_ns = int(entry.origin_ns)
    tick_ns = 100_000_000
    assert driver.counter_mj("GPU-a", start_ns + tick_ns - 1) == 7
    assert driver.counter_mj("GPU-a", start_ns + tick_ns) == 10_007
    assert driver.counter_mj("GPU-a", start_ns + 3 * tick_ns + 5) == 30_007
    before = driver.counter_mj("GPU-a")
    driver.set_power("GPU-a", 500.0)
    changed_ns = int(entry.base_ns)
    assert driver.counter_mj("GPU-a", changed_ns) == before
    later_ns = start_ns + ((changed_ns - start_ns) // tick_ns + 5) * tick_ns
    expected = 7 + (100 * (changed_ns - start_ns) + 500 * (later_ns - changed_ns)) / 1e6
    assert driver.counter_mj("GPU-a", later_ns) == pytest.approx(expected, abs=1)


def test_frozen_counter_stands_still_and_resumes(make_driver: MakeDriver) -> None:
    """After freeze() every read gives the same value, the one that Python tells; resume() goes on from it."""
    driver = make_driver(FakeGpu("GPU-a", live=True, power_watts=5000.0, tick_seconds=0.0001))
    driver.freeze()
    frozen = driver.counter_mj("GPU-a")
    assert {read_mj() for _ in range(100)} == {frozen}
    driver.resume()
    assert read_mj() >= frozen
    driver.set_counter("GPU-a", 5)
    assert 5 <= driver.counter_mj("GPU-a") < frozen


def test_other_process_reads_the_state_live(library: Path, tmp_path: Path) -> None:
    """A process that is already running sees a counter that only rises while its power is rewritten."""
    driver = FakeDriver(tmp_path / "state", [FakeGpu("GPU-a", live=True, tick_seconds=0.0005)])
    code = READ_FOR_A_WHILE.format(until=time.monotonic_ns() + 700_000_000)
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, env=environment(library, driver), stdout=subprocess.PIPE, text=True
    ) as process:
        turn = 0
        while process.poll() is None:
            turn += 1
            driver.set_power("GPU-a", 50.0 + turn % 600)
            if turn % 7 == 0:
                driver.freeze()
                driver.resume()
        output = process.stdout.read() if process.stdout else ""
    assert process.returncode == 0
    first, last, different = map(int, output.split())
    assert first < last <= driver.counter_mj("GPU-a")
    assert different > 3


def test_without_state_the_library_is_not_there(library: Path) -> None:
    """Loaded without a state file, it answers as if no library were installed."""
    code = "import pynvml\ntry: pynvml.nvmlInit()\nexcept pynvml.NVMLError_LibraryNotFound: print('none')"
    assert run_python(code, library, None) == "none"


def test_a_ramp_draws_half_its_height(make_driver: MakeDriver) -> None:
    """From 100 W, 20 W more each second, ten seconds draw 2 kJ by pynvml and by what is true."""
    driver = make_driver(FakeGpu("GPU-a", live=True, power_window_seconds=1.0))
    clock = DriverClock(10**9, driver=driver)
    before_mj, before = read_mj(), driver.true_joules("GPU-a")
    driver.set_wave("GPU-a", 100.0, 0.0, 0.0, 0.0, ramp_watts_per_second=20.0)
    clock.advance(10.0)
    assert read_mj() - before_mj == 2_000_000
    assert driver.true_joules("GPU-a") - before == 2000.0
    driver.set_power("GPU-a", 50.0)
    clock.advance(1.0)
    assert driver.true_joules("GPU-a") - before == 2050.0
