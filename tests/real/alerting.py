"""A real Alertmanager, what it sends, and a Prometheus that evaluates shorter copies of the shipped rules."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from tests.real.prometheus import PATIENCE_SECONDS, Prometheus, running_prometheus
from tests.real.vllm_env import free_port
from tests.requirements import need_program
from tools.rules import load, scaled

FACTOR = 60.0
"""The rules' minutes are seconds here, unless a test says otherwise."""

PROMETHEUS = """\
global:
  scrape_interval: {scrape}ms
  scrape_timeout: {scrape}ms
rule_files: [rules.yaml]
alerting:
  alertmanagers:
    - static_configs:
        - targets: ["{alertmanager}"]
scrape_configs:
  - job_name: sidecars
    static_configs:
      - targets: [{targets}]
"""

ALERTMANAGER = """\
route:
  receiver: test
  group_by: ["..."]
  group_wait: 100ms
  group_interval: 500ms
  repeat_interval: 1h
receivers:
  - name: test
    webhook_configs:
      - url: http://{webhook}/
        send_resolved: true
"""


@dataclass(frozen=True)
class Message:
    """One alert as the webhook got it."""

    status: str
    labels: dict[str, str]
    annotations: dict[str, str]
    came_at: float
    """Of the monotonic clock."""

    @property
    def alert(self) -> str:
        return self.labels["alertname"]


class Webhook:
    """Whoever is told of alerts."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        messages = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                now = time.monotonic()
                messages.extend(
                    Message(each["status"], each["labels"], each["annotations"], now)
                    for each in body["alerts"]
                )
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait_for(
        self, status: str, alert: str, matches: Callable[[Message], bool] = lambda _: True
    ) -> Message:
        """The first such message, once it came."""
        deadline = time.monotonic() + 2 * PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for message in list(self.messages):
                if (message.status, message.alert) == (status, alert) and matches(message):
                    return message
            time.sleep(0.05)
        told = [(message.status, message.alert) for message in self.messages]
        raise AssertionError(
            f"{alert} was not told as {status} in {2 * PATIENCE_SECONDS} s; told were {told}"
        )


@dataclass
class Alerting:
    """Prometheus, Alertmanager and the webhook, wired."""

    prometheus: Prometheus
    webhook: Webhook


@contextmanager
def running_alerting(
    targets: Sequence[str], folder: Path, *, factor: float = FACTOR, scrape_seconds: float = 0.25
) -> Iterator[Alerting]:
    """Scrapes the targets, and evaluates all shipped rules so many times as fast as usual."""
    rules = yaml.safe_dump(scaled(load(), factor), sort_keys=False)
    (folder / "rules.yaml").write_text(rules)
    scrape = str(round(1000 * scrape_seconds))
    with ExitStack() as stack:
        webhook = Webhook()
        stack.callback(webhook.close)
        manager = stack.enter_context(_running_alertmanager(webhook.address, folder))
        config = PROMETHEUS.replace("{alertmanager}", manager).replace("{scrape}", scrape)
        config = config.replace("{targets}", ", ".join(json.dumps(target) for target in targets))
        program = need_program("prometheus")
        prometheus = stack.enter_context(running_prometheus(program, "", folder, config_text=config))
        prometheus.wait_for("prometheus_build_info or up")
        yield Alerting(prometheus, webhook)


@contextmanager
def _running_alertmanager(webhook: str, folder: Path) -> Iterator[str]:
    """Its address; alone, without the cluster that it would form with others."""
    config = folder / "alertmanager.yml"
    config.write_text(ALERTMANAGER.replace("{webhook}", webhook))
    address = f"127.0.0.1:{free_port()}"
    command = [
        need_program("prometheus-alertmanager"),
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]
    with (
        (folder / "alertmanager.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            _wait_ready(f"http://{address}/-/ready", folder / "alertmanager.log")
            yield address
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


def _wait_ready(url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise AssertionError(f"{url} was not there in {PATIENCE_SECONDS} s: {log.read_text()}")
