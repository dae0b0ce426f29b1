"""From the section ``tls_server_config`` to a context of ``ssl`` that does what it says, or an error."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from joulescope.errors import ConfigError
from joulescope.export.web_config import TlsServer

TLS12_SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
}
"""The suites that Go's ``tls.CipherSuites()`` lists, and what OpenSSL calls them."""

TLS13_SUITES = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"})
CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
"""Curves by the names that the format has, and OpenSSL's names."""

_REASONS = {
    "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
    "EE_KEY_TOO_SMALL": "the certificate's key is too short for this OpenSSL",
    "CA_MD_TOO_WEAK": "the certificate is signed with a hash that is too weak for this OpenSSL",
}
_NO_CHECK_TIME = 0x200000
"""``X509_V_FLAG_NO_CHECK_TIME``, for which ``ssl`` has no name: an expired certificate is read too."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the certificate that is shown to clients says. Times are wall time, seconds."""

    names: tuple[str, ...]
    not_before_seconds: float
    not_after_seconds: float


def build_context(server: TlsServer) -> tuple[ssl.SSLContext, Certificate | None]:
    """A context, tried out by a handshake in memory, and the certificate, if it can be told.

    No session is ever resumed: each connection shows its certificate anew.

    Raises:
        ConfigError: if a part cannot be used, or no client could connect.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = server.min_version, server.max_version
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    _load_chain(context, server)
    _set_suites(context, server)
    _set_curves(context, server.curves)
    certificate = _try_out(context, server.certificate)
    if server.client_auth != ssl.CERT_NONE:
        _load_client_ca(context, server.client_ca)
        context.verify_mode = server.client_auth
    return context, certificate


def allowed(peer: ssl.SSLObject, names: frozenset[str] | None) -> bool:
    """Whether a client's certificate has one of the names: DNS, address, e-mail or URI."""
    if names is None:
        return True
    facts: Any = peer.getpeercert() or {}
    return any(_san(kind, value) in names for kind, value in facts.get("subjectAltName", ()))


def _san(kind: str, value: str) -> str:
    """A name as Go writes it: ``ssl`` spells out IPv6 addresses."""
    if kind != "IP Address":
        return value
    try:
        return str(ipaddress.ip_address(value.strip()))
    except ValueError:
        return ""


