"""Grace's power meters on a tree laid out as the kernel does, as counters of energy."""

from __future__ import annotations

from pathlib import Path

import pytest

from joulescope.clock import ManualClock
from joulescope.daemon.host_watch import host_poller
from joulescope.errors import SensorError
from joulescope.host_model import HostInterval
from joulescope.sampling.host_meter import DomainMeter
from joulescope.sampling.host_poller import HostDown, HostFound, HostRead
from joulescope.sensors.grace import CONTAINS_GPU, HOLD_NS, PART_OF_SOCKET, GraceSensor
from tests.sensors.powercap_tree import PowercapTree

SECOND = 10**9


class Tree:
    """A hwmon tree whose meters a test sets."""

    def __init__(self, sysfs: Path) -> None:
        self.sysfs = sysfs
        self._folders: dict[str, Path] = {}

    def add(self, info: str, microwatts: object, *, beside: bool = False) -> None:
        number = len(self._folders) + 1
        folder = self.sysfs / "class" / "hwmon" / f"hwmon{number}"
        place = folder if beside else folder / "device"
        place.mkdir(parents=True)
        (folder / "name").write_text("power_meter\n")
        (place / "power1_oem_info").write_text(info + "\n")
        self._folders[info] = place
        self.set(info, microwatts)

    def set(self, info: str, microwatts: object) -> None:
        (self._folders[info] / "power1_average").write_text(f"{microwatts}\n")

    def file(self, info: str) -> Path:
        return self._folders[info] / "power1_average"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def grace_hopper(tree: Tree) -> None:
    tree.add("Module Power Socket 0", 650_000_000)
    tree.add("Grace Power Socket 0", 120_000_000)
    tree.add("CPU Power Socket 0", 60_000_000)
    tree.add("SysIO Power Socket 0", 20_000_000)


def test_the_socket_is_read_and_nothing_twice(tree: Tree) -> None:
    """Of four meters of a Grace Hopper one is disjoint from the GPU and whole: the others say why not."""
    grace_hopper(tree)
    sensor = GraceSensor(ManualClock(SECOND), tree.sysfs)
    assert sensor.look()
    assert [(info.domain, info.zone, info.sensor) for info in sensor.domains()] == [
        ("grace-0", "hwmon2", "hwmon")
    ]
    assert sensor.skipped == {"hwmon1": CONTAINS_GPU, "hwmon3": PART_OF_SOCKET, "hwmon4": PART_OF_SOCKET}


def test_power_is_integrated_along_a_straight_line(tree: Tree) -> None:
    """From 120 W to 180 W in two seconds are 300 J; the counter goes on when meters are looked for again."""
    clock = ManualClock(SECOND)
    sensor = GraceSensor(clock, tree.sysfs)
    tree.add("Grace Power Socket 1", 120_000_000, beside=True)
    assert sensor.look()
    assert sensor.read() == ({"grace-1": 1.0}, {})
    clock.advance(2.0)
    tree.set("Grace Power Socket 1", 180_000_000)
    assert sensor.look()
    assert sensor.read() == ({"grace-1": 301.0}, {})


@pytest.mark.parametrize("readings_before", [1, 3])
def test_a_silence_is_left_out_and_counted(tree: Tree, readings_before: int) -> None:
    """Nothing is invented for a time in which nobody looked: the meter takes it for a reset."""
    clock = ManualClock(SECOND)
    sensor = GraceSensor(clock, tree.sysfs)
    tree.add("Grace Power Socket 0", 100_000_000)
    sensor.look()
    meter = DomainMeter(*sensor.domains())
    intervals: list[HostInterval | None] = []
    for pause_seconds in [1.0] * readings_before + [HOLD_NS / 1e9 + 0.1, 1.0]:
        clock.advance(pause_seconds)
        joules, _ = sensor.read()
        intervals.append(meter.add(clock.now_ns(), joules["grace-0"], None))
    measured = [interval.energy_uj for interval in intervals if interval is not None]
    assert measured == [100_000_000] * readings_before
    assert meter.resets == 1


@pytest.mark.parametrize("nonsense", ["", "-5", "many", 10**12])
def test_a_meter_that_tells_nonsense_fails_until_it_is_mended(tree: Tree, nonsense: object) -> None:
    """It is told by file and value, nothing of it is counted, and it is no zero."""
    tree.add("Grace Power Socket 0", 100_000_000)
    sensor = GraceSensor(ManualClock(SECOND), tree.sysfs)
    assert sensor.look()
    tree.set("Grace Power Socket 0", nonsense)
    joules, failed = sensor.read()
    assert joules == {}
    assert "is no number of microwatts" in failed["grace-0"]
    assert not sensor.look()
    assert "is no number of microwatts" in sensor.skipped["hwmon1"]
    tree.set("Grace Power Socket 0", 1)
    assert sensor.look()


def test_other_meters_are_not_its_business(tree: Tree) -> None:
    """A power supply's meter, or one that cannot be read, is passed over."""
    tree.add("Total Power", 500_000_000)
    (tree.sysfs / "class" / "hwmon" / "hwmon9").mkdir()
    assert not GraceSensor(ManualClock(SECOND), tree.sysfs).look()


def test_the_sidecar_takes_grace_where_there_is_no_rapl(tree: Tree) -> None:
    """The poller finds the meters, reads joules, and says what RAPL would need where there is neither."""
    clock = ManualClock(SECOND)
    poller = host_poller(clock, tree.sysfs)
    (down,) = poller.poll(dict)
    assert isinstance(down, HostDown)
    assert isinstance(down.error, SensorError)
    assert "no RAPL zone" in str(down.error)
    grace_hopper(tree)
    clock.advance(60.0)
    found, first = poller.poll(dict)
    assert isinstance(found, HostFound)
    assert [info.domain for info in found.domains] == ["grace-0"]
    assert isinstance(first, HostRead)
    clock.advance(1.0)
    (second,) = poller.poll(dict)
    assert isinstance(second, HostRead)
    assert second.reading.energy_joules == {"grace-0": 121.0}


def test_rapl_comes_first(tmp_path: Path) -> None:
    """Where both are shown the counters are read."""
    PowercapTree(tmp_path).server(sockets=1)
    Tree(tmp_path).add("Grace Power Socket 0", 1)
    found, _ = host_poller(ManualClock(SECOND), tmp_path).poll(dict)
    assert isinstance(found, HostFound)
    assert "grace-0" not in [info.domain for info in found.domains]
