"""What stands before every page: passwords, methods, headers, limits."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from joulescope.export.web_config_rules import GRACE_SECONDS
from tests.examples import examples
from tests.export.certificates import HASH, USER, USERS
from tests.export.web_server import PATIENCE_SECONDS, Running, ask, basic, pages, running

PAGES = ("/", "/metrics", "/api/snapshot", "/nothing", "/-/", "/-/healthy/")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write(tmp_path / "web.yml", USERS)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with one user, whose file stays as it is."""
    with running(write(tmp_path_factory.mktemp("web") / "web.yml", USERS)) as server:
        yield server


@pytest.fixture
def changing(config: Path) -> Iterator[Running]:
    """A server with one user, whose file is :func:`config`."""
    with running(config) as server:
        yield server


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(
    "authorization", ["", basic(password="guess"), basic("nobody"), "Bearer x", "Basic !", "Basic"]
)
def test_no_page_without_a_password(guarded: Running, path: str, authorization: str) -> None:
    """Neither a page nor whether it exists is told to whoever cannot say the password."""
    status, headers, body = guarded.get(path, authorization)
    assert (status, headers["www-authenticate"]) == (401, 'Basic realm="joulescope"')
    assert body == b"user and password, please\n"


def test_every_page_with_the_password(guarded: Running) -> None:
    """The user sees all of them, and 404 for what is none."""
    assert [guarded.get(path, basic())[0] for path in PAGES] == [200, 200, 200, 404, 404, 404]


@pytest.mark.parametrize(("is_ready", "code"), [(True, 200), (False, 503)])
def test_probes_need_no_password_and_learn_yes_or_no(config: Path, is_ready: bool, code: int) -> None:
    """Kubernetes' probes have no secret: health is told to all, the reason to users only."""
    with running(config, pages(is_ready)) as server:
        assert server.get("/-/healthy")[0::2] == (200, b"joulescope is healthy\n")
        status, _, body = server.get("/-/ready")
        assert (status, body.startswith(b"ready" if is_ready else b"not ready")) == (code, True)
        assert b"GPU" not in body
        assert b"GPU" not in server.get("/-/ready", basic(password="guess"))[2]
        assert b"GPU-1" in server.get("/-/ready", basic())[2]
    with running(None, pages(is_ready)) as server:
        assert b"GPU-1" in server.get("/-/ready")[2]


def test_a_removed_user_is_out_at_once(changing: Running, config: Path) -> None:
    """Also on a connection that is open, and although the password is remembered."""
    connection = changing.connect()
    assert ask(connection, "/metrics", basic())[0] == 200
    sock = connection.sock
    write(config, f"basic_auth_users:\n  other: {HASH}\n")
    changing.look()
    assert ask(connection, "/metrics", basic())[0] == 401
    assert ask(connection, "/metrics", basic("other"))[0] == 200
    assert connection.sock is sock
    connection.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "PROPFIND", "get"])
