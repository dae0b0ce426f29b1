"""The files of the page: read, hashed and compressed once.

They stand under one digest of them all, so that a browser may keep them for ever, modules find each other by
relative paths, and no page mixes the files of two versions.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from joulescope.export.prometheus import accepts_gzip

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""Nothing but own files: no inline script or style, no other host, no markup made from text."""

MEDIA_TYPES = {
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "LICENSE": "text/plain; charset=utf-8",
}
FOLDER = Path(__file__).parent / "static"
MIN_COMPRESSED_BYTES = 1024
DIGEST_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, plain and in gzip."""

    media_type: str
    plain: bytes
    zipped: bytes


@dataclass(frozen=True, slots=True)
class Assets:
    """All files by their path below ``static``."""

    digest: str
    by_name: Mapping[str, Asset]

    @classmethod
    def load(cls) -> Assets:
        """Reads the files that the package holds."""
        plain = dict(sorted(_read(FOLDER).items()))
        digest = hashlib.sha256()
        for name, body in plain.items():
            digest.update(f"{name}\0{len(body)}\0".encode() + body)
        by_name = {
            name: Asset(MEDIA_TYPES[name.rpartition(".")[2]], body, gzip.compress(body, mtime=0))
            for name, body in plain.items()
        }
        return cls(digest.hexdigest()[:DIGEST_CHARACTERS], by_name)

    @property
    def folder(self) -> str:
        """Where they are, relative to the page."""
        return f"assets/{self.digest}"

    @property
    def modules(self) -> tuple[str, ...]:
        """The scripts, which a page may ask for before it knows that it needs them."""
        return tuple(name for name in self.by_name if name.endswith(".js"))

    def answer(self, request: Request, headers: Mapping[str, str]) -> Response:
        """The file that a request names by ``digest`` and ``name``; 404 for those of another version."""
        asset = self.by_name.get(request.path_params["name"])
        if asset is None or request.path_params["digest"] != self.digest:
            return PlainTextResponse("no such file in this version; reload the page\n", 404)
        zipped = accepts_gzip(request.headers.get("accept-encoding", ""))
        how = {"Vary": "Accept-Encoding", **({"Content-Encoding": "gzip"} if zipped else {})}
        body = asset.zipped if zipped else asset.plain
        return Response(body, media_type=asset.media_type, headers={**headers, **how})


def _read(folder: Path) -> dict[str, bytes]:
    """Every file that a browser may have, by its path below the folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name.rpartition(".")[2] in MEDIA_TYPES
    }


def compressed(request: Request, body: bytes, media_type: str, headers: Mapping[str, str]) -> Response:
    """An answer made anew each time, in gzip where that is worth it."""
    how = {"Vary": "Accept-Encoding"}
    if len(body) >= MIN_COMPRESSED_BYTES and accepts_gzip(request.headers.get("accept-encoding", "")):
        body = gzip.compress(body, compresslevel=3, mtime=0)
        how["Content-Encoding"] = "gzip"
    return Response(body, media_type=media_type, headers={**headers, **how})
