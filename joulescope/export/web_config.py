"""The web configuration file: TLS, client certificates, passwords and headers of the sidecar's pages.

Its format is that of Prometheus' own exporters (https://github.com/prometheus/exporter-toolkit,
``docs/web-configuration.md``), so that one file serves node_exporter and joulescope. What Python's ``ssl``
cannot do is refused, and so is every key that is not known: a security setting is never passed over.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import bcrypt

from joulescope.export.web_config_file import Block, Sources, top_block

SECTIONS = ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
TLS_KEYS = (
    "cert",
    "key",
    "client_ca",
    "cert_file",
    "key_file",
    "client_ca_file",
    "client_auth_type",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "prefer_server_cipher_suites",
    "curve_preferences",
)
HEADERS: Mapping[str, tuple[str, ...]] = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}
"""Headers that may be set, and the values that do; none named: any."""

VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
"""Go's ways to ask a client for its certificate that Python's ``ssl`` has too, weakest first."""

UNVERIFIED = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
"""Go's ways that take any certificate; the last is an old name of the second."""

MOST_COST = 14
"""Highest cost of a bcrypt hash: a second or so for each check. 31, the most there is, would take days."""

MOST_BURST = 1_000_000
_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class TlsServer:
    """The section ``tls_server_config``, with what its files held when it was read."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_auth: ssl.VerifyMode = ssl.CERT_NONE
    client_ca: bytes = b""
    allowed_sans: frozenset[str] | None = None
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    cipher_suites: tuple[str, ...] = ()
    prefer_server_cipher_suites: bool = True
    curves: tuple[str, ...] = ()

    @property
    def client_rule(self) -> tuple[object, ...]:
        """Who may connect: a connection that was let in by another rule is not to be served further."""
        return (self.client_auth, self.client_ca, self.allowed_sans)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A bucket of ``burst`` requests, into which one more falls each ``interval_seconds``."""

    interval_seconds: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebConfig:
    """A whole file; without any section everybody may ask, in the clear."""

    tls: TlsServer | None = None
    users: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """bcrypt hashes by user name; empty: nobody needs a password."""
    headers: Mapping[str, str] = field(default_factory=dict)
    http2: bool = False
    """Whether HTTP/2 is asked for in so many words. It is not spoken: clients agree on HTTP/1.1."""
    rate_limit: RateLimit | None = None


def load(path: Path, sources: Sources) -> WebConfig:
    """Reads the file and those that it names; relative names are relative to its folder.

    Raises:
        ConfigError: with file, line and key, if it cannot be used as it stands.
    """
    top = top_block(path, sources, SECTIONS)
    http = top.block("http_server_config", ("http2", "headers"))
    return WebConfig(
        tls=_tls(top.block("tls_server_config", TLS_KEYS), path.parent, sources),
        users=_users(top.block("basic_auth_users", None)),
        headers=_headers(http.block("headers", tuple(HEADERS))),
        http2=http.flag("http2", False),
        rate_limit=_rate_limit(top.block("rate_limit", ("interval", "burst"))),
    )


def _tls(block: Block, folder: Path, sources: Sources) -> TlsServer | None:
    if not block:
        return None
    material = {name: _material(block, name, folder, sources) for name in ("cert", "key", "client_ca")}
    for name in ("cert", "key"):
        if not material[name]:
            raise block.error("", f"needs {name} or {name}_file: TLS is not possible without")
    lowest, highest = _version(block, "min_version", "TLS12"), _version(block, "max_version", "TLS13")
    if lowest > highest:
        raise block.error("min_version", "is above max_version: nobody could connect")
    return TlsServer(
        certificate=material["cert"],
        key=material["key"],
        client_auth=_client_auth(block, material["client_ca"]),
        client_ca=material["client_ca"],
        allowed_sans=_allowed_sans(block),
        min_version=lowest,
        max_version=highest,
        cipher_suites=tuple(block.texts("cipher_suites") or ()),
        prefer_server_cipher_suites=block.flag("prefer_server_cipher_suites", True),
        curves=tuple(block.texts("curve_preferences") or ()),
    )


def _material(block: Block, name: str, folder: Path, sources: Sources) -> bytes:
    """A PEM text that stands in the file itself or in another."""
    inline, named = block.text(name), block.text(f"{name}_file")
    if inline and named:
        raise block.error(name, f"is given, and {name}_file too; keep one of them")
    if named:
        return sources.read(folder / named, block.place(f"{name}_file"))
    return inline.encode()


