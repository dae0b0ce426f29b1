"""A Prometheus on a recording, and a dashboard's questions to it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grafana.variables import Shown, interpolated

_PATIENCE_SECONDS = 60.0


@contextmanager
def serving(data: Path) -> Iterator[str]:
    """The base URL of a Prometheus that serves what is in ``data`` and scrapes nothing."""
    (data.parent / "prometheus.yml").write_text("scrape_configs: []\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [
        "prometheus",
        f"--config.file={data.parent / 'prometheus.yml'}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            _wait(f"http://{address}/-/ready", process)
            yield f"http://{address}"
        finally:
            process.terminate()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise SystemExit(f"Prometheus does not answer at {url}")


def answers(
    url: str, board: Mapping[str, Any], values: Mapping[str, str], shown: Shown
) -> dict[int, dict[str, Any]]:
    """By panel and query, what Prometheus answers."""
    return {
        panel["id"]: {
            target["refId"]: ask(url, interpolated(target["expr"], {**values, **shown.values}), target, shown)
            for target in panel["targets"]
        }
        for panel in board["panels"]
        if panel["type"] != "row"
    }


def ask(url: str, expression: str, target: Mapping[str, Any], shown: Shown) -> list[Any]:
    """The series that one query answers, at the end or over the time shown."""
    end = shown.end_seconds
    if target.get("instant"):
        return _get(f"{url}/api/v1/query", query=expression, time=end)
    begin = end - shown.range_seconds
    return _get(f"{url}/api/v1/query_range", query=expression, start=begin, end=end, step=shown.step_seconds)


def _get(url: str, **parameters: str | float) -> list[Any]:
    body = urllib.parse.urlencode(parameters).encode()
    try:
        with urllib.request.urlopen(url, body, timeout=120) as answer:
            found: list[Any] = json.load(answer)["data"]["result"]
            return found
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{parameters['query']}: {json.load(error)['error']}") from error
