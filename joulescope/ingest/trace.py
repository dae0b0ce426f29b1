"""Trace files: the wire's records and the sensors' samples, one JSON object a line.

``.gz`` and ``.zst`` are told by the file's name. ``docs/trace-format.md`` is the format's page.
"""

from __future__ import annotations

import gzip
import io
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, cast

import msgspec

from joulescope import __version__
from joulescope.errors import MissingExtra, TraceError
from joulescope.hook.wire import PROTOCOL, AnyRecord, TraceHeader
from joulescope.ingest.frames import rejection_reason

_MAX_LINE_BYTES = 64 * 1024 * 1024


def open_trace(path: Path, mode: str) -> IO[bytes]:
    """Opens for ``rb`` or ``ab``/``wb``, compressing by the name's ending.

    Raises:
        TraceError: if the file cannot be opened.
        MissingExtra: for ``.zst`` without the package that reads it.
    """
    try:
        if path.suffix == ".gz":
            return _open_gzip(path, mode)
        if path.suffix == ".zst":
            return _open_zstd(path, mode)
        return open(path, mode, buffering=1024 * 1024)
    except OSError as error:
        raise TraceError(f"cannot open trace {path}: {error.strerror or error}") from error


def _open_gzip(path: Path, mode: str) -> IO[bytes]:
    file = gzip.GzipFile(path, mode, compresslevel=5)
    return io.BufferedReader(file, 1024 * 1024) if "r" in mode else cast(IO[bytes], file)


def _open_zstd(path: Path, mode: str) -> IO[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtra(
            f"{path} is compressed with zstd: pip install 'joulescope-inference[sidecar]', "
            "or give the trace as .gz or plain"
        ) from error
    if "r" in mode:
        return io.BufferedReader(zstandard.open(path, "rb"), 1024 * 1024)
    return cast(IO[bytes], zstandard.open(path, mode))


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
        self.bytes_read = 0
        self._file = open_trace(path, "rb")
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
        readline = self._file.readline
        while True:
            try:
                line = readline(_MAX_LINE_BYTES)
            except (OSError, EOFError, ValueError) as error:
                self._count("truncated_file", f"after line {self.lines}: {error}")
                return
            except Exception as error:
                # zstandard has an error type of its own, known only where it is installed.
                self._count("truncated_file", f"after line {self.lines}: {error}")
                return
            if not line:
                return
            self.lines += 1
            self.bytes_read += len(line)
            if not line.isspace():
                yield line

    def _reject(self, line: bytes, error: Exception) -> None:
        reason = rejection_reason(error)
        if not line.endswith(b"\n"):
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
        self._file = open_trace(path, "wb")
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
