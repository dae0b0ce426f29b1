"""A whole sidecar on a stand-in driver, with an engine that never rests, stepped by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from prometheus_client.parser import text_string_to_metric_families

from joulescope.daemon.gpu_watch import GpuWatch
from joulescope.export.prometheus import Exposition
from joulescope.model import GpuTotals
from joulescope.pipeline import Pipeline
from joulescope.sampling.sampler import Sampled, Sampler, SamplerEvent
from joulescope.sampling.timer import DeadlineTimer
from joulescope.sensors.nvml import opener
from tests import worlds
from tests.fake_nvml import DriverClock, FakeDriver
from tests.worlds import MS, SECOND

WATTS = 300.0
STEP_NS = 50 * MS
REQUEST_STEPS = 20
SETTLE_NS = SECOND // 4

Page = dict[tuple[str, str], float]
"""Samples of /metrics by name and GPU, those of other labels summed."""


class Pausing(DriverClock):
    """A clock that can stand still while the GPUs work on, as that of a virtual machine does."""

    paused_ns = 0

    def pause(self, duration_seconds: float) -> None:
        """So much time goes by that this clock does not count."""
        assert self.driver is not None
        self.paused_ns += round(duration_seconds * SECOND)
        self.driver.set_clock(self.time_ns + self.paused_ns)

    def now_ns(self) -> int:
        assert self.driver is not None
        self.time_ns = max(self.time_ns, self.driver.told_ns() - self.paused_ns)
        return self.time_ns

    def advance(self, duration_seconds: float) -> None:
        assert self.driver is not None
        self.time_ns = self.now_ns() + round(duration_seconds * SECOND)
        self.driver.set_clock(self.time_ns + self.paused_ns)


class Truth:
    """What the GPUs drew, whatever is done to their counters: a reset does not give the joules back."""

    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver
        self._drawn: dict[str, float] = {}
        self._base: dict[str, float] = {}
        self._rebase()

    def joules(self, gpu: str) -> float:
        """Since the GPU was plugged in, until it was taken out."""
        drawn_joules = self._drawn[gpu]
        return (
            drawn_joules + self._driver.true_joules(gpu) - self._base[gpu]
            if gpu in self._base
            else drawn_joules
        )

    def tamper(self, change: Callable[[], object]) -> None:
        """Runs what puts a counter elsewhere, or GPUs in and out."""
        for gpu in self._base:
            self._drawn[gpu] = self.joules(gpu)
        change()
        self._rebase()

    def _rebase(self) -> None:
        self._base = {gpu: self._driver.true_joules(gpu) for gpu in self._driver.uuids()}
        self._drawn = dict.fromkeys(self._base, 0.0) | self._drawn


class Engine:
    """Reports contiguous steps, and requests of a second each, one after the other."""

    def __init__(self, pipeline: Pipeline, gpus: Sequence[str], session: int = 1) -> None:
        self._pipeline, self._session = pipeline, session
        self._steps = 0
        self._done_ns = 0
        self._gpus = list(gpus)

    def work(self, until_ns: int) -> None:
        """Tells all steps that are over by then."""
        if not self._done_ns:
            self._done_ns = until_ns
            self._take(
                worlds.hello(until_ns, gpus=self._gpus, session=self._session, instance=str(self._session))
            )
        while self._done_ns + STEP_NS <= until_ns:
            request, place = divmod(self._steps, REQUEST_STEPS)
            begin_ns, self._done_ns = self._done_ns, self._done_ns + STEP_NS
            if not place:
                self._take(worlds.start(request, begin_ns, session=self._session))
            self._take(worlds.step(self._steps, begin_ns, self._done_ns, [request], session=self._session))
            if place == REQUEST_STEPS - 1:
                self._take(worlds.end(request, self._done_ns, self._steps, session=self._session))
            self._steps += 1

    def leave(self, now_ns: int) -> None:
        self._pipeline.close_session(self._session, now_ns, "closed")

    def _take(self, record: worlds.wire.AnyRecord) -> None:
        self._pipeline.take(self._session, [record])


class Bench:
    """The real sampler on the real sensor, the pipeline and what watches it, and the page they make."""

    def __init__(self, driver: FakeDriver, clock: Pausing, gpus: Sequence[str]) -> None:
        self.driver, self.clock, self.gpus = driver, clock, list(gpus)
        self.pipeline = Pipeline()
        self.watch = GpuWatch(self.pipeline, error="no sensor has answered yet")
        self.engine = Engine(self.pipeline, gpus)
        self.truth = Truth(driver)
        self._first: dict[str, float] = {}
        self._settled_ns = 0
        timer = DeadlineTimer(clock, 1 / 20, Random(1))
        self.sampler = Sampler(opener(clock, None), timer, clock, self._deliver)
        self.exposition = Exposition(
            lambda: self.pipeline.snapshot(self.clock.now_ns()), process_metrics=False
        )

    def step(self) -> None:
        """One read, or one try to open the sensor; the engine and the accounts follow."""
        self.sampler.step()
        now_ns = self.clock.now_ns()
        if now_ns - self._settled_ns >= SETTLE_NS:
            self._settled_ns = now_ns
            self.engine.work(now_ns)
            self.pipeline.settle(now_ns)
            self.pipeline.drain_finished()

    def run(self, duration_seconds: float) -> None:
        until_ns = self.clock.now_ns() + round(duration_seconds * SECOND)
        while self.clock.now_ns() < until_ns:
            self.step()

    def tamper(self, change: Callable[[FakeDriver], object]) -> None:
        """Changes the driver in a way that counters do not survive; what was drawn is remembered."""
        self.truth.tamper(lambda: change(self.driver))

    def totals(self, gpu: str) -> GpuTotals | None:
        """The GPU's accounts as of now, if it has any."""
        gpus = self.pipeline.snapshot(self.clock.now_ns()).gpus
        return next((totals for totals in gpus if totals.info.gpu == gpu), None)

    def page(self) -> Page:
        """What Prometheus would get now."""
        page: Page = {}
        text = self.exposition.render().body.decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, sample.labels.get("gpu", ""))
                page[key] = page.get(key, 0.0) + sample.value
        return page

    def close(self) -> None:
        """Lets go of the driver."""
        self.sampler.stop(0.0)

    def finish(self) -> dict[str, tuple[GpuTotals, float]]:
        """By GPU its accounts, and the joules drawn since its first reading that are not in them."""
        self.close()
        now_ns = self.clock.now_ns()
        self.engine.work(now_ns)
        self.pipeline.finish(now_ns)
        totals = {gpu.info.gpu: gpu for gpu in self.pipeline.snapshot(now_ns).gpus}
        return {
            gpu: (found, self.truth.joules(gpu) - self._first[gpu] - found.measured_joules)
            for gpu, found in totals.items()
        }

    def _deliver(self, event: SamplerEvent) -> None:
        if isinstance(event, Sampled):
            for reading in event.readings:
                self._first.setdefault(reading.gpu, self.truth.joules(reading.gpu))
        self.watch.handle(event)
