"""RAPL zones on a tree laid out as the kernel does: what is read, what is left out, and what is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from joulescope.errors import SensorError
from joulescope.sensors.powercap import CONTAINS_ALL, PART_OF_PACKAGE, PowercapSensor
from tests.sensors.powercap_tree import RANGE_UJ, PowercapTree


@pytest.fixture
def tree(tmp_path: Path) -> PowercapTree:
    return PowercapTree(tmp_path)


def test_packages_and_their_dram_are_read_and_nothing_twice(tree: PowercapTree) -> None:
    """On two sockets the four disjoint domains are read; core and psys, which overlap them, are not."""
    tree.server(sockets=2)
    sensor = PowercapSensor.open(tree.sysfs)
    assert {info.domain: info.zone for info in sensor.domains()} == {
        "package-0": "intel-rapl:0",
        "dram-0": "intel-rapl:0:1",
        "package-1": "intel-rapl:1",
        "dram-1": "intel-rapl:1:1",
    }
    assert sensor.read() == ({"package-0": 1.0, "dram-0": 2.5, "package-1": 2.0, "dram-1": 2.5}, {})
    assert sensor.skipped == {
        "intel-rapl:0:0": PART_OF_PACKAGE,
        "intel-rapl:1:0": PART_OF_PACKAGE,
        "intel-rapl:2": CONTAINS_ALL,
    }
    assert {info.energy_range_joules for info in sensor.domains()} == {RANGE_UJ / 1e6}


def test_the_same_package_by_memory_mapped_registers_is_not_counted_again(tree: PowercapTree) -> None:
    """``intel-rapl-mmio`` shows package 0 a second time: one of the two is read, by preference the first."""
    tree.add("intel-rapl-mmio:0", "package-0", 7_000_000)
    tree.add("intel-rapl:0", "package-0", 4_000_000)
    sensor = PowercapSensor.open(tree.sysfs)
    assert sensor.read()[0] == {"package-0": 4.0}
    assert sensor.skipped == {"intel-rapl-mmio:0": "intel-rapl:0 measures the same"}


def test_the_second_way_to_a_package_is_taken_where_the_first_is_broken(tree: PowercapTree) -> None:
    """If the preferred zone of a package tells nonsense, the other one is read."""
    tree.add("intel-rapl:0", "package-0", "ENODATA")
    tree.add("intel-rapl-mmio:0", "package-0", 7_000_000)
    sensor = PowercapSensor.open(tree.sysfs)
    assert sensor.read()[0] == {"package-0": 7.0}
    assert "is no number" in sensor.skipped["intel-rapl:0"]


def test_dies_of_a_package_are_domains_of_their_own(tree: PowercapTree) -> None:
    """Packages of several dies are named by die, and the DRAM beside each as well."""
    tree.add("intel-rapl:0", "package-0-die-0", 1)
    tree.add("intel-rapl:1", "package-0-die-1", 1)
    tree.add("intel-rapl:1:0", "dram", 1)
    domains = [info.domain for info in PowercapSensor.open(tree.sysfs).domains()]
    assert domains == ["package-0-die-0", "package-0-die-1", "dram-0-die-1"]


def test_zones_are_numbered_in_hexadecimal(tree: PowercapTree) -> None:
    """The eleventh package of a large machine is found too."""
    tree.add("intel-rapl:a", "package-10", 3_000_000)
    assert PowercapSensor.open(tree.sysfs).read()[0] == {"package-10": 3.0}


def test_other_ways_to_cap_power_are_none_of_our_business(tree: PowercapTree) -> None:
    """Zones of idle injection or DTPM are no energy counters of a package and are passed over in silence."""
    tree.add("intel-rapl:0", "package-0", 1_000_000)
    tree.add("dtpm:0", "package-0", 8_000_000)
    sensor = PowercapSensor.open(tree.sysfs)
    assert sensor.read()[0] == {"package-0": 1.0}
    assert sensor.skipped == {}


def test_a_mounted_device_folder_will_do(tree: PowercapTree) -> None:
    """In a container it is enough to mount the real folders: the links of the class folder may be missing."""
    tree.server(sockets=1)
    for link in (tree.sysfs / "class" / "powercap").iterdir():
        link.unlink()
    (tree.sysfs / "class" / "powercap").rmdir()
    assert PowercapSensor.open(tree.sysfs).read()[0] == {"package-0": 1.0, "dram-0": 2.5}


def test_links_that_lead_nowhere_are_no_zones(tmp_path: Path) -> None:
    """A container runtime that hides the folders leaves dangling links: no zone, and that is said."""
    tree = PowercapTree(tmp_path)
    tree.server()
    (tmp_path / "devices").rename(tmp_path / "hidden")
    with pytest.raises(SensorError, match="In a container, mount the host's /sys/devices/virtual/powercap"):
        PowercapSensor.open(tmp_path)


def test_a_machine_without_rapl_says_what_that_may_mean(tmp_path: Path) -> None:
    """No powercap folder at all: a virtual machine, ARM, or a module that is not loaded."""
    with pytest.raises(SensorError, match=r"Virtual machines and ARM.*modprobe intel_rapl_msr"):
        PowercapSensor.open(tmp_path)


def test_a_denied_counter_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    """Where only root may read, another user is told which file it was and what to do about it."""
    tree = PowercapTree(tmp_path)
    folder = tree.add("intel-rapl:0", "package-0", 1)
    message = _opened_by_nobody(tmp_path, folder / "energy_uj")
    assert "class/powercap/intel-rapl:0/energy_uj may be read by root only" in message
    assert "CVE-2020-8694" in message
    assert "CAP_DAC_READ_SEARCH" in message


def _opened_by_nobody(sysfs: Path, file: Path) -> str:
    """What the sensor says to a user who may not read the file; root becomes such a user in a child."""
    if os.geteuid() != 0:
        file.chmod(0)
        return _failure(sysfs)
    file.chmod(0o400)
    sysfs.chmod(0o755)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chdir(sysfs)  # the folders above it may be closed to others
            os.setuid(65534)
            os.write(write_end, _failure(Path()).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with os.fdopen(read_end) as answer:
        return answer.read()


def _failure(sysfs: Path) -> str:
    try:
        PowercapSensor.open(sysfs)
    except SensorError as error:
        return str(error)
    return "no failure"


@pytest.mark.parametrize("nonsense", ["", "abc", "-5", "1.5", "9" * 40, "\u0663"])
def test_nonsense_in_a_counter_is_a_failed_read(tree: PowercapTree, nonsense: str) -> None:
    """A file that holds no number fails its domain with a reason, and the others are read."""
    tree.server(sockets=1)
    sensor = PowercapSensor.open(tree.sysfs)
    tree.set("intel-rapl:0", nonsense)
    joules, failed = sensor.read()
    assert joules == {"dram-0": 2.5}
    assert list(failed) == ["package-0"]
    assert "energy_uj: " in failed["package-0"]


def test_a_zone_that_vanishes_fails_alone(tree: PowercapTree) -> None:
    """A zone that was unregistered is a failed read of its domain."""
    tree.server(sockets=1)
    sensor = PowercapSensor.open(tree.sysfs)
    (tree.sysfs / "class" / "powercap" / "intel-rapl:0:1").unlink()
    joules, failed = sensor.read()
    assert joules == {"package-0": 1.0}
    assert "No such file" in failed["dram-0"]


@pytest.mark.parametrize("range_uj", ["", "zero", "0"])
def test_an_unknown_range_is_not_known(tree: PowercapTree, range_uj: str) -> None:
    """Without a usable range the domain is still read; a decrease can then be no wrap."""
    tree.add("intel-rapl:0", "package-0", 1_000_000, range_uj)
    (info,) = PowercapSensor.open(tree.sysfs).domains()
    assert info.energy_range_joules is None
