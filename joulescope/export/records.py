"""The request log: one JSON object a line, appended as requests finish."""

from __future__ import annotations

import errno
import logging
import os
import select
import stat
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

import msgspec

from joulescope.clock import WallAnchor
from joulescope.label_model import clean
from joulescope.model import FinishedRequest
from joulescope.units import NANOSECONDS_PER_SECOND, seconds_from_ns

_logger = logging.getLogger(__name__)

STDOUT = "-"
MAX_PENDING_BYTES = 4 * 1024 * 1024
"""How much is kept for a later try while the file cannot be written; what is beyond is dropped."""

FILE_MODE = 0o640
"""Request ids are not for everybody on the machine."""


class RequestLine(msgspec.Struct, kw_only=True, gc=False):
    """One line, in the order of its keys. Joules are SI; ``null`` means not known, never zero."""

    request_id: str
    engine: str
    attributed_joules: float | None
    marginal_joules: float | None
    prefill_joules: float | None
    decode_joules: float | None
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    finish_reason: str
    external_id: str
    model: str
    lora: str
    kind: str
    start_time: str
    """ISO 8601, UTC, microseconds; the instant to the nanosecond is the ``_unix_ns`` beside it."""
    start_unix_ns: int
    first_token_time: str | None
    first_token_unix_ns: int | None
    end_time: str
    end_unix_ns: int
    scheduled_tokens: int
    recomputed_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    preemptions: int
    steps: int
    wasted_joules: float | None
    avoided_joules: float | None
    attributed_low_joules: float | None
    attributed_high_joules: float | None
    marginal_low_joules: float | None
    marginal_high_joules: float | None
    energy_source: str | None
    complete: bool
    trace_parent: str
    trace_state: str
    method: str
    method_version: str
    unit: str
    """Of ``output_tokens``."""
    work_unit: str
    """Of all other counts of tokens."""
    software: str
    first_step_time: str | None
    """When the first step that computed it began; until then it waited in the queue."""
    first_step_unix_ns: int | None
    preempted_seconds: float
    """How long it was pushed out of the KV cache, in all."""
    tenant: str
    """Empty where tenants are not told apart, ``none`` where this request's is not known."""
    task: str
    """Its task class, likewise; ``other`` beyond the limit of classes."""


_SAME = tuple(name for name in RequestLine.__struct_fields__ if name in FinishedRequest.__dataclass_fields__)

_encoder = msgspec.json.Encoder()


def iso_time(unix_ns: int) -> str:
    """``2026-01-31T12:00:00.123456Z``; exact, because no float takes part."""
    seconds, rest_ns = divmod(unix_ns, NANOSECONDS_PER_SECOND)
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ns // 1000:06d}Z"


def finished_line(request: FinishedRequest, anchor: WallAnchor) -> bytes:
    """One line of the request log, newline included. ``anchor`` turns its instants into wall time."""
    start_ns, end_ns = anchor.wall_of(request.start_ns), anchor.wall_of(request.end_ns)
    first_ns = None if request.first_token_ns is None else anchor.wall_of(request.first_token_ns)
    step_ns = None if request.first_step_ns is None else anchor.wall_of(request.first_step_ns)
    line = RequestLine(
        **{name: getattr(request, name) for name in _SAME if name != "energy_source"},
        energy_source=None if request.attributed_joules is None else request.energy_source,
        start_time=iso_time(start_ns),
        start_unix_ns=start_ns,
        first_token_time=None if first_ns is None else iso_time(first_ns),
        first_token_unix_ns=first_ns,
        end_time=iso_time(end_ns),
        end_unix_ns=end_ns,
        first_step_time=None if step_ns is None else iso_time(step_ns),
        first_step_unix_ns=step_ns,
        preempted_seconds=seconds_from_ns(sum(until - since for since, until in request.pauses_ns)),
    )
    try:
        return _encoder.encode(line) + b"\n"
    except UnicodeEncodeError:  # a lone surrogate in an id that a client chose
        return _encoder.encode(_cleaned(line)) + b"\n"


def _cleaned(line: RequestLine) -> RequestLine:
    texts = {name: value for name in _SAME if isinstance(value := getattr(line, name), str)}
    return msgspec.structs.replace(line, **{name: clean(value) for name, value in texts.items()})


