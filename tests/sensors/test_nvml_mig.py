"""MIG instances through real pynvml: which are there, how busy they are, and why there may be no split."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from joulescope.clock import ManualClock
from joulescope.errors import SensorChanged
from joulescope.model import GpuReading
from joulescope.sensors.nvml import NvmlSensor
from joulescope.sensors.nvml_changes import PERIOD_NS
from joulescope.sensors.nvml_instances import MigInstance, profile_name
from tests.fake_nvml import (
    FUNCTION_NOT_FOUND,
    NO_PERMISSION,
    NOT_SUPPORTED,
    PARTS,
    UNKNOWN,
    FakeDriver,
    FakeGpu,
    FakeInstance,
)
from tests.sensors.conftest import MakeDriver

UUID = "GPU-a"
SECOND = 10**9
TWO = (FakeInstance("MIG-1", 4, 1), FakeInstance("MIG-2", 2, 5, memory_mib=19_968))
CUT = replace(PARTS["h100"], uuid=UUID, instances=TWO)


class Bench:
    """A driver with one GPU in two instances, and a sensor on it; both go by the same clock."""

    def __init__(self, make_driver: MakeDriver, gpu: FakeGpu = CUT, mig: str = "gpm") -> None:
        self.driver: FakeDriver = make_driver(gpu)
        self.clock = ManualClock(time_ns=SECOND)
        self.driver.set_clock(self.clock.time_ns)
        self.sensor = NvmlSensor.open(self.clock, mig=mig)

    def read(self, after_seconds: float = 1.0) -> dict[str, GpuReading]:
        self.clock.advance(after_seconds)
        self.driver.set_clock(self.clock.time_ns)
        return {reading.gpu: reading for reading in self.sensor.read()}

    def active(self, after_seconds: float = 1.0) -> dict[str, float | None]:
        """SM activity of the instances that were read."""
        statuses = [reading.status for reading in self.read(after_seconds).values()]
        return {each.gpu: each.sm_active_ratio for each in statuses if each is not None and each.gpu != UUID}


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(make_driver: MakeDriver) -> Iterator[MakeBench]:
    made: list[Bench] = []

    def make(gpu: FakeGpu = CUT, mig: str = "gpm") -> Bench:
        made.append(Bench(make_driver, gpu, mig))
        return made[-1]

    yield make
    for bench in made:
        bench.sensor.close()
        assert bench.driver.gpm_samples() == 0, "samples were not given back"


def test_instances_are_gpus_of_their_own(make_bench: MakeBench) -> None:
    """After its GPU stands each instance, with profile, size and no meter; the GPU says that it is split."""
    whole, first, second = make_bench().sensor.gpus()
    assert (whole.gpu, whole.energy_split, whole.instances) == (UUID, "gpm", ("MIG-1", "MIG-2"))
    assert [(each.gpu, each.slices, each.slices_total) for each in (first, second)] == [
        ("MIG-1", 4, 7),
        ("MIG-2", 2, 7),
    ]
    assert second.name == "NVIDIA H100 80GB HBM3 MIG 2g.20gb"
    assert {(each.energy_source, each.parent) for each in (first, second)} == {("mig_gpm", UUID)}
    assert first.size_ratio == pytest.approx(4 / 7)


def test_activity_is_read_once_a_second(make_bench: MakeBench) -> None:
    """The first reading only begins; then each instance has its own means, and nothing comes in between."""
    bench = make_bench()
    bench.driver.set_instance_gpm(UUID, "MIG-1", sm=62.5)
    bench.driver.set_instance_gpm(UUID, "MIG-2", sm=12.5, graphics=99.0)
    assert bench.active() == {"MIG-1": None, "MIG-2": None}
    assert bench.active(0.5) == {}
    readings = bench.read(0.5)
    statuses = [readings[uuid].status for uuid in ("MIG-1", "MIG-2")]
    assert [each.sm_active_ratio for each in statuses if each is not None] == [0.625, 0.125]
    assert statuses[1] is not None
    assert statuses[1].graphics_active_ratio == 0.99
    assert readings["MIG-1"].energy_joules is readings["MIG-1"].power_watts is None
    assert bench.sensor.call_times()["gpm_instance"].calls == 4


def test_the_default_reads_no_instance(make_bench: MakeBench) -> None:
    """Without the choice no instance is asked anything but its name, and only its GPU is read."""
    bench = make_bench(mig="refuse")
    assert bench.read().keys() == {UUID}
    assert [info.gpu for info in bench.sensor.gpus()] == [UUID]
    assert bench.driver.calls(UUID, "mig_gpm") == 0
    assert bench.sensor.unsplit == {}


REFUSALS = {
    "ampere": (
        {"gpm": (), "architecture": 7, "name": "NVIDIA A100-SXM4-80GB"},
        "need Hopper or later, and this is ampere",
    ),
    "no gpm": ({"gpm": ()}, "the driver does not allow performance counters (GPM) here"),
    "confidential": ({}, "confidential computing: performance counters (GPM) are switched off"),
    "no permission": ({"codes": (("mig_gpm", NO_PERMISSION),)}, "of MIG-1 cannot be read: NVML says"),
    "old driver": ({"codes": (("mig_gpm", FUNCTION_NOT_FOUND),)}, "(code 13)"),
    "no sizes": ({"codes": (("mig_size", NOT_SUPPORTED),)}, "does not tell the size of MIG-1, MIG-2"),
    "compute instances": (
        {"instances": (FakeInstance("MIG-1", 3, 1, 0, 1), FakeInstance("MIG-2", 3, 1, 1, 2))},
        "GPU instance 1 holds several compute instances",
    ),
    "a container": (
        {"codes": (("mig_list", NO_PERMISSION),)},
        "sees instances of 6 of its 7 slices, and may not see whether there are others; give it CAP_SYS",
    ),
    "too many slices": ({"slices": 4}, "more slices than the 4 that the driver says it has"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_where_it_cannot_be_split_it_is_refused_with_the_reason(
    make_driver: MakeDriver, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """The log says why, in words; the GPU is read as a whole as before, and no instance appears."""
    changes, reason = REFUSALS[name]
    driver = make_driver(replace(CUT, **changes))  # type: ignore[arg-type]
    driver.set_confidential(name == "confidential")
    with caplog.at_level(logging.WARNING):
        sensor = NvmlSensor.open(ManualClock(time_ns=SECOND), mig="gpm")
    assert reason in sensor.unsplit[UUID]
    assert f"mig=gpm, but the joules of GPU {UUID} are not split: " in caplog.text
    (info,) = sensor.gpus()
    assert (info.energy_split, len(info.instances)) == ("", 2)
    assert [reading.gpu for reading in sensor.read()] == [UUID]
    sensor.close()
    assert driver.gpm_samples() == 0


def test_a_gpu_that_is_not_cut_is_nothing_to_refuse(make_bench: MakeBench) -> None:
    """The choice may stand for a whole fleet: GPUs without instances are read as ever, without a word."""
    bench = make_bench(replace(PARTS["h100"], uuid=UUID))
    assert bench.sensor.unsplit == {}
    assert bench.read().keys() == {UUID}


WHOLLY_SEEN = {
    "all slices": (FakeInstance("MIG-1", 4, 1), FakeInstance("MIG-2", 3, 2)),
    "all memory": (FakeInstance("MIG-1", 3, 1), FakeInstance("MIG-2", 3, 2)),
}


@pytest.mark.parametrize("name", WHOLLY_SEEN)
def test_where_there_is_no_room_for_others_no_right_is_needed(make_bench: MakeBench, name: str) -> None:
    """If the instances that are seen take all slices or all memory, there are none that are not seen."""
    gpu = replace(CUT, instances=WHOLLY_SEEN[name], codes=(("mig_list", NO_PERMISSION),))
    assert make_bench(gpu).sensor.unsplit == {}


def test_one_instance_that_fails_is_left_out_and_counted(make_bench: MakeBench) -> None:
    """The others and the whole are read on; when it answers again its means begin anew."""
    bench = make_bench()
    bench.read()
    bench.driver.instance(UUID, "MIG-2").gpm_code = UNKNOWN
    assert bench.active() == {"MIG-1": 0.75}
    assert bench.sensor.read_failures() == {UUID: 0, "MIG-1": 0, "MIG-2": 1}
    bench.driver.instance(UUID, "MIG-2").gpm_code = 0
    assert bench.active() == {"MIG-1": 0.75, "MIG-2": None}
    assert bench.active() == {"MIG-1": 0.75, "MIG-2": 0.75}


def _remake(driver: FakeDriver) -> None:
    driver.destroy_instance(UUID, "MIG-2")
    driver.make_instance(UUID, FakeInstance("MIG-2", 1, 5))


CHANGES: dict[str, Callable[[FakeDriver], object]] = {
    "destroyed": lambda driver: driver.destroy_instance(UUID, "MIG-2"),
    "made": lambda driver: driver.make_instance(UUID, FakeInstance("MIG-3", 1, 9)),
    "switched off": lambda driver: driver.set_mig_mode(UUID, False),
    "another size": _remake,
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize(("mig", "seconds"), [("gpm", 1.0), ("refuse", PERIOD_NS / 1e9)])
def test_another_cut_is_noticed(make_bench: MakeBench, name: str, mig: str, seconds: float) -> None:
    """With a split within a second, otherwise within ten: the sensor asks to be opened again."""
    bench = make_bench(mig=mig)
    bench.read()
    CHANGES[name](bench.driver)
    with pytest.raises(SensorChanged, match=f"the MIG instances of GPU {UUID} have changed"):
        bench.read(seconds)


def test_profiles_are_named_as_nvidia_smi_names_them() -> None:
    """Eighths of the memory, and the compute instance's part where it has not all of its GPU instance."""
    names = {
        (1, 1, 9_984, 80): "1g.10gb",
        (1, 1, 19_968, 80): "1g.20gb",
        (7, 7, 80_640, 80): "7g.80gb",
        (3, 1, 40_320, 80): "1c.3g.40gb",
        (2, 2, 35_840, 141): "2g.35gb",
        (2, 2, 0, 80): "2g",
    }
    for (slices, compute, mib, gib), name in names.items():
        instance = MigInstance("MIG-1", 1, 0, slices, compute, mib)
        assert profile_name(instance, gib * 2**30) == name
