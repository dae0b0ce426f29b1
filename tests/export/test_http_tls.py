"""TLS over real sockets: who gets in, what changes meanwhile, and that nobody holds up others."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import trustme
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from joulescope.export.http_protocol import MOST_UNREAD_BYTES
from joulescope.export.web_config_rules import GRACE_SECONDS
from tests.export.certificates import HOST, MUTUAL, TLS, USERS, Place, certificate, make_place
from tests.export.web_server import PATIENCE_SECONDS, Running, ask, basic, running, until

FLOOD = 200
BIG_BYTES, HUGE_BYTES = 1 << 23, 1 << 25
"""More than the buffers of a socket hold, and much more."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path, TLS + USERS)


@pytest.fixture
def secured(place: Place) -> Iterator[Running]:
    """A server with TLS and one user, and clients that trust it."""
    with running(place.config, context=place.client()) as server:
        yield server


def shown(connection: http.client.HTTPConnection) -> int:
    """Serial number of the certificate that the server shows on an open connection."""
    assert isinstance(connection.sock, ssl.SSLSocket)
    facts = connection.sock.getpeercert()
    assert facts is not None
    return int(str(facts["serialNumber"]), 16)


def is_hung_up_on(client: socket.socket) -> bool:
    """Waits for the end of a connection."""
    client.settimeout(PATIENCE_SECONDS)
    try:
        while client.recv(1 << 16):
            pass
    except (ConnectionResetError, ssl.SSLError):
        pass
    return True


def test_pages_come_through_tls_to_users_only(secured: Running) -> None:
    """The same pages as in the clear, with the same rules."""
    assert secured.server.url == f"https://127.0.0.1:{secured.address[1]}"
    status, headers, body = secured.get("/metrics", basic())
    assert (status, headers["x-content-type-options"]) == (200, "nosniff")
    assert b"joulescope_measured_energy_joules_total" in body
    assert [secured.get(path)[0] for path in ("/metrics", "/", "/api/snapshot", "/-/healthy")] == [
        401,
        401,
        401,
        200,
    ]


def test_a_connection_is_kept_and_asked_again(secured: Running) -> None:
    """Ten pages on one handshake."""
    connection = secured.connect()
    connection.connect()
    sock = connection.sock
    assert [ask(connection, "/metrics", basic())[0] for _ in range(10)] == [200] * 10
    assert connection.sock is sock
    connection.close()


@pytest.mark.parametrize(
    "sent", [b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 70]
)
def test_what_is_no_tls_gets_nothing(secured: Running, sent: bytes) -> None:
    """Plain HTTP and garbage are hung up on without a word about who serves; it is counted."""
    with secured.knock() as client:
        client.sendall(sent)
        said = b""
        with suppress(ConnectionResetError):
            while got := client.recv(4096):
                said += got
    assert b"HTTP" not in said
    assert b"joulescope" not in said
    until(lambda: secured.refused("handshake") == 1)


def test_a_client_that_does_not_trust_it_is_counted(secured: Running) -> None:
    """An authority that the client does not know: the client leaves, and others are served."""
    with pytest.raises(ssl.SSLCertVerificationError):
        secured.get("/metrics", basic(), context=ssl.create_default_context())
    assert secured.get("/-/healthy")[0] == 200


def test_a_new_certificate_is_shown_and_no_connection_dropped(secured: Running, place: Place) -> None:
    """Without a restart: the next handshake has it, and who is connected goes on."""
    old = secured.connect()
    assert ask(old, "/metrics", basic())[0] == 200
    serial, sock = shown(old), old.sock
    place.renew()
    secured.look()
    new = secured.connect()
    assert ask(new, "/metrics", basic())[0] == 200
    assert shown(new) != serial
    assert ask(old, "/metrics", basic())[0] == 200
    assert (old.sock, shown(old)) == (sock, serial)
    old.close()
    new.close()


def test_a_key_that_does_not_fit_leaves_the_old_pair_for_a_minute(secured: Running, place: Place) -> None:
    """Then no handshake succeeds until it is mended; both are counted."""
    key = place.folder / "server.key"
    good = key.read_bytes()
    certificate(place.authority, HOST).private_key_pem.write_to_path(key)
    secured.look()
    assert secured.get("/metrics", basic())[0] == 200
    secured.clock.advance(GRACE_SECONDS)
    with pytest.raises((ssl.SSLError, ConnectionResetError, http.client.RemoteDisconnected)):
        secured.get("/-/healthy")
    until(lambda: secured.refused("configuration") == 1)
    assert secured.server.totals().config_failures == 1
    key.write_bytes(good)
    secured.look()
    assert secured.get("/metrics", basic())[0] == 200
    assert secured.server.totals().config_usable


