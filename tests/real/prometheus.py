"""A real Prometheus process that scrapes one target."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.real.vllm_env import free_port

PATIENCE_SECONDS = 60.0

CONFIG = """\
global:
  scrape_interval: 200ms
  scrape_timeout: 200ms
scrape_configs:
  - job_name: sidecar
{scrape}    static_configs:
      - targets: ["{target}"]
"""


class Prometheus:
    """The HTTP API of a running Prometheus."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, **parameters: str | float) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self.address}{path}?{query}", timeout=10) as answer:
            body = answer.read()
        return json.loads(body)["data"] if path.startswith("/api") else body

    def query(self, expression: str) -> dict[tuple[str, ...], float]:
        """Values of an instant query, by the values of the labels in the order of their names."""
        result = self.get("/api/v1/query", query=expression)["result"]
        return {
            tuple(
                value for name, value in sorted(series["metric"].items()) if name not in ("job", "instance")
            ): float(series["value"][1])
            for series in result
        }

    def wait_for(self, expression: str) -> dict[tuple[str, ...], float]:
        """The values once there are any."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                if found := self.query(expression):
                    return found
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(0.1)
        raise AssertionError(f"{expression} had no answer for {PATIENCE_SECONDS} s")


@contextmanager
def running_prometheus(
    program: str, target: str, folder: Path, *, scrape: str = "", config_text: str = CONFIG
) -> Iterator[Prometheus]:
    """``scrape``: more lines of the scrape configuration, indented by four, where ``config_text`` has it."""
    config = folder / "prometheus.yml"
    config.write_text(config_text.format(target=target, scrape=scrape), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    command = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Prometheus(address)
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)
