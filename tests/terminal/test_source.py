"""Which sidecar is asked and how, over real sockets, with and without TLS."""

from __future__ import annotations

import base64
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from joulescope import __version__
from joulescope.config import Settings
from joulescope.daemon.daemon import Daemon
from joulescope.errors import ConfigError
from joulescope.export.http import create_app
from joulescope.export.http_server import HttpServer
from joulescope.export.requests_json import RequestsView, encode_requests
from joulescope.export.snapshot_json import encode_snapshot
from joulescope.terminal.source import HttpSource, SourceError
from joulescope.terminal.target import target_of
from tests.export.certificates import TLS, USERS, make_place
from tests.export.samples import finished, rich_snapshot, running
from tests.terminal.scenes import snapshots

Answer = tuple[int, bytes]


class Peer(http.server.ThreadingHTTPServer):
    """A server that answers as it is told, and notes what it was asked."""

    daemon_threads = True

    def __init__(self, answer: Callable[[str], Answer], tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.connections = 0
        self.closes = False
        """Whether connections are closed after an answer without a word, as an impatient server does."""
        peer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                peer.connections += 1
                super().setup()

            def do_GET(self) -> None:
                peer.asked.append((self.path, dict(self.headers)))
                status, body = answer(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = peer.closes

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.scheme = "http" if tls is None else "https"

    def handle_error(self, *_: object) -> None:
        """A client that refuses the certificate is no news."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(answer: Callable[[str], Answer], tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    peer = Peer(answer, tls)
    thread = threading.Thread(target=peer.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        peer.shutdown()
        peer.server_close()


def sidecar(path: str) -> Answer:
    """What a sidecar answers."""
    snapshot, _ = snapshots()
    if path.endswith("/api/snapshot"):
        return 200, encode_snapshot(snapshot)
    if path.endswith("/api/requests"):
        return 200, encode_requests(RequestsView.of(snapshot, [running()], [finished()]))
    return 404, b""


def error_of(answer: Callable[[str], Answer]) -> SourceError:
    with serving(answer) as peer, pytest.raises(SourceError) as caught:
        HttpSource(target_of(peer.url)).read()
    return caught.value


def test_a_real_sidecars_pages_are_read() -> None:
    """Snapshot and requests over one connection; the version is the sidecar's."""
    snapshot, _ = snapshots()
    app = create_app(
        lambda: snapshot, lambda: (True, "ready"), get_requests=lambda: ([running()], [finished()])
    )
    server = HttpServer("127.0.0.1", 0, app)
    host, port = server.start()
    try:
        reading = HttpSource(target_of(f"http://{host}:{port}")).read()
    finally:
        server.stop()
    assert reading.snapshot == snapshot
    assert reading.requests is not None
    assert reading.requests.open == (running(),)
    assert reading.version == __version__


def test_why_a_sidecar_is_not_ready_is_read() -> None:
    """Its own words come along; where it is ready there are none."""

    def unready(path: str) -> Answer:
        return (503, b"no GPU answers\n") if path == "/-/ready" else sidecar(path)

    with serving(unready) as peer:
        assert HttpSource(target_of(peer.url)).read().complaint == "no GPU answers"
    with serving(sidecar) as peer:
        assert HttpSource(target_of(peer.url)).read().complaint == ""


def test_one_connection_is_kept_and_renewed() -> None:
    """Many readings take one connection; when the server has closed it, the next takes another."""
    with serving(sidecar) as peer:
        source = HttpSource(target_of(peer.url))
        for _ in range(5):
            source.read()
        assert peer.connections == 1
        peer.closes = True
        source.read()
        source.read()
        assert peer.connections > 1


def test_an_older_sidecar_has_no_requests() -> None:
    """Without that page the snapshot is shown alone."""
    with serving(lambda path: sidecar(path) if path == "/api/snapshot" else (404, b"")) as peer:
        assert HttpSource(target_of(peer.url)).read().requests is None


@pytest.mark.parametrize(
    ("answer", "words", "passing"),
    [
        ((401, b""), "wants a user and a password", False),
        ((403, b""), "may not read it", False),
        ((404, b""), "something else than a sidecar", False),
        ((301, b""), "sends on to another place", True),
        ((503, b""), "too many pages", True),
        ((500, b""), "HTTP status 500", True),
        ((200, b"<html>"), "is no sidecar's", False),
        ((200, b'{"joulescope_version": "9.9", "snapshot": {}}'), "is joulescope 9.9 and this is", False),
    ],
)
def test_other_answers_are_named(answer: Answer, words: str, passing: bool) -> None:
    """What is there instead, what to do, and whether waiting may help."""
    error = error_of(lambda path: answer)
    assert words in str(error)
    assert error.passing == passing


def test_a_version_that_cannot_be_read_says_what_to_run() -> None:
    """The message names both versions, the field, and the way out."""
    body = (
        encode_snapshot(rich_snapshot())
        .replace(b'"time_ns"', b'"time_of_day"')
        .replace(f'"{__version__}"'.encode(), b'"7.0.0"')
    )
    text = str(error_of(lambda path: (200, body)))
    assert f"is joulescope 7.0.0 and this is {__version__}" in text
    assert "time_ns" in text
    assert "run the joulescope top of the sidecar's version" in text


def test_nobody_there_is_named() -> None:
    """The address, the cause, and what to do; trying again may help."""
    with pytest.raises(
        SourceError, match=r"no sidecar answers at http://127\.0\.0\.1:1: Connection refused"
    ) as caught:
        HttpSource(target_of("http://127.0.0.1:1")).read()
    assert caught.value.passing
    assert "--url" in str(caught.value)


def test_a_server_that_does_not_answer_is_given_up() -> None:
    """After the timeout, with its length."""
    release = threading.Event()

    def hang(path: str) -> Answer:
        release.wait(20.0)
        return 200, b""

    with serving(hang) as peer:
        with pytest.raises(SourceError, match=r"no answer within 0\.2 s"):
            HttpSource(target_of(peer.url), timeout_seconds=0.2).read()
        release.set()


# -------------------------------------------------------------------------------- who asks, and TLS


def test_credentials_of_the_url_are_sent_and_never_shown() -> None:
    """User and password, percent-encoded in the URL, are in the header and in no message."""
    with serving(sidecar) as peer:
        target = target_of(peer.url.replace("://", "://op%40site:s%3Acret@"))
        HttpSource(target).read()
    sent = peer.asked[0][1]["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent).decode() == "op@site:s:cret"
    assert "cret" not in repr(target)
    assert "cret" not in target.shown
    with pytest.raises(SourceError) as caught:
        HttpSource(target_of("http://op:secret@127.0.0.1:1")).read()
    assert "secret" not in str(caught.value)


def test_credentials_of_a_netrc_file(tmp_path: Path) -> None:
    """Those of the host; the URL's own win; a file without the host, or none at all, is an error."""
    path = tmp_path / "netrc"
    path.write_text("machine node-1 login prom password sesame\n")
    header = target_of("http://node-1:5685", netrc_file=path).headers["Authorization"]
    assert base64.b64decode(header.removeprefix("Basic ")).decode() == "prom:sesame"
    own = target_of("http://me:mine@node-1:5685", netrc_file=path).headers["Authorization"]
    assert base64.b64decode(own.removeprefix("Basic ")).decode() == "me:mine"
    with pytest.raises(ConfigError, match="no entry for the host node-2"):
        target_of("http://node-2", netrc_file=path)
    with pytest.raises(ConfigError, match="there is no file"):
        target_of("http://node-1", netrc_file=tmp_path / "none")
    path.write_text("machine node-1 lgin prom\n")
    with pytest.raises(ConfigError, match="line 1"):
        target_of("http://node-1", netrc_file=path)


def test_a_password_from_a_file(tmp_path: Path) -> None:
    """Its first line, for the user of the URL; without a user, or a file that is no text, it is an error."""
    path = tmp_path / "password"
    path.write_text("sésame ouvre\nnot this\n")
    header = target_of("http://op@node-1", password_file=path).headers["Authorization"]
    assert base64.b64decode(header.removeprefix("Basic ")).decode() == "op:sésame ouvre"
    with pytest.raises(ConfigError, match="write the user into the URL"):
        target_of("http://node-1", password_file=path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"--password-file: .* no text in UTF-8"):
        target_of("http://op@node-1", password_file=path)


def test_a_guarded_sidecar_is_read(tmp_path: Path) -> None:
    """A real one behind TLS and passwords: who knows one is let in, others are told what is wanted."""
    place = make_place(tmp_path, TLS + USERS)
    settings = Settings(
        socket=str(tmp_path / "s"),
        listen="127.0.0.1:0",
        sensor="none",
        host="off",
        web_config_file=str(place.config),
    )
    daemon = Daemon.build(settings, environ={})
    daemon.start()
    try:
        ca_file = str(tmp_path / "ca.pem")
        url = f"https://prometheus:open%3A s%C3%A9same@127.0.0.1:{daemon.address[1]}"
        source = HttpSource(target_of(url, ca_file=ca_file))
        for _ in range(3):
            assert source.read().requests is not None
        stranger = HttpSource(target_of(url.replace("open", "shut"), ca_file=ca_file))
        with pytest.raises(SourceError, match="HTTP status 401; it wants a user and a password") as caught:
            stranger.read()
        assert not caught.value.passing
        assert "same" not in str(caught.value)
    finally:
        daemon.close()


def test_a_path_before_the_pages_is_kept() -> None:
    """A sidecar behind a proxy's path."""
    with serving(sidecar) as peer:
        HttpSource(target_of(f"{peer.url}/energy/")).read()
    assert [path for path, _ in peer.asked] == [
        "/energy/api/snapshot",
        "/energy/api/requests",
        "/energy/-/ready",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host",
        "http://",
        "http://host:99999",
        "http://host:0",
        "http://ho st/\r\nX: y",
        "http://[::1",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    """The option and an example are named."""
    with pytest.raises(ConfigError, match=r"--url .* http://127\.0\.0\.1:5685"):
        target_of(url)


def test_a_host_alone_is_enough() -> None:
    """``node-1:5685`` means http; IPv6 keeps its brackets."""
    assert target_of("node-1:5685").shown == "http://node-1:5685"
    v6 = target_of("http://[::1]:5685")
    assert (v6.shown, v6.host, v6.port) == ("http://[::1]:5685", "::1", 5685)
    assert target_of("https://node-1").port == 443


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """An authority whose certificate is in ``ca.pem``, and a client's pair in ``client.pem`` and ``.key``."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    client = authority.issue_cert("operator@example.org")
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
    client.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    return authority


def tls_of(authority: trustme.CA, *, wants_client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    if wants_client:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_tls_with_an_authority_of_ones_own(authority: trustme.CA, tmp_path: Path) -> None:
    """With ``--ca-file`` it is read; without, the message names the option, and waiting does not help."""
    with serving(sidecar, tls_of(authority)) as peer:
        assert HttpSource(target_of(peer.url, ca_file=str(tmp_path / "ca.pem"))).read().requests is not None
        with pytest.raises(SourceError, match=r"its certificate does not do.*--ca-file") as caught:
            HttpSource(target_of(peer.url)).read()
    assert not caught.value.passing


def test_tls_that_wants_a_client(authority: trustme.CA, tmp_path: Path) -> None:
    """With the pair it is read; without, the message speaks of --client-cert."""
    ca_file = str(tmp_path / "ca.pem")
    pair = {"client_cert": str(tmp_path / "client.pem"), "client_key": str(tmp_path / "client.key")}
    with serving(sidecar, tls_of(authority, wants_client=True)) as peer:
        HttpSource(target_of(peer.url, ca_file=ca_file, **pair)).read()
        with pytest.raises(SourceError, match=r"--client-cert|Connection reset"):
            HttpSource(target_of(peer.url, ca_file=ca_file)).read()


def test_plain_http_where_tls_is_spoken_is_named(authority: trustme.CA) -> None:
    """And the other way round."""
    with serving(sidecar, tls_of(authority)) as peer, pytest.raises(SourceError, match="no sidecar answers"):
        HttpSource(target_of(peer.url.replace("https", "http"))).read()
    with serving(sidecar) as peer, pytest.raises(SourceError, match="TLS fails"):
        HttpSource(target_of(peer.url.replace("http", "https"))).read()


def test_files_that_will_not_do_are_named(tmp_path: Path) -> None:
    """The option and the file, whatever is wrong with it."""
    (tmp_path / "x.pem").write_text("nothing")
    path = str(tmp_path / "x.pem")
    with pytest.raises(ConfigError, match=r"--ca-file .*x\.pem"):
        target_of("https://node-1", ca_file=path)
    with pytest.raises(ConfigError, match=r"--client-cert .*x\.pem"):
        target_of("https://node-1", client_cert=path)
    with pytest.raises(ConfigError, match="give --client-cert too"):
        target_of("https://node-1", client_key=path)
    with pytest.raises(ConfigError, match="need an https URL"):
        target_of("http://node-1", ca_file=path)
