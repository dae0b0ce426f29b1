"""Which sidecar is meant, and what it is shown of the one who asks: URL, certificates, user and password."""

from __future__ import annotations

import base64
import http.client
import netrc
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from joulescope import __version__
from joulescope.errors import ConfigError

_EXAMPLE = "http://127.0.0.1:5685"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """A sidecar's address with everything that is needed to be let in."""

    shown: str
    """The URL without user, password and query."""
    host: str
    port: int
    path: str = ""
    tls: ssl.SSLContext | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def connection(self, timeout_seconds: float) -> http.client.HTTPConnection:
        """A connection that opens itself when it is first used."""
        if self.tls is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=timeout_seconds)
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout_seconds, context=self.tls)


def target_of(
    url: str,
    *,
    ca_file: str | None = None,
    client_cert: str | None = None,
    client_key: str | None = None,
    netrc_file: Path | None = None,
    password_file: Path | None = None,
) -> Target:
    """What the options of the command line say.

    User and password are those of the URL, or else those that ``netrc_file`` has for the host. The first
    line of ``password_file`` takes the place of the URL's password.

    Raises:
        ConfigError: if the URL or one of the files will not do; no message holds a password.
    """
    parts = _parts_of(url)
    host = parts.hostname or ""
    port = parts.port or _PORTS[parts.scheme]
    named = f"[{host}]" if ":" in host else host
    shown = f"{parts.scheme}://{named}{f':{parts.port}' if parts.port else ''}{parts.path.rstrip('/')}"
    headers = {"User-Agent": f"joulescope-top/{__version__}", "Accept": "application/json"}
    credentials = _credentials(parts, host, netrc_file, password_file)
    if credentials is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    tls = None
    if parts.scheme == "https":
        tls = _tls(ca_file, client_cert, client_key)
    elif ca_file or client_cert or client_key:
        raise ConfigError(f"--ca-file, --client-cert and --client-key need an https URL, and {shown} is none")
    return Target(shown, host, port, parts.path.rstrip("/"), tls, headers)


def _parts_of(url: str) -> SplitResult:
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        port_is_one = parts.port is None or parts.port > 0
    except ValueError as error:
        raise ConfigError(f"--url is no URL ({error}): give one such as {_EXAMPLE}") from None
    if parts.scheme not in _PORTS or not parts.hostname or not port_is_one:
        raise ConfigError(f"--url is no URL of a sidecar: give one such as {_EXAMPLE}")
    if not (parts.path.isprintable() and parts.path.isascii()) or " " in parts.path:
        raise ConfigError(f"--url has a path with odd characters: give a URL such as {_EXAMPLE}")
    return parts


def _credentials(
    parts: SplitResult, host: str, netrc_file: Path | None, password_file: Path | None
) -> str | None:
    if password_file is not None:
        if parts.username is None:
            raise ConfigError("--password-file needs a user: write the user into the URL, user@host")
        return f"{unquote(parts.username)}:{_first_line(password_file)}"
    if parts.username is not None:
        return f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    if netrc_file is None:
        return None
    try:
        found = netrc.netrc(str(netrc_file)).authenticators(host)
    except FileNotFoundError:
        raise ConfigError(f"--netrc: there is no file {netrc_file}") from None
    except OSError as error:
        raise ConfigError(f"--netrc: {netrc_file} cannot be read: {error.strerror}") from None
    except netrc.NetrcParseError as error:
        raise ConfigError(f"--netrc: {netrc_file}, line {error.lineno}: {error.msg}") from None
    if found is None:
        raise ConfigError(f"--netrc: {netrc_file} has no entry for the host {host}, and none by default")
    return f"{found[0]}:{found[2] or ''}"


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise ConfigError(f"--password-file: {path} cannot be read: {reason}") from None


def _tls(ca_file: str | None, client_cert: str | None, client_key: str | None) -> ssl.SSLContext:
    if client_key and not client_cert:
        raise ConfigError("--client-key belongs to a certificate: give --client-cert too")
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"--ca-file {ca_file}: {_cause(error)}; it must hold PEM certificates") from None
    if client_cert:
        try:
            context.load_cert_chain(client_cert, client_key)
        except OSError as error:
            text = f"--client-cert {client_cert}" + (f", --client-key {client_key}" if client_key else "")
            raise ConfigError(f"{text}: {_cause(error)}; PEM files of a pair are needed") from None
    return context


def _cause(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "it is no such file"
    return error.strerror or str(error)
