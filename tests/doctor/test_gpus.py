"""The doctor on the real pynvml and the stand-in driver: one planted fault after the other."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from joulescope.config import Settings
from joulescope.doctor.findings import Finding, Severity
from joulescope.doctor.gpus import check_gpus
from joulescope.doctor.place import Place
from tests.fake_nvml import (
    LIBRARY_MISMATCH,
    NO_PERMISSION,
    NOT_SUPPORTED,
    PARTS,
    UNKNOWN,
    DriverClock,
    FakeDriver,
    FakeGpu,
)
from tests.sensors.conftest import MakeDriver

UUID = "GPU-a"
HEALTHY = replace(PARTS["h100"], uuid=UUID, live=True, power_watts=300.0)
CUT = replace(PARTS["mig"], uuid=UUID, live=True, power_watts=300.0)
START_NS = 10**9


def examine(
    driver: FakeDriver | None,
    root: Path,
    settings: Settings | None = None,
    environ: dict[str, str] | None = None,
) -> list[Finding]:
    """Three seconds of watching, on the driver's own clock."""
    place = Place(root, environ or {}, DriverClock(START_NS, driver=driver))
    return list(check_gpus(settings or Settings(), place, 3.0))


def test_a_healthy_gpu_gets_no_more_than_oks(make_driver: MakeDriver, tmp_path: Path) -> None:
    """It is named with driver and meter; the tick and both meters are told, and nothing is complained of."""
    findings = examine(make_driver(HEALTHY), tmp_path)
    assert {finding.severity for finding in findings} == {Severity.OK}
    said = " ".join(finding.said for finding in findings)
    assert f"GPU 0 {UUID}: NVIDIA H100 80GB HBM3, driver 550.54.15, measured by its energy counter" in said
    assert "its energy counter ticks every 100 ms" in said
    counted = re.search(r"([\d.]+) W by the counter, 300.0 W by power readings", said)
    assert counted is not None
    assert float(counted[1]) == pytest.approx(300.0, rel=0.01)
    assert "energy in" in said


@dataclass(frozen=True)
class Fault:
    """Something planted, and what the doctor must say of it."""

    severity: Severity
    check: str
    said: str
    mend: str = ""
    gpu: FakeGpu = HEALTHY
    settings: Settings | None = None
    plant: Callable[[FakeDriver], object] = lambda driver: None


