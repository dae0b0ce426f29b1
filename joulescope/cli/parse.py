"""``joulescope parse``: the raw records of a trace file or of a captured stream, as JSON lines.

For looking at what a peer really sent. Where ingest skips and counts, this stops and says where:
records are shown with the fields and types this version does not know, nothing is repaired, and the
first byte that cannot be read ends it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast, get_args

import click
import msgspec

from joulescope.cli.compressed import UNREADABLE, gunzipped, unzstd
from joulescope.errors import ProtocolError
from joulescope.hook.wire import LENGTH_BYTES, MAX_FRAME_BYTES, AnyRecord

TYPES: tuple[str, ...] = tuple(str(record.__struct_config__.tag) for record in get_args(AnyRecord))

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# Each of these, and "{" as well, would as the start of a frame's length announce more than
# MAX_FRAME_BYTES: the first bytes tell the formats apart, whatever the file is called.


@click.command()
@click.argument("file", metavar="FILE|-")
@click.option(
    "--type",
    "types",
    type=click.Choice(TYPES),
    multiple=True,
    help="Print only records of this type; may be given several times.",
)
def command(file: str, types: tuple[str, ...]) -> None:
    """Print the raw records of FILE, one JSON object a line; - reads standard input.

    FILE is a trace (JSON lines) or the bytes captured from a socket (frames), plain or compressed with
    gzip or zstd; which of them is seen from its first bytes.
    """
    out = sys.stdout.buffer
    with ExitStack() as stack:
        stack.callback(out.flush)
        for record in _records(_open(file, stack)):
            if not types or record.get("type") in types:
                out.write(msgspec.json.encode(record, enc_hook=_show_foreign) + b"\n")


@dataclass
class _Source:
    """A stream that knows its name and how far it was read; offsets count uncompressed bytes."""

    name: str
    stream: io.BufferedReader
    offset: int = 0

    def read(self, count: int) -> bytes:
        return self._take(lambda: self.stream.read(count))

    def readline(self) -> bytes:
        return self._take(self.stream.readline)

    def _take(self, read: Callable[[], bytes]) -> bytes:
        try:
            data = read()
        except UNREADABLE as problem:
            raise self.error(self.offset, f"cannot be read on: {problem}") from None
        self.offset += len(data)
        return data

    def error(self, offset: int, problem: str) -> ProtocolError:
        return ProtocolError(f"{self.name}: byte {offset}: {problem}")


def _open(file: str, stack: ExitStack) -> _Source:
    name = "standard input" if file == "-" else file
    plain = cast(io.BufferedReader, sys.stdin.buffer)
    try:
        if file != "-":
            plain = stack.enter_context(io.BufferedReader(io.FileIO(file)))
        start = plain.peek(len(_ZSTD_MAGIC))
    except OSError as problem:
        raise ProtocolError(f"{name}: cannot be read: {problem.strerror}") from None
    source = _Source(name, plain)
    if start.startswith(_GZIP_MAGIC):
        source.stream = gunzipped(plain)
    elif start.startswith(_ZSTD_MAGIC):
        source.stream = unzstd(plain)
    return source


def _records(source: _Source) -> Iterator[dict[object, object]]:
    """Every record as the mapping that was sent.

    Raises:
        ProtocolError: at the first byte that makes no record; the message says which byte.
    """
    try:
        start = source.stream.peek(1)[:1]
    except UNREADABLE as problem:
        raise source.error(0, f"cannot be read: {problem}") from None
    if start.isspace() or start == b"{":
        return _from_lines(source)
    return _from_frames(source)


def _from_lines(source: _Source) -> Iterator[dict[object, object]]:
    while True:
        start = source.offset
        line = source.readline()
        if not line:
            return
        if line.isspace():
            continue
        try:
            record = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            cut = "" if line.endswith(b"\n") else "the file ends within a line: "
            raise source.error(start, f"{cut}{problem}") from None
        yield _mapping(source, start, record)


def _from_frames(source: _Source) -> Iterator[dict[object, object]]:
    while True:
        start = source.offset
        head = source.read(LENGTH_BYTES)
        if not head:
            return
        length = int.from_bytes(head, "big")
        if len(head) == LENGTH_BYTES and length > MAX_FRAME_BYTES:
            raise source.error(
                start,
                f"neither a trace nor a frame: as a frame it would be {length} bytes long, "
                f"{MAX_FRAME_BYTES} is the most",
            )
        payload = source.read(length)
        if len(head) < LENGTH_BYTES or len(payload) < length:
            have = len(head) + len(payload)
            raise source.error(start, f"the stream ends within a frame, {have} bytes into it")
        for record in _frame(source, start, payload):
            yield _mapping(source, start, record)


def _frame(source: _Source, start: int, payload: bytes) -> list[object]:
    try:
        records = msgspec.msgpack.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError) as problem:
        raise source.error(start, f"the frame's {len(payload)} bytes are no msgpack: {problem}") from None
    if not isinstance(records, list):
        raise source.error(start, f"the frame holds {type(records).__name__}, not an array of records")
    return records


def _mapping(source: _Source, start: int, record: object) -> dict[object, object]:
    if not isinstance(record, dict) or not all(isinstance(key, str) for key in record):
        raise source.error(start, f"a record is a map with names as keys, not {str(record)[:40]!r}")
    return record


def _show_foreign(value: object) -> object:
    """msgpack's extension types have no JSON form of their own; their bytes are shown."""
    if isinstance(value, msgspec.msgpack.Ext):
        return {"ext": value.code, "data": value.data}
    return str(value)
