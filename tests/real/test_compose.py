"""The files of deploy/compose with a real demo, Prometheus and Alertmanager: only places are others.

Windows and pauses of the rules are ten times shorter; the scrape interval is that of the file.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import yaml

from tests.otlp_receiver import Receiver, otlp_receiver
from tests.real.prometheus import PATIENCE_SECONDS, Prometheus
from tests.real.servers import ROOT, moved, prometheus_at, running, wait_ready
from tests.real.vllm_env import free_port
from tests.requirements import need_program
from tools.rules import load, scaled

pytestmark = pytest.mark.real

COMPOSE = ROOT / "deploy" / "compose"
FASTER = 10.0


@dataclass
class Stack:
    """What ``docker compose up`` would start, but for Grafana; a receiver of OTLP is the store of traces."""

    demo: Popen[bytes]
    prometheus: Prometheus
    alertmanager: str
    """Its address."""
    traces: Receiver


def _service(name: str) -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"][name]
    return service


def _flags(name: str) -> list[str]:
    """Flags of a service, but for those that name a path inside its container."""
    return [flag for flag in _service(name)["command"] if "/" not in flag]


@contextmanager
def _demo(address: str, endpoint: str, folder: Path) -> Iterator[Popen[bytes]]:
    """The command and the environment of the service; the change that it names comes after the test."""
    service = _service("joulescope")
    arguments = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", each) for each in service["command"]]
    environment = {**os.environ, **service["environment"]}
    environment |= {"JOULESCOPE_LISTEN": address, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    command = [sys.executable, "-m", "joulescope.cli.main", *arguments]
    with running(command, folder, "demo", environment) as process:
        wait_ready(f"http://{address}/-/ready", process, folder / "demo.log")
        yield process


@contextmanager
def _alertmanager(address: str, folder: Path) -> Iterator[str]:
    """Its address, once it is ready, with the file as it is."""
    command = [
        need_program("prometheus-alertmanager"),
        f"--config.file={COMPOSE / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        *_flags("alertmanager"),
    ]
    with running(command, folder, "alertmanager") as process:
        wait_ready(f"http://{address}/-/ready", process, folder / "alertmanager.log")
        yield address


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All of them."""
    folder = tmp_path_factory.mktemp("compose")
    at = {name: f"127.0.0.1:{free_port()}" for name in ("joulescope", "prometheus", "alertmanager")}
    (folder / "joulescope.all.yaml").write_text(yaml.safe_dump(scaled(load(), FASTER), sort_keys=False))
    config = moved(
        (COMPOSE / "prometheus.yml").read_text(),
        {
            "joulescope:5685": at["joulescope"],
            "alertmanager:9093": at["alertmanager"],
            "127.0.0.1:9090": at["prometheus"],
            "/etc/prometheus/rules/": f"{folder}/",
        },
    )
    with ExitStack() as opened:
        traces = opened.enter_context(otlp_receiver())
        demo = opened.enter_context(_demo(at["joulescope"], traces.endpoint, folder))
        manager = opened.enter_context(_alertmanager(at["alertmanager"], folder))
        flags = _flags("prometheus")
        prometheus = opened.enter_context(
            prometheus_at(at["prometheus"], config, folder, "prometheus", *flags)
        )
        yield Stack(demo, prometheus, manager, traces)


def test_series_come_with_their_cluster(stack: Stack) -> None:
    """Both targets are up, and the demo's joules bear the name of the cluster."""
    found = stack.prometheus.wait_for('joulescope_measured_energy_joules_total{cluster="demo"} > 0')
    assert len(found) == 1
    stack.prometheus.wait_for("sum(up) == 2")


def test_rules_record_without_an_error(stack: Stack) -> None:
    """Watts and joules per token of the demo's model are there, money and carbon too, and no rule failed."""
    for series in (
        "model:joulescope_energy_per_output_token_joules:ratio_rate5m",
        "cluster:joulescope_measured_power_watts:rate5m",
        "instance:joulescope_electricity_cost:rate",
        "instance:joulescope_emissions:grams_per_second",
    ):
        assert stack.prometheus.wait_for(f'{series}{{cluster="demo"}} > 0'), series
    groups = stack.prometheus.get("/api/v1/rules")["groups"]
    counts = [{group["name"]: len(group["rules"]) for group in each} for each in (groups, load()["groups"])]
    assert counts[0] == counts[1]
    assert [rule for group in groups for rule in group["rules"] if rule.get("lastError")] == []


def test_the_trace_of_an_exemplar_has_arrived(stack: Stack) -> None:
    """What Grafana's data source is told to follow: the label ``trace_id`` is a trace that was sent."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    wanted: set[str] = set()
    while time.monotonic() < deadline:
        now = time.time()
        found = stack.prometheus.get(
            "/api/v1/query_exemplars",
            query="joulescope_request_energy_joules_bucket",
            start=now - 600,
            end=now + 60,
        )
        wanted = {point["labels"]["trace_id"] for series in found for point in series["exemplars"]}
        if wanted & {span.trace_id for span in stack.traces.spans}:
            break
        time.sleep(0.5)
    spans = [span for span in stack.traces.spans if span.trace_id in wanted]
    assert "joulescope.request" in {span.name for span in spans}
    assert {span.resource["service.name"] for span in spans} == {"joulescope-demo"}


def test_an_alert_reaches_the_receiver_of_its_severity(stack: Stack) -> None:
    """The demo is killed; Prometheus tells Alertmanager, which routes the warning. It comes last."""
    (known,) = stack.prometheus.get("/api/v1/alertmanagers")["activeAlertmanagers"]
    assert known["url"].endswith("/api/v2/alerts")
    stack.demo.kill()
    stack.demo.wait(PATIENCE_SECONDS)
    deadline = time.monotonic() + 4 * PATIENCE_SECONDS
    while time.monotonic() < deadline:
        alerts = _alerts(stack.alertmanager)
        if "JoulescopeSidecarDown" in alerts:
            break
        time.sleep(0.5)
    told = alerts["JoulescopeSidecarDown"]
    assert told["labels"]["cluster"] == "demo"
    assert told["labels"]["job"] == "joulescope"
    assert [receiver["name"] for receiver in told["receivers"]] == ["working-hours"]


def _alerts(alertmanager: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{alertmanager}/api/v2/alerts", timeout=10) as answer:
        return {alert["labels"]["alertname"]: alert for alert in json.load(answer)}
