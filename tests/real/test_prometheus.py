"""A real Prometheus scrapes the real server and answers the questions of the documentation."""

from __future__ import annotations

import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import pytest

from joulescope.export.http import create_app
from joulescope.export.http_server import HttpServer
from joulescope.export.metrics_page import QUERIES
from joulescope.label_model import LabelTotals
from joulescope.model import Snapshot
from tests.export.samples import GPU_A, TRACE_ID, engine_a, engine_b, gpu_a, rich_snapshot
from tests.real.prometheus import PATIENCE_SECONDS, Prometheus, running_prometheus
from tests.requirements import need_program

pytestmark = pytest.mark.real

JOULES_PER_TOKEN = 0.25


def labelled(n: int, nobody: str, somebody: str) -> dict[str, LabelTotals]:
    """Two thirds of the joules and the tokens are somebody's."""
    return {
        nobody: LabelTotals({"prefill": 1.0 * n, "decode": 1.0 * n}, 8 * n, n),
        somebody: LabelTotals({"prefill": 1.0 * n, "decode": 3.0 * n}, 16 * n, n),
    }


class GrowingAccount:
    """A snapshot that grows with every read: 8 J measured, of it 6 J attributed, and 24 tokens."""

    def __init__(self) -> None:
        self._reads = 0
        self._lock = threading.Lock()

    def __call__(self) -> Snapshot:
        with self._lock:
            self._reads += 1
            n = self._reads
        gpu = replace(
            gpu_a(),
            measured_joules=8.0 * n,
            attributed_joules=6.0 * n,
            idle_joules=1.0 * n,
            overhead_joules={"startup": 0.5 * n},
            unattributed_joules={"no_engine": 0.5 * n},
        )
        engine = replace(
            engine_a(),
            attributed_joules={(GPU_A, "prefill"): 2.0 * n, (GPU_A, "decode"): 4.0 * n},
            tokens={"generated": 24 * n},
            adapters=labelled(n, "base", "sql"),
            tenants=labelled(n, "none", "acme"),
        )
        # An exemplar must carry the present: Prometheus refuses one that is out of bounds.
        old = engine.joules_per_request
        moved = replace(old, exemplars=(None, ({"trace_id": TRACE_ID}, 4.5, time.time()), None))
        engine = replace(engine, joules_per_request=moved)
        return replace(rich_snapshot(), gpus=(gpu,), engines=(engine, engine_b()))


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, after enough scrapes for a rate."""
    program = need_program("prometheus")
    server = HttpServer("127.0.0.1", 0, create_app(GrowingAccount(), lambda: (True, "ready")))
    host, port = server.start()
    try:
        folder = tmp_path_factory.mktemp("prometheus")
        with running_prometheus(program, f"{host}:{port}", folder) as running:
            running.wait_for("count_over_time(joulescope_measured_energy_joules_total[1m]) > 4")
            yield running
    finally:
        server.stop(PATIENCE_SECONDS)


def test_the_scrape_is_accepted(prometheus: Prometheus) -> None:
    """The target is up, without an error, and its nastiest label came through unharmed."""
    (target,) = prometheus.get("/api/v1/targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    (series,) = prometheus.get("/api/v1/query", query='joulescope_engine_info{engine="odd-1"}')["result"]
    assert series["metric"]["model"] == 'a"b\\c\nd{}=,#é漢?'


def test_watts_are_the_rate_of_joules(prometheus: Prometheus) -> None:
    """``rate(…_joules_total[1m])`` has a positive answer for the GPU that draws power, and for it alone."""
    rates = prometheus.query("rate(joulescope_measured_energy_joules_total[1m])")
    assert set(rates) == {(GPU_A,)}
    assert rates[(GPU_A,)] > 0


@pytest.mark.parametrize("question", [question for question, _ in QUERIES if not question.endswith("?")])
def test_the_documented_queries_have_answers(prometheus: Prometheus, question: str) -> None:
    """Each example of the documentation yields at least one series."""
    assert prometheus.query(dict(QUERIES)[question])


def test_joules_per_token_is_a_ratio_of_rates(prometheus: Prometheus) -> None:
    """Two counters give the exact J/token of the engine; an engine without tokens gives no number."""
    found = prometheus.query(dict(QUERIES)["Joules per output token"])
    assert found[("llama-0",)] == pytest.approx(JOULES_PER_TOKEN)


def test_adapters_and_tenants_are_the_engines_joules_once_more(prometheus: Prometheus) -> None:
    """In every stored sample both views sum to the engine's joules; each adapter has its own J/token."""
    attributed = "sum by (engine) (joulescope_attributed_energy_joules_total)"
    for view in ("adapter", "tenant"):
        told = f"sum by (engine) (joulescope_{view}_energy_joules_total)"
        assert prometheus.query(f"{attributed} - {told}") == {("llama-0",): 0.0}
    found = prometheus.query(dict(QUERIES)["Joules per output token, by adapter"])
    assert found == {
        ("llama-0", "base"): pytest.approx(0.25),
        ("llama-0", "sql"): pytest.approx(0.25),
    }


def test_the_model_comes_by_a_join(prometheus: Prometheus) -> None:
    """The documented join names the served model of each engine, and loses no joule on the way."""
    by_model = prometheus.query(dict(QUERIES)["Joules by model"])
    whole = prometheus.query("sum(increase(joulescope_attributed_energy_joules_total[1h]))")
    assert set(by_model) == {("llama",)}
    assert by_model[("llama",)] == pytest.approx(whole[()], rel=0.2)


def test_conservation_holds_in_the_database(prometheus: Prometheus) -> None:
    """The four parts add up to the measured energy in every stored sample, and no residual is there."""
    parts = " + on (gpu) ".join(
        f"sum by (gpu) (joulescope_{part}_energy_joules_total)"
        for part in ("attributed", "idle", "overhead", "unattributed")
    )
    difference = prometheus.query(f"joulescope_measured_energy_joules_total - on (gpu) ({parts})")
    assert difference == {(GPU_A,): 0.0}
    assert prometheus.query("joulescope_conservation_residual_joules != 0") == {}


def test_exemplars_are_stored(prometheus: Prometheus) -> None:
    """The trace id of a request is found from the histogram that it fell in."""
    now = time.time()
    found = prometheus.get(
        "/api/v1/query_exemplars",
        query="joulescope_request_energy_joules_bucket",
        start=now - 3600,
        end=now + 60,
    )
    assert {point["labels"]["trace_id"] for series in found for point in series["exemplars"]} == {TRACE_ID}


def test_promtool_accepts_what_is_served() -> None:
    """``promtool check metrics`` has nothing to say about the page as it comes over the wire."""
    promtool = need_program("promtool")
    server = HttpServer("127.0.0.1", 0, create_app(rich_snapshot, lambda: (True, "ready")))
    host, port = server.start()
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
            page = answer.read()
    finally:
        server.stop(PATIENCE_SECONDS)
    result = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
