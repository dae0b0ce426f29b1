"""``GET /v1/requests/{id}``, asked over real sockets: who may ask, what comes back, how one waits for it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from joulescope.answer import facts
from joulescope.clock import ManualClock
from joulescope.errors import FetchError
from joulescope.export import RequestSink
from joulescope.export.estimate import Estimator
from joulescope.export.http_server import HttpServer
from joulescope.export.records import finished_line
from joulescope.export.request_lookup import Lookup
from joulescope.export.request_store import RequestStore, Retention
from joulescope.export.requests_http import (
    MAX_ID_CHARACTERS,
    MAX_SENDERS,
    MAX_WAIT_SECONDS,
    OUTCOMES,
    AnswerCounts,
    Query,
    RequestsApi,
)
from joulescope.export.unix_server import UnixServer
from joulescope.export.waiters import MAX_WAITERS
from joulescope.ingest import convert
from tests.export.certificates import USERS
from tests.export.samples import finished
from tests.export.test_request_store import ANCHOR, Open, opened, request
from tests.export.web_server import basic, running

PATIENCE_SECONDS = 20.0


class Served:
    """A server on the loopback, and what is behind it."""

    def __init__(self, token: Callable[[], str] | None, opened_by: Open, trusted: bool) -> None:
        self.clock = ManualClock()
        self.store = RequestStore(self.clock, ANCHOR, Retention(seconds=60, count=5, bytes=1 << 20))
        self.counts = AnswerCounts()
        self.api = RequestsApi(
            Lookup(self.store, opened_by),
            Estimator(),
            ANCHOR,
            token=token,
            trusted=trusted,
            counts=self.counts,
        )
        self.address: tuple[str, int] = ("", 0)

    def get(self, target: str, **headers: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", target, headers={k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, json.loads(answer.read()), told
        finally:
            connection.close()


@contextmanager
def serving(
    token: Callable[[], str] | None = None, opened_by: Open | None = None, trusted: bool = True
) -> Iterator[Served]:
    served = Served(token, opened_by or Open(), trusted)
    server = HttpServer("127.0.0.1", 0, served.api.app(), client_timeout_seconds=PATIENCE_SECONDS)
    try:
        served.address = server.start()
        yield served
    finally:
        server.stop(PATIENCE_SECONDS)


def test_a_finished_request_is_its_line_of_the_log() -> None:
    """Field for field, by the engine's id, the id outside and the answer's; nothing may keep a copy."""
    with serving() as served:
        made = request("cmpl-a-0")
        served.store.export([made])
        for name in (made.request_id, "cmpl-a-0", "cmpl-a"):
            status, body, headers = served.get(f"/v1/requests/{name}")
            assert (status, body["id"], body["final"]) == (200, name, True)
            assert body["attributed_joules"] == body["estimated_joules"] == made.attributed_joules
            assert body["requests"] == [{"final": True, **json.loads(finished_line(made, ANCHOR))}]
            assert headers["cache-control"] == "no-store"
        assert "requests" not in served.get("/v1/requests/cmpl-a?brief=1")[1]


def test_an_open_request_has_joules_so_far() -> None:
    """They are not final, and say so; ids may hold what a path cannot."""
    with serving(opened_by=Open(opened("chatcmpl-ä/b?c"))) as served:
        status, body, _ = served.get(f"/v1/requests/{quote('chatcmpl-ä/b?c', safe='')}")
        assert (status, body["final"], body["attributed_joules"]) == (200, False, 1.5)
        assert body["estimated_joules"] is None  # nothing is known yet of what work costs
        (told,) = body["requests"]
        assert (told["final"], told["phase"], told["output_tokens"]) == (False, "decode", 2)


def test_an_unknown_request_is_404_and_says_how_long_they_are_kept() -> None:
    """The hint tells the bounds, and how far back what is kept reaches."""
    with serving() as served:
        served.store.export([finished()])
        served.clock.advance(12)
        status, body, _ = served.get("/v1/requests/nobody")
        assert status == 404
        assert "60 s, at most 5 of them in 1 MiB; the oldest that is held is 12 s old" in body["hint"]


def test_ids_are_as_long_everywhere() -> None:
    """Where they come in, where they are asked for, and where answers carry them."""
    assert MAX_ID_CHARACTERS == convert.MAX_TEXT == facts.MAX_ID_CHARACTERS


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("a?wait=soon", "wait is a number of seconds from 0 to 5"),
        ("a?wait=6", "wait is a number of seconds from 0 to 5"),
        ("a?wait=nan", "wait is a number of seconds from 0 to 5"),
        ("a?wait=-1", "wait is a number of seconds from 0 to 5"),
        ("a?output_tokens=-1", "output_tokens is a whole number"),
        ("a?since_ns=1e9", "since_ns is a whole number"),
        ("a?since_ns=" + "9" * 40, "since_ns is a whole number"),
        ("a?Wait=1", "no parameter is called 'Wait'"),
        ("a" * 600, "1 to 256 characters"),
        ("", "1 to 256 characters"),
    ],
)
def test_a_bad_question_is_told_what_is_wrong_with_it(target: str, words: str) -> None:
    """400, and what would do."""
    with serving() as served:
        status, body, _ = served.get(f"/v1/requests/{target}")
        assert status == 400
        assert words in body["error"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["wait", "since_ns", "output_tokens", "brief", "x"]), st.text())))
def test_any_query_is_read_or_refused(parameters: list[tuple[str, str]]) -> None:
    """Whatever a client writes there: figures within their bounds, or no query, and no other error."""
    try:
        query = Query.of(QueryParams(parameters))
    except ValueError:
        return
    assert 0.0 <= query.wait_seconds <= MAX_WAIT_SECONDS
    assert query.since_ns is None or 0 <= query.since_ns < 10**19
    assert query.work.output_tokens is None or query.work.output_tokens >= 0


def test_only_the_token_opens_it() -> None:
    """As a bearer, or in a header of its own where the server wants a password in the usual one."""
    with serving(token=lambda: "s3cret", trusted=False) as served:
        served.store.export([request("a")])
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer s3cret2"},
                        {"Authorization": "Basic s3cret"}, {"Authorization": "s3cret"},
                        {"X_Joulescope_Token": "s3cre"}):  # fmt: skip
            status, body, told = served.get("/v1/requests/a", **headers)
            assert (status, told["www-authenticate"]) == (401, "Bearer")
            assert set(body) == {"error"}
        assert served.get("/v1/requests/a", Authorization="Bearer s3cret")[0] == 200
        both = {"Authorization": "Basic dTpw", "X_Joulescope_Token": "s3cret"}
        assert served.get("/v1/requests/a", **both)[0] == 200


def test_a_password_for_the_whole_server_does_not_stand_in_for_the_token(tmp_path: Path) -> None:
    """Behind a web configuration both are asked for, each in its own header."""
    config = tmp_path / "web.yml"
    config.write_text(USERS, encoding="utf-8")
    served = Served(lambda: "s3cret", Open(), trusted=False)
    served.store.export([request("a")])
    with running(config, served.api.app()) as server:
        assert server.get("/v1/requests/a", "Bearer s3cret")[0] == 401  # of the server, before the page
        assert server.get("/v1/requests/a", basic())[0] == 401  # of the page
        served.address = server.address
        both = {"Authorization": basic(), "X_Joulescope_Token": "s3cret"}
        assert served.get("/v1/requests/a", **both)[0] == 200


def test_without_a_token_nobody_is_answered() -> None:
    """Not even from the same machine: a proxy there would make everybody local."""
    with serving(token=None, trusted=False) as served:
        served.store.export([request("a")])
        status, body, _ = served.get("/v1/requests/a", Authorization="Bearer x")
        assert status == 403
        assert "request_api_token" in body["hint"]


def test_a_token_that_is_replaced_is_used_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """And one that cannot be read opens nothing: 503, and one line of log."""
    token: list[str | FetchError] = ["old"]

    def read() -> str:
        if isinstance(token[0], FetchError):
            raise token[0]
        return token[0]

    with serving(token=read, trusted=False) as served:
        served.store.export([request("a")])
        assert served.get("/v1/requests/a", Authorization="Bearer old")[0] == 200
        token[0] = "new"
        assert served.get("/v1/requests/a", Authorization="Bearer old")[0] == 401
        assert served.get("/v1/requests/a", Authorization="Bearer new")[0] == 200
        token[0] = FetchError("token", "/etc/token: No such file or directory")
        for _ in range(3):
            assert served.get("/v1/requests/a", Authorization="Bearer new")[0] == 503
    assert len([line for line in caplog.messages if "/etc/token" in line]) == 1


def test_who_waits_is_told_when_it_is_final() -> None:
    """The answer comes with the account, long before the time is over, though the id was not known."""
    with serving() as served, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(served.get, "/v1/requests/cmpl-a?wait=5")
        _until(lambda: served.store._listeners)
        served.store.export([request("cmpl-other-0")])
        served.store.export([request("cmpl-a-0")])
        status, body, _ = waiting.result(PATIENCE_SECONDS)
        assert (status, body["final"]) == (200, True)
        _until(lambda: not served.store._listeners)


def test_who_waits_in_vain_gets_what_there_is() -> None:
    """After the time: joules so far of what is open, 404 for what nobody knows."""
    with serving(opened_by=Open(opened("chatcmpl-a"))) as served:
        assert served.get("/v1/requests/chatcmpl-a?wait=0.01")[1]["final"] is False
        assert served.get("/v1/requests/chatcmpl-b?wait=0.01")[0] == 404


def test_who_waits_when_it_ends_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """No news come after the store is closed: neither who waits already nor who comes then is kept."""
    monkeypatch.setattr("joulescope.export.requests_http.MAX_WAIT_SECONDS", 3600.0)
    with serving() as served, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(served.get, "/v1/requests/cmpl-a?wait=3600")
        _until(lambda: served.api._waiters._count == 1)
        served.store.close(0.1)
        assert waiting.result(PATIENCE_SECONDS)[0] == 404
        assert served.get("/v1/requests/cmpl-a?wait=3600")[0] == 404


def test_no_more_wait_than_there_is_room_for() -> None:
    """They hold a connection each; who comes later is answered at once."""
    with serving() as served, ThreadPoolExecutor(MAX_WAITERS) as pool:
        waiting = [pool.submit(served.get, f"/v1/requests/r{n}?wait=5") for n in range(MAX_WAITERS)]
        _until(lambda: served.api._waiters._count == MAX_WAITERS)
        begin = threading.active_count()
        assert served.get("/v1/requests/late?wait=5")[0] == 404
        assert threading.active_count() == begin
        served.store.export([request(f"r{number}", number) for number in range(5)])
        served.store.export([request(f"r{number}", number) for number in range(5, 10)])
        served.store.export([request(f"r{number}", number) for number in range(10, 15)])
        served.store.export([request(f"r{number}", number) for number in range(15, MAX_WAITERS)])
        assert {call.result(PATIENCE_SECONDS)[0] for call in waiting} <= {200, 404}


def _until(true: Callable[[], object]) -> None:
    """Waits for another thread."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_unix_socket_serves_the_same(tmp_path: Path) -> None:
    """This path and no other; the socket's permissions are the token."""
    served = Served(None, Open(), trusted=True)
    served.store.export([request("a")])
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(tmp_path / "a.sock"))
    sock.listen()
    server = UnixServer(sock, served.api.app())
    assert server.start() == (str(tmp_path / "a.sock"), 0)
    try:
        for target, status in (("/v1/requests/a", b"200"), ("/metrics", b"404"), ("/", b"404")):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.settimeout(PATIENCE_SECONDS)
            client.connect(str(tmp_path / "a.sock"))
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert client.makefile("rb").read().split(b" ")[1] == status
            client.close()
    finally:
        server.stop(PATIENCE_SECONDS)


def test_answers_are_counted_by_whoever_sends_them() -> None:
    """Totals of each middleware: told twice they count once; nonsense counts nothing."""
    counts = AnswerCounts()
    assert isinstance(counts, RequestSink)
    assert counts.counts() == dict.fromkeys(OUTCOMES, 0)
    nonsense = (
        "",
        "x",
        ";;;",
        "one;estimated=-9,made_up=4,late=1e3,unknown=99999999999",
        "y" * 80 + ";late=7",
    )
    for text in ("one;estimated=3,late=1", "one;estimated=5,late=1", "two;estimated=1", *nonsense):
        counts.take(text)
    assert counts.counts() == {**dict.fromkeys(OUTCOMES, 0), "estimated": 6, "late": 1}


def test_senders_that_are_gone_still_count() -> None:
    """Only so many are told apart, yet no answer is forgotten."""
    counts = AnswerCounts()
    for number in range(3 * MAX_SENDERS):
        counts.take(f"s{number};estimated=2")
    assert counts.counts()["estimated"] == 6 * MAX_SENDERS
    assert len(counts._told) == MAX_SENDERS
