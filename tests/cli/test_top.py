"""``joulescope top`` against real pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from joulescope.cli.top import command
from joulescope.export.http import create_app
from joulescope.export.http_server import HttpServer
from tests.export.samples import rich_snapshot


@pytest.fixture
def url() -> Iterator[str]:
    server = HttpServer("127.0.0.1", 0, create_app(rich_snapshot, lambda: (True, "ready")))
    host, port = server.start()
    yield f"http://{host}:{port}"
    server.stop()


def test_it_prints_what_the_sidecar_says(url: str) -> None:
    """Without a terminal: one line a reading, and it ends after the asked number."""
    result = CliRunner().invoke(command, ["--url", url, "--count", "2", "--interval-seconds", "0.1"])
    assert result.exit_code == 0
    first, second = result.output.splitlines()
    assert first == second
    assert "measured" in first


def test_a_sidecar_that_is_not_there_is_named() -> None:
    """Nobody listens: the address, and what to do."""
    result = CliRunner().invoke(command, ["--url", "http://127.0.0.1:1", "--count", "1"])
    assert "no sidecar answers at http://127.0.0.1:1/api/snapshot" in str(result.exception)
    assert "--url" in str(result.exception)


def test_another_server_is_told_from_a_sidecar(url: str) -> None:
    """A page that is there but no snapshot is said to be none."""
    result = CliRunner().invoke(command, ["--url", f"{url}/nowhere", "--count", "1"])
    assert "no sidecar answers" in str(result.exception)
