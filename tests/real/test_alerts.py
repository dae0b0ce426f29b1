"""Alerts from end to end: a real sidecar, a real Prometheus with the shipped rules, a real Alertmanager.

Windows and pauses of the rules are 60 times shorter, so that their minutes are seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from joulescope.clock import SystemClock, WallAnchor
from joulescope.hook.emitter import Emitter
from joulescope.hook.wire import Hello
from joulescope.simulation.engine import SimulatedEngine
from joulescope.simulation.facts import hello
from joulescope.simulation.gpu import SimulatedGpu
from joulescope.simulation.live import LiveEngine, LiveTranslator, Pending
from joulescope.simulation.scheduler import USUAL_LIMITS
from joulescope.simulation.workload import Workload
from joulescope.simulation.worlds import H100_LLAMA_8B
from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.real.alerting import Alerting, Message, running_alerting
from tests.real.sidecar import Sidecar, wait_until
from tools.rules import RUNBOOKS

pytestmark = pytest.mark.real

QUEUE_LIMIT = 256
FLOOD = 50_000


class ReportingEngine:
    """A simulated engine in real time behind the hook's own emitter, with a short queue."""

    def __init__(self, socket: Path) -> None:
        clock = SystemClock()
        start_ns = clock.now_ns()
        self.gpu = SimulatedGpu(H100_LLAMA_8B.hardware, start_ns)
        anchor = WallAnchor.now()

        def greeting() -> Hello:
            now_ns = clock.now_ns()
            return hello(
                H100_LLAMA_8B,
                USUAL_LIMITS,
                [self.gpu.uuid],
                time_ns=now_ns,
                wall_ns=anchor.wall_of(now_ns),
                pid=os.getpid(),
            )

        self._emitter = Emitter(str(socket), greeting, translator=LiveTranslator(), queue_limit=QUEUE_LIMIT)
        engine = SimulatedEngine(H100_LLAMA_8B, self.gpu, Workload(4.0, start_ns, seed=1), start_ns=start_ns)
        self._live = LiveEngine(engine, self._emitter, clock)

    def start(self) -> None:
        self._emitter.start()
        self._live.start()

    def flood(self) -> None:
        """More at once than the queue holds: the hook drops."""
        for _ in range(FLOOD):
            self._emitter.put(Pending(None))

    def stop(self) -> None:
        self._live.stop()
        self._emitter.close(1.0)


@dataclass
class World:
    """The parts while they run."""

    sidecar: Sidecar
    driver: FakeDriver
    engine: ReportingEngine
    alerting: Alerting

    def wait_for(self, status: str, alert: str) -> Message:
        return self.alerting.webhook.wait_for(status, alert)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A sidecar whose engine and GPU are healthy, scraped until Prometheus has rates of it."""
    folder = tmp_path_factory.mktemp("alerts")
    socket = folder / "js.sock"
    engine = ReportingEngine(socket)
    driver = FakeDriver(folder / "nvml", [FakeGpu(uuid=engine.gpu.uuid, live=True, power_watts=400.0)])
    sidecar = Sidecar(socket, folder, environment(build(folder), driver), own_files=False)
    try:
        sidecar.start()
        engine.start()
        with running_alerting([f"127.0.0.1:{sidecar.port}"], folder) as alerting:
            alerting.prometheus.wait_for("engine:joulescope_output_tokens:rate5m > 0")
            yield World(sidecar, driver, engine, alerting)
    finally:
        engine.stop()
        sidecar.kill()
        driver.close()


def _holds(message: Message, world: World, severity: str, *words: str) -> None:
    """Labels, texts and runbook came through to the webhook."""
    assert message.labels["severity"] == severity
    assert message.labels["job"] == "sidecars"
    assert message.labels["instance"] == f"127.0.0.1:{world.sidecar.port}"
    assert message.annotations["runbook_url"] == f"{RUNBOOKS}{message.alert}.md"
    text = message.annotations["summary"] + message.annotations["description"]
    assert "{{" not in text
    for word in words:
        assert word in text


def test_a_healthy_sidecar_raises_nothing(world: World) -> None:
    """All rules are evaluated without an error, and no message came."""
    for group in world.alerting.prometheus.get("/api/v1/rules")["groups"]:
        assert [rule["lastError"] for rule in group["rules"] if rule.get("lastError")] == []
    assert world.alerting.webhook.messages == []


def test_dropped_records_are_told_and_forgotten(world: World) -> None:
    """The hook's queue overflows once: told with the engine, and over when the window has passed."""
    world.engine.flood()
    message = world.wait_for("firing", "JoulescopeRecordsDropped")
    _holds(message, world, "warning", "Llama-3.1-8B-Instruct-0", "joules of what is missing")
    world.wait_for("resolved", "JoulescopeRecordsDropped")


def test_a_lost_gpu_is_told_and_its_return_too(world: World) -> None:
    """Every call for the GPU fails, then none."""
    world.driver.lose(world.engine.gpu.uuid)
    message = world.wait_for("firing", "JoulescopeSensorDown")
    _holds(message, world, "critical", world.engine.gpu.uuid)
    assert message.labels["gpu"] == world.engine.gpu.uuid
    world.driver.lose(world.engine.gpu.uuid, 0)
    world.driver.reattach(world.engine.gpu.uuid)
    world.wait_for("resolved", "JoulescopeSensorDown")


def test_a_dead_sidecar_is_told_and_its_return_too(world: World) -> None:
    """Killed, and started again under the same address."""
    world.sidecar.kill()
    message = world.wait_for("firing", "JoulescopeSidecarDown")
    _holds(message, world, "warning", "cannot be scraped")
    world.sidecar.start()
    world.wait_for("resolved", "JoulescopeSidecarDown")
    wait_until(lambda: world.sidecar.snapshot().engines, "the engine to come back")
