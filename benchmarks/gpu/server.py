"""The real bench: a vLLM server with the hook, joulescope's own ``record`` beside it, and clients.

What is measured is what stands in the trace, so that a run can be judged again with every later estimator:
``TRACE`` holds the records and samples, ``TRACE.plan.json`` what was done when.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from benchmarks.gpu.characterise import characterise_nvml
from benchmarks.gpu.load import Load, ServerFailure
from benchmarks.gpu.nvml_probe import StateLog
from benchmarks.gpu.plan import Background, Kind, Plan
from benchmarks.gpu.recording import Recording
from joulescope.clock import Clock, SystemClock
from joulescope.ingest.trace import read_trace
from joulescope.sampling.timer import sleep_until
from joulescope.units import ns_from_seconds

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE_HZ = 50.0
READY_SECONDS = 30.0
SENSOR_SECONDS = 8.0
LEAD_SECONDS = 6.0
"""Background before the meter is looked at under load: clocks and temperature settle."""

PROBES = 3
"""Requests of each kind whose latency is taken; the longest counts."""


def wait_until(true: Callable[[], object], what: str, clock: Clock, seconds: float) -> None:
    """Polls until something is there.

    Raises:
        ServerFailure: if it never came; the message says what.
    """
    deadline_ns = clock.now_ns() + ns_from_seconds(seconds)
    while not true():
        if clock.now_ns() > deadline_ns:
            raise ServerFailure(f"waited {seconds:g} s in vain for {what}")
        clock.sleep(0.1)


@dataclass
class Sidecar:
    """A process of ``joulescope record``."""

    socket_path: str
    trace: Path
    clock: Clock
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.trace.with_name(self.trace.name + ".log")

    def start(self) -> None:
        """Starts it and waits until it reads the GPUs and an engine has connected."""
        self.port = free_port()
        command = [sys.executable, "-m", "joulescope.cli.main", "record", str(self.trace)]
        command += ["--socket", self.socket_path, "--listen", f"127.0.0.1:{self.port}"]
        command += ["--sample-hz", str(SAMPLE_HZ), "--gpus", "all"]
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        with self.log.open("wb") as log:
            # A session of its own is a scheduling group of its own (sched(7), autogroup), as a container is.
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
        wait_until(lambda: self._page("/-/ready"), "the sidecar to read a GPU", self.clock, READY_SECONDS)
        wait_until(
            self._engine_is_up,
            f"vLLM's hook to connect to {self.socket_path}: is JOULESCOPE_SOCKET set for the server?",
            self.clock,
            READY_SECONDS,
        )

    def stop(self) -> None:
        """Ends it and closes the trace; a second call does nothing."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _engine_is_up(self) -> bool:
        page = self._page("/api/snapshot")
        return page is not None and any(engine["up"] for engine in json.loads(page)["snapshot"]["engines"])

    def _page(self, path: str) -> bytes | None:
        """A page, ``None`` while it cannot be had.

        Raises:
            ServerFailure: if the process has ended.
        """
        assert self.process is not None
        if self.process.poll() is not None:
            raise ServerFailure(f"the sidecar ended: {self.log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return bytes(answer.read())
        except (urllib.error.URLError, OSError):
            return None


@dataclass
class ServerBench:
    """A server that is up already.

    Args:
        url: of the OpenAI API.
        socket_path: the Unix socket that the server's hook was told.
        trace: where the trace goes.
        gpu: UUID of the GPU whose meter is characterised; the first by default.
    """

    url: str
    socket_path: str
    trace: Path
    background: Background = field(default_factory=Background)
    gpu: str | None = None
    sensor_seconds: float = SENSOR_SECONDS
    lead_seconds: float = LEAD_SECONDS
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        self.load = Load(self.url, self.background, self.clock)
        self.sidecar = Sidecar(self.socket_path, self.trace, self.clock)
        self.sensor: dict[str, Any] = {}

    def __enter__(self) -> ServerBench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.load.stop()
        self.sidecar.stop()

    def characterise(self) -> dict[str, Any]:
        """First the idle GPU with nobody else asking; then sidecar and background start, and again."""
        idle = characterise_nvml(self.gpu, self.sensor_seconds, self.clock)
        self.sidecar.start()
        self.load.start()
        self._sleep(self.lead_seconds)
        load = characterise_nvml(self.gpu, self.sensor_seconds, self.clock)
        gpu = idle.pop("gpu")
        del load["gpu"]
        self.sensor = {"gpu": gpu, "idle": idle, "load": load, "idle_watts": idle["watts"]}
        return self.sensor

    def latencies_seconds(self, kinds: Sequence[Kind], background: Background) -> dict[str, float]:
        if background != self.background:
            raise ValueError("this bench was started with another background")
        found: dict[str, float] = {}
        for place, kind in enumerate(kinds):
            names = [f"js-probe-{place}-{turn}" for turn in range(PROBES)]
            found[kind.name] = max(self.load.latency_seconds(kind, name) for name in names)
        return found

    def run(self, plan: Plan) -> Recording:
        start_ns = self.clock.now_ns()
        with StateLog(self.gpu) as log:
            self.load.inject(start_ns, plan.injections())
            self.load.check()
            self._sleep_until(start_ns + ns_from_seconds(plan.length_seconds))
        self.sensor["during"] = log.summary()
        save_plan(self.trace, plan, start_ns, self.sensor)
        self.load.stop()
        self._sleep(1.0)  # so that the last tick covers the last step
        self.sidecar.stop()
        return Recording(plan, start_ns, read_trace(self.trace))

    def _sleep(self, seconds: float) -> None:
        self._sleep_until(self.clock.now_ns() + ns_from_seconds(seconds))

    def _sleep_until(self, deadline_ns: int) -> None:
        sleep_until(self.clock, deadline_ns, lambda: False)


# ------------------------------------------------------------------------------------ kept runs


class KeptPlan(msgspec.Struct):
    """What stands beside a trace."""

    start_ns: int
    """Instant of the plan's second 0, on the clock of the trace."""
    plan: Plan
    sensor: dict[str, Any]


def save_plan(trace: Path, plan: Plan, start_ns: int, sensor: dict[str, Any]) -> None:
    """Writes the plan beside the trace."""
    _plan_path(trace).write_bytes(msgspec.json.encode(KeptPlan(start_ns, plan, sensor)))


def load_kept(trace: Path) -> tuple[KeptPlan, Recording]:
    """A run that was kept, accounted for by today's estimator."""
    kept = msgspec.json.decode(_plan_path(trace).read_bytes(), type=KeptPlan)
    return kept, Recording(kept.plan, kept.start_ns, read_trace(trace))


def _plan_path(trace: Path) -> Path:
    return trace.with_name(trace.name + ".plan.json")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
