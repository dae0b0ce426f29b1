"""Samplers inside engines, on real processes, a real socket, and real pynvml over a stand-in driver."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import pytest

from joulescope.clock import SystemClock
from joulescope.daemon.daemon import Daemon
from joulescope.errors import SensorLost
from joulescope.hook import wire
from joulescope.ingest.trace import read_trace
from joulescope.model import CallTime, GpuInfo, GpuReading
from joulescope.replay import Replay
from joulescope.sensors.nvml import NvmlSensor
from tests.fake_nvml import FakeDriver, FakeGpu, environment, load_here
from tests.inside.world import Engine, alive, engine, measured, sidecar, until

pytestmark = pytest.mark.slow

GPU, STRANGER = "GPU-00000000-0000-4000-8000-00000000000a", "GPU-00000000-0000-4000-8000-00000000000b"
WATTS = 300.0


@pytest.fixture
def driver(tmp_path: Path) -> FakeDriver:
    """Two GPUs, of which engines use the first."""
    live = [FakeGpu(uuid=uuid, live=True, power_watts=WATTS) for uuid in (GPU, STRANGER)]
    return FakeDriver(tmp_path / "driver", live)


@pytest.fixture
def inside(library: Path, driver: FakeDriver) -> dict[str, str]:
    """The environment of an engine's container, where the driver is."""
    return environment(library, driver)


