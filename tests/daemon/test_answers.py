"""Single requests at the daemon: the socket, the token, and nothing of either where nobody wants them."""

from __future__ import annotations

import http.client
import json
import socket
import stat
from pathlib import Path

import pytest

from joulescope.clock import SystemClock, WallAnchor
from joulescope.config.load import load
from joulescope.daemon.answers import Answers
from joulescope.daemon.daemon import Daemon
from joulescope.errors import ConfigError
from tests.daemon.test_daemon import settings_in
from tests.export.samples import finished, rich_snapshot


def at_the_socket(path: Path, target: str) -> tuple[int, bytes]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body


def at_the_port(daemon: Daemon, target: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*daemon.address, timeout=20)
    connection.request("GET", target, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_a_finished_request_is_served_at_both_places(tmp_path: Path) -> None:
    """At the Unix socket to whoever may open it, at the port to who has the token."""
    path = tmp_path / "answers.sock"
    settings = settings_in(
        tmp_path, answer_socket=str(path), request_api_token="env:TOKEN", socket_mode=0o600
    )
    daemon = Daemon.build(settings, environ={"TOKEN": "s3cret"})
    daemon.start()
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for sink in daemon._sinks:
            sink.export([finished()])
        status, body = at_the_socket(path, "/v1/requests/cmpl-0")
        assert (status, json.loads(body)["final"]) == (200, True)
        assert at_the_port(daemon, "/v1/requests/cmpl-0", Authorization="Bearer s3cret") == (status, body)
        assert at_the_port(daemon, "/v1/requests/cmpl-0")[0] == 401
        assert at_the_socket(path, "/metrics")[0] == 404
        daemon.publish()
        exported = daemon.snapshot().sidecar.exported
        assert exported["requests_api", "kept"] == 1
        assert exported["answer", "estimated"] == 0
    finally:
        daemon.close()
    assert not path.exists()


def test_nothing_is_kept_where_nobody_may_ask(tmp_path: Path) -> None:
    """Without socket and token there is no sink, no metric, no socket; the port says what is missing."""
    daemon = Daemon.build(settings_in(tmp_path), environ={})
    daemon.start()
    try:
        assert daemon._sinks == []
        status, body = at_the_port(daemon, "/v1/requests/cmpl-0")
        assert (status, b"request_api_token" in body) == (403, True)
        assert [path.name for path in tmp_path.iterdir()] == ["js.sock"]
        daemon._answers.observe(rich_snapshot())
        assert daemon._answers._estimator._snapshot is None
    finally:
        daemon.close()


def test_a_socket_that_cannot_be_undoes_the_start(tmp_path: Path) -> None:
    """The error names the setting, and the other socket is gone again."""
    taken = tmp_path / "answers.sock"
    taken.write_text("not a socket")
    daemon = Daemon.build(settings_in(tmp_path, answer_socket=str(taken)), environ={})
    with pytest.raises(ConfigError, match="--answer-socket"):
        daemon.start()
    assert not (tmp_path / "js.sock").exists()
    assert taken.read_text() == "not a socket"


def test_a_variable_without_a_token_is_refused_at_the_start(tmp_path: Path) -> None:
    """Said with the names of setting and variable; the token itself is in no message."""
    with pytest.raises(ConfigError, match="request_api_token names the variable TOKEN"):
        Daemon.build(settings_in(tmp_path, request_api_token="env:TOKEN"), environ={})


def test_the_bounds_are_those_of_the_settings() -> None:
    """Flags reach the store."""
    flags = {"request_api_seconds": "60", "request_api_count": "7", "request_api_mebibytes": "2"}
    settings, _ = load({**flags, "answer_socket": "/s/a.sock"}, {})
    answers = Answers.build(settings, SystemClock(), WallAnchor.now(), {})
    retention = answers._store.retention
    assert (retention.seconds, retention.count, retention.bytes) == (60.0, 7, 2 << 20)
    assert answers.wanted


def test_the_middlewares_variables_are_no_mistakes() -> None:
    """One environment for both containers: what is vLLM's is left alone, the socket is common to both."""
    settings, _ = load(
        {}, {"JOULESCOPE_ANSWER": "all", "JOULESCOPE_TENANT_HEADER": "x-tenant",
             "JOULESCOPE_ANSWER_URL": "https://j", "JOULESCOPE_ANSWER_DEADLINE_MS": "5",
             "JOULESCOPE_TASK_HEADER": "x-task", "JOULESCOPE_ANSWER_SOCKET": "/s/a.sock"},
    )  # fmt: skip
    assert settings.answer_socket == "/s/a.sock"
    with pytest.raises(ConfigError, match="107 bytes"):
        load({"answer_socket": "/" + "x" * 200}, {})
