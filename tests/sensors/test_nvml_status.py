"""What is read once a second through real pynvml, and what each part can tell at all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from joulescope.clock import ManualClock
from joulescope.errors import SensorChanged
from joulescope.model import GpuStatus
from joulescope.sensors.nvml import NvmlSensor
from joulescope.sensors.nvml_changes import PERIOD_NS
from joulescope.sensors.nvml_status import throttle_reasons
from tests.fake_nvml import FUNCTION_NOT_FOUND, NOT_SUPPORTED, PARTS, UNKNOWN, FakeDriver, FakeGpu
from tests.sensors.conftest import MakeDriver

UUID = "GPU-a"
SECOND = 10**9


class Bench:
    """A driver with one part, and a sensor on it; both go by the same clock."""

    def __init__(self, make_driver: MakeDriver, gpu: FakeGpu) -> None:
        self.driver: FakeDriver = make_driver(replace(gpu, uuid=UUID))
        self.clock = ManualClock(time_ns=SECOND)
        self.driver.set_clock(self.clock.time_ns)
        self.sensor = NvmlSensor.open(self.clock)

    def status(self, after_seconds: float = 1.0) -> GpuStatus:
        self.clock.advance(after_seconds)
        self.driver.set_clock(self.clock.time_ns)
        status = self.sensor.read()[0].status
        assert status is not None
        return status


MakeBench = Callable[[FakeGpu], Bench]


@pytest.fixture
def make_bench(make_driver: MakeDriver) -> Iterator[MakeBench]:
    made: list[Bench] = []

    def make(gpu: FakeGpu) -> Bench:
        made.append(Bench(make_driver, gpu))
        return made[-1]

    yield make
    for bench in made:
        bench.sensor.close()
        assert bench.driver.gpm_samples() == 0, "samples were not given back"


CAPABILITIES = {
    "v100": "energy_counter power power_average power_instant power_samples volta",
    "a100": "energy_counter power power_average power_instant power_samples ampere",
    "h100": "energy_counter power power_average power_instant power_samples gpm hopper",
    "h200": "energy_counter power power_average power_instant power_samples gpm hopper",
    "b200": "energy_counter power power_average power_instant power_samples gpm blackwell",
    "gh200": "energy_counter power power_average power_instant power_samples module_power gpm hopper",
    "l40s": "energy_counter power power_average power_instant power_samples ada",
    "mig": "energy_counter power power_average power_instant power_samples gpm hopper mig",
    "pascal": "power pascal",
}


@pytest.mark.parametrize("part", CAPABILITIES)
def test_what_each_part_can_tell_is_found_out(make_bench: MakeBench, part: str) -> None:
    """The record of capabilities says what the part's driver answers, and nothing besides."""
    told = make_bench(PARTS[part]).sensor.gpus()[0].capabilities
    meters = ("energy_counter", "power", "power_average", "power_instant", "power_samples", "module_power")
    found = [name for name in (*meters, "gpm") if getattr(told, name)]
    found += [told.architecture] + ["mig"] * bool(told.mig)
    assert " ".join(found) == CAPABILITIES[part]
    assert (told.virtualization, told.confidential, told.persistence) == ("none", False, True)


def test_status_is_si(make_bench: MakeBench) -> None:
    """Megahertz, milliwatts, percent and MiB become hertz, watts, ratios and bytes."""
    bench = make_bench(PARTS["gh200"])
    bench.driver.set_raw(UUID, reasons=0x4 | 0x40 | 0x1, sm_mhz=1410, celsius=63, power_limit_mw=650_500)
    bench.driver.set_power(UUID, 431.5)
    status = bench.status()
    assert status == GpuStatus(
        gpu=UUID,
        time_ns=2 * SECOND,
        power_limit_watts=650.5,
        power_instant_watts=431.5,
        module_power_watts=250.0,
        memory_power_watts=40.0,
        sm_clock_hertz=1.41e9,
        memory_clock_hertz=2.619e9,
        temperature_celsius=63,
        throttle_reasons=frozenset({"power_cap", "thermal"}),
        graphics_active_ratio=0.8,
        sm_active_ratio=0.75,
        sm_occupancy_ratio=0.4,
        tensor_active_ratio=0.2,
        dram_active_ratio=0.6,
        pcie_sent_bytes_per_second=100 * 2**20,
        pcie_received_bytes_per_second=200 * 2**20,
        nvlink_sent_bytes_per_second=0.0,
        nvlink_received_bytes_per_second=0.0,
    )


def test_between_two_reads_of_it_the_status_is_the_same(make_bench: MakeBench) -> None:
    """It is read once a second; the readings in between carry the same object."""
    bench = make_bench(PARTS["h100"])
    first = bench.status()
    assert all(bench.status(0.05) is first for _ in range(19))
    assert bench.status(0.05) is not first


FAILING = {
    "clock": ("sm_clock_hertz", "memory_clock_hertz"),
    "temperature": ("temperature_celsius",),
    "reasons": ("throttle_reasons",),
    "fields": ("power_instant_watts",),
    "power_limit": ("power_limit_watts",),
    "gpm": ("sm_active_ratio", "dram_active_ratio", "pcie_sent_bytes_per_second"),
}


