"""``joulescope top`` against real pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from joulescope.cli.top import command
from joulescope.config.load import load
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
    assert "no sidecar answers at http://127.0.0.1:1: " in str(result.exception)
    assert "--url" in str(result.exception)


def test_another_server_is_told_from_a_sidecar(url: str) -> None:
    """A page that is there but no snapshot is said to be none."""
    result = CliRunner().invoke(command, ["--url", f"{url}/nowhere", "--count", "1"])
    assert "HTTP status 404; something else than a sidecar" in str(result.exception)


def test_the_environment_names_the_sidecar(url: str) -> None:
    """``JOULESCOPE_TOP_URL`` keeps a password off the list of processes; the sidecar does not mind it."""
    result = CliRunner().invoke(
        command, ["--count", "1"], env={"JOULESCOPE_TOP_URL": url.replace("//", "//a:b@")}
    )
    assert result.exit_code == 0
    assert "measured" in result.output
    assert load({}, {"JOULESCOPE_TOP_URL": url}, None)[0] == load({}, {}, None)[0]


def test_netrc_without_a_name_is_the_usual_file(url: str, tmp_path: Path) -> None:
    """``--netrc`` takes ``$NETRC``; a host that the file lacks is an error."""
    path = tmp_path / "netrc"
    path.write_text("machine elsewhere login a password b\n")
    arguments = ["--url", url, "--count", "1", "--netrc"]
    result = CliRunner().invoke(command, arguments, env={"NETRC": str(path)})
    assert "no entry for the host 127.0.0.1" in str(result.exception)
    path.write_text("machine 127.0.0.1 login a password b\n")
    assert CliRunner().invoke(command, arguments, env={"NETRC": str(path)}).exit_code == 0
    path.chmod(0o600)
    assert CliRunner().invoke(command, [*arguments[:-1], "--netrc", str(path)]).exit_code == 0
