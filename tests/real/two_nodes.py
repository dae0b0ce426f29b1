"""Two network namespaces as two nodes: a sidecar on one, a relay on the other, a bad network between.

The engine is simulated, so that the joules of each request are known; all else is real: the sockets, the
hook's emitter, TLS, the processes, and the difference of the clocks, which is the kernel's (time namespaces).
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from tests.real.certificates import Certificates

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0
LINK_PORT, PROXY_PORT, HTTP_PORT = 5687, 7001, 5685
_CLONE_NEWNET = 0x40000000
_numbers = itertools.count()

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """A network, a clock, and what runs over them."""

    name: str
    world: str = "tensor-parallel-2"
    single: bool = False
    """Both GPUs stand in the head's node."""
    up_seconds: float = 0.0
    """From the relay to the head."""
    down_seconds: float = 0.0
    jitter_seconds: float = 0.0
    broken: tuple[tuple[float, float], ...] = ()
    ahead_seconds: int = 1000
    """By which the far node's clock is ahead."""
    bare: bool = False
    """Both ends of the link without the daemons around them: :mod:`tests.real.link_ends`."""
    drift_ratio: float = 0.0
    """By which it is faster; only where the ends are bare, for the kernel has no such clock."""
    rate_per_second: float = 4.0
    seconds: float = 20.0
    seed: int = 1


BROKEN = ((12.0, 22.0),)

CASES = (
    Case("one node", single=True),
    Case("no delay"),
    Case("20 ms each way, ± 5 ms", up_seconds=0.02, down_seconds=0.02, jitter_seconds=0.01),
    Case("200 ms each way", up_seconds=0.2, down_seconds=0.2),
    Case("5 ms to the head, 45 ms back", up_seconds=0.005, down_seconds=0.045),
    Case("no link for 10 s", broken=BROKEN),
    Case(
        "5 ms each way, drift of 100 ppm", bare=True, up_seconds=0.005, down_seconds=0.005, drift_ratio=1e-4
    ),
    Case("one node", "pipeline-parallel-2", single=True),
    Case(
        "20 ms each way, ± 5 ms",
        "pipeline-parallel-2",
        up_seconds=0.02,
        down_seconds=0.02,
        jitter_seconds=0.01,
    ),
    Case("5 ms to the head, 45 ms back", "pipeline-parallel-2", up_seconds=0.005, down_seconds=0.045),
)
"""What ``benchmarks/two_nodes.py --real`` plays."""


def lasting(case: Case, seconds: float) -> Case:
    """The same with clients that come for so long."""
    return replace(case, seconds=seconds)


@dataclass
class Outcome:
    """What came of a case."""

    case: Case
    truth: dict[str, tuple[float, float]]
    """By request: its joules, and what of them was computed again."""
    requests: list[dict[str, Any]]
    metrics: str
    log: str

    def metric(self, name: str) -> list[float]:
        """The values of all series of a metric."""
        found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", self.metrics, flags=re.MULTILINE)
        return [float(value) for value in found]

    def whole(self) -> list[dict[str, Any]]:
        return [each for each in self.requests if each["complete"] and each["request_id"] in self.truth]

    def true_joules(self, request: dict[str, Any]) -> float:
        joules, recomputed = self.truth[request["request_id"]]
        return joules - recomputed

    def errors(self) -> dict[str, float]:
        """|attributed − true| / true by request."""
        return {
            each["request_id"]: abs(each["attributed_joules"] / self.true_joules(each) - 1.0)
            for each in self.whole()
        }

    def coverage(self) -> float:
        """Part of the requests whose true joules lie in the stated interval."""
        held = [
            each["attributed_low_joules"] <= self.true_joules(each) <= each["attributed_high_joules"]
            for each in self.whole()
        ]
        return float(np.mean(held))

    def width(self) -> float:
        """Half the stated interval, as a part of the truth; median."""
        widths = [
            (each["attributed_high_joules"] - each["attributed_low_joules"]) / 2 / self.true_joules(each)
            for each in self.whole()
        ]
        return float(np.median(widths))


def summary(outcome: Outcome) -> dict[str, Any]:
    """A row of the benchmark."""
    errors, case = list(outcome.errors().values()), outcome.case
    said = {
        name: next(iter(outcome.metric(f"joulescope_link_{name}")), None)
        for name in ("clock_error_seconds", "clock_offset_seconds", "round_trip_seconds")
    }
    offset = said.pop("clock_offset_seconds")
    return {
        "world": case.world,
        "case": case.name,
        "requests": len(errors),
        "mean": float(np.mean(errors)),
        "p95": float(np.quantile(errors, 0.95)),
        "coverage": outcome.coverage(),
        "width": outcome.width(),
        **said,
        "offset_wrong_seconds": (
            None if offset is None or case.drift_ratio else abs(abs(offset) - case.ahead_seconds)
        ),
        "incomplete": len(outcome.requests) - len(errors),
    }