@pytest.mark.parametrize("function", FAILING)
def test_what_fails_is_absent_and_counted_and_comes_back(make_bench: MakeBench, function: str) -> None:
    """A call that fails leaves its own fields out, not the joules, until it answers again."""
    bench = make_bench(PARTS["h100"])
    names = FAILING[function]
    assert all(getattr(bench.status(), name) is not None for name in names)
    bench.driver.set_code(UUID, function, UNKNOWN)
    status = bench.status()
    assert [getattr(status, name) for name in names] == [None] * len(names)
    assert bench.sensor.read()[0].energy_joules is not None
    assert bench.sensor.read_failures()[UUID] > 0
    bench.driver.set_code(UUID, function, 0)
    bench.status()
    assert all(getattr(bench.status(), name) is not None for name in names)


@pytest.mark.parametrize("code", [NOT_SUPPORTED, FUNCTION_NOT_FOUND])
def test_what_a_driver_cannot_do_is_asked_once(make_driver: MakeDriver, code: int) -> None:
    """An old driver without fields, clocks and counters: absent, no failures, and not asked every second."""
    absent = ("fields", "samples", "clock", "reasons", "temperature", "gpm", "architecture", "mig_mode")
    driver = make_driver(FakeGpu(UUID, codes=tuple((name, code) for name in absent)))
    clock = ManualClock(time_ns=SECOND)
    sensor = NvmlSensor.open(clock)
    before = [driver.calls(UUID, name) for name in absent]
    for _ in range(5):
        clock.advance(1.0)
        status = sensor.read()[0].status
        assert status == GpuStatus(UUID, clock.time_ns, power_limit_watts=700.0)
    assert [driver.calls(UUID, name) for name in absent] == before
    assert sensor.read_failures() == {UUID: 0}
    assert sensor.gpus()[0].capabilities.mig is None
    sensor.close()


def test_one_performance_counter_that_is_missing_leaves_the_others(make_bench: MakeBench) -> None:
    """A metric that is not supported, or above 100 %, is absent; a touch above 100 % is 1."""
    bench = make_bench(PARTS["h100"])
    bench.driver.set_gpm(UUID, tensor=-1.0, dram=140.0, sm=100.4)
    status = bench.status()
    assert (status.tensor_active_ratio, status.dram_active_ratio, status.sm_active_ratio) == (None, None, 1.0)
    assert status.sm_occupancy_ratio == 0.4


def test_reasons_that_are_none_are_left_out() -> None:
    """Idle, a display's clock and bits of the future hold nothing back; two kinds of heat are one."""
    assert throttle_reasons(0x1 | 0x100 | 1 << 40) == frozenset()
    assert throttle_reasons(0x20 | 0x40) == frozenset({"thermal"})
    assert len(throttle_reasons(0xFFFF)) == 8


def test_a_gpu_that_is_plugged_in_is_found(make_bench: MakeBench) -> None:
    """The sensor asks to be opened again once the driver shows another number of GPUs."""
    bench = make_bench(PARTS["h100"])
    bench.driver.add(FakeGpu("GPU-b"))
    bench.status()
    with pytest.raises(SensorChanged, match=r"shows 2 GPU\(s\) and showed 1 before"):
        bench.status(PERIOD_NS / 1e9)


SLOW = (
    "memory",
    "utilization",
    "power_limit",
    "temperature",
    "throttle",
    "sm_clock",
    "memory_clock",
    "fields",
    "gpm",
)


def test_how_long_the_driver_takes_is_told_by_call(make_bench: MakeBench) -> None:
    """Each call is counted under its name, the fast ones with every read and the slow ones once a second."""
    bench = make_bench(PARTS["h100"])
    before = bench.sensor.call_times()
    for _ in range(40):
        bench.status(0.05)
    told = bench.sensor.call_times()
    counts = {name: told[name].calls - (before[name].calls if name in before else 0) for name in told}
    fast = [counts.pop("energy"), counts.pop("power")]
    assert fast == [40, 40]
    assert counts == dict.fromkeys(SLOW, 2)


WORDS = {
    "mig": ("cut into MIG instances", {}),
    "confidential": ("confidential computing: performance counters", {"confidential": True}),
    "no gpm": ("no performance counters (GPM), which this architecture has", {"gpm": ()}),
    "persistence": ("persistence mode is off", {"persistence": False}),
    "pascal": ("no energy counter: its joules are power readings", {}),
    "power": ("cannot be checked against a second meter", {"codes": (("power", NOT_SUPPORTED),)}),
}


@pytest.mark.parametrize("name", WORDS)
def test_what_is_missing_is_said_in_words(
    make_driver: MakeDriver, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """When the sensor is opened the log says what each GPU can tell, and what it cannot and why."""
    sentence, changes = WORDS[name]
    confidential = changes.pop("confidential", False)
    driver = make_driver(replace(PARTS.get(name, PARTS["h100"]), uuid=UUID, **changes))  # type: ignore[arg-type]
    driver.set_confidential(bool(confidential))
    with caplog.at_level(logging.INFO):
        NvmlSensor.open(ManualClock(time_ns=SECOND)).close()
    assert sentence in caplog.text
    assert f"GPU {UUID} ({driver_name(driver)}" in caplog.text


def driver_name(driver: FakeDriver) -> str:
    return bytes(driver.entry(UUID).name).decode()


def test_instances_of_a_cut_gpu_are_told(make_bench: MakeBench) -> None:
    """The GPU names the MIG instances on it, so that an engine on one of them can be told apart."""
    (info,) = make_bench(PARTS["mig"]).sensor.gpus()
    assert info.instances == (PARTS["mig"].mig_uuid,)
