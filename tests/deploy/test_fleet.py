"""deploy/fleet holds together: promtool takes every file, the right ports are kept, no component is loose."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from joulescope.export.budget import LARGEST, Node, series_of, snapshot_of
from joulescope.export.metrics import METRICS
from tests.real.prometheus import PATIENCE_SECONDS, Prometheus
from tests.real.servers import prometheus_at
from tests.real.vllm_env import free_port
from tests.requirements import need_program
from tools.queries import check_expression, known_metrics, scraped_metrics

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FLEET = ROOT / "deploy" / "fleet"
CONFIGS = sorted([*FLEET.glob("federation/*.yml"), *FLEET.glob("remote-write/*.yml")])
RULES = FLEET / "federation" / "joulescope.fleet.rules.yaml"
COLLECTOR: dict[str, Any] = yaml.safe_load((FLEET / "collector" / "gateway.yml").read_text())
BY_PODS: dict[str, Any] = yaml.safe_load((FLEET / "kubernetes" / "scrape.yml").read_text())


def _promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [need_program("promtool"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.real
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_promtool_takes_every_configuration(path: Path) -> None:
    """Their rules and their targets are those of the place where they are used."""
    result = _promtool("check", "config", "--syntax-only", str(path))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.real
def test_promtool_takes_the_rules() -> None:
    """Without a remark."""
    result = _promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))
    assert result.returncode == 0, result.stdout + result.stderr


def _rules() -> list[dict[str, str]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_rule_reads_what_the_clusters_record() -> None:
    """Metrics and labels exist, each replica is counted once, and ratios are made of sums."""
    known = {name: labels | {"replica"} for name, labels in known_metrics().items()}
    for rule in _rules():
        assert check_expression(rule["expr"], known) == [], rule["record"]
        for read in re.findall(r"(?<!\w)(?:cluster|model):\w+:\w+", rule["expr"]):
            assert known[read] is not None
            assert "max without (replica)" in rule["expr"], rule["record"]
        known[rule["record"]] = frozenset({"model"} if "model" in rule["record"] else ())


@pytest.mark.real
def test_two_replicas_and_one_give_the_same(tmp_path: Path) -> None:
    """Worked by hand: 300 W in the north, told twice, 100 W in the south; an idle third and an idle half."""
    power, idle = (
        "cluster:joulescope_measured_power_watts:rate5m",
        "cluster:joulescope_idle_energy:ratio_rate5m",
    )
    north_a, north_b, south = (
        'cluster="north",replica="a"',
        'cluster="north",replica="b"',
        'cluster="south",replica="a"',
    )
    tests = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "input_series": [
                    {"series": f"{name}{{{labels}}}", "values": f"{value}x10"}
                    for name, labels, value in (
                        (power, north_a, 300),
                        (power, north_b, 300),
                        (power, south, 100),
                        (idle, north_a, 0.25),
                        (idle, north_b, 0.25),
                        (idle, south, 0.5),
                    )
                ],
                "promql_expr_test": [
                    {
                        "expr": name,
                        "eval_time": "3m",
                        "exp_samples": [{"labels": name, "value": value}],
                    }
                    for name, value in (
                        ("fleet:joulescope_measured_power_watts:rate5m", 400),
                        ("fleet:joulescope_idle_energy:ratio_rate5m", 0.3125),
                    )
                ],
            }
        ],
    }
    (tmp_path / "tests.yml").write_text(json.dumps(tests))
    result = _promtool("test", "rules", str(tmp_path / "tests.yml"))
    assert result.returncode == 0, result.stdout + result.stderr


# --- which pods


def _pod(port: int, name: str, phase: str = "Running") -> dict[str, Any]:
    """A target as discovery gives it for one port of a pod."""
    return {
        "targets": [f"127.0.0.1:{port}"],
        "labels": {
            "__meta_kubernetes_pod_container_port_name": name,
            "__meta_kubernetes_pod_container_init": "true",
            "__meta_kubernetes_pod_phase": phase,
            "__meta_kubernetes_namespace": "serving",
            "__meta_kubernetes_pod_name": f"llama-{port}",
            "__meta_kubernetes_pod_node_name": "node-1",
        },
    }


@pytest.mark.real
@pytest.mark.parametrize("place", ["scrape", "collector"])
def test_of_all_ports_the_sidecars_alone_are_scraped(tmp_path: Path, place: str) -> None:
    """A real Prometheus relabels what discovery would give: another port, a pod that has ended, a sidecar.

    Debian's Prometheus is built without discovery in Kubernetes, so that targets stand in its place.
    """
    (job,) = BY_PODS["scrape_configs"] if place == "scrape" else _embedded()["scrape_configs"]
    pods = [_pod(1, "http"), _pod(2, "joulescope", "Succeeded"), _pod(3, "joulescope")]
    config = {"scrape_configs": [{**_without_discovery(job), "static_configs": pods}]}
    address = f"127.0.0.1:{free_port()}"
    with prometheus_at(address, yaml.safe_dump(config), tmp_path, "pods") as prometheus:
        found = _targets(prometheus)
    (target,) = found["activeTargets"]
    assert target["labels"] == {
        "instance": "127.0.0.1:3",
        "job": "joulescope",
        "namespace": "serving",
        "pod": "llama-3",
        "node": "node-1",
    }
    assert len(found["droppedTargets"]) == 2


def _targets(prometheus: Prometheus) -> dict[str, Any]:
    """Once there are any; the first come some seconds after the start."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found: dict[str, Any] = prometheus.get("/api/v1/targets")
        if found["activeTargets"]:
            return found
        time.sleep(0.1)
    raise AssertionError("no target in time")


