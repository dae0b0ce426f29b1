"""An authority and one certificate for each end of a link."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """Files in PEM form in one folder."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, head: str) -> Certificates:
        """``head`` is the address or name that relays connect to."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        for end, name in (("head", head), ("relay", "relay.test")):
            leaf = authority.issue_cert(name)
            leaf.private_key_pem.write_to_path(folder / f"{end}.key")
            (folder / f"{end}.pem").write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
        return cls(folder)

    def options(self, end: str) -> list[str]:
        """Of ``serve`` (``head``) or of ``relay``."""
        return [
            "--link-cert-file", str(self.folder / f"{end}.pem"),
            "--link-key-file", str(self.folder / f"{end}.key"),
            "--link-ca-file", str(self.folder / "ca.pem"),
        ]  # fmt: skip
