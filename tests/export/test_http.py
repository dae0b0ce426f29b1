"""The HTTP server, asked over real sockets."""

from __future__ import annotations

import gzip
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from joulescope import __version__
from joulescope.errors import ConfigError
from joulescope.export.http import Slots, create_app
from joulescope.export.http_server import HttpServer
from joulescope.export.snapshot_json import decode_snapshot, encode_snapshot
from joulescope.host_model import HostTotals
from joulescope.model import Snapshot
from tests.export.samples import GPU_A, engine_a, rich_snapshot

PATIENCE_SECONDS = 20.0


def always_ready() -> tuple[bool, str]:
    return True, "ready"


@contextmanager
def serving(
    get_snapshot: Callable[[], Snapshot] = rich_snapshot,
    get_ready: Callable[[], tuple[bool, str]] = always_ready,
    client_timeout_seconds: float = PATIENCE_SECONDS,
    max_concurrent_scrapes: int = 8,
) -> Iterator[tuple[str, int]]:
    """A server on a free port of the loopback."""
    app = create_app(get_snapshot, get_ready, max_concurrent_scrapes=max_concurrent_scrapes)
    server = HttpServer("127.0.0.1", 0, app, client_timeout_seconds=client_timeout_seconds)
    try:
        yield server.start()
    finally:
        server.stop(PATIENCE_SECONDS)


def get(address: tuple[str, int], path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and body of one request."""
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE_SECONDS)
    try:
        connection.request(
            "GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def test_metrics_are_served_and_negotiated() -> None:
    """A scrape gets text, or OpenMetrics in gzip where it asks for that."""
    with serving() as address:
        status, headers, body = get(address, "/metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        assert b"joulescope_measured_energy_joules_total" in body
        _, headers, body = get(
            address, "/metrics", Accept="application/openmetrics-text;version=1.0.0", Accept_Encoding="gzip"
        )
        assert headers["content-encoding"] == "gzip"
        assert gzip.decompress(body).endswith(b"# EOF\n")


def test_two_scrapers_see_the_same() -> None:
    """Two scrapes of one snapshot are the same to the byte, the process's own figures included."""
    snapshot = rich_snapshot()
    with serving(lambda: snapshot) as address:
        first, second = (get(address, "/metrics")[2] for _ in range(2))
    assert b"\njoulescope_" in first
    assert b"\nprocess_cpu_seconds_total " in first
    assert first == second


def test_health_and_readiness() -> None:
    """Healthy means that the process answers; ready means that it can account, and else it says why not."""
    state = [(False, "no GPU answers")]
    with serving(get_ready=lambda: state[0]) as address:
        assert get(address, "/-/healthy")[0] == 200
        status, _, body = get(address, "/-/ready")
        assert (status, body) == (503, b"no GPU answers\n")
        state[0] = (True, "ready")
        assert get(address, "/-/ready")[0] == 200
        assert get(address, "/nothing")[0] == 404


def test_the_landing_page_shows_the_balance_and_escapes() -> None:
    """The page names version, GPUs and engines; markup in a model's name stays text."""
    engine = engine_a()
    engine = replace(engine, info=replace(engine.info, served_model="<script>alert(1)</script>\ud800"))
    snapshot = replace(rich_snapshot(), engines=(engine,))
    with serving(lambda: snapshot) as address:
        status, headers, body = get(address, "/")
    page = body.decode()
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in headers["content-security-policy"]
    for text in (__version__, GPU_A, "1.00 kJ measured", "attributed 800.25 J (80.0 %)", 'href="metrics"'):
        assert text in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_the_landing_page_shows_the_host_only_where_it_is_measured() -> None:
    """Domains have a table of their own; a host without counters has no empty one."""
    with serving(rich_snapshot) as address:
        page = get(address, "/")[2].decode()
    assert "<h2>CPU packages and DRAM</h2>" in page
    assert "<td>package-0</td><td>up</td><td>500.50 J</td><td>120.25 J</td>" in page
    with serving(lambda: replace(rich_snapshot(), host=HostTotals())) as address:
        assert "CPU packages" not in get(address, "/")[2].decode()


def test_the_landing_page_of_an_empty_sidecar() -> None:
    """Before anything is known the page says so instead of dividing by zero."""
    with serving(lambda: Snapshot(time_ns=0, wall_seconds=0.0)) as address:
        page = get(address, "/")[2].decode()
    assert "No energy measured yet." in page
    assert "No engine has connected yet." in page


def test_the_snapshot_comes_back_from_its_json() -> None:
    """``/api/snapshot`` holds every field: read back it equals the snapshot that was served."""
    snapshot = replace(rich_snapshot(), engines=(engine_a(),))
    with serving(lambda: snapshot) as address:
        status, headers, body = get(address, "/api/snapshot")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert decode_snapshot(body) == snapshot


def test_odd_text_in_the_json() -> None:
    """A lone surrogate in a model's name becomes a question mark instead of an error."""
    (_, engine) = decode_snapshot(encode_snapshot(rich_snapshot())).engines
    assert engine.info.model == 'a"b\\c\nd{}=,#é漢?'


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"snapshot": {"engines": [{"attributed_joules": {"a": 1}}]}}', b"not JSON"]
)
def test_a_foreign_answer_is_a_clear_error(body: bytes) -> None:
    """Something that is no snapshot raises ``ValueError``, whatever its shape."""
    with pytest.raises(ValueError, match=r"snapshot|malformed"):
        decode_snapshot(body)


