"""What a TLS section comes to, seen by real handshakes in memory."""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from joulescope.errors import ConfigError
from joulescope.export.web_config import TlsServer, load
from joulescope.export.web_config_file import Sources
from joulescope.export.web_config_tls import CURVES, TLS12_SUITES, TLS13_SUITES, allowed, build_context
from tests.export.certificates import HOST, MUTUAL, TLS, Place, certificate, make_place

ECDSA_128, ECDSA_256 = (f"TLS_ECDHE_ECDSA_WITH_AES_{bits}" for bits in ("128_GCM_SHA256", "256_GCM_SHA384"))
RSA_128 = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


def tls_of(place: Place, text: str = TLS) -> TlsServer:
    tls = load(place.write(text), Sources()).tls
    assert tls is not None
    return tls


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both sides after a handshake, and a byte each way: in TLS 1.3 a refusal comes with the first read."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(up, down, server_side=True)
    theirs = client.wrap_bio(down, up, server_hostname=HOST)
    for _ in range(6):
        for side in (theirs, ours):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    ours.write(b"x")
    assert theirs.read(1) == b"x"
    return ours, theirs


def test_a_client_that_knows_the_authority_connects(place: Place) -> None:
    """TLS 1.3, HTTP/1.1 agreed upon, and no ticket: no session is resumed."""
    context, facts = build_context(tls_of(place))
    client = place.client()
    client.set_alpn_protocols(["h2", "http/1.1"])
    _, theirs = shake(context, client)
    assert (theirs.version(), theirs.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
    assert theirs.session is None or not theirs.session.has_ticket
    assert facts is not None
    assert set(facts.names) == {HOST, "127.0.0.1"}
    assert facts.not_before_seconds < facts.not_after_seconds


def test_the_key_touches_no_disk(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """No temporary file is made on the way to OpenSSL, and none is left open."""
    monkeypatch.setenv("TMPDIR", str(place.folder / "none"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    build_context(tls_of(place))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("lines", "version"), [("min_version: TLS13", "TLSv1.3"), ("max_version: TLS12", "TLSv1.2")]
)
def test_versions_are_those_of_the_file(place: Place, lines: str, version: str) -> None:
    """A client that insists on the other version is refused."""
    context, _ = build_context(tls_of(place, TLS + f"  {lines}\n"))
    assert shake(context, place.client())[1].version() == version
    other = place.client()
    if version == "TLSv1.3":
        other.maximum_version = ssl.TLSVersion.TLSv1_2
    else:
        other.minimum_version = ssl.TLSVersion.TLSv1_3
    with pytest.raises(ssl.SSLError):
        shake(context, other)


def test_suites_are_those_of_the_file_in_its_order(place: Place) -> None:
    """One suite is agreed upon by order of the server, or of the client where the file says so."""
    tls = replace(tls_of(place, TLS + "  max_version: TLS12\n"), cipher_suites=(ECDSA_256, ECDSA_128))
    client = place.client()
    client.set_ciphers(":".join(TLS12_SUITES[name] for name in (ECDSA_128, ECDSA_256)))
    assert shake(build_context(tls)[0], client)[1].cipher()[0] == TLS12_SUITES[ECDSA_256]  # type: ignore[index]
    theirs = replace(tls, prefer_server_cipher_suites=False)
    assert shake(build_context(theirs)[0], client)[1].cipher()[0] == TLS12_SUITES[ECDSA_128]  # type: ignore[index]
    client.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
    with pytest.raises(ssl.SSLError):
        shake(build_context(tls)[0], client)


def test_every_suite_that_is_offered_is_there(place: Place) -> None:
    """This OpenSSL has all suites that Go lists."""
    build_context(replace(tls_of(place), cipher_suites=(*TLS12_SUITES, *TLS13_SUITES)))


def test_suites_of_tls13_alone_leave_no_older_version(place: Place) -> None:
    """Who lists no suite of TLS 1.2 gets none."""
    context, _ = build_context(replace(tls_of(place), cipher_suites=tuple(TLS13_SUITES)))
    old = place.client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake(context, old)


def can_insist_on_x25519() -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ecdh_curve("X25519")
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", CURVES)
def test_one_curve_can_be_insisted_on(place: Place, name: str) -> None:
    """Either a client without the curve is refused, or this Python says that it cannot insist on it."""
    tls = replace(tls_of(place), curves=(name,))
    other = place.client()
    other.set_ecdh_curve("prime256v1" if name != "CurveP256" else "secp384r1")
    if name == "X25519" and not can_insist_on_x25519():
        with pytest.raises(ConfigError, match="cannot be bound to X25519"):
            build_context(tls)
        return
    context, _ = build_context(tls)
    with pytest.raises(ssl.SSLError):
        shake(context, other)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cipher_suites": ("TLS_RSA_WITH_AES_128_CBC_SHA",)}, "is none of TLS_ECDHE"),
        ({"cipher_suites": ("TLS_AES_128_GCM_SHA256",)}, "name all three"),
        ({"cipher_suites": (RSA_128,), "max_version": ssl.TLSVersion.TLSv1_2}, "no client could connect"),
        (
            {"cipher_suites": tuple(TLS13_SUITES), "max_version": ssl.TLSVersion.TLSv1_2},
            "max_version is below",
        ),
        ({"curves": ("CurveP256", "X25519")}, "not to an order of several"),
        ({"curves": ("P-256",)}, "is none of CurveP256"),
        ({"certificate": b"x"}, "cert_file holds no certificate"),
        ({"key": b"x"}, "key_file holds no private key"),
        ({"certificate": b"-----BEGIN CERTIFICATE-----\nx\n"}, "cannot be used with its key: OpenSSL says"),
        ({"client_ca": b"x", "client_auth": ssl.CERT_REQUIRED}, "client_ca_file holds no certificate"),
        ({"client_ca": b"\xff", "client_auth": ssl.CERT_REQUIRED}, "client_ca_file holds no certificate"),
    ],
)
def test_what_ssl_cannot_do_is_said(place: Place, changes: dict[str, object], words: str) -> None:
    """Nothing is passed over: the part is named, and why."""
    with pytest.raises(ConfigError, match=words):
        build_context(replace(tls_of(place), **changes))  # type: ignore[arg-type]


def test_a_key_of_another_certificate(place: Place) -> None:
    """The usual slip of a renewal is named as such."""
    tls = tls_of(place)
    place.renew()
    with pytest.raises(ConfigError, match="the key does not belong to the certificate"):
        build_context(replace(tls, key=tls_of(place).key))


def test_an_encrypted_key_asks_nobody_for_a_passphrase(place: Place) -> None:
    """OpenSSL would prompt on the terminal; the sidecar has none."""
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(ConfigError, match="the key is encrypted"):
        build_context(replace(tls_of(place), key=pem))


@pytest.mark.parametrize("bits", [1024, 2048])
def test_a_short_key_is_refused_by_name(place: Place, bits: int) -> None:
    """1024 bits of RSA are too few for OpenSSL; 2048 do."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    key = rsa.generate_private_key(65537, bits)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")])
    leaf = certificate(place.authority, HOST)
    dates = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(dates.not_valid_before_utc)
        .not_valid_after(dates.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    tls = replace(
        tls_of(place),
        certificate=made.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ),
    )
    if bits < 2048:
        with pytest.raises(ConfigError, match="the certificate's key is too short"):
            build_context(tls)
    else:
        _, facts = build_context(tls)
        assert facts is not None
        assert facts.names == ("old",)


def test_an_expired_certificate_is_read_too(place: Place) -> None:
    """Its date is told, so that somebody can be warned; clients refuse it."""
    place.renew(days=-1)
    context, facts = build_context(tls_of(place))
    assert facts is not None
    assert facts.not_after_seconds < (place.folder / "server.pem").stat().st_mtime
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake(context, place.client())


def test_only_clients_of_the_authority_connect(place: Place) -> None:
    """Required: neither without a certificate, nor with another authority's, nor with an expired one."""
    context, _ = build_context(tls_of(place, MUTUAL))
    shake(context, place.client("prometheus.example"))
    expired = place.client()
    certificate(place.authority, "prometheus.example", days=-1).configure_cert(expired)
    for client in (place.client(), place.client("prometheus.example", authority=trustme.CA()), expired):
        with pytest.raises(ssl.SSLError):
            shake(context, client)


def test_a_certificate_that_is_given_is_verified(place: Place) -> None:
    """VerifyClientCertIfGiven: without one the client connects, with a strange one it does not."""
    context, _ = build_context(
        tls_of(place, MUTUAL.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven"))
    )
    ours, _ = shake(context, place.client())
    assert ours.getpeercert() is None
    shake(context, place.client("prometheus.example"))
    with pytest.raises(ssl.SSLError):
        shake(context, place.client("prometheus.example", authority=trustme.CA()))


@pytest.mark.parametrize(
    ("shown", "listed", "is_allowed"),
    [
        (("prometheus.example",), {"prometheus.example"}, True),
        (("other.example", "prometheus.example"), {"prometheus.example"}, True),
        (("prometheus.example",), {"example"}, False),
        (("*.example",), {"prometheus.example"}, False),
        (("10.0.0.7",), {"10.0.0.7"}, True),
        (("2001:db8::7",), {"2001:db8::7"}, True),
        (("2001:db8::7",), {"2001:DB8:0:0:0:0:0:7"}, False),
        (("mon@example.org",), {"mon@example.org"}, True),
        (("prometheus.example",), {""}, False),
    ],
)
def test_names_are_compared_exactly(
    place: Place, shown: tuple[str, ...], listed: set[str], is_allowed: bool
) -> None:
    """DNS names, addresses as Go writes them, and e-mail; no wildcard, no part of a name."""
    context, _ = build_context(tls_of(place, MUTUAL))
    ours, _ = shake(context, place.client(*shown))
    assert allowed(ours, frozenset(listed)) is is_allowed
    assert allowed(ours, None)
