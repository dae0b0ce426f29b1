"""Who sees the ids of requests: they are of anybody's requests, and pages may be everybody's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.requests import Request

from joulescope.clock import SystemClock
from joulescope.daemon.daemon import Daemon
from joulescope.export.http import create_app
from joulescope.export.http_guard import IDENTIFIED
from joulescope.export.http_server import HttpServer
from joulescope.export.request_ids_shown import ids_shown_to
from joulescope.export.web_config import load
from joulescope.export.web_config_file import Sources
from joulescope.model import FinishedRequest
from tests.daemon.test_daemon import settings_in
from tests.export import samples
from tests.export.certificates import MUTUAL, TLS, USERS, make_place
from tests.export.test_http import get


@pytest.mark.parametrize(
    ("choice", "host", "identified", "shown"),
    [
        ("auto", "0.0.0.0", False, False),
        ("auto", "", False, False),
        ("auto", "::", False, False),
        ("auto", "node-7.example", False, False),
        ("auto", "0.0.0.0", True, True),
        ("auto", "127.0.0.1", False, True),
        ("auto", "127.8.9.1", False, True),
        ("auto", "[::1]", False, True),
        ("auto", "localhost", False, True),
        ("shown", "0.0.0.0", False, True),
        ("hidden", "127.0.0.1", True, False),
    ],
)
def test_who_may_see_them(choice: str, host: str, identified: bool, shown: bool) -> None:
    """By itself: who said who they are, and whoever asks where only this machine can."""
    request = Request({"type": "http", IDENTIFIED: identified})
    assert ids_shown_to(choice, host)(request) is shown


def test_a_configuration_asks_who_by_password_or_required_certificate(tmp_path: Path) -> None:
    """One that only encrypts lets in whoever comes; so does one that merely looks at certificates."""
    place = make_place(tmp_path)
    optional = MUTUAL.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")
    asked = {TLS: False, optional: False, MUTUAL: True, USERS: True, TLS + USERS: True}
    for text, asks in asked.items():
        assert load(place.write(text), Sources()).asks_who is asks


ENDED = samples.finished(
    external_id="acme~9", tenant="acme", trace_parent=f"00-{samples.TRACE_ID}-b7ad6b7169203331-01"
)
OPEN = samples.running(request_id="chatcmpl-acme~7-0a1b2c3d", external_id="acme~7")


@contextmanager
def serving(shows: bool, *finished: FinishedRequest) -> Iterator[tuple[str, int]]:
    """The pages on a free port of the loopback, for one who may see ids or may not."""
    app = create_app(
        samples.rich_snapshot,
        lambda: (True, "ready"),
        get_requests=lambda: ((OPEN,), finished),
        shows_ids=lambda request: shows,
    )
    server = HttpServer("127.0.0.1", 0, app)
    try:
        yield server.start()
    finally:
        server.stop()


def answer(address: tuple[str, int]) -> dict[str, list[dict[str, object]]]:
    body: dict[str, list[dict[str, object]]] = json.loads(get(address, "/api/requests")[2])
    return body


def test_others_see_what_requests_cost_and_not_whose_they_are() -> None:
    """Joules, tokens, engine and adapter stay; ids, traces and tenants go, wherever they stand."""
    with serving(True, ENDED) as address:
        plain = answer(address)
    with serving(False, ENDED) as address:
        masked = answer(address)
    for name in ("acme", samples.TRACE_ID, "0a1b2c3d", ENDED.request_id):
        assert name in json.dumps(plain)
        assert name not in json.dumps(masked)
    for kind in ("open", "finished"):
        for field in ("attributed_joules", "output_tokens", "engine", "lora", "start_ns"):
            assert masked[kind][0][field] == plain[kind][0][field]


@pytest.mark.parametrize("path", ["/", "/api/snapshot", "/api/requests"])
def test_no_page_names_a_trace_to_others(path: str) -> None:
    """Nor does an exemplar, which says what the request of a trace took."""
    with serving(True, ENDED) as address:
        assert samples.TRACE_ID in get(address, path)[2].decode()
    with serving(False, ENDED) as address:
        assert samples.TRACE_ID not in get(address, path)[2].decode()


@pytest.mark.parametrize(("choice", "named"), [("auto", True), ("shown", True), ("hidden", False)])
def test_exemplars_of_the_metrics_name_traces_unless_they_are_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str, named: bool
) -> None:
    """A Prometheus without a password gets them too, unless nobody is to."""
    monkeypatch.setattr(Daemon, "snapshot", lambda daemon: samples.rich_snapshot())
    daemon = Daemon(settings_in(tmp_path, request_ids=choice), open_sensor=None, clock=SystemClock())
    daemon.start()
    try:
        page = get(daemon.address, "/metrics", Accept="application/openmetrics-text;version=1.0.0")[2]
    finally:
        daemon.close(0.1)
    assert (samples.TRACE_ID in page.decode()) is named


def test_a_row_can_be_followed_without_its_id() -> None:
    """The same request has the same digest in each answer of a sidecar, and different ones differ."""
    with serving(False, samples.finished(request_id="a"), samples.finished(request_id="b")) as address:
        first, second = (answer(address)["finished"] for _ in range(2))
    ids = [each["request_id"] for each in first]
    assert ids == [each["request_id"] for each in second]
    assert len(set(ids)) == 2
