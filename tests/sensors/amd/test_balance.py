"""What faults of AMD's meters do to the accounts: sampled, metered and divided as in the sidecar."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest

from joulescope.model import GpuReading, GpuTotals, Snapshot
from joulescope.pipeline import Pipeline, Scope
from joulescope.sampling.sampler import Sampled, Sampler, SamplerEvent, SensorDown, SensorOpened
from joulescope.sampling.timer import DeadlineTimer
from joulescope.sensors.amd import opener
from tests.fake_amdsmi import BUSY, NOT_AVAILABLE_16, FakeGpu, FakeRocm
from tests.sensors.amd.conftest import Bench, MakeBench

WATTS = 300.0
POLL_JOULES = 20.0
"""What may be drawn after the last poll, or while a window is dropped at a poll's edge."""


WITH_COUNTER = FakeGpu()
NO_COUNTER = FakeGpu(counter_gain=0.0)


class Sidecar:
    """The sampler, and the pipeline that it feeds, on a machine and a clock of the test's own."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.pipeline = Pipeline(scope=Scope(all_gpus=True))
        self.first_joules: float | None = None
        self.last: dict[str, GpuReading] = {}
        self.downs: list[str] = []
        timer = DeadlineTimer(bench.clock, 1 / 20, Random(1))
        self.sampler = Sampler(opener(bench.clock, None), timer, bench.clock, self.deliver)

    def deliver(self, event: SamplerEvent) -> None:
        if isinstance(event, SensorOpened):
            self.pipeline.gpus_found(event.gpus)
        elif isinstance(event, SensorDown):
            self.downs.append(str(event.error))
            self.pipeline.sensor_down()
        elif isinstance(event, Sampled):
            self.last = {reading.gpu: reading for reading in event.readings}
            if event.readings and self.first_joules is None:
                self.first_joules = self.bench.rocm.drawn_joules[0]
            self.pipeline.read(event.readings, event.read_failures)

    def run(self, until_seconds: float) -> Snapshot:
        while self.bench.clock.time_ns < until_seconds * 1e9:
            self.sampler.step()
        return self.pipeline.snapshot(self.bench.clock.time_ns)

    def finish(self) -> tuple[GpuTotals, float]:
        """The GPU's accounts, and the joules drawn since the first reading that are not in them."""
        self.sampler.stop(0.0)
        self.pipeline.finish(self.bench.clock.time_ns)
        (gpu,) = self.pipeline.snapshot(self.bench.clock.time_ns).gpus
        assert self.first_joules is not None
        return gpu, self.bench.rocm.drawn_joules[0] - self.first_joules - gpu.measured_joules


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong from second 5 to second 8, and what the operator sees of it."""

    name: str
    begin: Callable[[FakeRocm], object]
    end: Callable[[FakeRocm], object] = lambda rocm: None
    gpu: FakeGpu = WITH_COUNTER
    up_meanwhile: bool = True
    """Whether the GPU still counts as measured just before the fault ends."""
    source: str = "counter"
    """What measures it in the end."""
    missing_joules: tuple[float, float] = (-1.0, POLL_JOULES)
    """Drawn and not accounted."""
    failures: int = 0
    resets: int = 0
    rejected: int = 0
    down: str = ""
    """What the log says when the sensor is lost; empty if it is not."""


def power(watts: int) -> Callable[[FakeRocm], object]:
    return lambda rocm: setattr(rocm.gpus[0], "current_w", watts)


def add(joules: float) -> Callable[[FakeRocm], object]:
    return lambda rocm: setattr(rocm.gpus[0], "energy", round(rocm.gpus[0].energy + joules * 2**16))


def energy(count: int) -> Callable[[FakeRocm], object]:
    return lambda rocm: setattr(rocm.gpus[0], "energy", count)


def resolution(microjoules: float) -> Callable[[FakeRocm], object]:
    return lambda rocm: setattr(rocm.gpus[0], "resolution", microjoules)


def code(function: str, status: int) -> Callable[[FakeRocm], object]:
    return lambda rocm: rocm.set_code(0, function, status)


SILENCE = (3 * WATTS - POLL_JOULES, 6 * WATTS)
"""The three seconds of the fault, and until the sensor is opened again: its pauses double."""

FAULTS = [
    Fault("nothing", lambda rocm: None),
    Fault("power is N/A beside a counter", power(NOT_AVAILABLE_16), power(300), failures=60),
    Fault("power is 0 beside a counter", power(0), power(300), failures=60),
    Fault(
        "the counter is busy",
        code("energy", BUSY),
        code("energy", 0),
        up_meanwhile=False,
        failures=6,
        down="no GPU answers any more",
    ),
    Fault(
        "the GPU goes and comes back",
        lambda rocm: rocm.lose(0),
        lambda rocm: rocm.lose(0, 0),
        up_meanwhile=False,
        failures=1,
        down=r"no GPU answers any more.*AMDSMI_STATUS_NOT_FOUND.*/dev/kfd",
    ),
    Fault(
        "the counter goes back a little",
        add(-200.0),
        source="power",
        missing_joules=(WATTS, 1.1 * WATTS),
        down="energy counter of GPU .* cannot be believed: it went back",
    ),
    Fault("the counter starts anew", energy(1), resets=1, missing_joules=(0.0, 0.6 * WATTS)),
    Fault("the counter leaps", add(1e6), rejected=1, missing_joules=(0.0, 0.6 * WATTS)),
    Fault(
        "the unit is gone",
        resolution(0.0),
        resolution(15.3),
        failures=3,
        source="power",
        missing_joules=(1.7 * WATTS, 2.1 * WATTS),
        down="no GPU answers any more.*which is no energy",
    ),
    Fault(
        "power is N/A and all there is",
        power(NOT_AVAILABLE_16),
        power(300),
        gpu=NO_COUNTER,
        source="power",
        missing_joules=SILENCE,
        failures=3,
        up_meanwhile=False,
        down="no GPU answers any more.*which is no power",
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(make_bench: MakeBench, caplog: pytest.LogCaptureFixture, fault: Fault) -> None:
    """Each fault shows as itself, ends when it ends, and leaves accounts that close: no joule too many."""
    bench = make_bench(fault.gpu)
    sidecar = Sidecar(bench)
    caplog.set_level(logging.WARNING)
    sidecar.run(until_seconds=5.0)
    fault.begin(bench.rocm)
    during = sidecar.run(until_seconds=8.0)
    fault.end(bench.rocm)
    sidecar.run(until_seconds=45.0)
    assert list(sidecar.last) == ["GPU-9d4ba6e1b2c3d4e5"], "it never recovered"
    gpu, missing_joules = sidecar.finish()
    assert gpu.residual_joules == 0
    assert gpu.info.energy_source == fault.source
    assert fault.missing_joules[0] <= missing_joules <= fault.missing_joules[1]
    assert (gpu.counter_resets, gpu.rejected_intervals) == (fault.resets, fault.rejected)
    assert during.gpus[0].up == fault.up_meanwhile
    assert gpu.read_failures == pytest.approx(fault.failures, abs=1 if fault.failures else 0)
    assert bool(sidecar.downs) == bool(fault.down)
    assert not fault.down or re.search(fault.down, sidecar.downs[0])


def test_a_load_that_changes_is_followed(make_bench: MakeBench) -> None:
    """By the counter to a joule, by power to what one poll can miss of each change."""
    for gpu, tolerance in ((FakeGpu(), POLL_JOULES), (NO_COUNTER, 40 * 500 * 0.06)):
        bench = make_bench(gpu)
        sidecar = Sidecar(bench)
        for turn in range(40):
            sidecar.run(until_seconds=3.0 + turn)
            bench.rocm.set_power(0, 700 if turn % 2 else 200)
        _, missing_joules = sidecar.finish()
        assert abs(missing_joules) < tolerance