def test_an_expired_certificate_is_served_and_told(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Clients that verify refuse it; the log and the metric say why."""
    place.renew(days=-1)
    with running(place.config, context=place.client()) as server:
        assert "the certificate expired on" in caplog.text
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            server.get("/-/healthy")
        not_after_seconds = server.server.totals().certificate_not_after_seconds
    assert not_after_seconds is not None
    assert not_after_seconds < (place.folder / "server.pem").stat().st_mtime


@pytest.fixture
def mutual(place: Place) -> Iterator[Running]:
    """A server that lets one client in by its certificate."""
    place.write(MUTUAL + "  client_allowed_sans: [prometheus.example]\n")
    with running(place.config, context=place.client("prometheus.example")) as server:
        yield server


REFUSAL = (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)


def test_a_client_certificate_opens_every_page(mutual: Running) -> None:
    """Whoever has one with the right name needs no password."""
    assert [mutual.get(path)[0] for path in ("/metrics", "/", "/-/ready")] == [200, 200, 200]


def test_without_a_client_certificate_there_is_not_even_health(mutual: Running, place: Place) -> None:
    """The handshake decides, before anything is read: also about pages that need no password."""
    for client in (place.client(), place.client("prometheus.example", authority=trustme.CA())):
        with pytest.raises(REFUSAL):
            mutual.get("/-/healthy", context=client)
    until(lambda: mutual.refused("handshake") == 2)
    assert mutual.get("/metrics")[0] == 200


def test_a_name_that_is_not_on_the_list(mutual: Running, place: Place) -> None:
    """A verified certificate of somebody else is hung up on."""
    with pytest.raises(REFUSAL):
        mutual.get("/metrics", context=place.client("grafana.example"))
    until(lambda: mutual.refused("client_certificate") == 1)
    assert mutual.get("/metrics")[0] == 200


def test_an_authority_that_is_withdrawn_is_withdrawn_for_open_connections_too(
    mutual: Running, place: Place
) -> None:
    """A client of the old one that stays connected gets no further page; one of the new gets in."""
    old = mutual.connect()
    assert ask(old, "/metrics")[0] == 200
    other = trustme.CA()
    other.cert_pem.write_to_path(place.folder / "ca.pem")
    mutual.look()
    with pytest.raises(REFUSAL):
        ask(old, "/metrics")
    with pytest.raises(REFUSAL):
        mutual.get("/metrics")
    context = ssl.create_default_context(cadata=place.authority.cert_pem.bytes().decode())
    certificate(other, "prometheus.example").configure_cert(context)
    assert mutual.get("/metrics", context=context)[0] == 200


def test_tls_put_in_force_ends_connections_in_the_clear(place: Place) -> None:
    """A section that is added holds for those who are connected already."""
    tls = place.client()
    place.write("{}")
    with running(place.config) as server:
        plain = server.connect()
        assert ask(plain, "/metrics")[0] == 200
        place.write(TLS)
        server.look()
        with pytest.raises(REFUSAL):
            ask(plain, "/metrics")
        assert server.get("/metrics", context=tls)[0] == 200


# ----------------------------------------------------------------------------------- holding up others


async def _big(request: Request) -> Response:
    return PlainTextResponse(b"x" * BIG_BYTES)


async def _huge(request: Request) -> Response:
    return PlainTextResponse(b"x" * HUGE_BYTES)


async def _small(request: Request) -> Response:
    return PlainTextResponse("well")


PATHS = {"/big": _big, "/huge": _huge, "/metrics": _small, "/-/healthy": _small}
APP = Starlette(routes=[Route(path, page) for path, page in PATHS.items()])


def test_a_client_that_never_shakes_hands_is_hung_up_on(place: Place) -> None:
    """It is given its time, and no more; half a greeting is no greeting."""
    with running(place.config, client_timeout_seconds=0.1) as server, ExitStack() as stack:
        for sent in (b"", b"\x16\x03\x01\x02\x00\x01"):
            client = stack.enter_context(server.knock())
            client.sendall(sent)
            assert is_hung_up_on(client)
        until(lambda: server.refused("handshake") == 2)


def test_a_client_that_shakes_hands_and_is_silent_is_hung_up_on(place: Place) -> None:
    """The deadline for the question is the same as in the clear."""
    with running(place.config, client_timeout_seconds=0.2, context=place.client()) as server:
        connection = server.connect()
        connection.connect()
        assert is_hung_up_on(connection.sock)
        until(lambda: server.refused("slow") == 1)


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_client_that_never_reads_is_hung_up_on(place: Place, encrypted: bool) -> None:
    """Its page is thrown away after its time, with what it costs in memory; others are served meanwhile."""
    place.write(TLS if encrypted else "{}")
    context = place.client() if encrypted else None
    with running(place.config, APP, client_timeout_seconds=0.5, context=context) as server:
        lazy = server.connect()
        lazy.request("GET", "/big")
        assert server.get("/metrics")[2] == b"well"
        until(lambda: server.refused("slow") >= 1)
        with pytest.raises((http.client.HTTPException, OSError)):
            lazy.getresponse().read()


def _never_asks(server: Running) -> socket.socket:
    return server.knock()


def _asks_by_halves(server: Running) -> socket.socket:
    client = server.knock()
    client.sendall(b"\x16\x03\x01\x02\x00\x01" if server.context else b"GET / HTTP/1.1\r\n")
    return client


def _never_reads(server: Running, path: str = "/big") -> socket.socket:
    connection = server.connect()
    connection.request("GET", path)
    assert connection.sock is not None
    return connection.sock


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("rude", [_never_asks, _asks_by_halves, _never_reads])
def test_two_hundred_rude_clients_hold_up_nobody(
    place: Place, encrypted: bool, rude: Callable[[Running], socket.socket]
) -> None:
    """With all of them there and none timed out, health is told and a scrape gets through, at once."""
    place.write(TLS if encrypted else "{}")
    context = place.client() if encrypted else None
    with running(place.config, APP, context=context) as server, ExitStack() as stack:
        for _ in range(FLOOD if rude is not _never_reads else FLOOD // 5):
            stack.callback(rude(server).close)
        for _ in range(3):
            assert server.get("/-/healthy")[2] == b"well"
            assert server.get("/metrics")[2] == b"well"
        assert server.refused("crowded") > 0
        assert [server.refused(reason) for reason in ("slow", "handshake")] == [0, 0]


def test_pages_that_nobody_reads_are_bounded(place: Place) -> None:
    """However many are asked for and left lying, no more than a limit is kept, and the newest of it."""
    place.write(TLS)
    with running(place.config, APP, context=place.client()) as server, ExitStack() as stack:
        for _ in range(2 * MOST_UNREAD_BYTES // HUGE_BYTES):
            stack.callback(_never_reads(server, "/huge").close)
        last = server.connect()
        last.request("GET", "/huge")
        until(lambda: server.refused("crowded") > 0)
        crowd = server.server._house.crowd._seats
        until(lambda: sum(gate.unread_bytes for gate in list(crowd)) <= MOST_UNREAD_BYTES)
        assert len(last.getresponse().read()) == HUGE_BYTES
        last.close()


def test_a_crowd_of_one_address_does_not_drive_out_another(place: Place) -> None:
    """The open connection of a scraper stays while two hundred come from elsewhere."""
    with (
        running(place.config, APP, context=place.client(), max_connections=32) as server,
        ExitStack() as stack,
    ):
        scraper = server.connect(source="127.0.0.2")
        assert ask(scraper, "/metrics", basic())[0] == 200
        sock = scraper.sock
        for _ in range(FLOOD):
            stack.callback(server.knock().close)
        assert ask(scraper, "/metrics", basic())[0] == 200
        assert scraper.sock is sock
        assert server.refused("crowded") > 0
        scraper.close()


def test_stop_does_not_wait_for_handshakes(place: Place) -> None:
    """Connections that never came to anything do not keep the sidecar from ending."""
    with running(place.config) as server, ExitStack() as stack:
        clients = [stack.enter_context(server.knock()) for _ in range(8)]
        server.server.stop(PATIENCE_SECONDS)
        assert all(is_hung_up_on(client) for client in clients)
