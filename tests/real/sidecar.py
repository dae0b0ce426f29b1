"""A real sidecar process: ``joulescope serve`` under real pynvml and a stand-in driver library."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joulescope.export.snapshot_json import decode_snapshot
from joulescope.model import Snapshot
from tests.real.vllm_env import free_port

PATIENCE_SECONDS = 300.0
_BALANCE = re.compile(
    r"(?P<gpu>GPU-\S+): measured (?P<measured>[\d.]+) J = attributed (?P<attributed>[\d.]+)"
    r" \+ idle (?P<idle>[\d.]+) \+ overhead (?P<overhead>[\d.]+) \+ unattributed (?P<unattributed>[\d.]+),"
    r" residual (?P<residual>[\d.]+)"
)


def wait_until(true: Callable[[], object], what: str, timeout_seconds: float = PATIENCE_SECONDS) -> None:
    """Polls a condition of another process; says what it waited for if it never came."""
    deadline = time.monotonic() + timeout_seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_seconds} s in vain for {what}")
        time.sleep(0.05)


@dataclass
class Sidecar:
    """One process of ``joulescope``; ``folder`` takes its log, its request log and its trace."""

    socket: Path
    folder: Path
    environment: Mapping[str, str]
    name: str = "sidecar"
    arguments: tuple[str, ...] = ()
    own_files: bool = True
    """Whether it writes a request log and a trace."""
    wrapper: tuple[str, ...] = ()
    """A command that starts it, such as one that changes users or makes it process 1."""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def request_log(self) -> Path:
        return self.folder / f"{self.name}.requests.jsonl"

    @property
    def trace(self) -> Path:
        return self.folder / f"{self.name}.trace.jsonl.gz"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self, until: str = "/-/ready") -> Sidecar:
        """Returns when the page is answered."""
        self.launch()
        wait_until(lambda: self.get(until) is not None, f"the sidecar to answer {until}")
        return self

    def launch(self) -> None:
        """Starts the process and waits for nothing."""
        command = [*self.wrapper, sys.executable, "-m", "joulescope.cli.main", "serve"]
        command += ["--socket", str(self.socket), "--listen", f"127.0.0.1:{self.port}", "--gpus", "all"]
        if self.own_files:
            command += ["--request-log", str(self.request_log), "--record", str(self.trace)]
        command += self.arguments
        inherited = {**os.environ, **self.environment}
        environment = {name: text for name, text in inherited.items() if not name.startswith("JOULESCOPE_")}
        with self.log.open("wb") as log:
            # A session of its own is a scheduling group of its own (sched(7), autogroup), as a container is.
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def get(self, path: str) -> bytes | None:
        """A page, or ``None`` if it cannot be had now."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the sidecar ended with {self.process.returncode}: {self.log.read_text()}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return bytes(answer.read())
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def status(self, path: str) -> int | None:
        """Of the answer to a page; ``None`` if nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def snapshot(self) -> Snapshot:
        page = self.get("/api/snapshot")
        assert page is not None
        return decode_snapshot(page)

    def requests(self) -> list[dict[str, Any]]:
        if not self.request_log.exists():
            return []
        return [json.loads(line) for line in self.request_log.read_text().splitlines()]

    def terminate(self) -> float:
        """SIGTERM; returns the seconds that it took to end."""
        assert self.process is not None
        begin = time.monotonic()
        self.process.terminate()
        assert self.process.wait(30) == 0, self.log.read_text()
        return time.monotonic() - begin

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def balance(self) -> dict[str, float]:
        """The closing account of the one GPU, joules, as the log tells it."""
        found = _BALANCE.search(self.log.read_text())
        assert found is not None, self.log.read_text()
        return {key: float(value) for key, value in found.groupdict().items() if key != "gpu"}