def _load_chain(context: ssl.SSLContext, server: TlsServer) -> None:
    if b"-----BEGIN CERTIFICATE-----" not in server.certificate:
        raise ConfigError("cert_file holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
    if b"PRIVATE KEY-----" not in server.key:
        raise ConfigError("key_file holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)")
    if b"ENCRYPTED PRIVATE KEY" in server.key or b"4,ENCRYPTED" in server.key:
        raise ConfigError("the key is encrypted, and the format has no place for its passphrase: decrypt it")
    try:
        with _in_memory(server.certificate) as certificate, _in_memory(server.key) as key:
            context.load_cert_chain(certificate, key, password=b"")
    except ssl.SSLError as problem:
        reason = _REASONS.get(problem.reason or "", f"OpenSSL says {problem.reason or problem}")
        raise ConfigError(f"the certificate cannot be used with its key: {reason}") from None
    except OSError as problem:
        raise ConfigError(f"the certificate cannot be handed to OpenSSL: {problem.strerror}") from None


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A file that is in memory only: ``ssl`` takes no other form of a key, and no key belongs on a disk."""
    with os.fdopen(os.memfd_create("joulescope-tls"), "wb") as file:
        file.write(data)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _load_client_ca(context: ssl.SSLContext, pem: bytes) -> None:
    try:
        context.load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError, ValueError):
        raise ConfigError("client_ca_file holds no certificate in PEM form") from None


def _set_suites(context: ssl.SSLContext, server: TlsServer) -> None:
    if not server.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if not server.cipher_suites:
        return
    asked = dict.fromkeys(server.cipher_suites)
    unknown = [name for name in asked if name not in TLS12_SUITES and name not in TLS13_SUITES]
    if unknown:
        raise ConfigError(f"cipher_suites: {', '.join(unknown)} is none of {', '.join(TLS12_SUITES)}")
    newer = TLS13_SUITES.intersection(asked)
    if newer and newer != TLS13_SUITES:
        raise ConfigError(
            "cipher_suites names some suites of TLS 1.3 and not others, among which Python's ssl cannot "
            f"choose: name all three ({', '.join(sorted(TLS13_SUITES))}) or none of them"
        )
    older = [TLS12_SUITES[name] for name in asked if name in TLS12_SUITES]
    if not older:
        _only_tls13(context)
        return
    try:
        context.set_ciphers(":".join(older))
    except ssl.SSLError:
        raise ConfigError("cipher_suites: this OpenSSL has none of them") from None
    missing = set(older) - {cipher["name"] for cipher in context.get_ciphers()}
    if missing:
        raise ConfigError(f"cipher_suites: this OpenSSL has no {', '.join(sorted(missing))}")


def _only_tls13(context: ssl.SSLContext) -> None:
    """No suite of TLS 1.2 is wanted: then that version is not either."""
    if context.maximum_version != ssl.TLSVersion.TLSv1_3:
        raise ConfigError("cipher_suites names suites of TLS 1.3 only, and max_version is below")
    context.minimum_version = ssl.TLSVersion.TLSv1_3


def _set_curves(context: ssl.SSLContext, curves: tuple[str, ...]) -> None:
    if not curves:
        return
    unknown = [name for name in curves if name not in CURVES]
    if unknown:
        raise ConfigError(f"curve_preferences: {', '.join(unknown)} is none of {', '.join(CURVES)}")
    names = [CURVES[name] for name in dict.fromkeys(curves)]
    if (set_groups := getattr(context, "set_groups", None)) is not None:  # Python 3.15
        set_groups(":".join(names))
        return
    if len(names) > 1:
        raise ConfigError(
            "curve_preferences: Python's ssl can be bound to one curve and not to an order of several "
            "before Python 3.15: name one, or leave it out"
        )
    try:
        context.set_ecdh_curve(names[0])
    except (ValueError, ssl.SSLError):
        raise ConfigError(
            f"curve_preferences: this Python cannot be bound to {curves[0]}; name CurveP256, CurveP384 or "
            "CurveP521, or leave it out"
        ) from None


def _try_out(context: ssl.SSLContext, certificate: bytes) -> Certificate | None:
    """Shakes hands with itself: who cannot do that would refuse every client, and nobody would know why."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    client.load_verify_locations(cadata=certificate.decode("ascii", "ignore"))
    try:
        return _certificate(_shake(context, client))
    except ssl.SSLCertVerificationError:
        pass  # not meant for servers, for instance: whoever connects will judge
    except ssl.SSLError as problem:
        raise _nobody_could(problem) from None
    client.verify_mode = ssl.CERT_NONE
    try:
        _shake(context, client)
    except ssl.SSLError as problem:
        raise _nobody_could(problem) from None
    return None


def _nobody_could(problem: ssl.SSLError) -> ConfigError:
    return ConfigError(
        "no client could connect with these versions, cipher_suites and this key: OpenSSL says "
        f"{problem.reason or problem}"
    )


def _shake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """A handshake without a network; returns the client's side of it."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(up, down, server_side=True)
    theirs = client.wrap_bio(down, up)
    for _ in range(10):
        done = True
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                done = False
        if done:
            return theirs
    raise ssl.SSLError("the handshake does not come to an end")


def _certificate(peer: ssl.SSLObject) -> Certificate | None:
    facts: Any = peer.getpeercert()
    if not facts:
        return None
    names = tuple(_san(kind, value) for kind, value in facts.get("subjectAltName", ()))
    common = tuple(value for part in facts["subject"] for key, value in part if key == "commonName")
    return Certificate(
        names=names or common,
        not_before_seconds=ssl.cert_time_to_seconds(facts["notBefore"]),
        not_after_seconds=ssl.cert_time_to_seconds(facts["notAfter"]),
    )
