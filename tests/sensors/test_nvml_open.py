"""Opening NVML: what is found, what is left out, and what the operator is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from joulescope.clock import ManualClock
from joulescope.errors import SensorError, SensorLost
from joulescope.sensors import Sensor
from joulescope.sensors.nvml import NvmlSensor
from tests.fake_nvml import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    LIBRARY_MISMATCH,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNKNOWN,
    FakeDriver,
    FakeGpu,
    build,
    run_python,
)
from tests.sensors.conftest import MakeDriver

OPEN_AND_SHOW = """
from joulescope.clock import SystemClock
from joulescope.errors import SensorError
from joulescope.sensors.nvml import NvmlSensor
try:
    sensor = NvmlSensor.open(SystemClock())
    print([(info.gpu, info.energy_source) for info in sensor.gpus()], sensor.read()[0].energy_joules)
    sensor.close()
except SensorError as error:
    print(type(error).__name__, error.exit_code, error)
"""


def opened(*gpus: str) -> NvmlSensor:
    return NvmlSensor.open(ManualClock(), gpus or None)


def test_tells_what_a_gpu_is(make_driver: MakeDriver) -> None:
    """UUID, name, place, limit in watts, memory in bytes, driver and source stand in GpuInfo."""
    make_driver(FakeGpu("GPU-a"), FakeGpu("GPU-b", name="NVIDIA L4", power_limit_watts=72.0))
    sensor = opened()
    assert isinstance(sensor, Sensor)
    assert sensor.skipped == {}
    first, second = sensor.gpus()
    assert (first.gpu, first.name, first.index) == ("GPU-a", "NVIDIA H100 80GB HBM3", 0)
    assert (first.power_limit_watts, first.memory_total_bytes) == (700.0, 80 * 1024**3)
    assert (first.driver_version, first.energy_source, first.sensor) == ("550.54.15", "counter", "nvml")
    assert (second.gpu, second.index, second.power_limit_watts) == ("GPU-b", 1, 72.0)
    sensor.close()


def test_missing_library_is_explained(make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a driver library the error says what to install and what to set in a container."""
    make_driver()
    monkeypatch.delenv("FAKE_NVML_STATE")
    with pytest.raises(
        SensorError, match=r"libnvidia-ml\.so\.1 is not here.*NVIDIA_DRIVER_CAPABILITIES"
    ) as info:
        opened()
    assert not isinstance(info.value, SensorLost)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (DRIVER_NOT_LOADED, SensorLost, "modprobe nvidia"),
        (NO_PERMISSION, SensorError, "/dev/nvidiactl"),
        (LIBRARY_MISMATCH, SensorLost, "upgraded"),
        (UNKNOWN, SensorLost, "daemon-reload"),
        (24, SensorLost, "code 24"),
    ],
    ids=["driver not loaded", "no permission", "library mismatch", "unknown", "code without advice"],
)
def test_failing_start_says_how_to_mend_it(
    make_driver: MakeDriver, code: int, kind: type[SensorError], words: str
) -> None:
    """Each way in which nvmlInit fails gives its own advice, and says whether waiting may help."""
    make_driver(FakeGpu("GPU-a")).set_init_code(code)
    with pytest.raises(SensorError, match=words) as info:
        opened()
    assert type(info.value) is kind


def test_no_gpu_is_an_error(make_driver: MakeDriver) -> None:
    """A driver without GPUs is not taken for GPUs that draw nothing."""
    make_driver()
    with pytest.raises(SensorError, match="shows no GPU"):
        opened()


def test_gpus_can_be_chosen_by_uuid(make_driver: MakeDriver) -> None:
    """Only the wanted GPUs are read; one that is not here is named, the others are still read."""
    make_driver(FakeGpu("GPU-a"), FakeGpu("GPU-b"), FakeGpu("GPU-c"))
    sensor = opened("GPU-c", "GPU-x", "GPU-a", "GPU-a")
    assert [reading.gpu for reading in sensor.read()] == ["GPU-c", "GPU-a"]
    assert sensor.skipped == {"GPU-x": "no such GPU is visible here"}
    sensor.close()


def test_wrong_choice_names_what_is_there(make_driver: MakeDriver) -> None:
    """If no wanted GPU is here the error lists the wanted and the visible ones."""
    make_driver(FakeGpu("GPU-a"), FakeGpu("GPU-b"))
    with pytest.raises(SensorError, match=r"GPU-x: no such GPU.*Visible: GPU-a, GPU-b"):
        opened("GPU-x")


def test_mig_instance_stands_for_its_gpu(make_driver: MakeDriver) -> None:
    """Energy exists for whole GPUs only: a MIG instance's UUID chooses its parent, once."""
    make_driver(FakeGpu("GPU-a"), FakeGpu("GPU-b", mig_uuid="MIG-b1"))
    sensor = opened("MIG-b1", "GPU-b", "MIG-gone")
    assert [info.gpu for info in sensor.gpus()] == ["GPU-b"]
    assert list(sensor.skipped) == ["MIG-gone"]
    sensor.close()


def test_gpu_without_a_counter_is_measured_by_power(make_driver: MakeDriver) -> None:
    """No energy counter: the source says power, and energy is absent rather than 0."""
    make_driver(FakeGpu("GPU-a", power_watts=60.5)).set_code("GPU-a", "energy", NOT_SUPPORTED)
    sensor = opened()
    assert sensor.gpus()[0].energy_source == "power"
    (reading,) = sensor.read()
    assert (reading.energy_joules, reading.power_watts) == (None, 60.5)
    sensor.close()


