"""Two ends of a link on loopback, driven turn by turn, with certificates made on the spot and clocks by
hand."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trustme

from joulescope.clock import Clock, SystemClock
from joulescope.link.client import LinkClient, dial
from joulescope.link.server import LinkArrival, LinkServer
from joulescope.link.tls import TlsFiles, TlsPaths

HEAD, RELAY = "head.test", "relay.test"
TURNS = 400


class Certificates:
    """A folder with an authority, and certificates that it has signed."""

    def __init__(self, folder: Path, authority: trustme.CA | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.authority = authority or trustme.CA()
        self.authority.cert_pem.write_to_path(folder / "ca.crt")

    def issue(self, name: str, signed_by: trustme.CA | None = None) -> TlsPaths:
        """Certificate and key for ``name`` in files."""
        leaf = (signed_by or self.authority).issue_cert(name)
        leaf.private_key_pem.write_to_path(self.folder / f"{name}.key")
        (self.folder / f"{name}.crt").write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
        return self.paths(name)

    def paths(self, name: str) -> TlsPaths:
        return TlsPaths(
            str(self.folder / f"{name}.crt"), str(self.folder / f"{name}.key"), str(self.folder / "ca.crt")
        )


class OffsetClock(SystemClock):
    """The machine's clock, shifted: another node's."""

    def __init__(self, offset_seconds: float = 0.0) -> None:
        self.offset_ns = round(offset_seconds * 1e9)

    def now_ns(self) -> int:
        return super().now_ns() + self.offset_ns


class Bench:
    """A head that listens, and whoever connects."""

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self.certificates = Certificates(folder)
        self.server = LinkServer(
            "127.0.0.1",
            0,
            TlsFiles(self.certificates.issue(HEAD), server=True),
            clock or OffsetClock(),
        )
        self.host, self.port = self.server.open()
        self.arrivals: list[LinkArrival] = []
        self.clients: list[LinkClient] = []

    def client(
        self,
        *,
        node: str = "worker-1",
        clock: Clock | None = None,
        server_name: str = HEAD,
        paths: TlsPaths | None = None,
    ) -> LinkClient:
        """A relay's end."""
        files = TlsFiles(paths or self.certificates.issue(RELAY), server=False)
        made = LinkClient(
            dial(self.host, self.port), files, clock or OffsetClock(), server_name=server_name, node=node
        )
        self.clients.append(made)
        return made

    def stranger(self) -> socket.socket:
        """A connection that has said nothing yet."""
        return socket.create_connection((self.host, self.port), 5.0)

    def secure_stranger(self) -> ssl.SSLSocket:
        """One with a good certificate that speaks as it likes."""
        files = TlsFiles(self.certificates.issue(RELAY), server=False)
        sock = files.context.wrap_socket(self.stranger(), server_hostname=HEAD, do_handshake_on_connect=False)
        sock.setblocking(False)
        self.until(lambda: _shaken(sock), "the handshake")
        return sock

    def turn(self) -> None:
        self.server.turn(0.001)
        for client in self.clients:
            client.turn(0.001)
        self.arrivals += self.server.drain()

    def until(self, true: Callable[[], Any], what: str) -> None:
        """Turns of all ends until it is so."""
        for _ in range(TURNS):
            if true():
                return
            self.turn()
        raise AssertionError(f"{TURNS} turns in vain for {what}: {self.server.totals()}")

    def refused(self) -> dict[str, int]:
        return dict(self.server.totals().refused)

    def close(self) -> None:
        for client in self.clients:
            client.stop(0.1)
        self.server.stop(0.1)


def _shaken(sock: ssl.SSLSocket) -> bool:
    try:
        sock.do_handshake()
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return False
    return True
