"""From the SDK's calls to joules per image: the real sidecar's daemon, its clock in the test's hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from joulescope.clock import ManualClock, WallAnchor
from joulescope.config import Settings
from joulescope.daemon.daemon import Daemon
from joulescope.export.landing import render_landing
from joulescope.export.prometheus import Exposition
from joulescope.export.records import finished_line
from joulescope.export.span_attributes import attributes_of
from joulescope.model import FinishedRequest, GpuInfo, GpuReading, Snapshot
from joulescope.sampling.sampler import Sampled, SensorOpened
from joulescope.sdk import Cost, Engine, Request
from tests.daemon.test_daemon import Sink
from tests.sdk.bench import GPU, SECOND

IDLE_WATTS, BUSY_WATTS = 100.0, 400.0


class Studio:
    """A daemon and an engine that paints for it, turn by turn; the GPU draws more while it paints."""

    def __init__(self, folder: Path, *, listening: bool = True, **options: object) -> None:
        self.clock, self.sink = ManualClock(10 * SECOND), Sink()
        settings = Settings(socket=str(folder / "js.sock"), listen="127.0.0.1:0", sensor="none")
        self.daemon = Daemon(settings, open_sensor=None, clock=self.clock, sinks=[self.sink])
        if listening:
            self.daemon.open()
        self.daemon.deliver(SensorOpened(0, [GpuInfo(GPU, "NVIDIA H100 80GB HBM3", power_limit_watts=700.0)]))
        self.engine = Engine(
            "painter",
            model="example/painter",
            gpus=[GPU],
            unit="image",
            work_unit="patch",
            software="studio",
            socket=settings.socket,
            thread=False,
            environ={},
            now_ns=self.clock.now_ns,
            **options,  # type: ignore[arg-type]
        )
        self.joules = 0.0

    def pass_time(self, seconds: float, watts: float) -> None:
        """Time passes, in pieces in which the GPU is read, the engine sends and the sidecar accounts."""
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)
            self.joules += 0.05 * watts
            self.engine.poll()
            reading = GpuReading(GPU, self.clock.now_ns(), energy_joules=self.joules, power_watts=watts)
            self.daemon.deliver(Sampled([reading], 0, 0))
            self.daemon.turn(0.0)

    def paint(self, work: dict[Request, int], done: Sequence[Request] = (), seconds: float = 0.25) -> None:
        with self.engine.step(work) as step:
            self.pass_time(seconds, BUSY_WATTS)
            step.produced(done)

    def end(self) -> Snapshot:
        self.engine.close()
        self.pass_time(2.0, IDLE_WATTS)
        return self.daemon.close(0.1)

    def account(self, request_id: str) -> FinishedRequest:
        (found,) = [each for each in self.sink.requests if each.request_id == request_id]
        return found


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path)


def paint_two(studio: Studio) -> Snapshot:
    """A small and a large image, 10 steps together; the large one goes on alone for 10 more."""
    studio.pass_time(1.0, IDLE_WATTS)
    small, large = studio.engine.request_started("small"), studio.engine.request_started("large")
    for number in range(10):
        studio.paint({small: 16, large: 48}, [small] if number == 9 else [])
    studio.engine.request_ended(small)
    for number in range(10):
        studio.paint({large: 48}, [large] if number == 9 else [])
    studio.engine.request_ended(large)
    studio.pass_time(1.0, IDLE_WATTS)
    return studio.end()


def test_joules_follow_the_work(studio: Studio) -> None:
    """Of the steps in common a quarter is the small image's, by patches; what is painted alone is its own."""
    snapshot = paint_two(studio)
    small, large = studio.account("small"), studio.account("large")
    assert small.attributed_joules == pytest.approx(2.5 * BUSY_WATTS / 4, rel=0.05)
    assert large.attributed_joules == pytest.approx(2.5 * BUSY_WATTS * 7 / 4, rel=0.05)
    assert small.complete
    assert large.complete
    (gpu,), (engine,) = snapshot.gpus, snapshot.engines
    assert gpu.residual_joules == 0
    total = (small.attributed_joules or 0) + (large.attributed_joules or 0)
    assert total == pytest.approx(gpu.attributed_joules, abs=1e-6)
    assert total == pytest.approx(5.0 * BUSY_WATTS, rel=0.02)
    assert engine.info.engine == "painter-0"


def test_a_declared_cost_shares_what_is_paid_once(tmp_path: Path) -> None:
    """Weights that each step reads whoever is in it are paid in equal parts, so the small image pays more."""
    studio = Studio(tmp_path, cost=Cost(weight_bytes=6e11, flops_per_work=1e6))
    paint_two(studio)
    small = studio.account("small")
    assert small.attributed_joules == pytest.approx(2.5 * BUSY_WATTS / 2, rel=0.05)
    assert small.attributed_low_joules is not None


def test_no_interval_is_stated_where_joules_only_follow_the_work(studio: Studio) -> None:
    """How far off a division by work is nobody can tell: null, not a guess."""
    paint_two(studio)
    small = studio.account("small")
    assert small.attributed_joules is not None
    assert (small.attributed_low_joules, small.marginal_high_joules) == (None, None)


