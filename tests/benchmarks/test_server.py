"""The real bench's parts, each on the nearest real thing that is at hand: HTTP, processes, files."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.comparison import compare
from benchmarks.gpu.load import Load, ServerFailure, model_of
from benchmarks.gpu.marginal import QUICK
from benchmarks.gpu.plan import EXPERIMENTS, Background, Experiment, Kind, Pace, make_plan
from benchmarks.gpu.server import LEAD_SECONDS, SENSOR_SECONDS, Sidecar, load_kept, save_plan
from benchmarks.gpu.simulated import SimulatedBench, planned, serve
from benchmarks.gpu.vllm_process import install_hook
from joulescope.clock import SystemClock
from joulescope.ingest.trace import TraceWriter
from joulescope.simulation.traces import START_NS
from joulescope.simulation.worlds import H100_LLAMA_8B
from joulescope.units import ns_from_seconds

PATIENCE_SECONDS = 60.0
KIND = Kind("kind", 6, 3, 1.0)


@dataclass
class Heard:
    """What a stand-in server was asked; it answers at once."""

    status: int = 200
    wanted: int = 40
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    enough: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, request_id: str, body: dict[str, Any]) -> None:
        with self.lock:
            self.requests.append((request_id, body))
            if len(self.requests) >= self.wanted:
                self.enough.set()


@contextmanager
def stand_in(heard: Heard) -> Iterator[str]:
    """A server that serves one model and answers every completion with ``heard.status``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(200, {"data": [{"id": "tiny"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.note(self.headers["X-Request-Id"], body)
            self._answer(heard.status, {"usage": {}})

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *words: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_the_background_is_a_closed_loop_of_fresh_prompts() -> None:
    """Every stream sends again when it was answered; first answers are staggered, prompts all different."""
    heard = Heard()
    with stand_in(heard) as url:
        load = Load(url, Background(streams=4, prompt_tokens=8, output_tokens=40))
        load.start()
        assert heard.enough.wait(PATIENCE_SECONDS)
        load.stop()
        told = len(heard.requests)
    assert not load.failures
    ids = [request_id for request_id, _ in heard.requests]
    assert len(set(ids)) == told
    first = {request_id: body["max_tokens"] for request_id, body in heard.requests if request_id[-2:] == "-0"}
    assert [first[f"js-bg-{stream}-0"] for stream in range(4)] == [10, 20, 30, 40]
    later = [body["max_tokens"] for request_id, body in heard.requests if request_id[-2:] != "-0"]
    assert set(later) == {40}
    assert len({tuple(body["prompt"]) for _, body in heard.requests}) == told
    assert all(len(body["prompt"]) == 8 and body["ignore_eos"] for _, body in heard.requests)
    assert {body["model"] for _, body in heard.requests} == {"tiny"}


def test_requests_are_injected_with_their_ids_and_lengths() -> None:
    """Each injection is one completion of its kind's lengths, under the id that the plan gave it."""
    heard = Heard()
    with stand_in(heard) as url:
        load = Load(url, Background())
        past_ns = load.clock.now_ns() - ns_from_seconds(10)
        load.inject(past_ns, [(0.1, "js-b0001-0000", KIND), (0.2, "js-b0001-0001", KIND)])
        assert load.latency_seconds(KIND, "js-probe-0-0") > 0
    assert sorted(request_id for request_id, _ in heard.requests) == [
        "js-b0001-0000",
        "js-b0001-0001",
        "js-probe-0-0",
    ]
    assert all((len(b["prompt"]), b["max_tokens"]) == (6, 3) for _, b in heard.requests)


def test_a_server_that_fails_ends_the_load() -> None:
    """Failures are counted with what the server said; too many of them end everything, with the reason."""
    heard = Heard(status=503)
    with stand_in(heard) as url:
        load = Load(url, Background(streams=60))
        load.check()
        load.start()
        load.stop()
        with pytest.raises(ServerFailure, match="status 503"):
            load.check()
    assert load.failures.total() >= 50


def test_a_server_that_is_not_there_is_named() -> None:
    """The error says which page of which server was asked."""
    with pytest.raises(ServerFailure, match=r"127\.0\.0\.1:1/v1/models"):
        model_of("http://127.0.0.1:1")


def test_a_sidecar_that_ends_is_explained_by_its_log(tmp_path: Path) -> None:
    """If ``joulescope record`` cannot start, its own words are in the error."""
    sidecar = Sidecar(str(tmp_path / ("long" * 40)), tmp_path / "trace.jsonl", SystemClock())
    with pytest.raises(ServerFailure, match=r"the sidecar ended: (?s:.*)at most 107 bytes"):
        sidecar.start()
    sidecar.stop()


def test_vllm_would_find_the_hook(tmp_path: Path) -> None:
    """A process with the returned PYTHONPATH sees the entry point and can load it, without installation."""
    code = (
        "from importlib.metadata import entry_points\n"
        "print(*{(p.name, p.load().__module__) for p in entry_points(group='vllm.general_plugins')})"
    )
    environment = {"PYTHONPATH": install_hook(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "('joulescope', 'joulescope.hook')"


def test_a_kept_run_gives_the_same_figures(tmp_path: Path) -> None:
    """Trace and plan on disk lead to what the run itself showed, up to the truth that only it knew."""
    bench = SimulatedBench(H100_LLAMA_8B, 2)
    background = Background(streams=8, output_tokens=64)
    experiment = Experiment("kept", (Kind("kind", 256, 8, 4),))
    pace = Pace(rounds=2, block_seconds=2.0, lead_seconds=1.0)
    plan = make_plan([experiment], {"kind": 0.1}, pace, background, 1)
    live = bench.run(plan)
    trace = tmp_path / "trace.jsonl.gz"
    writer = TraceWriter(trace)
    injected = [
        planned(request_id, START_NS + ns_from_seconds(at), kind.prompt_tokens, kind.output_tokens)
        for at, request_id, kind in plan.injections()
    ]
    for record in serve(bench.start(plan.length_seconds), background, injected, plan.length_seconds):
        writer.write([record])
    writer.close()
    save_plan(trace, plan, START_NS, {"idle_watts": 100.0})
    kept, recording = load_kept(trace)
    assert (kept.plan, kept.sensor) == (plan, {"idle_watts": 100.0})
    (before,), (after,) = (compare(plan, each.blocks(), 100.0) for each in (live, recording))
    assert after.added == before.added
    assert after.mean("marginal_joules") == pytest.approx(before.mean("marginal_joules"), rel=1e-9)


def test_quick_takes_less_than_eight_minutes() -> None:
    """Meter, warm-up and all blocks of ``--quick`` leave a margin below nine minutes."""
    latencies = {kind.name: 1.5 for kind in EXPERIMENTS["classes"].kinds}
    plan = make_plan([EXPERIMENTS["classes"]], latencies, QUICK, Background(), 1)
    assert plan.length_seconds + 2 * SENSOR_SECONDS + LEAD_SECONDS < 8 * 60
