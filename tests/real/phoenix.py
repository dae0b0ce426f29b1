"""A real OTLP backend: Arize Phoenix, which keeps spans in a database and gives them back over REST.

The environment: ``PHOENIX_PYTHON`` names an interpreter that has it; otherwise one is made with venv and pip
below ``~/.cache/joulescope`` (about 850 MB, two minutes) and kept for the next time. It is no extra of this
package: it brings some two hundred others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real.sidecar import wait_until
from tests.real.vllm_env import CACHE, free_port

VERSION = "20.26.1"
START_SECONDS = 240.0
PAGE = 1000

QUIET = {
    "PHOENIX_TELEMETRY_ENABLED": "false",
    "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
}
"""It speaks to nobody but us."""


def phoenix_python() -> Path:
    """The interpreter of an environment with Phoenix; makes the environment if there is none."""
    named = os.environ.get("PHOENIX_PYTHON")
    if named:
        return Path(named)
    home = CACHE / f"phoenix-{VERSION.rpartition('.')[0]}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, f"arize-phoenix=={VERSION}"], check=True)
        (home / "complete").touch()
    return python


@dataclass(frozen=True)
class StoredSpan:
    """A span as the backend gives it back. It keeps times to the microsecond."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    """Empty at the root of a trace, or of what the backend has of it."""
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]


def _stored(span: dict[str, Any]) -> StoredSpan:
    return StoredSpan(
        name=span["name"],
        trace_id=span["trace_id"],
        span_id=span["span_id"],
        parent_id=span["parent_span_id"] or "",
        start_ns=int(span["start_time_unix_nano"]),
        end_ns=int(span["end_time_unix_nano"]),
        attributes={pair["key"]: _value(pair["value"]) for pair in span["attributes"]},
    )


def _value(value: dict[str, Any]) -> Any:
    """The one member of OTLP's union that is set; the backend says ``null`` for the others."""
    (found,) = [each for name, each in value.items() if each is not None] or [None]
    if isinstance(found, dict) and "values" in found:
        return tuple(_value(each) for each in found["values"])
    return found


@dataclass(frozen=True)
class Phoenix:
    """A running one. Spans arrive by their project: a resource attribute of the sender's."""

    url: str

    @property
    def traces_endpoint(self) -> str:
        return f"{self.url}/v1/traces"

    def spans(self, project: str) -> list[StoredSpan]:
        """All spans of a project; none if it has not heard of it."""
        found: list[StoredSpan] = []
        cursor = ""
        while True:
            query = urllib.parse.urlencode({"limit": PAGE, **({"cursor": cursor} if cursor else {})})
            address = f"{self.url}/v1/projects/{project}/spans/otlpv1?{query}"
            try:
                with urllib.request.urlopen(address, timeout=60) as answer:
                    page = json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return []
                raise
            found += map(_stored, page["data"])
            cursor = page["next_cursor"] or ""
            if not cursor:
                return found

    def _is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=2):
                return True
        except OSError:
            return False


@contextmanager
def running_phoenix(folder: Path) -> Iterator[Phoenix]:
    """Starts one on free ports of the loopback, with its database in ``folder``; stops it after the block."""
    port = free_port()
    phoenix = Phoenix(f"http://127.0.0.1:{port}")
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith(("OTEL_", "PHOENIX_"))},
        **QUIET,
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
    }
    command = [str(phoenix_python()), "-m", "phoenix.server.main", "serve"]
    with (folder / "phoenix.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        wait_until(
            lambda: phoenix._is_up() or process.poll() is not None, "Phoenix to be ready", START_SECONDS
        )
        if process.poll() is not None:
            raise RuntimeError(f"Phoenix ended: {(folder / 'phoenix.log').read_text()[-4000:]}")
        yield phoenix
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
