"""Every question that a dashboard asks, asked of a real Prometheus that scrapes a running demo."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grafana.variables import Shown, chosen, interpolated
from tests.real.prometheus import PATIENCE_SECONDS, Prometheus, running_prometheus
from tests.real.vllm_env import free_port
from tests.requirements import need_program

pytestmark = pytest.mark.real

DASHBOARDS = Path(__file__).parents[2] / "grafana" / "dashboards"
BOARDS: list[dict[str, Any]] = [json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))]
SHOWN_SECONDS, STEP_SECONDS, SCRAPE_SECONDS = 20, 2, 2.0
"""Prometheus scrapes five times a second; windows are as if it did so every two seconds, since the sidecar's
figures move twice a second."""

DEMO = [
    *("--no-table", "--rate", "16", "--pue", "1.25", "--carbon-intensity", "310"),
    *("--electricity-price", "0.21", "--currency", "EUR", "--baseline-learn-seconds", "5"),
    *("--tenant-from", "request_id", "--tenant-pattern", "(?P<tenant>[a-z]+)-"),
]

COMPARES = "min(rate(joulescope_baseline_expected_energy_joules_total[8s])) > 0"
LEARNS_SECONDS = 300.0
"""A baseline is checked against three half minutes of busy time before it is used."""

NO_GPM = "the simulated GPU has no temperature and performance counters"
NO_HOST = "the demo reads no host energy: real joules would stand beside simulated ones"
NO_PAST = "the demo has no minutes of an hour ago"
SILENT = {
    ("joulescope-fleet", "CPUs and memory beside the GPUs", "A"): NO_HOST,
    ("joulescope-fleet", "CPUs and memory beside the GPUs", "B"): NO_HOST,
    ("joulescope-fleet", "CPUs and memory beside the GPUs", "C"): NO_HOST,
    ("joulescope-fleet", "CPUs and memory beside the GPUs", "D"): NO_HOST,
    ("joulescope-fleet", "GPUs that idle most", "A"): "the demo's GPU is never idle",
    ("joulescope-efficiency", "GPUs that idle most", "A"): "the demo's GPU is never idle",
    **{("joulescope-efficiency", "Why J/token changed", ref): NO_PAST for ref in "AB"},
    **{("joulescope-efficiency", "Causes of the change over time", ref): NO_PAST for ref in "AB"},
    **{("joulescope-efficiency", "Latest diagnosis of each engine", ref): NO_PAST for ref in "ABCDEF"},
    **{("joulescope-efficiency", "SMs, tensor cores and DRAM at work", ref): NO_GPM for ref in "ABC"},
    ("joulescope-engine", "Held back", "A"): NO_GPM,
    ("joulescope-engine", "SMs at work", "A"): NO_GPM,
    ("joulescope-engine", "Memory bandwidth", "A"): NO_GPM,
    ("joulescope-engine", "Temperature", "A"): NO_GPM,
}
"""Queries that rightly have no answer here, by dashboard, panel and query, and why."""

TARGETS = [
    pytest.param(board, panel, target, id=f"{board['uid']}-{panel['title']}-{target['refId']}")
    for board in BOARDS
    for panel in board["panels"]
    for target in panel.get("targets", ())
]
VARIABLES = [
    pytest.param(variable, id=f"{board['uid']}-{variable['name']}")
    for board in BOARDS
    for variable in board["templating"]["list"]
    if variable["type"] == "query"
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus beside the demo, once the demo has a baseline and all windows are full."""
    program = need_program("prometheus")
    folder = tmp_path_factory.mktemp("dashboards")
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "joulescope.cli.main", "demo", "--listen", address, *DEMO]
    with (
        (folder / "demo.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            with running_prometheus(program, address, folder) as prometheus:
                prometheus.wait_for("joulescope_baseline_learned_ratio")
                deadline = time.monotonic() + LEARNS_SECONDS
                while not prometheus.query(COMPARES):
                    assert time.monotonic() < deadline, (folder / "demo.log").read_text()
                    time.sleep(1.0)
                yield prometheus
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


def _values(board: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Variables as the dashboard opens, and with each of its given choices."""
    begin = chosen(board)
    yield begin
    for variable in board["templating"]["list"]:
        for option in variable["options"] if variable["type"] == "custom" else ():
            yield {**begin, variable["name"]: option["value"]}


def _has_answer(prometheus: Prometheus, expression: str, target: dict[str, Any], tries: int) -> bool:
    """Whether there are numbers. On a starved machine a scrape may be late, and series are stale then."""
    for _ in range(tries):
        if _answers(prometheus, expression, target, time.time()):
            return True
        time.sleep(0.5)
    return False


def _answers(prometheus: Prometheus, expression: str, target: dict[str, Any], now: float) -> list[float]:
    """The finite numbers that a query of a panel has for an answer."""
    if target.get("instant"):
        series = prometheus.get("/api/v1/query", query=expression, time=now)["result"]
        found = [each["value"] for each in series]
    else:
        begin = now - SHOWN_SECONDS
        series = prometheus.get(
            "/api/v1/query_range", query=expression, start=begin, end=now, step=STEP_SECONDS
        )["result"]
        found = [point for each in series for point in each["values"]]
    return [float(value) for _, value in found if math.isfinite(float(value))]


@pytest.mark.parametrize(("board", "panel", "target"), TARGETS)
def test_every_panel_has_an_answer(
    demo: Prometheus, board: dict[str, Any], panel: dict[str, Any], target: dict[str, Any]
) -> None:
    """Each query answers with numbers, with each choice of the variables that have given values.

    The few that rightly do not are listed with the reason, and must be silent: the list holds no query that
    has an answer.
    """
    silent = (board["uid"], panel["title"], target["refId"]) in SILENT
    for values in _values(board):
        shown = Shown(0.0, SHOWN_SECONDS, STEP_SECONDS, SCRAPE_SECONDS)
        expression = interpolated(target["expr"], {**values, **shown.values})
        assert _has_answer(demo, expression, target, tries=1 if silent else 20) != silent, expression


def test_the_list_of_silent_queries_names_queries() -> None:
    """No entry is left of a panel that is gone."""
    there = {
        (board["uid"], panel["title"], target["refId"])
        for board in BOARDS
        for panel in board["panels"]
        for target in panel.get("targets", ())
    }
    assert set(SILENT) <= there


@pytest.mark.parametrize("variable", VARIABLES)
def test_variables_find_their_values(demo: Prometheus, variable: dict[str, Any]) -> None:
    """Each variable lists what the demo has; no target has a cluster here, and all works without."""
    found = re.fullmatch(r"label_values\((\w+)(\{.*\})?, (\w+)\)", variable["query"])
    assert found is not None
    everything = dict.fromkeys(("cluster", "instance", "model", "engine", "gpu"), ".*")
    series = interpolated(f"{found[1]}{found[2] or ''}", everything)
    values = demo.get(f"/api/v1/label/{found[3]}/values", **{"match[]": series})
    assert bool(values) == (variable["name"] != "cluster")


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(target, id=f"{panel['title']}-{target['refId']}")
        for board in BOARDS
        for panel in board["panels"]
        for target in panel.get("targets", ())
        if target.get("exemplar")
    ],
)
def test_exemplars_lead_to_traces(demo: Prometheus, target: dict[str, Any]) -> None:
    """Where a panel asks for exemplars, Prometheus has some, each with the id of a trace."""
    now = time.time()
    shown = Shown(now, SHOWN_SECONDS, STEP_SECONDS, SCRAPE_SECONDS)
    everything = dict.fromkeys(("cluster", "instance", "model", "engine"), ".*")
    series = demo.get(
        "/api/v1/query_exemplars",
        query=interpolated(target["expr"], {**everything, **shown.values}),
        start=now - 60,
        end=now,
    )
    traces = {point["labels"]["trace_id"] for each in series for point in each["exemplars"]}
    assert traces
    assert all(re.fullmatch(r"[0-9a-f]{32}", trace) for trace in traces)
