"""Two nodes of one engine, each with its own clock: ``serve`` at the head, ``relay`` on the other in a time
namespace, real TLS over TCP between them, the real hook in workers and engine, real pynvml on two drivers."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from joulescope.model import GpuTotals, Snapshot
from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.inside.world import ROOT, engine
from tests.link.bench import HEAD, RELAY, Certificates
from tests.real.sidecar import Sidecar, wait_until
from tests.real.vllm_env import free_port
from tests.requirements import need_program

pytestmark = pytest.mark.real

HERE, THERE = "GPU-00000000-0000-4000-8000-00000000000a", "GPU-00000000-0000-4000-8000-00000000000b"
AHEAD_SECONDS = 1000
WATTS = {HERE: 300.0, THERE: 500.0}
PATIENCE_SECONDS = 40.0


def other_node() -> list[str]:
    """Puts a process where CLOCK_MONOTONIC is another; skipped where the kernel does not let us."""
    command = [need_program("unshare"), "-T", "--monotonic", str(AHEAD_SECONDS)]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode != 0:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail("needs a time namespace, for which CI must run as root", pytrace=False)
        pytest.skip("needs a time namespace: run as root, on Linux 5.6 or newer")
    return command


Running = Iterator["subprocess.Popen[bytes]"]


@contextmanager
def running(command: list[str], folder: Path, name: str, variables: dict[str, str]) -> Running:
    """A process of the other node; its output is kept in ``folder``."""
    kept = {key: text for key, text in os.environ.items() if not key.startswith("JOULESCOPE_")}
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=ROOT, env={**kept, **variables}
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(10)


def page(port: int, path: str) -> str:
    """A page of the relay; empty if it cannot be had."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return ""


def totals_of(snapshot: Snapshot) -> dict[str, GpuTotals]:
    return {gpu.info.gpu: gpu for gpu in snapshot.gpus}


def charged(snapshot: Snapshot, gpu: str) -> float:
    """Joules of a GPU that requests have been charged for."""
    return sum(
        joules for each in snapshot.engines for (of, _), joules in each.attributed_joules.items() if of == gpu
    )


class TwoNodes:
    """Both ends as processes, and how they are started."""

    def __init__(self, folder: Path, sensor: str) -> None:
        node = other_node()
        library = build(folder)
        drivers = {
            gpu: FakeDriver(folder / gpu, [FakeGpu(uuid=gpu, live=True, power_watts=watts)])
            for gpu, watts in WATTS.items()
        }
        self.folder = folder
        self.there = environment(library, drivers[THERE], base={})
        self.relay_sees = self.there if sensor == "nvml" else environment(None, None, base={})
        certificates = Certificates(folder / "tls")
        head, relay = certificates.issue(HEAD), certificates.issue(RELAY)
        link = f"127.0.0.1:{free_port()}"
        self.relay_port = free_port()
        self.sidecar = Sidecar(
            folder / "head.sock",
            folder,
            environment(library, drivers[HERE], base={}),
            arguments=("--link-listen", link, "--gpus", "engine", "--host", "off", *_files(head)),
            own_files=False,
        )
        python = [*node, sys.executable, "-m"]
        self.relay = [*python, "joulescope.cli.main", "relay", "--sensor", sensor, *_files(relay)]
        self.relay += ["--socket", str(folder / "relay.sock"), "--listen", f"127.0.0.1:{self.relay_port}"]
        self.relay += ["--link-connect", link, "--link-server-name", HEAD, "--link-node", "worker-1"]
        self.worker = [*python, "tests.inside.worker", str(folder / "relay.sock"), "i", THERE]

    def enough(self, seconds: float) -> bool:
        """Whether requests have been charged for so many seconds of both GPUs."""
        snapshot = self.sidecar.snapshot()
        return all(charged(snapshot, gpu) > seconds * watts for gpu, watts in WATTS.items())

    def logs(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()}" for path in self.folder.glob("*.log"))


def _files(paths: object) -> list[str]:
    return [
        text
        for name in ("cert_file", "key_file", "ca_file")
        for text in (f"--link-{name.replace('_', '-')}", getattr(paths, name))
    ]


@pytest.mark.parametrize("sensor", ["nvml", "engine"])
def test_joules_of_two_nodes_meet_at_the_head(tmp_path: Path, sensor: str) -> None:
    """The relay's clock is off by a thousand seconds. Requests of the head are charged for the GPUs of both
    nodes, at the power that each draws; the account closes; a head that was killed is found again. It is so
    where the relay sees the GPU, and where only the worker does, whose hook then starts the sampler."""
    nodes = TwoNodes(tmp_path, sensor)
    sidecar = nodes.sidecar
    try:
        sidecar.start()
        with (
            engine(tmp_path / "head.sock", HERE, environ=dict(os.environ)),
            running(nodes.relay, tmp_path, "relay", nodes.relay_sees),
            running(nodes.worker, tmp_path, "worker", nodes.there),
        ):
            wait_until(lambda: nodes.enough(2.0), "joules of both", PATIENCE_SECONDS)
            before = sidecar.snapshot()
            enough = charged(before, THERE) + 4.0 * WATTS[THERE]
            wait_until(lambda: charged(sidecar.snapshot(), THERE) > enough, "more", PATIENCE_SECONDS)
            snapshot = sidecar.snapshot()
            metrics = (sidecar.get("/metrics") or b"").decode()
            ready = (sidecar.get("/-/ready") or b"").decode()
            relay_page, relay_ready = (page(nodes.relay_port, path) for path in ("/metrics", "/-/ready"))
            sidecar.kill()
            wait_until(lambda: "no link" in page(nodes.relay_port, "/-/ready"), "the relay to miss it", 20)
            sidecar.start()
            wait_until(lambda: nodes.enough(1.0), "joules of both again", PATIENCE_SECONDS)
    except AssertionError as error:
        raise AssertionError(nodes.logs()) from error
    finally:
        sidecar.kill()
    told = totals_of(snapshot)
    assert all(each.residual_joules == 0 for each in told.values())
    here, there = (charged(snapshot, gpu) - charged(before, gpu) for gpu in (HERE, THERE))
    assert there / here == pytest.approx(WATTS[THERE] / WATTS[HERE], rel=0.3)
    reading = told[THERE].reading
    assert reading is not None
    assert reading.power_watts == pytest.approx(WATTS[THERE], rel=0.01)
    assert 0 < reading.clock_error_seconds < 0.1
    (link,) = snapshot.links.links
    assert link.offset_seconds == pytest.approx(-AHEAD_SECONDS, abs=0.1)
    assert link.error_seconds is not None
    assert link.error_seconds < 0.1
    assert 'joulescope_link_up{node="worker-1"} 1.0' in metrics
    assert f"{THERE} by relay" in ready
    assert "joulescope_relay_link_up 1.0" in relay_page
    assert "GPU-" not in relay_page
    assert "1 GPU(s)" in relay_ready
