"""A stand-in driver with a GPU cut into instances, real pynvml, sampler and pipeline, all on one clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from joulescope.clock import WallAnchor
from joulescope.hook import wire
from joulescope.ingest.trace import TraceReader, TraceWriter
from joulescope.model import FinishedRequest, GpuTotals, Snapshot
from joulescope.pipeline import Pipeline, Scope
from joulescope.replay import Replay
from joulescope.sampling.sampler import Sampled, Sampler, SamplerEvent, SensorDown, SensorOpened
from joulescope.sampling.timer import DeadlineTimer
from joulescope.sensors.nvml import NvmlSensor
from tests.fake_nvml import PARTS, DriverClock, FakeDriver, FakeGpu, FakeInstance
from tests.sensors.conftest import MakeDriver
from tests.worlds import MS, SECOND, end, hello, start, step

WHOLE, LARGE, SMALL = "GPU-w", "MIG-large", "MIG-small"
IDLE_WATTS = 84.0  # 12 W a slice
SLICES = {LARGE: 3, SMALL: 2}
CUT = (FakeInstance(LARGE, 3, 1), FakeInstance(SMALL, 2, 2, memory_mib=19_968))
H100 = replace(PARTS["h100"], uuid=WHOLE, live=True, power_watts=IDLE_WATTS, power_window_seconds=0.0)
WALL = WallAnchor(0, 0)


@dataclass
class Bench:
    """Everything between the driver and the snapshot; time passes in :meth:`run` only."""

    driver: FakeDriver
    mig: str = "gpm"
    scope: Scope = field(default_factory=Scope)
    trace: Path | None = None
    calibration: Callable[[str], float] | None = None
    events: list[SamplerEvent] = field(default_factory=list)
    finished: list[FinishedRequest] = field(default_factory=list)
    steps: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = DriverClock(SECOND, driver=self.driver)
        timer = DeadlineTimer(self.clock, 0.05, Random(1))
        self.sampler = Sampler(
            lambda: NvmlSensor.open(self.clock, mig=self.mig), timer, self.clock, self._deliver
        )
        recorder = None if self.trace is None else TraceWriter(self.trace)
        self.pipeline = Pipeline(scope=self.scope, wall=WALL, calibration=self.calibration, recorder=recorder)

    def _deliver(self, event: SamplerEvent) -> None:
        self.events.append(event)
        if isinstance(event, SensorOpened):
            self.pipeline.gpus_found(event.gpus)
        elif isinstance(event, SensorDown):
            self.pipeline.sensor_down()
        elif isinstance(event, Sampled):
            self.pipeline.read(event.readings, event.read_failures)

    def engine(self, session: int, gpu: str) -> None:
        """An engine on this GPU connects and starts a request."""
        now_ns = self.clock.now_ns()
        self.pipeline.take(session, [hello(now_ns, gpus=[gpu], session=session, instance=f"i{session}")])
        self.pipeline.take(session, [start(1, now_ns, session=session)])
        self.steps[session] = 0

    def load(self, watts_above_idle: float, **sm_percent: float) -> None:
        """From now on the card draws this above idle, and the instances are so active."""
        self.driver.set_power(WHOLE, IDLE_WATTS + watts_above_idle)
        for name, percent in sm_percent.items():
            self.driver.set_instance_gpm(WHOLE, f"MIG-{name}", sm=percent)

    def run(self, seconds: float, *, working: Sequence[int] = ()) -> None:
        """Time passes; these engines compute one step after the other, 50 ms each."""
        until_ns = self.clock.now_ns() + round(seconds * SECOND)
        done_ns = self.clock.now_ns()
        while self.clock.now_ns() < until_ns:
            self.sampler.step()
            while done_ns + 50 * MS <= self.clock.now_ns():
                for session in working:
                    self._step(session, done_ns, done_ns + 50 * MS)
                done_ns += 50 * MS
            self.pipeline.settle(self.clock.now_ns())
            self.finished += self.pipeline.drain_finished()

    def _step(self, session: int, begin_ns: int, end_ns: int) -> None:
        number = self.steps[session]
        self.steps[session] += 1
        self.pipeline.take(session, [step(number, begin_ns, end_ns, [1], session=session)])

    def close(self) -> Snapshot:
        """Ends the requests and the run."""
        now_ns = self.clock.now_ns()
        for session, count in self.steps.items():
            self.pipeline.take(session, [end(1, now_ns, count - 1, session=session)])
        self.sampler.stop(1.0)
        self.pipeline.finish(now_ns)
        self.finished += self.pipeline.drain_finished()
        return self.pipeline.snapshot(now_ns)

    def kinds(self) -> list[str]:
        """What the sampler told beside readings."""
        return [type(event).__name__ for event in self.events if not isinstance(event, Sampled)]


def bench(make_driver: MakeDriver, gpu: FakeGpu | None = None, **more: object) -> Bench:
    """A bench on a driver with one GPU, by default an H100 in two instances of 3 and 2 of its 7 slices."""
    cut = replace(H100, instances=CUT) if gpu is None else gpu
    return Bench(make_driver(cut), **more)  # type: ignore[arg-type]


def by_gpu(snapshot: Snapshot) -> dict[str, GpuTotals]:
    return {gpu.info.gpu: gpu for gpu in snapshot.gpus}


def read(trace: Path) -> list[wire.AnyRecord]:
    with TraceReader(trace) as reader:
        return list(reader)


def replayed(trace: Path) -> tuple[Snapshot, list[FinishedRequest]]:
    """The trace through the pipeline once more."""
    replay = Replay(read(trace))
    finished = list(replay)
    assert replay.snapshot is not None
    return replay.snapshot, finished