def _without_discovery(job: dict[str, Any]) -> dict[str, Any]:
    discovered = job["kubernetes_sd_configs"]
    assert discovered == [{"role": "pod", "selectors": [{"role": "pod", "label": "joulescope/scrape=true"}]}]
    return {name: value for name, value in job.items() if name != "kubernetes_sd_configs"}


# --- what is kept


def _kept() -> re.Pattern[str]:
    (write,) = yaml.safe_load((FLEET / "remote-write" / "cluster.yml").read_text())["remote_write"]
    return re.compile(write["write_relabel_configs"][0]["regex"])


def _named(board: Any) -> Iterator[str]:
    """Every metric that a dashboard asks for."""
    if isinstance(board, dict):
        for key, value in board.items():
            if key in ("expr", "query", "definition") and isinstance(value, str):
                yield from re.findall(r"[a-zA-Z_:][\w:]*", value)
            yield from _named(value)
    elif isinstance(board, list):
        for each in board:
            yield from _named(each)


@pytest.mark.parametrize("name", ["fleet", "cost"])
def test_two_dashboards_find_what_they_ask_for(name: str) -> None:
    """Fleet and Cost work on what is written; ALERTS comes from the alerts of the central server."""
    board = json.loads((ROOT / "grafana" / "dashboards" / f"joulescope-{name}.json").read_text())
    asked = set(_named(board)) & set(scraped_metrics()) - {"ALERTS"}
    assert len(asked) > 10
    assert [metric for metric in asked if not _kept().fullmatch(metric)] == []


def test_figures_of_the_page_are_those_of_the_table() -> None:
    """Series of a node at each level, by the table of metrics, are what docs/fleets.md says."""
    page = (ROOT / "docs" / "fleets.md").read_text()
    federated = re.compile(r"joulescope_(measured|attributed)_energy_joules_total|joulescope_engine_info")
    for node, column in ((Node(8, 1), 1), (Node(16, 8), 2), (LARGEST, 3)):
        snapshot = snapshot_of(node)
        by_metric = {metric.name: series_of(metric, snapshot) for metric in METRICS}
        everything = sum(by_metric.values())
        written = sum(count for name, count in by_metric.items() if _kept().fullmatch(name))
        above = sum(count for name, count in by_metric.items() if federated.fullmatch(name))
        for row, count in (("scraped by", everything), ("written to", written), ("federated, ", above)):
            (line,) = re.findall(rf"^\| {row}.*$", page, flags=re.MULTILINE)
            assert line.split("|")[column + 1].strip() == f"{count:,}", (row, node)
        if node == LARGEST:
            picture = (ROOT / "docs" / "pictures" / "fleets.svg").read_text()
            assert set(re.findall(r"(\d+) a node", picture)) == {str(written), str(above)}


