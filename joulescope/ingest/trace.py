"""Trace files: the wire's records and the sensors' samples, one JSON object a line.

``.gz`` and ``.zst`` are told by the file's name. ``docs/trace-format.md`` is the format's page.
"""

from __future__ import annotations

import gzip
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import IO, Any, cast

import msgspec

from joulescope import __version__
from joulescope.errors import MissingExtra, TraceError
from joulescope.hook.wire import PROTOCOL, AnyRecord, TraceHeader
from joulescope.ingest.frames import rejection_reason

_MAX_LINE_BYTES = 64 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024


def _open_for_writing(path: Path) -> IO[bytes]:
    """Opens, compressing by the name's ending.

    Raises:
        TraceError: if the file cannot be opened.
        MissingExtra: for ``.zst`` without the package that writes it.
    """
    try:
        if path.suffix == ".gz":
            return cast(IO[bytes], gzip.GzipFile(path, "wb", compresslevel=5))
        if path.suffix == ".zst":
            return cast(IO[bytes], _zstandard(path).open(path, "wb"))
        return open(path, "wb")
    except OSError as error:
        raise TraceError(f"cannot open trace {path}: {error.strerror or error}") from error


def _zstandard(path: Path) -> ModuleType:
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtra(
            f"{path} is compressed with zstd: pip install 'joulescope-inference[sidecar]', "
            "or give the trace as .gz or plain"
        ) from error
    return zstandard


class _Plain:
    """The decompressor of what is not compressed."""

    eof = False
    unused_data = b""

    def decompress(self, data: bytes) -> bytes:
        return data


def _decompressor(path: Path) -> Any:
    """An object with ``decompress``, ``eof`` and ``unused_data``, as zlib's."""
    if path.suffix == ".gz":
        return zlib.decompressobj(wbits=31)
    if path.suffix == ".zst":
        return _zstandard(path).ZstdDecompressor().decompressobj()
    return _Plain()


class TraceReader:
    """Iterates over the records of a trace.

    A line that cannot be used is counted in ``rejected`` by reason, and the first such line is kept in
    ``first_rejected``; a file in which no line can be used is no trace and raises.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rejected: Counter[str] = Counter()
        self.first_rejected = ""
        self.lines = 0
        self._at_end = False
        self.bytes_read = 0
        """Of the file as it lies on disk, for a progress bar."""
        self._decompressor = _decompressor(path)
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise TraceError(f"cannot open trace {path}: {error.strerror or error}") from error
        self._decoder: msgspec.json.Decoder[AnyRecord] = msgspec.json.Decoder(AnyRecord)

    def __enter__(self) -> TraceReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[AnyRecord]:
        good = 0
        decode = self._decoder.decode
        for line in self._lines():
            try:
                record = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
                self._reject(line, error)
                continue
            if type(record) is TraceHeader:
                self._check_format(record)
            good += 1
            yield record
        if self.lines and not good:
            raise TraceError(
                f"{self.path} is not a joulescope trace: {self.first_rejected}; "
                "docs/trace-format.md shows a valid one"
            )

    def _lines(self) -> Iterator[bytes]:
        """Whole lines, and at the end the piece that has no line end."""
        rest = b""
        for chunk in self._chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self.lines += 1
                if line and not line.isspace():
                    yield line
            if len(rest) > _MAX_LINE_BYTES:
                self._count("line_too_long", f"line {self.lines + 1}: longer than {_MAX_LINE_BYTES} bytes")
                rest = b""
        if rest and not rest.isspace():
            self.lines += 1
            self._at_end = True
            yield rest

    def _chunks(self) -> Iterator[bytes]:
        """The file's content; a file that was cut or damaged ends where it can no longer be read."""
        foreign_error: type[Exception] = OSError
        if self.path.suffix == ".zst":
            foreign_error = _zstandard(self.path).ZstdError
        try:
            while data := self._file.read(_CHUNK_BYTES):
                self.bytes_read += len(data)
                while data:
                    yield self._decompressor.decompress(data)
                    data = self._decompressor.unused_data if self._decompressor.eof else b""
                    if data:  # several compressed members, one after the other
                        self._decompressor = _decompressor(self.path)
            if self.bytes_read and not self._decompressor.eof and type(self._decompressor) is not _Plain:
                self._count("damaged_file", f"after line {self.lines}: the compressed data is cut off")
        except (OSError, zlib.error, foreign_error) as error:
            self._count("damaged_file", f"after line {self.lines}: {error}")

    def _reject(self, line: bytes, error: Exception) -> None:
        reason = rejection_reason(error)
        if self._at_end:
            reason = "truncated_line"
        self._count(reason, f"line {self.lines}: {error}")

    def _count(self, reason: str, message: str) -> None:
        self.rejected[reason] += 1
        self.first_rejected = self.first_rejected or message

    def _check_format(self, header: TraceHeader) -> None:
        if header.format > PROTOCOL:
            raise TraceError(
                f"{self.path} has trace format {header.format}, this joulescope {__version__} reads up to "
                f"{PROTOCOL}: use a newer joulescope"
            )


def read_trace(path: Path) -> Iterator[AnyRecord]:
    """The records of a trace, bad lines left out; see :class:`TraceReader` to learn which."""
    with TraceReader(path) as reader:
        yield from reader


class TraceWriter:
    """Writes records to a trace file; each flush leaves whole lines behind.

    Raises:
        TraceError: from any method, if the file cannot be written.
    """

    def __init__(self, path: Path, note: str = "") -> None:
        self.path = path
        self._file = _open_for_writing(path)
        self._encoder = msgspec.json.Encoder()
        self._pending = bytearray()
        self.write(
            [
                TraceHeader(
                    wall_ns=time.time_ns(),
                    time_ns=time.monotonic_ns(),
                    joulescope_version=__version__,
                    note=note,
                )
            ]
        )

    def write(self, records: list[AnyRecord]) -> None:
        self._pending += self._encoder.encode_lines(records)
        if len(self._pending) >= 256 * 1024:
            self.flush()

    def flush(self) -> None:
        try:
            self._file.write(self._pending)
            self._file.flush()
        except OSError as error:
            raise TraceError(f"cannot write trace {self.path}: {error.strerror or error}") from error
        finally:
            self._pending.clear()

    def close(self) -> None:
        """Writes what is left and closes; a second call does nothing."""
        if self._file.closed:
            return
        try:
            self.flush()
        finally:
            self._file.close()