def test_counter_that_says_not_available_is_none(make_driver: MakeDriver) -> None:
    """A counter of all ones is NVML's "not available", not 1.8e16 joules."""
    make_driver(FakeGpu("GPU-a", energy_mj=2**64 - 1))
    sensor = opened()
    assert sensor.gpus()[0].energy_source == "power"
    sensor.close()


def test_gpu_that_tells_neither_is_left_out_with_a_reason(
    make_driver: MakeDriver, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither energy nor power: not listed, the reason kept and logged, the other GPU read."""
    driver = make_driver(FakeGpu("GPU-a"), FakeGpu("GPU-b"))
    driver.set_code("GPU-a", "energy", NOT_SUPPORTED)
    driver.set_code("GPU-a", "power", NO_PERMISSION)
    sensor = opened()
    assert [info.gpu for info in sensor.gpus()] == ["GPU-b"]
    assert "neither an energy counter nor a power reading" in sensor.skipped["GPU-a"]
    assert "GPU-a" in caplog.text
    sensor.close()


def test_only_gpu_that_tells_neither_is_an_error(make_driver: MakeDriver) -> None:
    """A single unusable GPU is refused with its reason, and NVML is shut down again."""
    driver = make_driver(FakeGpu("GPU-a"))
    driver.set_code("GPU-a", "energy", NOT_SUPPORTED)
    driver.set_code("GPU-a", "power", NOT_SUPPORTED)
    with pytest.raises(SensorError, match=r"no GPU can be measured.*GPU-a: it has neither"):
        opened()
    assert driver.open_users() == 0


def test_gpu_that_is_lost_from_the_start_is_left_out(make_driver: MakeDriver) -> None:
    """A GPU that cannot even tell its UUID is skipped under its index; the others are read."""
    driver = make_driver(FakeGpu("GPU-a"), FakeGpu("GPU-b"))
    driver.lose("GPU-a", GPU_IS_LOST)
    sensor = opened()
    assert [reading.gpu for reading in sensor.read()] == ["GPU-b"]
    assert "lost" in sensor.skipped["index 0"]
    sensor.close()


def test_passing_trouble_at_the_probe_is_not_taken_for_a_missing_counter(make_driver: MakeDriver) -> None:
    """An unknown error at start keeps the counter as the source, so that it is used once it answers."""
    driver = make_driver(FakeGpu("GPU-a"))
    driver.set_code("GPU-a", "energy", UNKNOWN)
    sensor = opened()
    assert sensor.gpus()[0].energy_source == "counter"
    driver.set_code("GPU-a", "energy", 0)
    assert sensor.read()[0].energy_joules == 5000.0
    sensor.close()


def test_unreadable_texts_do_no_harm(make_driver: MakeDriver) -> None:
    """A name that is not UTF-8 becomes empty; a GPU with such a UUID is left out."""
    driver = make_driver(FakeGpu("GPU-a"), FakeGpu("GPU-b"))
    driver.set_raw("GPU-a", name=b"\xff\xfe")
    driver.set_raw("GPU-b", uuid=b"\xff\xfe")
    driver.set_raw("GPU-a", power_limit_mw=0, memory_total=0)
    sensor = opened()
    (info,) = sensor.gpus()
    assert (info.gpu, info.name, info.power_limit_watts, info.memory_total_bytes) == ("GPU-a", "", None, None)
    assert list(sensor.skipped) == ["index 1"]
    sensor.close()


def test_fresh_process_without_any_library() -> None:
    """The real pynvml without a driver library: the command would end with code 3 and the advice."""
    output = run_python(OPEN_AND_SHOW, None, None)
    if output.startswith("["):
        pytest.skip("this machine has a real NVIDIA driver")
    assert output.startswith("SensorError 3 the GPU driver cannot be reached")
    assert "Install the NVIDIA driver" in output


def test_fresh_process_finds_the_library_on_its_path(library: Path, tmp_path: Path) -> None:
    """A process started with LD_LIBRARY_PATH loads the stand-in through pynvml's own search."""
    driver = FakeDriver(tmp_path / "state", [FakeGpu("GPU-a", energy_mj=1_500)])
    assert run_python(OPEN_AND_SHOW, library, driver) == "[('GPU-a', 'counter')] 1.5"


def test_library_without_the_energy_function(libraries: Path, library: Path, tmp_path: Path) -> None:
    """An old driver whose library lacks the symbol is used by its power."""
    driver = FakeDriver(tmp_path / "state", [FakeGpu("GPU-a")])
    old = build(libraries, without_energy=True)
    assert run_python(OPEN_AND_SHOW, old, driver) == "[('GPU-a', 'power')] None"


def test_importing_the_sensor_does_not_import_pynvml() -> None:
    """The room can be imported where nvidia-ml-py is not installed; opening names the extra."""
    code = """
import sys
sys.modules["pynvml"] = None
from joulescope.clock import SystemClock
from joulescope.errors import MissingExtra
from joulescope.sensors.nvml import NvmlSensor
try: NvmlSensor.open(SystemClock())
except MissingExtra as error: print(error)
"""
    assert "joulescope-inference[sidecar]" in run_python(code, None, None)
