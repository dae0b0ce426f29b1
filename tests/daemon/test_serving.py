"""The sidecar as a whole behind a web configuration file."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from joulescope.config import Settings
from joulescope.daemon.daemon import Daemon
from joulescope.errors import ConfigError
from joulescope.export.snapshot_json import decode_snapshot
from joulescope.terminal.target import Target, target_of
from tests.export.certificates import TLS, USERS, make_place
from tests.export.web_server import until


def build(folder: Path, text: str) -> Daemon:
    place = make_place(folder, text)
    settings = Settings(
        socket=str(folder / "s"),
        listen="127.0.0.1:0",
        sensor="none",
        host="off",
        web_config_file=str(place.config),
    )
    return Daemon.build(settings, environ={})


def _get(sidecar: Target, path: str) -> bytes:
    connection = sidecar.connection(10.0)
    try:
        connection.request("GET", path, headers=dict(sidecar.headers))
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()
    finally:
        connection.close()


def test_the_setting_reaches_the_pages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Pages are behind TLS and password, the log says https, and the accounts tell how serving fares."""
    daemon = build(tmp_path, TLS + USERS)
    with caplog.at_level(logging.INFO):
        daemon.start()
    try:
        url = f"https://prometheus:open%3A s%C3%A9same@127.0.0.1:{daemon.address[1]}"
        sidecar = target_of(url, ca_file=str(tmp_path / "ca.pem"))
        decode_snapshot(_get(sidecar, "/api/snapshot"))
        until(lambda: daemon.snapshot().serving.responses["200"] > 0)
        serving = daemon.snapshot().serving
        page = _get(sidecar, "/metrics")
    finally:
        daemon.close()
    assert f"serving https://127.0.0.1:{daemon.address[1]}/metrics" in caplog.text
    assert serving.config_usable
    assert serving.certificate_not_after_seconds is not None
    assert b"joulescope_web_config_usable 1.0" in page


def test_answers_are_counted_by_their_status(tmp_path: Path) -> None:
    """What the pages themselves answer has a name of its own: 403 of single requests too."""
    daemon = build(tmp_path, "{}")
    daemon.start()
    try:
        connection = target_of(f"http://127.0.0.1:{daemon.address[1]}").connection(10.0)
        for path, status in (("/v1/requests/a", 403), ("/no", 404)):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
            until(lambda code=str(status): daemon.snapshot().serving.responses.get(code) == 1)
        connection.close()
        assert daemon.snapshot().serving.responses["other"] == 0
    finally:
        daemon.close()


def test_a_bad_file_stops_the_start_with_its_line(tmp_path: Path) -> None:
    """Before anything was opened: no page is ever served less protected than was asked for."""
    with pytest.raises(ConfigError, match=r"web\.yml:4: tls_server_config\.min_version is TLS12 or TLS13"):
        build(tmp_path, TLS + "  min_version: '13'\n")
    assert not (tmp_path / "s").exists()
