"""What the web configuration comes to, in words: for the log, for ``doctor``, and before it is rolled out."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import datetime, timezone

from joulescope.export.web_config import TlsServer
from joulescope.export.web_config_rules import Rules
from joulescope.export.web_config_tls import Certificate

SOON_SECONDS = 14 * 86400.0
"""A certificate that expires sooner is worth a warning: those of cert-manager are renewed 30 days before."""


def facts(rules: Rules) -> Iterator[str]:
    """A line each on TLS, clients, users and the rest."""
    yield _tls(rules.config.tls)
    if rules.certificate is not None:
        names = ", ".join(rules.certificate.names) or "no name"
        yield f"certificate of {names}, until {_day(rules.certificate.not_after_seconds)}"
    users = len(rules.config.users)
    yield f"basic auth: {users} user{'s' * (users != 1)}" if users else "basic auth: no password is asked for"
    if rules.config.headers:
        yield f"headers: {', '.join(rules.config.headers)}"
    if (limit := rules.config.rate_limit) is not None:
        yield f"rate limit: one request each {limit.interval_seconds:g} s, {limit.burst} at once"


def warnings(rules: Rules, wall_seconds: float) -> Iterator[str]:
    """What is allowed and hardly meant; ``wall_seconds`` is the wall time now."""
    config = rules.config
    if config.users and config.tls is None:
        yield "passwords are asked for without TLS: whoever sees the network sees them"
    if config.tls is not None and config.tls.client_auth == ssl.CERT_OPTIONAL and not config.users:
        yield (
            "VerifyClientCertIfGiven without basic_auth_users: who shows no certificate sees everything too"
        )
    if config.http2:
        yield "http2 is asked for and not spoken: clients agree on HTTP/1.1"
    if rules.certificate is not None:
        yield from _age(rules.certificate, wall_seconds)


def _tls(tls: TlsServer | None) -> str:
    if tls is None:
        return "TLS: none, pages are served in the clear"
    versions = {"TLSv1_2": "1.2", "TLSv1_3": "1.3"}
    lowest, highest = versions[tls.min_version.name], versions[tls.max_version.name]
    clients = {
        ssl.CERT_NONE: "no client certificate",
        ssl.CERT_OPTIONAL: "a client certificate is verified if there is one",
        ssl.CERT_REQUIRED: "a client certificate is required",
    }[tls.client_auth]
    if tls.allowed_sans is not None:
        clients += f" and has one of {len(tls.allowed_sans)} names"
    return f"TLS: {lowest if lowest == highest else f'{lowest} to {highest}'}, {clients}"


def _age(certificate: Certificate, wall_seconds: float) -> Iterator[str]:
    begins, ends = certificate.not_before_seconds, certificate.not_after_seconds
    if wall_seconds < begins:
        yield f"the certificate is valid from {_day(begins)} only: clients that verify will refuse it"
    if wall_seconds >= ends:
        yield f"the certificate expired on {_day(ends)}: clients that verify will refuse it"
    elif ends - wall_seconds < SOON_SECONDS:
        yield f"the certificate expires on {_day(ends)}"


def _day(wall_seconds: float) -> str:
    return datetime.fromtimestamp(wall_seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
