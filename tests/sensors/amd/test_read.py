"""Reading through the real amdsmi: units, cadence, failures and recovery."""

from __future__ import annotations

import pytest

from joulescope.errors import SensorLost
from tests.fake_amdsmi import BUSY, NOT_AVAILABLE_16, NOT_AVAILABLE_32, NOT_FOUND, FakeGpu
from tests.sensors.amd.conftest import Bench, MakeBench

A, B = "GPU-00000000000000a0", "GPU-00000000000000b0"


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    made = make_bench(
        FakeGpu(serial="0xA0"), FakeGpu(serial="0xB0", bus=0x22, socket=1, energy_joules=7.0, power_watts=150)
    )
    made.open()
    return made


def test_units_are_si(bench: Bench) -> None:
    """Counter units of 2**-16 J, watts, bytes and percent become joules, watts, bytes and a ratio."""
    bench.rocm.set_power(0, 0)
    bench.rocm.gpus[0].energy = 3 * 2**16 + 2**14
    bench.rocm.gpus[0].current_w, bench.rocm.gpus[0].memory_used = 321, 5 * 1024**3
    bench.sensors[-1].close()
    bench.rocm.watts[0] = 321.0
    bench.open()
    counted = bench.rocm.gpus[0].energy
    reading = bench.read(after_seconds=0.0)[A]
    assert reading.energy_joules == counted / 2**16
    assert reading.power_watts == 321.0
    assert (reading.memory_used_bytes, reading.sm_utilization_ratio) == (5 * 1024**3, 0.37)


def test_rounded_unit_is_not_taken_at_its_word(bench: Bench) -> None:
    """The library says 15.3 microjoules for 2**-16 J: a kilojoule is a kilojoule, not 1002.7 J."""
    before = bench.read()[A].energy_joules
    after = bench.read(after_seconds=1000 / 300)[A].energy_joules
    assert before is not None
    assert after == pytest.approx(before + 1000.0, abs=0.001)


def test_other_units_are_taken_as_told(make_bench: MakeBench) -> None:
    """A part that counts in another unit is read in it."""
    bench = make_bench(FakeGpu(serial="0xA0", counter_gain=2.0**-16 / 1e-6))
    bench.rocm.gpus[0].resolution = 1.0
    assert bench.open().gpus()[0].energy_source == "counter"
    before = bench.read()[A].energy_joules
    assert before is not None
    assert bench.read(after_seconds=1.0)[A].energy_joules == pytest.approx(before + 300.0, abs=0.001)


def test_slow_values_are_read_once_a_second(bench: Bench) -> None:
    """Forty reads in two seconds ask 40 times for energy and power, but twice for memory and load."""
    functions = ("energy", "power", "memory_used", "activity")
    before = [bench.rocm.calls(0, function) for function in functions]
    for _ in range(40):
        bench.read()
    after = [bench.rocm.calls(0, function) for function in functions]
    assert [late - early for early, late in zip(before, after, strict=True)] == [40, 40, 2, 2]


@pytest.mark.parametrize("watts", [0, NOT_AVAILABLE_16, NOT_AVAILABLE_32])
def test_nonsense_power_beside_energy_is_absent(bench: Bench, watts: int) -> None:
    """0 W, 65535 W and all ones are no power; energy stays, and the failure is counted."""
    bench.rocm.gpus[0].current_w = watts
    reading = bench.read()[A]
    assert reading.power_watts is None
    assert reading.energy_joules is not None
    assert bench.sensors[-1].read_failures() == {A: 1, B: 0}


def test_nonsense_load_is_absent(bench: Bench) -> None:
    """ "N/A" and 250 % are no load."""
    bench.rocm.gpus[0].busy_percent, bench.rocm.gpus[1].busy_percent = NOT_AVAILABLE_16, 250
    readings = bench.read(after_seconds=2.0)
    assert [readings[gpu].sm_utilization_ratio for gpu in (A, B)] == [None, None]


def test_failing_gpu_is_left_alone_for_longer_and_longer(bench: Bench) -> None:
    """A GPU that stays busy is asked at once, after 0.25 s, 0.5 s, and so on; the other is read each time."""
    bench.rocm.set_code(0, "energy", BUSY)
    before = bench.rocm.calls(0, "energy")
    asked = []
    for turn in range(40):
        assert B in bench.read()
        if bench.rocm.calls(0, "energy") > before + len(asked):
            asked.append(turn)
    assert asked == [0, 5, 15, 35]
    bench.rocm.set_code(0, "energy", 0)
    assert A in bench.read(after_seconds=2.0)


def test_one_gpu_that_is_gone_does_not_take_the_other_along(bench: Bench) -> None:
    """One GPU off the bus: its readings are missing, the other's are not, and nothing is raised."""
    bench.rocm.lose(0)
    for _ in range(100):
        assert list(bench.read()) == [B]


@pytest.mark.parametrize(("code", "reads"), [(NOT_FOUND, 1), (BUSY, 3)], ids=["for good", "three times"])
def test_sensor_is_lost_when_no_gpu_answers(bench: Bench, code: int, reads: int) -> None:
    """All GPUs gone is told at once, all failing after the third time, with AMD's word and advice."""
    for place in (0, 1):
        bench.rocm.lose(place, code)
    for _ in range(reads - 1):
        assert bench.read(after_seconds=1.0) == {}
    with pytest.raises(SensorLost, match=rf"no GPU answers any more: AMD SMI says 'AMDSMI_.*code {code}"):
        bench.read(after_seconds=1.0)


def test_counter_that_lied_stays_disbelieved(bench: Bench) -> None:
    """A counter that went back costs one reading; opened again, its GPU is measured by power from then on."""
    bench.read()
    bench.rocm.gpus[0].energy -= 2**20
    with pytest.raises(
        SensorLost, match=rf"energy counter of GPU {A} cannot be believed: it went back from 5"
    ):
        bench.read()
    bench.sensors[-1].close()
    sources = {info.gpu: info.energy_source for info in bench.open().gpus()}
    assert sources == {A: "power", B: "counter"}


def test_counter_that_restarts_is_passed_on(bench: Bench) -> None:
    """A counter that begins anew near zero, as after a reload of the driver, is shown as it is."""
    bench.read()
    bench.rocm.gpus[0].energy = 1
    assert bench.read()[A].energy_joules == pytest.approx(15.0, abs=0.1)


def test_close_gives_the_library_back_once(bench: Bench) -> None:
    """A second close does nothing."""
    for _ in range(2):
        bench.sensors[-1].close()
        assert bench.rocm.open_users() == 0
