"""Prometheus and Alertmanager as a configuration of this repository has them, on ports of this machine."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.real.prometheus import PATIENCE_SECONDS, Prometheus
from tests.requirements import need_program

ROOT = Path(__file__).parents[2]


def moved(text: str, places: Mapping[str, str]) -> str:
    """A configuration with addresses and paths put in the place of others, each of which must be there."""
    for old, new in places.items():
        assert old in text, f"{old} is not in the configuration"
        text = text.replace(old, new)
    return text


@contextmanager
def running(
    command: Sequence[str], folder: Path, name: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended at the end; what it says is in ``name.log``."""
    with (
        (folder / f"{name}.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


@contextmanager
def prometheus_at(
    address: str, config: str, folder: Path, name: str, *flags: str, agent: bool = False
) -> Iterator[Prometheus]:
    """A Prometheus at that address with that configuration, once it is ready.

    ``agent``: in agent mode, which stores nothing but what it has not sent yet.
    """
    path = folder / f"{name}.yml"
    path.write_text(config)
    storage = "agent" if agent else "tsdb"
    command = [
        need_program("prometheus"),
        f"--config.file={path}",
        f"--storage.{storage}.path={folder / name}",
        f"--web.listen-address={address}",
        "--log.level=warn",
        *flags,
    ]
    with running(command, folder, name) as process:
        wait_ready(f"http://{address}/-/ready", process, folder / f"{name}.log")
        yield Prometheus(address)


def wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the address answers; says what the process said where it does not."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    raise AssertionError(f"{url} does not answer: {log.read_text()}")