def test_concurrent_scrapes_are_bounded() -> None:
    """With all slots taken a scrape gets 503 at once while health is still answered; then slots return."""
    entered, release = threading.Semaphore(0), threading.Event()

    def slow_snapshot() -> Snapshot:
        entered.release()
        release.wait(PATIENCE_SECONDS)
        return rich_snapshot()

    with serving(slow_snapshot, max_concurrent_scrapes=2) as address, ThreadPoolExecutor(2) as pool:
        under_way = [pool.submit(get, address, "/metrics") for _ in range(2)]
        assert entered.acquire(timeout=PATIENCE_SECONDS)
        assert entered.acquire(timeout=PATIENCE_SECONDS)
        status, headers, _ = get(address, "/metrics")
        assert (status, headers["retry-after"]) == (503, "1")
        assert get(address, "/-/healthy")[0] == 200
        release.set()
        assert [answer.result()[0] for answer in under_way] == [200, 200]
        assert get(address, "/metrics")[0] == 200


def test_one_address_does_not_take_all_slots() -> None:
    """Of eight pages six may be for one address; they come back, and others have theirs meanwhile."""
    slots = Slots(8)
    assert [slots.take("a") for _ in range(7)] == [True] * 6 + [False]
    assert [slots.take("b") for _ in range(3)] == [True, True, False]
    slots.give_back("a")
    assert [slots.take("b"), slots.take("a")] == [True, False]
    assert Slots(1).take("a")


def test_a_failing_snapshot_is_an_error_and_gives_its_slot_back() -> None:
    """A bug behind the snapshot costs its scrape a 500 and nothing else."""
    failing = [True]

    def get_snapshot() -> Snapshot:
        if failing.pop():
            failing.append(False)
            raise RuntimeError("a bug")
        failing.append(False)
        return rich_snapshot()

    with serving(get_snapshot, max_concurrent_scrapes=1) as address:
        assert get(address, "/metrics")[0] == 500
        assert get(address, "/metrics")[0] == 200


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTTP/1.1\r\nHost: x\r\n"])
def test_a_client_that_does_not_ask_is_hung_up_on(sent: bytes) -> None:
    """Neither an idle connection nor half a request is held open for ever."""
    with serving(client_timeout_seconds=0.05) as address, socket.create_connection(address) as client:
        client.settimeout(PATIENCE_SECONDS)
        client.sendall(sent)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""


def test_a_port_in_use_is_named_with_its_remedy() -> None:
    """Two servers on one port: the second says which port, and what to do."""
    with serving() as (host, port):
        second = HttpServer(host, port, create_app(rich_snapshot, always_ready))
        with pytest.raises(ConfigError, match=rf"{host}:{port}.*in use.*another port"):
            second.start()


@pytest.mark.parametrize(("host", "port"), [("256.0.0.1", 0), ("127.0.0.1", 70000), ("192.0.2.1", 0)])
def test_an_impossible_address_is_a_config_error(host: str, port: int) -> None:
    """A host that does not exist, a port out of range, an address of another machine."""
    with pytest.raises(ConfigError, match=host):
        HttpServer(host, port, create_app(rich_snapshot, always_ready)).start()


def test_the_port_is_free_after_stop() -> None:
    """Stopping closes the listener, a second stop does nothing, and the port can be taken again."""
    app = create_app(rich_snapshot, always_ready)
    server = HttpServer("127.0.0.1", 0, app)
    host, port = server.start()
    server.stop(PATIENCE_SECONDS)
    server.stop(PATIENCE_SECONDS)
    again = HttpServer(host, port, app)
    assert again.start() == (host, port)
    again.stop(PATIENCE_SECONDS)


def test_stop_does_not_wait_for_a_stuck_page() -> None:
    """A page that never comes cannot keep the sidecar from ending."""
    entered, release = threading.Event(), threading.Event()

    def stuck() -> Snapshot:
        entered.set()
        release.wait(PATIENCE_SECONDS)
        return rich_snapshot()

    server = HttpServer("127.0.0.1", 0, create_app(stuck, always_ready))
    address = server.start()
    with socket.create_connection(address) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert entered.wait(PATIENCE_SECONDS)
        server.stop(0.4)
        assert not release.is_set()
    release.set()