def test_only_get_and_head(guarded: Running, method: str) -> None:
    """Everything else is 405, with a password too; what came along is not repeated."""
    status, headers, body = ask(guarded.connect(), "/metrics", basic(), method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert body == b"only GET and HEAD are answered\n"


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/snapshot", "/-/healthy", "/-/ready"])
def test_head_is_get_without_the_body(guarded: Running, path: str) -> None:
    """Status and length are those of GET."""
    headed, got = ask(guarded.connect(), path, basic(), "HEAD"), ask(guarded.connect(), path, basic())
    assert headed[2] == b""
    assert headed[0] == got[0]
    assert headed[1]["content-type"] == got[1]["content-type"]
    if path != "/metrics":  # its own CPU time is in it
        assert headed[1]["content-length"] == got[1]["content-length"]


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/snapshot", "/-/ready", "/nothing", "/unauthorized"])
def test_headers_that_keep_browsers_from_harm(guarded: Running, path: str) -> None:
    """On every answer, refusals too; no banner, and nothing is kept by a cache."""
    _, headers, _ = guarded.get(path, "" if path == "/unauthorized" else basic())
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "deny"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert ("style-src" in headers["content-security-policy"]) == (path == "/")
    assert "server" not in headers


def test_headers_of_the_file_win(config: Path) -> None:
    """They replace the page's own; one that is left blank is not set."""
    write(
        config,
        "http_server_config:\n  headers:\n    Strict-Transport-Security: max-age=60\n"
        "    X-Frame-Options: sameorigin\n    Content-Security-Policy: default-src 'self'\n"
        "    X-XSS-Protection: ''\n",
    )
    with running(config) as server:
        for path in ("/", "/metrics", "/nothing"):
            headers = server.get(path)[1]
            assert headers["strict-transport-security"] == "max-age=60"
            assert headers["x-frame-options"] == "sameorigin"
            assert headers["content-security-policy"] == "default-src 'self'"
            assert "x-xss-protection" not in headers


def test_what_the_client_says_is_not_said_back(guarded: Running) -> None:
    """No redirect to a host that the client made up, and no path in an error."""
    connection = guarded.connect()
    connection.request(
        "GET",
        "/metrics/",
        headers={"Host": "evil.example", "Authorization": basic(), "X-Forwarded-Host": "evil"},
    )
    answer = connection.getresponse()
    said = str(answer.getheaders()).encode() + answer.read()
    assert answer.status == 404
    assert b"evil" not in said
    assert b"metrics" not in said


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 5_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 20_000,
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
    ],
)
def test_heads_have_a_limit_and_a_form(
    guarded: Running, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Too long, without a host, ambiguous or no HTTP: refused, hung up on, and no line in the log."""
    with guarded.knock() as client:
        client.sendall(sent)
        said = b""
        with suppress(ConnectionResetError):  # it did not want to hear the rest
            while got := client.recv(4096):
                said += got
    assert not said or int(said.split(b" ", 2)[1]) in (400, 405, 431)
    assert b"200 OK" not in said
    assert caplog.records == []
    assert guarded.get("/-/healthy")[0] == 200


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60), deadline=None
)
@given(
    parts=st.lists(
        st.one_of(
            st.sampled_from(
                [b"GET ", b"HEAD ", b"/metrics", b" HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n", b"\0"]
            ),
            st.sampled_from(
                [b"Authorization: Basic ", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n"]
            ),
            st.binary(max_size=40),
        ),
        max_size=12,
    )
)
def test_no_bytes_open_the_door_or_break_it(guarded: Running, parts: list[bytes]) -> None:
    """Whatever a stranger sends, it is neither let in nor an error of the server's, and others are served."""
    with guarded.knock() as client:
        client.sendall(b"".join(parts))
        client.shutdown(socket.SHUT_WR)
        said = b""
        with suppress(ConnectionResetError):
            while got := client.recv(1 << 16):
                said += got
    assert not said.startswith((b"HTTP/1.1 200", b"HTTP/1.1 5"))
    assert guarded.get("/-/healthy")[0] == 200


def test_requests_beyond_the_rate_are_429(config: Path) -> None:
    """A burst passes, then one each interval; health is told all the same. A new limit starts full."""
    write(config, "rate_limit:\n  interval: 10s\n  burst: 2\n")
    with running(config) as server:
        assert [server.get("/metrics")[0] for _ in range(4)] == [200, 200, 429, 429]
        assert server.get("/metrics")[1]["retry-after"] == "1"
        assert server.get("/-/healthy")[0] == 200
        server.clock.advance(10.0)
        assert [server.get("/metrics")[0] for _ in range(2)] == [200, 429]
        write(config, "rate_limit:\n  interval: 10s\n  burst: 3\n")
        server.look()
        assert [server.get("/metrics")[0] for _ in range(4)] == [200, 200, 200, 429]
        write(config, "http_server_config: {}\n")
        server.look()
        assert [server.get("/metrics")[0] for _ in range(4)] == [200, 200, 200, 200]


def test_a_spoilt_file_lets_nobody_in_and_leaves_health(config: Path, changing: Running) -> None:
    """After the minute every page is 500, with the password too; a probe must not end the sidecar for it."""
    write(config, "basic_auth_users: [")
    changing.look()
    assert changing.get("/metrics", basic())[0] == 200
    changing.clock.advance(GRACE_SECONDS)
    status, headers, body = changing.get("/metrics", basic())
    assert (status, body) == (500, b"the web configuration cannot be used: see the log\n")
    assert headers["x-content-type-options"] == "nosniff"
    assert changing.get("/-/healthy")[0] == 200
    assert b"GPU" not in changing.get("/-/ready")[2]
    totals = changing.server.totals()
    assert (totals.config_usable, totals.config_failures) == (False, 1)
    write(config, USERS)
    changing.look()
    assert changing.get("/metrics", basic())[0] == 200


def test_a_flood_of_guesses_holds_up_neither_health_nor_a_known_scraper(changing: Running) -> None:
    """While a hundred wrong passwords are there, probes and whoever was let in before are answered."""
    assert changing.get("/metrics", basic())[0] == 200
    guesses = [
        f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: {basic(password=str(n))}\r\n\r\n".encode()
        for n in range(100)
    ]
    clients = [changing.knock() for _ in guesses]
    try:
        for client, guess in zip(clients, guesses, strict=True):
            client.sendall(guess)
        assert changing.get("/-/healthy")[0] == 200
        assert changing.get("/metrics", basic())[0] == 200
        codes = {_status(client) for client in clients}
    finally:
        for client in clients:
            client.close()
    assert codes <= {401, 503}
    assert 401 in codes


def _status(client: socket.socket) -> int:
    client.settimeout(PATIENCE_SECONDS)
    return int(client.recv(4096).split(b" ", 2)[1])


def test_answers_are_counted_by_status(changing: Running) -> None:
    """Each answer once, what is rare together."""
    for path, authorization in (
        ("/metrics", basic()),
        ("/metrics", ""),
        ("/nothing", basic()),
        ("/-/ready", ""),
    ):
        changing.get(path, authorization)
    ask(changing.connect(), "/", basic(), "POST")
    counted = changing.server.totals().responses
    assert {code: count for code, count in counted.items() if count} == {
        "200": 2,
        "401": 1,
        "404": 1,
        "405": 1,
    }


def test_rules_hold_for_any_application(config: Path) -> None:
    """What is served besides, now or later, stands behind the same door; its own policy is its own."""

    async def page(request: Request) -> Response:
        return HTMLResponse("<p>hello", 418, headers={"Content-Security-Policy": "script-src 'self'"})

    with running(config, Starlette(routes=[Route("/v1/anything", page)])) as server:
        assert server.get("/v1/anything")[0] == 401
        status, headers, _ = server.get("/v1/anything", basic(USER))
        assert (status, headers["content-security-policy"]) == (418, "script-src 'self'")
        assert server.server.totals().responses["other"] == 1
