"""The certificates of a link: read from files, read anew when these change, refused with a reason."""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass

from joulescope.errors import ConfigError

_logger = logging.getLogger(__name__)

REFUSED_PLAINTEXT = frozenset({"HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER"})
REFUSED_CERTIFICATE = (
    "CERTIFICATE",
    "ALERT_UNKNOWN_CA",
    "ALERT_BAD_CERTIFICATE",
    "UNKNOWN_CA",
    "CA_MD_TOO_WEAK",
    "EE_KEY_TOO_SMALL",
)


def refusal(error: Exception) -> str:
    """The label of a handshake that came to nothing: ``plaintext``, ``certificate`` or ``handshake``."""
    reason = (getattr(error, "reason", None) or "") if isinstance(error, ssl.SSLError) else ""
    if isinstance(error, ssl.SSLCertVerificationError) or any(part in reason for part in REFUSED_CERTIFICATE):
        return "certificate"
    return "plaintext" if reason in REFUSED_PLAINTEXT else "handshake"


@dataclass(frozen=True, slots=True)
class TlsPaths:
    """Where one end has its own certificate with key, and the authority that signs the other end's."""

    cert_file: str
    key_file: str
    ca_file: str

    def state(self) -> tuple[object, ...]:
        """Changes when a file does. Kubernetes swaps links to folders, so that inodes tell."""
        return tuple(_state(path) for path in (self.cert_file, self.key_file, self.ca_file))


def _state(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def make_context(paths: TlsPaths, *, server: bool) -> ssl.SSLContext:
    """A context that shows the own certificate and demands one of the other end.

    Raises:
        ConfigError: if a file cannot be used; the message names it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if server:
        context.options |= ssl.OP_NO_TICKET  # each link shows its certificate anew
        context.num_tickets = 0
    for setting, path in (("link_ca_file", paths.ca_file), ("link_cert_file", paths.cert_file)):
        _readable(setting, path)
    _readable("link_key_file", paths.key_file)
    try:
        context.load_verify_locations(cafile=paths.ca_file)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            f"link_ca_file {paths.ca_file} holds no certificate in PEM form ({_said(error)}); it is the "
            "certificate of the authority that signs both ends"
        ) from None
    try:
        context.load_cert_chain(paths.cert_file, paths.key_file, password=b"")
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            f"link_cert_file {paths.cert_file} and link_key_file {paths.key_file} cannot be used together "
            f"({_said(error)}); both are in PEM form, the key unencrypted and that of the certificate"
        ) from None
    return context


def _readable(setting: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ConfigError(
            f"{setting} {path} cannot be read: {error.strerror}; mount the secret, or mend its permissions"
        ) from None


def _said(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)


class TlsFiles:
    """The context that holds now. Files that are spoilt later leave the last good one in force."""

    def __init__(self, paths: TlsPaths, *, server: bool) -> None:
        """Raises ConfigError if the files cannot be used."""
        self._paths = paths
        self._server = server
        self._state = paths.state()
        self.context = make_context(paths, server=server)
        self.error = ""
        """What is wrong with the files as they are now; empty if nothing is."""

    def look(self) -> bool:
        """Looks at the files, and takes them if they have changed: True if another context holds now."""
        state = self._paths.state()
        if state == self._state:
            return False
        self._state = state
        try:
            self.context = make_context(self._paths, server=self._server)
        except ConfigError as error:
            if str(error) != self.error:
                _logger.warning("%s; the certificates that were read before stay in force", error)
            self.error = str(error)
            return False
        self.error = ""
        _logger.info("certificates of the link were read anew")
        return True
