"""Asking a sidecar behind TLS and a password, over real sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from joulescope.clock import SystemClock
from joulescope.errors import ConfigError, FetchError
from joulescope.export.snapshot_json import decode_snapshot
from joulescope.web_client import Access, SidecarClient
from tests.export.certificates import HOST, MUTUAL, PASSWORD, TLS, USER, USERS, Place, certificate, make_place
from tests.export.samples import rich_snapshot
from tests.export.web_server import Running, running

QUOTED = "open%3A%20s%C3%A9same"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path, TLS + USERS)


def client(
    server: Running, login: str = "", access: Access | None = None, scheme: str = "https"
) -> SidecarClient:
    return SidecarClient(f"{scheme}://{login}{HOST}:{server.address[1]}/", SystemClock(), access)


def access(place: Place, **more: object) -> Access:
    return Access(ca_file=str(place.folder / "ca.pem"), **more)  # type: ignore[arg-type]


def test_the_password_stands_in_the_url(place: Place) -> None:
    """%-encoded where it has a colon; it is not in the URL that messages show."""
    with running(place.config) as server:
        sidecar = client(server, f"{USER}:{QUOTED}@", access(place))
        assert decode_snapshot(sidecar.get("/api/snapshot")).gpus == rich_snapshot().gpus
        assert sidecar.url == f"https://{HOST}:{server.address[1]}"


def test_the_password_stands_in_a_file(place: Place) -> None:
    """It is read at each request: a password that is changed is found without a restart."""
    secret = place.folder / "password"
    secret.write_text("old\n")
    with running(place.config) as server:
        sidecar = client(server, f"{USER}@", access(place, password_file=str(secret)))
        with pytest.raises(FetchError, match="it wants another user or password") as caught:
            sidecar.get("/metrics")
        assert "old" not in str(caught.value)
        secret.write_text(f"{PASSWORD}\n", encoding="utf-8")
        assert sidecar.get("/metrics")


def test_an_authority_that_is_not_known(place: Place) -> None:
    """It is said what is missing; whoever insists gets through all the same."""
    with running(place.config) as server:
        with pytest.raises(FetchError, match=r"does not do.*name the authority that signed it") as caught:
            client(server).get("/-/healthy")
        assert caught.value.reason == "unreachable"
        assert client(server, access=Access(insecure=True)).get("/-/healthy")


def test_a_client_certificate_is_shown(place: Place) -> None:
    """Certificate and key may stand in one file or in two."""
    place.write(MUTUAL)
    pair = certificate(place.authority, "me.example")
    both, key = place.folder / "both.pem", place.folder / "me.key"
    pair.private_key_and_cert_chain_pem.write_to_path(both)
    pair.private_key_pem.write_to_path(key)
    with running(place.config) as server:
        assert client(server, access=access(place, cert_file=str(both))).get("/metrics")
        assert client(server, access=access(place, cert_file=str(both), key_file=str(key))).get("/metrics")
        with pytest.raises(FetchError):
            client(server, access=access(place)).get("/metrics")


def test_no_proxy_stands_before_this_machine(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sidecar on the loopback is asked itself, whatever proxy is set."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with running(place.config) as server:
        assert client(server, access=access(place)).get("/-/healthy")


def test_without_tls_nothing_of_it_is_needed(tmp_path: Path) -> None:
    """A sidecar in the clear is asked as before."""
    with running(None) as server:
        assert client(server, scheme="http").get("/metrics")


@pytest.mark.parametrize(
    ("url", "files", "words"),
    [
        ("localhost:5685", {}, "begins with http:// or https://"),
        ("https://", {}, "names a host"),
        ("https://a:b", {}, "is none"),
        ("https://a", {"ca_file": "none"}, "none: holds no certificates"),
        ("https://a", {"ca_file": "web.yml"}, "web.yml: holds no certificates"),
        ("https://a", {"cert_file": "ca.pem"}, "is no certificate with its key"),
        ("https://a", {"key_file": "server.key"}, "a key and no certificate"),
        ("https://a", {"password_file": "none"}, "no user"),
    ],
)
def test_what_is_no_use_is_said_before_anybody_is_asked(
    place: Place, url: str, files: dict[str, str], words: str
) -> None:
    """The flag's file is named, and what it should hold."""
    paths = {name: str(place.folder / file) for name, file in files.items()}
    with pytest.raises(ConfigError, match=words):
        SidecarClient(url, SystemClock(), Access(**paths))  # type: ignore[arg-type]


def test_a_password_file_that_is_not_there(place: Place) -> None:
    """It is named when it is needed."""
    sidecar = SidecarClient("http://a@b", SystemClock(), Access(password_file=str(place.folder / "none")))
    with pytest.raises(ConfigError, match="none: the password cannot be read"):
        sidecar.get("/")
