"""Certificates made on the spot, and the files that name them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import bcrypt
import trustme

HOST = "localhost"
USER, PASSWORD = "prometheus", "open: sésame"
CHEAP_COST = 4
HASH = bcrypt.hashpw(PASSWORD.encode(), f"$2b${CHEAP_COST:02}$SaltThatNeverChangesu.".encode()).decode()
"""Of the least cost, so that tests are quick; of a fixed salt, so that names of tests are always the same."""

TLS = """\
tls_server_config:
  cert_file: server.pem
  key_file: server.key
"""
MUTUAL = TLS + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n"
USERS = f"basic_auth_users:\n  {USER}: {HASH}\n"


@dataclass
class Place:
    """A folder with ``ca.pem``, ``server.pem``, ``server.key``, ``web.yml``, and the authority that signs."""

    folder: Path
    authority: trustme.CA

    @property
    def config(self) -> Path:
        return self.folder / "web.yml"

    def write(self, text: str) -> Path:
        """The web configuration file."""
        self.config.write_text(text, encoding="utf-8")
        return self.config

    def renew(self, days: float = 365.0, authority: trustme.CA | None = None) -> None:
        """A new certificate and key of the server, that expire in so many days."""
        issued = certificate(authority or self.authority, HOST, "127.0.0.1", days=days)
        issued.cert_chain_pems[0].write_to_path(self.folder / "server.pem")
        issued.private_key_pem.write_to_path(self.folder / "server.key")

    def client(self, *names: str, authority: trustme.CA | None = None) -> ssl.SSLContext:
        """How a client asks: it trusts the authority, and shows a certificate if it has a name."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if names:
            certificate(authority or self.authority, *names).configure_cert(context)
        return context


def certificate(authority: trustme.CA, *names: str, days: float = 365.0) -> trustme.LeafCert:
    """A certificate that expires in so many days; also in the past."""
    now = datetime.now(timezone.utc)
    return authority.issue_cert(
        *names, not_before=now - timedelta(days=400), not_after=now + timedelta(days=days)
    )


def make_place(folder: Path, text: str = TLS) -> Place:
    """A folder in which all is well."""
    place = Place(folder, trustme.CA())
    place.authority.cert_pem.write_to_path(folder / "ca.pem")
    place.renew()
    place.write(text)
    return place