def _version(block: Block, key: str, default: str) -> ssl.TLSVersion:
    text = block.text(key) or default
    if text in ("TLS10", "TLS11"):
        raise block.error(
            key, "is a version that is broken (RFC 8996) and not spoken here; use TLS12 or TLS13"
        )
    if text not in VERSIONS:
        raise block.error(key, "is TLS12 or TLS13")
    return VERSIONS[text]


def _client_auth(block: Block, client_ca: bytes) -> ssl.VerifyMode:
    text = block.text("client_auth_type") or "NoClientCert"
    if text in UNVERIFIED:
        raise block.error(
            "client_auth_type",
            f"{text} takes any certificate, which protects nothing and which Python's ssl cannot do; use "
            "RequireAndVerifyClientCert with client_ca_file, or NoClientCert",
        )
    if text not in CLIENT_AUTH:
        raise block.error("client_auth_type", f"is one of {', '.join(CLIENT_AUTH)}")
    mode = CLIENT_AUTH[text]
    if client_ca and mode == ssl.CERT_NONE:
        raise block.error(
            "client_ca_file", "is given, and client_auth_type asks for no certificate; set both"
        )
    if not client_ca and mode != ssl.CERT_NONE:
        raise block.error(
            "client_auth_type",
            "needs client_ca_file or client_ca: without, every holder of a public certificate could connect",
        )
    return mode


def _allowed_sans(block: Block) -> frozenset[str] | None:
    names = block.texts("client_allowed_sans")
    if names is None:
        return None
    if block.text("client_auth_type") != "RequireAndVerifyClientCert":
        raise block.error(
            "client_allowed_sans",
            "needs client_auth_type RequireAndVerifyClientCert: who shows no "
            "certificate has no name to compare",
        )
    if not names:
        raise block.error("client_allowed_sans", "is empty: nobody could connect; name some, or leave it out")
    return frozenset(names)


def _users(block: Block) -> Mapping[str, bytes]:
    users = {}
    for name in block.names():
        if not name or ":" in name:
            raise block.error(name, "is no user name: it is not empty and has no colon")
        users[name] = _hash(block, name)
    return users


def _hash(block: Block, user: str) -> bytes:
    """A hash that a check will understand. What stands there is not repeated: it may be a password."""
    text = block.text(user)
    found = _HASH.fullmatch(text)
    if found is None:
        raise block.error(user, "has no bcrypt hash as its value; make one with: htpasswd -nBC 10 ''")
    if not 4 <= int(found[1]) <= MOST_COST:
        raise block.error(
            user, f"has a hash of cost {int(found[1])}: each check would take long; 10 to {MOST_COST} will do"
        )
    hashed = text.encode("ascii")
    try:
        bcrypt.checkpw(b"", hashed[:4] + b"04" + hashed[6:])  # at the least cost: is its salt one?
    except ValueError:
        raise block.error(user, "has a damaged bcrypt hash; make a new one: htpasswd -nBC 10 ''") from None
    return hashed


def _headers(block: Block) -> Mapping[str, str]:
    headers = {}
    for name in block.names():
        value = block.text(name)
        allowed: Sequence[str] = HEADERS[name]
        if allowed and value not in allowed:
            raise block.error(name, f"is {' or '.join(allowed)}")
        if not (value.isascii() and (value.isprintable())):
            raise block.error(name, "has characters that no header can carry")
        if value:
            headers[name] = value
    return headers


def _rate_limit(block: Block) -> RateLimit | None:
    if not block:
        return None
    interval_seconds = _duration(block, "interval")
    if interval_seconds == 0.0:
        return None
    burst = block.text("burst")
    if not (burst.isascii() and burst.isdigit() and 1 <= int(burst) <= MOST_BURST):
        raise block.error("burst", f"is a number of requests from 1 to {MOST_BURST}: with 0 none would pass")
    return RateLimit(interval_seconds, int(burst))


def _duration(block: Block, key: str) -> float:
    """Seconds of a duration as Go writes it: ``1s``, ``250ms``, ``1m30s``."""
    text = block.text(key) or "0"
    if text == "0":
        return 0.0
    if _DURATION.sub("", text):
        raise block.error(key, "is a duration with its unit, such as 1s or 250ms")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))
