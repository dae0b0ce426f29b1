"""Opening AMD SMI: what is found, whose counter is believed, and what the operator is told."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from joulescope.clock import ManualClock
from joulescope.errors import MissingExtra, SensorError, SensorLost
from joulescope.sensors import Sensor
from joulescope.sensors.amd import opener
from joulescope.sensors.amd_trust import TRIAL_STEP_SECONDS, TRIAL_STEPS
from tests.fake_amdsmi import (
    BUSY,
    DRIVER_NOT_LOADED,
    FILE_ERROR,
    NO_PERM,
    NOT_AVAILABLE_16,
    NOT_AVAILABLE_32,
    NOT_SUPPORTED,
    FakeGpu,
    FakeRocm,
    run_python,
)
from tests.sensors.amd.conftest import MakeBench

A = FakeGpu(serial="0x9D4BA6E1B2C3D4E5")
B = FakeGpu(serial="0x00000000000000B0", bus=0x22, socket=1, name="AMD Instinct MI325X")
GPU_A, GPU_B = "GPU-9d4ba6e1b2c3d4e5", "GPU-00000000000000b0"

OPEN_AND_SHOW = """
from joulescope.clock import SystemClock
from joulescope.errors import JoulescopeError
from joulescope.sensors.amd import AmdSensor
try:
    sensor = AmdSensor.open(SystemClock())
    print([(info.gpu, info.energy_source) for info in sensor.gpus()])
    sensor.close()
except JoulescopeError as error:
    print(type(error).__name__, error.exit_code, error)
"""


def test_tells_what_a_gpu_is(make_bench: MakeBench) -> None:
    """ROCm's UUID, name, place, limit in watts, memory in bytes, driver and source stand in GpuInfo."""
    sensor = make_bench(A, B).open()
    assert isinstance(sensor, Sensor)
    assert sensor.skipped == {}
    first, second = sensor.gpus()
    assert (first.gpu, first.name, first.index) == (GPU_A, "AMD Instinct MI300X", 0)
    assert (first.power_limit_watts, first.memory_total_bytes) == (750.0, 192 * 1024**3)
    assert (first.driver_version, first.energy_source, first.sensor) == ("6.14.14", "counter", "amd")
    assert (second.gpu, second.name, second.index) == (GPU_B, "AMD Instinct MI325X", 1)


def test_all_counters_are_tried_at_once(make_bench: MakeBench) -> None:
    """Opening eight GPUs takes the second that one takes."""
    gpus = [FakeGpu(serial=hex(place + 1), bus=place, socket=place) for place in range(8)]
    bench = make_bench(*gpus)
    assert len(bench.open().gpus()) == 8
    assert bench.clock.sleeps == [TRIAL_STEP_SECONDS] * TRIAL_STEPS


@pytest.mark.parametrize(
    ("gpu", "versions", "why"),
    [
        (
            A,
            {"library": 25, "rocm": 0},
            r"before ROCm 7 it is known to be wrong \(amdsmi .*libamd_smi.so 25\.0",
        ),
        (FakeGpu(counter_gain=0.0), {}, r"it rose by 0 J where the power readings come to 300 J"),
        (FakeGpu(counter_gain=100.0), {}, r"it rose by 3e\+04 J where the power readings come to 300 J"),
        (FakeGpu(counter_gain=0.01), {}, r"it rose by 3 J where"),
    ],
    ids=["old release", "stands still", "a hundred times too fast", "a hundred times too slow"],
)
def test_counter_that_cannot_be_believed_is_replaced_by_power(
    make_bench: MakeBench,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    gpu: FakeGpu,
    versions: dict[str, int],
    why: str,
) -> None:
    """The source says power, readings carry no energy, and the log says why in one warning."""
    monkeypatch.setattr("importlib.metadata.version", lambda name: "25.0.0")
    bench = make_bench(gpu, **versions)
    assert bench.open().gpus()[0].energy_source == "power"
    (reading,) = bench.read().values()
    assert (reading.energy_joules, reading.power_watts) == (None, 300.0)
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert re.search(why, warning.getMessage())


def test_counter_beside_no_power_is_not_believed(make_bench: MakeBench) -> None:
    """A counter with nothing to hold it against is refused, with the reason."""
    bench = make_bench(A)
    bench.rocm.set_code(0, "power", NOT_SUPPORTED)
    with pytest.raises(SensorError, match=r"its counter is not believed \(it could not be tried.*no power"):
        bench.open()


def test_counter_is_tried_once_in_a_process(make_bench: MakeBench) -> None:
    """Opened again after a lost connection, a counter that passed is used at once, without another trial."""
    bench = make_bench(A)
    bench.open().close()
    slept = len(bench.clock.sleeps)
    bench.rocm.set_code(0, "energy", BUSY)
    assert bench.open().gpus()[0].energy_source == "counter"
    assert len(bench.clock.sleeps) == slept