@pytest.fixture
def here(library: Path, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the sidecar see the driver too."""
    load_here(library)
    monkeypatch.setenv("FAKE_NVML_STATE", str(driver.path))


class Switch:
    """The sidecar's own sensor, which works or does not as the test says."""

    def __init__(self) -> None:
        self.works = False
        self._sensor: NvmlSensor | None = None

    def open(self) -> Switch:
        self._check()
        self._sensor = NvmlSensor.open(SystemClock(), [GPU])
        return self

    def _check(self) -> None:
        if not self.works:
            raise SensorLost("switched off by the test")

    def gpus(self) -> Sequence[GpuInfo]:
        assert self._sensor is not None
        return self._sensor.gpus()

    def read(self) -> Sequence[GpuReading]:
        assert self._sensor is not None
        self._check()
        return self._sensor.read()

    def read_failures(self) -> dict[str, int]:
        return {}

    def call_times(self) -> Mapping[str, CallTime]:
        return {}

    def close(self) -> None:
        if self._sensor is not None:
            self._sensor.close()


def wait_for_joules(daemon: Daemon, joules: float) -> None:
    begun = measured(daemon, GPU)
    until(lambda: measured(daemon, GPU) > begun + joules, f"{joules} J more")


def said_by_hook(served: Engine) -> list[str]:
    """What the hook wrote to the engine's log of samplers."""
    return [line for line in served.logged if "GPUs" in line]


def test_a_sidecar_without_a_gpu_measures_through_the_engine(tmp_path: Path, inside: dict[str, str]) -> None:
    """The joules of requests come out where only the engine's container sees the GPU, none is lost, the page
    says who reads, and the other GPU of the machine is nobody's business."""
    with sidecar(tmp_path) as daemon, engine(tmp_path / "js.sock", GPU, environ=inside) as served:
        assert not daemon.ready()[0]
        wait_for_joules(daemon, 2.5 * WATTS)
        assert daemon.ready() == (True, f"engines can report and GPUs are read: {GPU} by engine")
        costs = [each.attributed_joules or 0.0 for each in daemon.recent_requests() if each.complete]
        served.end()
        final = daemon.close()
    (gpu,) = final.gpus
    assert gpu.residual_joules == 0
    assert (gpu.info.sensor, gpu.info.energy_source, gpu.info.driver_version) == (
        "engine",
        "counter",
        "550.54.15",
    )
    assert gpu.reading is not None
    assert gpu.reading.status is not None
    assert gpu.attributed_joules > 0.5 * gpu.measured_joules
    assert median(costs) == pytest.approx(0.2 * WATTS, rel=0.3)
    assert len(served.samplers) == 1
    assert len(said_by_hook(served)) == 1


def test_the_trace_of_it_replays_to_the_same(tmp_path: Path, inside: dict[str, str]) -> None:
    """What a sampler sent is recorded as readings of the GPU, and a replay comes to the same joules."""
    trace = tmp_path / "trace.jsonl"
    with (
        sidecar(tmp_path, record=str(trace)) as daemon,
        engine(tmp_path / "js.sock", GPU, environ=inside) as served,
    ):
        wait_for_joules(daemon, WATTS)
        served.end()
        (live,) = daemon.close().gpus
    replay = Replay(read_trace(trace), window_ns=200_000_000)
    list(replay)
    assert replay.snapshot is not None
    (again,) = replay.snapshot.gpus
    assert (again.measured_joules, again.residual_joules) == (live.measured_joules, 0)
    assert again.attributed_joules == pytest.approx(live.attributed_joules, rel=0.01)


def test_the_sampler_ends_with_its_engine(tmp_path: Path, inside: dict[str, str]) -> None:
    """However the engine ends, killed even, nothing of joulescope stays in its container."""
    with sidecar(tmp_path), engine(tmp_path / "js.sock", GPU, environ=inside) as served:
        pid = served.wait_for_sampler()
        until(lambda: os.getpriority(os.PRIO_PROCESS, pid) == 10, "the sampler to be polite")
        served.kill()
        until(lambda: not alive(pid), "the sampler to end")


def test_the_sampler_ends_with_its_engine_without_the_kernels_help(
    tmp_path: Path, inside: dict[str, str]
) -> None:
    """An engine that only shuts its scheduler down ends the sampler too."""
    with sidecar(tmp_path), engine(tmp_path / "js.sock", GPU, environ=inside) as served:
        pid = served.wait_for_sampler()
        served.end()
        assert served.process.returncode == 0
        until(lambda: not alive(pid), "the sampler to end")


def test_a_sidecar_that_comes_back_is_read_for_again(tmp_path: Path, inside: dict[str, str]) -> None:
    """When the sidecar goes its sampler ends; the next sidecar asks and gets another."""
    with engine(tmp_path / "js.sock", GPU, environ=inside) as served:
        with sidecar(tmp_path) as first:
            wait_for_joules(first, 0.5 * WATTS)
            pid = served.wait_for_sampler()
        until(lambda: not alive(pid), "the sampler to end")
        with sidecar(tmp_path) as second:
            wait_for_joules(second, 0.5 * WATTS)
        assert len(served.samplers) == 2
        assert len(said_by_hook(served)) == 1


@pytest.mark.usefixtures("here")
def test_a_sidecar_that_sees_the_gpu_asks_nobody(tmp_path: Path, inside: dict[str, str]) -> None:
    """Where the sidecar's own sensor reads the GPU no process is started in the engine's container."""
    with (
        sidecar(tmp_path, sensor="nvml") as daemon,
        engine(tmp_path / "js.sock", GPU, environ=inside) as served,
    ):
        wait_for_joules(daemon, WATTS)
        assert daemon.ready()[1].endswith(f"{GPU} by nvml")
        assert served.samplers == []


def test_a_sidecar_without_the_library_asks_by_itself(tmp_path: Path, inside: dict[str, str]) -> None:
    """With the usual setting a sidecar that finds no driver gets its readings from the engine."""
    with sidecar(tmp_path, sensor="nvml") as daemon, engine(tmp_path / "js.sock", GPU, environ=inside):
        wait_for_joules(daemon, 0.5 * WATTS)
        assert daemon.ready()[1].endswith(f"{GPU} by engine")
        assert "libnvidia-ml.so.1" in daemon.sensor_error


@pytest.mark.usefixtures("here")
def test_the_own_sensor_takes_over_and_joules_count_once(tmp_path: Path, inside: dict[str, str]) -> None:
    """When the sidecar's own sensor comes up the sampler is sent away; when it fails another takes over. The
    driver's counter is one, so that all it rose by is measured once."""
    trace = tmp_path / "trace.jsonl"
    switch = Switch()
    with (
        sidecar(tmp_path, sensor="nvml", open_sensor=switch.open, record=str(trace)) as daemon,
        engine(tmp_path / "js.sock", GPU, environ=inside) as served,
    ):
        wait_for_joules(daemon, 0.5 * WATTS)
        first = served.wait_for_sampler()
        switch.works = True
        until(lambda: daemon.ready()[1].endswith("by nvml"), "the own sensor to win")
        until(lambda: not alive(first), "the sampler to be sent away")
        wait_for_joules(daemon, 0.5 * WATTS)
        switch.works = False
        until(lambda: daemon.ready()[1].endswith("by engine"), "another sampler to take over")
        wait_for_joules(daemon, 0.5 * WATTS)
        served.end()
        (gpu,) = daemon.close().gpus
    shown = [record.energy_joules or 0.0 for record in read_trace(trace) if isinstance(record, wire.Sample)]
    assert shown == sorted(shown)
    assert gpu.measured_joules == pytest.approx(shown[-1] - shown[0], abs=1e-6)
    assert gpu.residual_joules == 0
    assert (gpu.counter_resets, gpu.rejected_intervals) == (0, 0)
    assert served.samplers[0] == first
    assert len(served.samplers) == 2


def test_without_a_binding_there_is_one_line_in_the_log(tmp_path: Path, inside: dict[str, str]) -> None:
    """Where vLLM has no pynvml the engine serves on, its log says once why no GPU is read, and the sidecar's
    page says it too."""
    (tmp_path / "hiding").mkdir()
    (tmp_path / "hiding" / "pynvml.py").write_text("raise ImportError('not here')")
    hidden = {**inside, "PYTHONPATH": str(tmp_path / "hiding")}
    with sidecar(tmp_path), engine(tmp_path / "js.sock", GPU, environ=hidden) as served:
        until(lambda: said_by_hook(served)[1:], "the hook to say why not")
        begun = len(served.told)
        served.end()
    assert "nvidia-ml-py" in said_by_hook(served)[1]
    assert len(said_by_hook(served)) == 2
    assert int(served.told[-1].split()[1]) > 0
    assert begun <= 3


def test_without_a_driver_the_reason_reaches_the_sidecar(tmp_path: Path) -> None:
    """Where the engine's container has no driver either, the sidecar's page gives the reason that was found
    there."""
    nothing = environment(None, None)
    with sidecar(tmp_path) as daemon, engine(tmp_path / "js.sock", GPU, environ=nothing) as served:
        until(lambda: "container of tiny-0" in daemon.ready()[1], "the reason")
        assert not daemon.ready()[0]
        assert "libnvidia-ml.so.1 is not here" in daemon.ready()[1]
        until(lambda: said_by_hook(served)[1:], "the hook to say why not")


@pytest.mark.parametrize("choice", ["off", "perhaps"])
def test_it_can_be_switched_off(tmp_path: Path, inside: dict[str, str], choice: str) -> None:
    """JOULESCOPE_SAMPLER=off, and a word that means nothing, start nothing in the engine's container; the
    latter is told."""
    off = {**inside, "JOULESCOPE_SAMPLER": choice}
    with sidecar(tmp_path) as daemon, engine(tmp_path / "js.sock", GPU, environ=off) as served:
        until(lambda: any(each.requests_started > 5 for each in daemon.snapshot().engines), "requests")
        served.end()
        assert daemon.close().gpus == ()
    assert served.samplers == []
    assert any("JOULESCOPE_SAMPLER" in line for line in served.logged) == (choice == "perhaps")