def test_exports_say_image_not_token(studio: Studio) -> None:
    """Request log, span and page name the engine's units, and no attribute that promises tokens is there."""
    snapshot = paint_two(studio)
    small = studio.account("small")
    line = json.loads(finished_line(small, WallAnchor(0, 0)))
    assert (line["output_tokens"], line["unit"], line["work_unit"]) == (1, "image", "patch")
    assert (line["model"], line["software"]) == ("example/painter", "studio")
    span = attributes_of(small)
    assert not [name for name in span if name.endswith("_tokens")]
    assert (span["joulescope.request.output"], span["joulescope.request.output_unit"]) == (1, "image")
    assert (span["joulescope.request.work"], span["joulescope.request.work_unit"]) == (160, "patch")
    assert (span["gen_ai.operation.name"], span["gen_ai.provider.name"]) == ("generate_content", "studio")
    page = render_landing(snapshot, "assets", ())
    assert "2 (image)" in page
    assert "studio" in page


def test_joules_per_image_reach_prometheus(studio: Studio) -> None:
    """Attributed joules by generated images, and a histogram whose buckets fit what an image costs."""
    snapshot = paint_two(studio)
    text = Exposition(lambda: snapshot, process_metrics=False).render("").body
    values = {
        (sample.name, sample.labels.get("phase"), sample.labels.get("le")): sample
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    images = values["joulescope_generated_tokens_total", None, None].value
    joules = values["joulescope_attributed_energy_joules_total", "decode", None].value
    assert joules / images == pytest.approx(5.0 * BUSY_WATTS / 2, rel=0.02)
    assert values["joulescope_conservation_residual_joules", None, None].value == 0
    labels = values["joulescope_engine_info", None, None].labels
    assert (labels["unit"], labels["work_unit"], labels["cost_source"]) == ("image", "patch", "work")
    in_250 = values["joulescope_request_output_token_energy_joules_bucket", None, "500.0"].value
    in_2500 = values["joulescope_request_output_token_energy_joules_bucket", None, "2500.0"].value
    assert (in_250, in_2500) == (1, 2)


def test_a_sidecar_that_comes_late_accounts_from_then_on(tmp_path: Path) -> None:
    """An image begun before has the joules since, and is marked incomplete; one begun after is whole."""
    studio = Studio(tmp_path, listening=False)
    early = studio.engine.request_started("early")
    for _ in range(8):
        studio.paint({early: 16})
    studio.daemon.open()
    for _ in range(8):
        studio.paint({early: 16})
    late = studio.engine.request_started("late")
    for number in range(8):
        studio.paint({early: 16, late: 16}, [early, late] if number == 7 else [])
    studio.engine.request_ended(early)
    studio.engine.request_ended(late)
    studio.pass_time(1.0, IDLE_WATTS)
    (gpu,) = studio.end().gpus
    first, second = studio.account("early"), studio.account("late")
    assert not first.complete
    assert second.complete
    assert second.attributed_joules == pytest.approx(2.0 * BUSY_WATTS / 2, rel=0.05)
    assert (first.attributed_joules or 0) < 3.1 * BUSY_WATTS
    assert gpu.residual_joules == 0
    total = (first.attributed_joules or 0) + (second.attributed_joules or 0)
    assert total == pytest.approx(gpu.attributed_joules, abs=1e-6)


def test_warming_up_is_overhead(studio: Studio) -> None:
    """Joules of compiling belong to no image, and the books say why."""
    with studio.engine.overhead("compile"):
        studio.pass_time(3.0, BUSY_WATTS)
    studio.pass_time(1.0, IDLE_WATTS)
    (gpu,) = studio.end().gpus
    assert gpu.overhead_joules["compile"] == pytest.approx(3.0 * BUSY_WATTS, rel=0.15)
    assert gpu.residual_joules == 0


def test_preparation_is_told_apart(studio: Studio) -> None:
    """Work below prompt_work is prefill, as the reading of a prompt is."""
    studio.pass_time(1.0, IDLE_WATTS)
    request = studio.engine.request_started("r1", prompt_work=30)
    studio.paint({request: 30}, seconds=2.0)
    for _ in range(4):
        studio.paint({request: 10}, [request], seconds=0.5)
    studio.engine.request_ended(request, "length")
    studio.end()
    account = studio.account("r1")
    assert account.prefill_joules == pytest.approx(2.0 * BUSY_WATTS, rel=0.05)
    assert account.decode_joules == pytest.approx(2.0 * BUSY_WATTS, rel=0.05)
    assert account.output_tokens == 4


def test_steps_reported_late_are_accounted_in_time(tmp_path: Path) -> None:
    """With late_seconds a step may be told so long after it began, and its joules still find it."""
    studio = Studio(tmp_path, late_seconds=2.5)
    request = studio.engine.request_started("r1")
    studio.pass_time(1.0, IDLE_WATTS)
    begun_ns = studio.clock.now_ns()
    studio.pass_time(1.5, BUSY_WATTS)
    ended_ns = studio.clock.now_ns()
    studio.pass_time(0.8, IDLE_WATTS)
    studio.engine.report_step([request], start_ns=begun_ns, end_ns=ended_ns, produced=[request])
    studio.engine.request_ended(request)
    studio.end()
    account = studio.account("r1")
    assert account.attributed_joules == pytest.approx(1.5 * BUSY_WATTS, rel=0.1)
    assert account.complete