def test_sums_of_a_cluster_and_a_model_are_as_many_as_the_page_says() -> None:
    """One series for each rule of the level, and one for each reason of waste."""
    page = (ROOT / "docs" / "fleets.md").read_text()
    known = known_metrics()
    reasons = len(_reasons())
    counts = {
        level: sum(
            reasons if "reason" in labels else 1
            for name, labels in known.items()
            if name.startswith(f"{level}:")
        )
        for level in ("model", "cluster")
    }
    assert f"{counts['model']} series of each model and {counts['cluster']} of each cluster" in page


def _reasons() -> set[str]:
    """Reasons for which joules are wasted."""
    (wasted,) = (metric for metric in METRICS if metric.name == "joulescope_wasted_energy_joules_total")
    reason = wasted.labels.index("reason")
    return {point.labels[reason] for point in wasted.read(snapshot_of(Node(1, 1)))}


# --- the collector


def _embedded() -> dict[str, Any]:
    config: dict[str, Any] = COLLECTOR["receivers"]["prometheus"]["config"]
    return config


def _loose(collector: dict[str, Any]) -> list[str]:
    """Components that a pipeline names and nobody defines, and the other way round."""
    service = collector["service"]
    wrong = []
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in service["pipelines"].values() for name in pipeline.get(kind, ())}
        wrong += sorted(used ^ set(collector[kind]))
    wrong += sorted(set(service["extensions"]) ^ set(collector["extensions"]))
    queues = [each.get("sending_queue", {}).get("storage") for each in collector["exporters"].values()]
    return wrong + [queue for queue in queues if queue and queue not in collector["extensions"]]


def test_every_component_of_the_collector_is_defined_and_used() -> None:
    """Pipelines, extensions and queues; memory is limited before anything else, batches are made last."""
    assert set(COLLECTOR) == {"extensions", "receivers", "processors", "exporters", "service"}
    assert _loose(COLLECTOR) == []
    for pipeline in COLLECTOR["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert pipeline["processors"][-1] == "batch"


def test_a_loose_component_is_found() -> None:
    """A pipeline that names what is not there, and a component that nobody names."""
    broken = json.loads(json.dumps(COLLECTOR))
    broken["service"]["pipelines"]["traces"]["exporters"] = ["otlp_grpc/elsewhere"]
    assert _loose(broken) == ["otlp_grpc/elsewhere", "otlp_http/traces"]


@pytest.mark.real
def test_promtool_takes_what_the_collector_scrapes(tmp_path: Path) -> None:
    """Without discovery; a dollar sign would mean a variable to the collector, and there is none in it."""
    assert "$" not in yaml.safe_dump(_embedded())
    jobs = [_without_discovery(job) for job in _embedded()["scrape_configs"]]
    (tmp_path / "scraped.yml").write_text(yaml.safe_dump({"scrape_configs": jobs}))
    result = _promtool("check", "config", "--syntax-only", str(tmp_path / "scraped.yml"))
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_collector_keeps_and_finds_what_prometheus_does() -> None:
    """One regular expression for what is kept, one way to find the sidecars."""
    (job,), (plain,) = _embedded()["scrape_configs"], BY_PODS["scrape_configs"]
    (keep,) = job["metric_relabel_configs"]
    # `up` is the receiver's own and passes no relabelling of metrics.
    assert keep["regex"] == _kept().pattern
    for part in ("job_name", "kubernetes_sd_configs", "relabel_configs"):
        assert job[part] == plain[part]


# --- the page's commands


@pytest.mark.real
def test_the_commands_of_the_readme_work() -> None:
    """Each line of a shell block is run in the root of the repository."""
    readme = (FLEET / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", readme, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert lines
    for line in lines:
        assert line.startswith("promtool "), line
        result = subprocess.run(line, shell=True, capture_output=True, text=True, check=False, cwd=ROOT)
        assert result.returncode == 0, result.stdout + result.stderr
