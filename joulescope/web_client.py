"""Asks a sidecar that may want TLS, a client certificate or a password.

The flags of the commands that ask a sidecar are named as in ``curl`` and in Prometheus' ``tls_config``.
"""

from __future__ import annotations

import base64
import ssl
import urllib.parse
from dataclasses import dataclass

from joulescope import web
from joulescope.clock import Clock
from joulescope.errors import ConfigError, FetchError

MAX_BYTES = 1 << 26
"""A snapshot of a whole node with all its engines has a few megabytes."""


@dataclass(frozen=True)
class Access:
    """How a sidecar is asked. All of it may be left out."""

    ca_file: str | None = None
    """Certificates that are believed, PEM; ``None``: those that the machine believes."""
    cert_file: str | None = None
    """The client's own certificate, PEM."""
    key_file: str | None = None
    """Its key; ``None``: it stands in ``cert_file`` too."""
    insecure: bool = False
    """Whether any certificate is believed: who is asked is then not known."""
    password_file: str | None = None
    """Holds the password, where it is not to stand in the URL. Read at each request."""


class SidecarClient:
    """Fetches pages of one sidecar."""

    def __init__(self, url: str, clock: Clock, access: Access | None = None) -> None:
        """``url`` may hold a user and a password, %-encoded: ``https://user:password@host:5685``.

        Raises:
            ConfigError: if the URL or a file of ``access`` is no use.
        """
        self._access = access or Access()
        self._clock = clock
        self.url, self._user, self._password = _split(url)
        self._context = _context(self._access) if self.url.startswith("https:") else None
        if self._access.password_file is not None and self._user is None:
            raise ConfigError("there is a password file and no user: write the user into the URL, user@host")

    def get(self, path: str, *, timeout_seconds: float = web.TIMEOUT_SECONDS) -> bytes:
        """Body of a page, such as ``/api/snapshot``.

        Raises:
            FetchError: if there is none; the message holds no password.
            ConfigError: if the password file cannot be read.
        """
        try:
            return web.get(
                self.url + path,
                self._clock,
                headers=self._headers(),
                timeout_seconds=timeout_seconds,
                max_bytes=MAX_BYTES,
                direct=_is_here(self.url),
                context=self._context,
            )
        except FetchError as problem:
            raise FetchError(problem.reason, _hint(str(problem), self.url)) from None

    def _headers(self) -> dict[str, str]:
        if self._user is None:
            return {}
        password = self._password
        if self._access.password_file is not None:
            password = _first_line(self._access.password_file)
        token = base64.b64encode(f"{self._user}:{password}".encode()).decode("ascii")
        return {"Authorization": f"Basic {token}"}


def _split(url: str) -> tuple[str, str | None, str]:
    """The URL without user and password, and both."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as problem:
        raise ConfigError(f"the sidecar's URL is none: {problem}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError("the sidecar's URL begins with http:// or https:// and names a host")
    place = parts._replace(
        netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/"), query="", fragment=""
    )
    user = None if parts.username is None else urllib.parse.unquote(parts.username)
    return place.geturl(), user, urllib.parse.unquote(parts.password or "")


def _is_here(url: str) -> bool:
    """Whether the host is this machine, which no proxy can reach."""
    host = urllib.parse.urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _context(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=access.ca_file)
    except (OSError, ValueError) as problem:
        raise ConfigError(f"{access.ca_file}: holds no certificates to believe: {_why(problem)}") from None
    if access.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if access.cert_file is not None:
        try:
            context.load_cert_chain(access.cert_file, access.key_file, password=b"")
        except (OSError, ValueError) as problem:
            raise ConfigError(
                f"{access.cert_file}: is no certificate with its key, in PEM form and not encrypted: "
                f"{_why(problem)}"
            ) from None
    elif access.key_file is not None:
        raise ConfigError("there is a key and no certificate: give both")
    return context


def _why(problem: Exception) -> str:
    return getattr(problem, "reason", None) or getattr(problem, "strerror", None) or str(problem)


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(4096).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path}: the password cannot be read: {_why(problem)}") from None


def _hint(said: str, url: str) -> str:
    """The message, with what mends it at a sidecar."""
    if "HTTP status 401" in said:
        return f"{url}: it wants another user or password; write them into the URL (user:password@host)"
    if "certificate does not do" in said:
        return f"{said}; name the authority that signed it"
    return said