def _ends_torn(path: str) -> bool:
    """Whether a file ends in the middle of a line, as after a crash: the next line must not join it."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        return False
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        return file.read(1) not in (b"", b"\n")


class RequestLog:
    """Appends lines to a file, or to standard output where the path is ``-``; a :class:`RequestSink`.

    A full disk, an unwritable path or a pipe that nobody reads costs the caller nothing: lines wait, at most
    :data:`MAX_PENDING_BYTES` of them, and are tried again with the next batch. A write that stops in the
    middle of a line is resumed at that byte. A file that was moved away (log rotation) is opened anew.
    Outcomes: ``written``, and ``dropped`` for lines that found no room or were never written.
    """

    name = "jsonl"

    def __init__(self, path: str, anchor: WallAnchor, *, max_pending_bytes: int = MAX_PENDING_BYTES) -> None:
        self._path = path
        self._anchor = anchor
        self._max_pending_bytes = max_pending_bytes
        self._lock = threading.Lock()
        self._file: int | None = None
        self._pending = bytearray()
        self._torn = False
        """The file ends in the middle of the line that ``_pending`` goes on with."""
        self._written = 0
        self._dropped = 0
        self._warned = False
        self._closed = False

    def export(self, requests: Sequence[FinishedRequest]) -> None:
        """Appends a line for each request; they are in the file, not in a buffer, on return."""
        with self._lock:
            for request in requests:
                line = finished_line(request, self._anchor)
                if self._closed or len(self._pending) + len(line) > self._max_pending_bytes:
                    self._dropped += 1
                else:
                    self._pending += line
            if not self._closed:
                self._flush()

    def counts(self) -> Mapping[str, int]:
        """Requests by outcome; those still waiting for another try are in neither."""
        with self._lock:
            return {"written": self._written, "dropped": self._dropped}

    def close(self, timeout_seconds: float) -> None:
        """A last try for what waits, then closes the file. Writing to a file does not take long enough
        to be interrupted, so ``timeout_seconds`` is not needed here."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._flush()
            self._dropped += self._pending.count(b"\n")
            self._pending.clear()
            self._close_file()

    def _flush(self) -> None:
        try:
            file = self._open()
            while self._pending:
                self._take(self._write(file))
        except OSError as error:
            self._warn(error)
        else:
            self._warned = False

    def _write(self, file: int) -> int:
        """Standard output is shared with other programs, so it cannot be told not to block: of a pipe that
        can be written at all a piece of this size is taken at once."""
        if self._path != STDOUT or stat.S_ISREG(os.fstat(file).st_mode):
            return os.write(file, self._pending)
        poll = select.poll()
        poll.register(file, select.POLLOUT)
        if not poll.poll(0):
            raise BlockingIOError(errno.EAGAIN, "its reader does not read")
        return os.write(file, self._pending[: select.PIPE_BUF])

    def _take(self, size: int) -> None:
        """``size`` bytes are in the file: counts the lines that are now whole."""
        self._written += self._pending.count(b"\n", 0, size)
        self._torn = size > 0 and self._pending[size - 1] != ord("\n")
        del self._pending[:size]

    def _open(self) -> int:
        if self._file is not None and not self._torn and self._moved(self._file):
            self._close_file()
        if self._file is None:
            self._file = self._open_anew()
        return self._file

    def _open_anew(self) -> int:
        if self._path == STDOUT:
            return os.dup(1)
        how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK  # it may be a pipe
        file = os.open(self._path, how, FILE_MODE)
        try:
            if _ends_torn(self._path):
                os.write(file, b"\n")
        except OSError:
            os.close(file)
            raise
        return file

    def _moved(self, file: int) -> bool:
        """Whether the path no longer leads to the open file."""
        if self._path == STDOUT:
            return False
        held = os.fstat(file)
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return stat.S_ISREG(held.st_mode)
        return (held.st_dev, held.st_ino) != (found.st_dev, found.st_ino)

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _warn(self, error: OSError) -> None:
        """Once for each stretch of failures."""
        if not self._warned:
            self._warned = True
            _logger.warning(
                "cannot write the request log %s: %s; lines wait in memory (%d bytes at most) until it works",
                self._path,
                error.strerror or error,
                self._max_pending_bytes,
            )
