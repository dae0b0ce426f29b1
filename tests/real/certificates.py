"""An authority and one certificate for each end of a link, made by the ``openssl`` program."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


@dataclass(frozen=True)
class Certificates:
    """Files in PEM form in one folder."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, head_ip: str = "10.231.7.1") -> Certificates:
        made = cls(folder)
        ca, ca_key = str(folder / "ca.pem"), str(folder / "ca.key")
        _openssl("req", "-x509", *_EC, "-keyout", ca_key, "-out", ca, "-days", "2", "-subj", "/CN=authority")
        for name, alternative in (("head", f"IP:{head_ip}"), ("relay", "DNS:relay")):
            request, key = str(folder / f"{name}.csr"), str(folder / f"{name}.key")
            extensions = folder / f"{name}.ext"
            extensions.write_text(f"subjectAltName={alternative}\n")
            _openssl("req", *_EC, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
            signed = str(folder / f"{name}.pem")
            _openssl(
                "x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-out", signed, "-days", "2",
                "-extfile", str(extensions),
            )  # fmt: skip
        return made

    def _options(self, name: str) -> list[str]:
        return [
            "--link-cert-file", str(self.folder / f"{name}.pem"),
            "--link-key-file", str(self.folder / f"{name}.key"),
            "--link-ca-file", str(self.folder / "ca.pem"),
        ]  # fmt: skip

    @property
    def head_options(self) -> list[str]:
        return self._options("head")

    @property
    def relay_options(self) -> list[str]:
        return self._options("relay")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