def test_passing_trouble_does_not_spoil_the_trial(make_bench: MakeBench) -> None:
    """Looks that fail are left out; the rest of the second is enough."""
    bench = make_bench(A)
    bench.rocm.set_code(0, "energy", BUSY)
    bench.clock.during = lambda: bench.rocm.set_code(0, "energy", 0 if len(bench.clock.sleeps) > 4 else BUSY)
    assert bench.open().gpus()[0].energy_source == "counter"


def test_counter_that_goes_back_during_its_trial_is_not_believed(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    """Forty joules back and forth again within the second fail it, though the sum would be right."""
    bench = make_bench(A)
    leaps = {4: -40.0, 7: 40.0}

    def leap() -> None:
        bench.rocm.gpus[0].energy += round(leaps.get(len(bench.clock.sleeps), 0.0) * 2**16)

    bench.clock.during = leap
    assert bench.open().gpus()[0].energy_source == "power"
    assert "it went back while it was watched" in caplog.text


@pytest.mark.parametrize(
    ("field", "value"),
    [("energy", 0), ("energy", 2**64 - 1), ("resolution", 0.0), ("resolution", float("nan"))],
)
def test_counter_that_is_not_there_is_none(make_bench: MakeBench, field: str, value: float) -> None:
    """0, all ones, and a counter without a unit are no counters; power is measured and no trial is made."""
    bench = make_bench(A)
    setattr(bench.rocm.gpus[0], field, value)
    assert bench.open().gpus()[0].energy_source == "power"
    assert bench.clock.sleeps == []


@pytest.mark.parametrize("watts", [0, NOT_AVAILABLE_16, NOT_AVAILABLE_32])
def test_gpu_that_tells_nothing_is_left_out_with_a_reason(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture, watts: int
) -> None:
    """No counter and a power of 0 or "N/A", as on an MI250's second die: not listed, never 0 W."""
    bench = make_bench(A, B)
    bench.rocm.gpus[0].energy, bench.rocm.gpus[0].current_w = 0, watts
    sensor = bench.open()
    assert [info.gpu for info in sensor.gpus()] == [GPU_B]
    assert "second die" in sensor.skipped[GPU_A]
    assert GPU_A in caplog.text


def test_older_parts_tell_average_power(make_bench: MakeBench) -> None:
    """Where the current power is "N/A" the average one is taken, as on MI200."""
    bench = make_bench(A)
    bench.rocm.gpus[0].energy = 0
    bench.rocm.gpus[0].current_w, bench.rocm.gpus[0].average_w = NOT_AVAILABLE_16, 211
    bench.open()
    assert bench.read()[GPU_A].power_watts == 211.0


def partitions(*, meters: set[int], serials: list[str] | None = None) -> list[FakeGpu]:
    names = serials or ["0xA0"] * 4
    return [
        FakeGpu(serial=names[place], function=place, partition=place, meter=place in meters)
        for place in range(4)
    ]


@pytest.mark.parametrize("meters", [{0}, {0, 1, 2, 3}, {2}], ids=["first tells", "all tell", "third tells"])
def test_partitions_of_a_socket_are_counted_once(make_bench: MakeBench, meters: set[int]) -> None:
    """A socket in four partitions is one GPU with one counter, whichever of them show it."""
    bench = make_bench(*partitions(meters=meters))
    (info,) = bench.open().gpus()
    assert (info.gpu, info.energy_source) == ("GPU-00000000000000a0", "counter")
    before = bench.read()[info.gpu].energy_joules
    after = bench.read(after_seconds=1.0)[info.gpu].energy_joules
    assert before is not None
    assert after == pytest.approx(before + 300.0, abs=0.001)


def test_one_serial_is_one_socket(make_bench: MakeBench) -> None:
    """Partitions that a driver lists at addresses of their own are still one GPU, by their serial."""
    gpus = [FakeGpu(serial="0xA0", bus=place, socket=place, partition=place) for place in range(4)]
    assert [info.gpu for info in make_bench(*gpus).open().gpus()] == ["GPU-00000000000000a0"]


def test_partitions_of_a_release_that_does_not_number_them(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before ROCm 6.3 the package has no such call; the bus address tells which partition is first."""
    bench = make_bench(*partitions(meters={0}))
    bench.open().close()
    monkeypatch.delattr("amdsmi.amdsmi_get_gpu_kfd_info")
    assert [info.gpu for info in bench.open().gpus()] == ["GPU-00000000000000a0"]


def test_partition_tells_no_memory_or_load_for_its_socket(make_bench: MakeBench) -> None:
    """A quarter's memory and load are not shown as the socket's: they are absent."""
    bench = make_bench(*partitions(meters={0}))
    assert bench.open().gpus()[0].memory_total_bytes is None
    (reading,) = bench.read(after_seconds=2.0).values()
    assert (reading.memory_used_bytes, reading.sm_utilization_ratio) == (None, None)


def test_partition_stands_for_its_socket(make_bench: MakeBench) -> None:
    """Where the kernel names each partition, any of the names chooses the socket, once."""
    bench = make_bench(*partitions(meters={0}, serials=["0xA0", "0xA1", "0xA2", "0xA3"]), B)
    sensor = bench.open("GPU-00000000000000a2", "GPU-00000000000000A1", "GPU-gone")
    assert [info.gpu for info in sensor.gpus()] == ["GPU-00000000000000a0"]
    assert sensor.skipped == {"GPU-gone": "no such GPU is visible here"}


def test_gpu_without_a_serial_is_left_out(make_bench: MakeBench) -> None:
    """What no engine could name is left out under its bus address."""
    sensor = make_bench(FakeGpu(serial="", bus=0x63, socket=1), A).open()
    assert [info.gpu for info in sensor.gpus()] == [GPU_A]
    assert "no serial number" in sensor.skipped["0000:63:00.0"]


def test_wrong_choice_names_what_is_there(make_bench: MakeBench) -> None:
    """If no wanted GPU is here the error lists the wanted and the visible ones."""
    with pytest.raises(SensorError, match=rf"GPU-x: no such GPU.*Visible: {GPU_A}, {GPU_B}"):
        make_bench(A, B).open("GPU-x")


def test_no_gpu_is_an_error(make_bench: MakeBench) -> None:
    """A driver without GPUs is not taken for GPUs that draw nothing, and the devices to pass are named."""
    with pytest.raises(SensorError, match=r"shows no GPU.*--device /dev/kfd"):
        make_bench().open()


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (DRIVER_NOT_LOADED, SensorLost, "modprobe amdgpu"),
        (NO_PERM, SensorError, r"/dev/kfd.*groups render and video.*--group-add"),
        (FILE_ERROR, SensorError, r"/dev/dri"),
        (8, SensorLost, r"AMDSMI_STATUS_TIMEOUT.*code 8.*tried again"),
    ],
    ids=["driver not loaded", "no permission", "no device file", "code without advice"],
)
def test_failing_start_says_how_to_mend_it(
    make_bench: MakeBench, code: int, kind: type[SensorError], words: str
) -> None:
    """Each way in which amdsmi_init fails gives its own advice, and says whether waiting may help."""
    bench = make_bench(A)
    bench.rocm.state.init_code = code
    with pytest.raises(SensorError, match=words) as info:
        bench.open()
    assert type(info.value) is kind


@pytest.mark.parametrize(
    ("package", "library", "rocm", "refused"),
    [
        ("7.0.2", 26, 7, False),
        ("7.0.2", 25, 6, True),
        ("7.0.2", 25, 0, True),
        ("6.4.4", 26, 7, True),
        ("7.0.2", 26, 0, False),
        ("26.0.0+37d158a", 26, 7, False),
        ("25.3.0", 3, 6, False),
    ],
)
def test_package_for_another_library_is_refused(
    make_bench: MakeBench,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    library: int,
    rocm: int,
    refused: bool,
) -> None:
    """A package whose structures are not the library's never has one filled; the right one is named."""
    monkeypatch.setattr("importlib.metadata.version", lambda name: package)
    bench = make_bench(A, library=library, rocm=rocm)
    if not refused:
        assert bench.open().gpus()[0].energy_source == ("counter" if library == 26 else "power")
        return
    with pytest.raises(SensorError, match=r"does not fit the library.*pip install /opt/rocm/share/amd_smi"):
        bench.open()
    assert bench.rocm.calls(0, "asic") == 0
    assert bench.rocm.open_users() == 0


def test_missing_package_ends_the_command_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without amdsmi there is nothing to wait for: making the opener names the extra."""
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    with pytest.raises(MissingExtra, match=r"joulescope-inference\[sidecar,amd\]"):
        opener(ManualClock(), None)


@pytest.mark.real
def test_serve_without_the_package_ends_at_once(tmp_path: Path) -> None:
    """``serve --sensor amd`` without amdsmi ends with code 69, and its last word is what to install."""
    code = (
        "import sys; sys.modules['amdsmi'] = None; from joulescope.cli.main import main; "
        f"sys.argv[1:] = ['serve', '--sensor', 'amd', '--socket', '{tmp_path}/js.sock']; "
        "print(main(), file=sys.__stdout__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip() or str(done.returncode)) == "69"
    assert "joulescope-inference[sidecar,amd]" in done.stderr
    assert not (tmp_path / "js.sock").exists()


def test_fresh_process_without_any_library(rocm_path: Path) -> None:
    """The real amdsmi without ROCm: one clear error with advice, and nothing else on standard output."""
    output = run_python(OPEN_AND_SHOW, None, None)
    if output.startswith("["):
        pytest.skip("this machine has real AMD GPUs")
    assert output.startswith("SensorError 3 libamd_smi.so is not here")
    assert "Install ROCm's amd-smi-lib" in output
    assert "\n" not in output


def test_fresh_process_finds_the_library_by_rocm_path(rocm_path: Path, tmp_path: Path) -> None:
    """A process started with ROCM_PATH loads the stand-in through amdsmi's own search."""
    rocm = FakeRocm(tmp_path / "state", [FakeGpu(energy_joules=0.0)])
    assert run_python(OPEN_AND_SHOW, rocm_path, rocm) == f"[('{GPU_A}', 'power')]"