FAULTS = {
    "no permission": Fault(
        Severity.ERROR, "driver", "Let this user read and write /dev/nvidiactl",
        plant=lambda driver: driver.set_init_code(NO_PERMISSION),
    ),
    "driver upgraded": Fault(
        Severity.ERROR, "driver", "The driver was upgraded under this process",
        plant=lambda driver: driver.set_init_code(LIBRARY_MISMATCH),
    ),
    "devices taken away": Fault(
        Severity.ERROR, "driver", "systemctl daemon-reload",
        plant=lambda driver: driver.set_init_code(UNKNOWN),
    ),
    "vgpu": Fault(
        Severity.ERROR, "driver", "neither an energy counter nor a power reading",
        gpu=replace(PARTS["vgpu"], uuid=UUID),
    ),
    "old part": Fault(
        Severity.WARNING, "counter", "no energy counter: its joules are power readings",
        gpu=replace(PARTS["pascal"], uuid=UUID, live=True),
    ),
    "cut into instances": Fault(
        Severity.WARNING, "mig", "cut into MIG instances", "-mig 0",
        gpu=replace(PARTS["mig"], uuid=UUID, live=True),
    ),
    "instances not split": Fault(
        Severity.WARNING, "mig", "mig is gpm, but its joules are not split", "Unset JOULESCOPE_MIG",
        gpu=replace(PARTS["mig"], uuid=UUID, live=True, gpm=()), settings=Settings(mig="gpm"),
    ),
    "silent instance": Fault(
        Severity.WARNING, "mig", "tells no SM activity, or an impossible one", "Unset JOULESCOPE_MIG",
        gpu=CUT, settings=Settings(mig="gpm"),
        plant=lambda driver: driver.set_instance_gpm(UUID, PARTS["mig"].mig_uuid, sm=-1.0),
    ),
    "split instances": Fault(
        Severity.NOTE, "mig", "its joules are an estimate by performance counters",
        gpu=CUT, settings=Settings(mig="gpm"),
    ),
    "no persistence": Fault(
        Severity.WARNING, "persistence", "its counter may start again", "nvidia-smi -pm 1",
        gpu=replace(HEALTHY, persistence=False),
    ),
    "confidential": Fault(
        Severity.NOTE, "gpm", "switched off by the driver", plant=lambda driver: driver.set_confidential(True)
    ),
    "no performance counters": Fault(
        Severity.NOTE, "gpm", "which this architecture has", gpu=replace(HEALTHY, gpm=())
    ),
    "stuck counter": Fault(
        Severity.WARNING, "counter", "stood still for 3 s", "nvidia-smi -q -d POWER",
        plant=lambda driver: driver.freeze(),
    ),
    "meters differ": Fault(
        Severity.WARNING, "counter", "they differ by 25%", "JOULESCOPE_CALIBRATION",
        gpu=replace(HEALTHY, power_window_seconds=0.0),
        plant=lambda driver: driver.set_raw(UUID, power_mw=240_000),
    ),
    "a meter is wrong": Fault(
        Severity.ERROR, "counter", "187.0 W by power readings", "JOULESCOPE_CALIBRATION",
        gpu=replace(HEALTHY, power_watts=327.0, power_window_seconds=0.0),
        plant=lambda driver: driver.set_raw(UUID, power_mw=187_000),
    ),
    "throttled": Fault(
        Severity.NOTE, "throttle", "held back: power_cap, thermal",
        plant=lambda driver: driver.set_raw(UUID, reasons=0x24),
    ),
    "a call that fails": Fault(
        Severity.WARNING, "gpu", "of its calls failed meanwhile",
        plant=lambda driver: driver.set_code(UUID, "memory", UNKNOWN),
    ),
    "no second meter": Fault(
        Severity.WARNING, "power", "cannot be checked against a second meter",
        plant=lambda driver: driver.set_code(UUID, "power", NOT_SUPPORTED),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named_with_what_mends_it(
    make_driver: MakeDriver, tmp_path: Path, name: str
) -> None:
    """The worst thing that is said is the fault that was planted, as bad as it is."""
    fault = FAULTS[name]
    driver = make_driver(fault.gpu)
    fault.plant(driver)
    findings = examine(driver, tmp_path, fault.settings)
    worst = [finding for finding in findings if finding.severity is max(each.severity for each in findings)]
    assert [finding.severity for finding in worst] == [fault.severity]
    assert worst[0].check == fault.check
    assert fault.said in worst[0].said
    assert fault.mend in worst[0].mend


@pytest.mark.parametrize("name", FAULTS)
def test_the_page_tells_of_every_fault(name: str) -> None:
    """docs/doctor.md has what is said of each of them."""
    page = " ".join((Path(__file__).parents[2] / "docs" / "doctor.md").read_text().split())
    assert (
        FAULTS[name].said.replace("25%", "…").replace("187.0 W by power readings", "they differ by") in page
    )


def test_without_a_driver_it_says_how_to_get_one(tmp_path: Path) -> None:
    """No library at all, in a Kubernetes pod: the lines for the manifest are there."""
    (finding,) = examine(None, tmp_path, environ={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert finding.severity is Severity.ERROR
    assert "libnvidia-ml.so.1 is not here" in finding.said
    assert "runtimeClassName: nvidia" in finding.mend


def test_a_gpu_that_is_asked_for_and_not_there(make_driver: MakeDriver, tmp_path: Path) -> None:
    """A mistyped UUID among the settings is named; the other GPU is examined."""
    findings = examine(make_driver(HEALTHY), tmp_path, Settings(gpus=f"{UUID},GPU-typo"))
    warnings = [finding.said for finding in findings if finding.severity is Severity.WARNING]
    assert warnings == ["GPU-typo is not read: no such GPU is visible here"]


def test_a_gpu_that_falls_off_the_bus_meanwhile(make_driver: MakeDriver, tmp_path: Path) -> None:
    """What happens while it watches is told, and the driver is closed again."""
    driver = make_driver(HEALTHY)

    class Falling(DriverClock):
        def advance(self, duration_seconds: float) -> None:
            super().advance(duration_seconds)
            if self.time_ns > START_NS + 10**9:
                driver.lose(UUID)

    place = Place(tmp_path, {}, Falling(START_NS, driver=driver))
    findings = list(check_gpus(Settings(), place, 3.0))
    assert any("while it was watched: no GPU answers any more" in finding.said for finding in findings)
    assert driver.open_users() == 0


def test_a_container_that_was_given_no_gpu(tmp_path: Path) -> None:
    """NVIDIA_VISIBLE_DEVICES=void is seen, and the line that changes it is told."""
    findings = examine(None, tmp_path, environ={"NVIDIA_VISIBLE_DEVICES": "void"})
    assert findings[0].check == "devices"
    assert "NVIDIA_VISIBLE_DEVICES, value: all" in findings[0].mend


def test_without_a_sensor_by_choice_nothing_is_looked_at(tmp_path: Path) -> None:
    """With sensor none there is one note and no driver is asked."""
    (finding,) = examine(None, tmp_path, Settings(sensor="none"))
    assert finding.severity is Severity.NOTE
