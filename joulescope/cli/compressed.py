"""Streams that are compressed, read as they were before; several compressed pieces may follow one another."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import IO

import zstandard

UNREADABLE = (OSError, EOFError, zlib.error, zstandard.ZstdError)
"""What reading one that is damaged or cut raises."""


def gunzipped(plain: IO[bytes]) -> io.BufferedReader:
    return io.BufferedReader(gzip.GzipFile(fileobj=plain))


def unzstd(plain: IO[bytes]) -> io.BufferedReader:
    return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(plain, read_across_frames=True))