class Namespaces:
    """Two network namespaces joined by a pair of virtual cables; needs root and iproute2."""

    def __init__(self) -> None:
        tag = f"{os.getpid()}-{next(_numbers)}"
        self.head, self.far = f"js-head-{tag}", f"js-far-{tag}"
        self.head_ip, self.far_ip = "10.231.7.1", "10.231.7.2"

    def __enter__(self) -> Namespaces:
        for name in (self.head, self.far):
            _ip("netns", "add", name)
        _ip(
            "link", "add", "js0", "netns", self.head, "type", "veth", "peer", "name", "js0", "netns", self.far
        )
        for name, address in ((self.head, self.head_ip), (self.far, self.far_ip)):
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "js0")
            _ip("-n", name, "link", "set", "js0", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in (self.head, self.far):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", name)


def impossible() -> str:
    """Why there can be no such namespaces here; empty if there can."""
    try:
        with Namespaces():
            subprocess.run(
                ["unshare", "--time", "--monotonic", "1000", "true"], check=True, capture_output=True
            )
    except subprocess.CalledProcessError as error:
        return f"needs root, and network and time namespaces: {error.stderr.decode().strip()}"
    return ""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def within(namespace: str, call: Callable[[], T]) -> T:
    """Calls it in a thread whose sockets are those of the namespace."""
    found: list[T] = []
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            with open(f"/run/netns/{namespace}", "rb") as file:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(file.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            found.append(call())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


@dataclass
class Bed:
    """The processes of one case."""

    case: Case
    folder: Path
    namespaces: Namespaces
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _files: list[IO[bytes]] = field(default_factory=list)

    @property
    def request_log(self) -> Path:
        return self.folder / "requests.jsonl"

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def start(
        self, name: str, namespace: str, command: Sequence[str], *, ahead: int = 0
    ) -> subprocess.Popen[bytes]:
        """A process in a namespace, whose output is the file ``name.log``."""
        entered = ["ip", "netns", "exec", namespace]
        if ahead:
            entered += ["unshare", "--time", "--monotonic", str(ahead)]
        file = (self.folder / f"{name}.log").open("wb")
        self._files.append(file)
        environment = {key: text for key, text in os.environ.items() if not key.startswith("JOULESCOPE_")}
        environment["PYTHONPATH"] = str(ROOT)
        process = subprocess.Popen(
            [*entered, *command],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            env=environment,
            cwd=ROOT,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def page(self, path: str) -> str:
        """A page of the sidecar, empty while it cannot be had."""

        def get() -> str:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{HTTP_PORT}{path}", timeout=5) as answer:
                    return str(answer.read().decode())
            except OSError:
                return ""

        return within(self.namespaces.head, get)

    def start_daemons(
        self, head_socket: Path, far_socket: Path, certificates: Certificates, start_ns: int
    ) -> subprocess.Popen[bytes]:
        """``joulescope serve`` and, unless there is one node only, ``joulescope relay`` behind a proxy."""
        case, spaces = self.case, self.namespaces
        joulescope = [sys.executable, "-m", "joulescope.cli.main"]
        serve = [*joulescope, "serve", "--socket", str(head_socket), "--listen", f"127.0.0.1:{HTTP_PORT}"]
        serve += ["--sensor", "engine", "--request-log", str(self.request_log)]
        if not case.single:
            serve += ["--link-listen", f"{spaces.head_ip}:{LINK_PORT}", *certificates.options("head")]
        sidecar = self.start("serve", spaces.head, serve)
        self.until(lambda: self.page("/metrics"), "the sidecar to be ready")
        if not case.single:
            self._start_proxy()
            relay = [*joulescope, "relay", "--link-connect", f"{spaces.head_ip}:{PROXY_PORT}"]
            relay += ["--socket", str(far_socket), "--listen", f"127.0.0.1:{HTTP_PORT}"]
            relay += ["--sensor", "engine", "--link-node", "far", *certificates.options("relay")]
            self.start("relay", spaces.far, relay, ahead=case.ahead_seconds)
            self.until(far_socket.exists, "the relay's socket")
        return sidecar

    def start_bare(
        self, head_socket: Path, far_socket: Path, certificates: Certificates, start_ns: int
    ) -> subprocess.Popen[bytes]:
        """The same without the daemons around the ends of the link."""
        case, spaces = self.case, self.namespaces
        ends = [sys.executable, "-m", "tests.real.link_ends"]
        head = [*ends, "head", f"{spaces.head_ip}:{LINK_PORT}", "--socket", str(head_socket)]
        head += ["--request-log", str(self.request_log), *certificates.options("head")]
        sidecar = self.start("serve", spaces.head, head)
        self.until(lambda: "ready" in self.log("serve"), "the head")
        self._start_proxy()
        relay = [*ends, "relay", f"{spaces.head_ip}:{PROXY_PORT}", "--socket", str(far_socket)]
        relay += ["--start-ns", str(start_ns), "--ahead", str(case.ahead_seconds)]
        relay += ["--drift", str(case.drift_ratio), *certificates.options("relay")]
        self.start("relay", spaces.far, relay, ahead=case.ahead_seconds)
        self.until(far_socket.exists, "the relay's socket")
        return sidecar

    def _start_proxy(self) -> None:
        case, address = self.case, self.namespaces.head_ip
        command = [sys.executable, "-m", "tests.real.tcp_proxy"]
        command += [f"{address}:{PROXY_PORT}", f"{address}:{LINK_PORT}"]
        command += ["--up", str(case.up_seconds), "--down", str(case.down_seconds)]
        command += ["--jitter", str(case.jitter_seconds)]
        for begin, end in case.broken:
            command += ["--broken", f"{begin}:{end}"]
        self.start("proxy", self.namespaces.head, command)
        self.until(lambda: "ready" in self.log("proxy"), "the proxy")

    def until(self, true: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            ended = any(process.poll() is not None for process in self.processes)
            if time.monotonic() > deadline or ended:
                logs = "\n".join(
                    f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.folder.glob("*.log")
                )
                raise AssertionError(f"waited {seconds:g} s in vain for {what}\n{logs}")
            time.sleep(0.1)

    def close(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                process.kill()
            process.wait(10)
            if process.stdin is not None:
                process.stdin.close()
        for file in self._files:
            file.close()


@contextlib.contextmanager
def bed(case: Case, folder: Path) -> Iterator[Bed]:
    with Namespaces() as namespaces:
        made = Bed(case, folder, namespaces)
        try:
            yield made
        finally:
            made.close()


def run(case: Case, folder: Path) -> Outcome:
    """Plays a case from the first process to the last request; takes its seconds and about fifteen."""
    with bed(case, folder) as nodes:
        return _play(nodes, Certificates.make(folder, nodes.namespaces.head_ip))


def _play(nodes: Bed, certificates: Certificates) -> Outcome:
    case, folder, spaces = nodes.case, nodes.folder, nodes.namespaces
    head_socket, far_socket = folder / "head.sock", folder / "far.sock"
    start_ns = time.monotonic_ns()
    begin = nodes.start_bare if case.bare else nodes.start_daemons
    sidecar = begin(head_socket, far_socket, certificates, start_ns)
    plan = ["--world", case.world, "--start-ns", str(start_ns), "--arrive-ns", str(start_ns + 8 * 10**9)]
    plan += ["--seconds", str(case.seconds), "--rate", str(case.rate_per_second), "--seed", str(case.seed)]
    node = [sys.executable, "-m", "tests.real.node_process", *plan]
    truth = folder / "truth.json"
    own = ["--ranks", "0", *(["1"] if case.single else []), "--truth", str(truth)]
    head = nodes.start("head", spaces.head, [*node, "--socket", str(head_socket), *own])
    if not case.single:
        far = ["--socket", str(far_socket), "--ranks", "1", "--ahead", str(case.ahead_seconds)]
        far += ["--drift", str(case.drift_ratio)]
        nodes.start("far", spaces.far, [*node, *far], ahead=case.ahead_seconds)
    nodes.until(lambda: "done" in nodes.log("head"), "the engine to be done", case.seconds + PATIENCE_SECONDS)
    told = {name: (joules, again) for name, (joules, again) in json.loads(truth.read_text()).items()}
    nodes.until(lambda: _count(nodes.request_log) >= len(told), "all requests to be accounted")
    metrics = "" if case.bare else nodes.page("/metrics")
    head.kill()
    sidecar.terminate()
    sidecar.wait(20)
    metrics = metrics or nodes.log("serve")
    lines = nodes.request_log.read_text().splitlines()
    return Outcome(case, told, [json.loads(line) for line in lines], metrics, nodes.log("serve"))


def _count(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0
