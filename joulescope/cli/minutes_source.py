"""Minutes of engines from wherever they are: a running sidecar, a ledger, a trace, a file of minutes."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType
from typing import IO

import click

from joulescope.attribution.policy import Policy
from joulescope.cli.compressed import UNREADABLE, gunzipped, unzstd
from joulescope.clock import utc_instant
from joulescope.config.load import load
from joulescope.daemon.label_rules import policy_of
from joulescope.errors import MinuteError
from joulescope.ingest.trace import TraceReader
from joulescope.ledger.read import open_ledger
from joulescope.minute_model import EngineMinute
from joulescope.minutes import read_lines
from joulescope.replay import Replay
from joulescope.terminal.source import HttpSource
from joulescope.terminal.target import Target, target_of
from joulescope.units import SECONDS_BY_UNIT

MINUTES_PATH = "/api/v1/minutes"

SOURCES = "http(s)://HOST:PORT, a ledger (folder or URL), a trace or a file of minutes (- for standard input)"
"""What can be named, for the help of commands."""

_MOST_PAGES = 1000
_AGO = re.compile(r"-(\d+(?:\.\d+)?)([smhd])")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def read_minutes(
    text: str,
    *,
    find_target: Callable[[str], Target] = target_of,
    policy: Policy | None = None,
) -> Sequence[EngineMinute]:
    """The minutes that a text names, in the order of their begin.

    The text is ``SOURCE`` or ``SOURCE@BEGIN..END``. A source is the URL of a sidecar, a ledger, a trace that
    is then replayed, or JSON lines as ``joulescope replay --minutes`` writes them. Files may end in ``.gz``
    or ``.zst``; what they are is seen from their first line. The span takes minutes that begin in it: BEGIN
    is in it, END is not, and either may be left out. Each is an ISO 8601 instant (UTC where none is said) or
    time before the last minute's end, such as ``-30m``.

    Args:
        find_target: tells how a sidecar is reached, from its URL.
        policy: who pays, and which task a request is of, for traces; as the settings say (variables and the
            file that ``JOULESCOPE_CONFIG`` names) where it is not given.

    Raises:
        MinuteError: if there are none; the message says why.
        JoulescopeError: of the source itself.
    """
    source, span = split_span(text)
    found = sorted(_read(source, span, find_target, policy), key=lambda each: each.start_wall_seconds)
    if not found:
        where = source if span is None or not span.absolute else text
        raise MinuteError(f"{where}: there is no minute of an engine in it")
    kept = span.cut(found) if span is not None else found
    if not kept:
        first, last = found[0].start_wall_seconds, max(each.end_wall_seconds for each in found)
        raise MinuteError(f"{text}: no minute begins in that span; there is {_iso(first)}..{_iso(last)}")
    return kept


def _read(
    source: str, span: Span | None, find_target: Callable[[str], Target], policy: Policy | None
) -> Iterable[EngineMinute]:
    if source.startswith(("http://", "https://")):
        return _of_sidecar(find_target(source))
    if _SCHEME.match(source) or Path(source).is_dir():
        return _of_ledger(source, span)
    if source == "-":
        return list(read_lines(sys.stdin.buffer, "standard input"))
    path = Path(source)
    with _opened(path) as file:
        lines = _from_first_line(path, file)
        if lines is not None:
            return list(read_lines(lines, source))
    return _of_trace(path, policy)


# ------------------------------------------------------------------------------------------------ spans


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time as it was written."""

    begin: str
    end: str

    @property
    def absolute(self) -> bool:
        """Whether it is told by instants alone."""
        return not any(_AGO.fullmatch(each) for each in (self.begin, self.end))

    def instants(self, last: float) -> tuple[float | None, float | None]:
        """Begin and end in seconds since the epoch; ``None`` where it is open.

        Args:
            last: what relative times count back from.
        """
        begin = _instant(self.begin, last) if self.begin else None
        end = _instant(self.end, last) if self.end else None
        if begin is not None and end is not None and end <= begin:
            raise MinuteError(f"the span {self.begin}..{self.end} ends before it begins")
        return begin, end

    def cut(self, minutes: Sequence[EngineMinute]) -> list[EngineMinute]:
        """The minutes that begin in it."""
        begin, end = self.instants(max(minute.end_wall_seconds for minute in minutes))
        return [
            minute
            for minute in minutes
            if (begin is None or begin <= minute.start_wall_seconds)
            and (end is None or minute.start_wall_seconds < end)
        ]


def split_span(text: str) -> tuple[str, Span | None]:
    """The source and the span of a text; a name may hold an ``@`` of its own.

    Raises:
        MinuteError: if the span is none.
    """
    source, at, rest = text.rpartition("@")
    if not at or ".." not in rest or "/" in rest:
        return text, None
    begin, _, end = rest.partition("..")
    for each in filter(None, (begin, end)):
        _instant(each, 0.0)
    if not source:
        raise MinuteError(f"{text}: a source is missing before the @; give {SOURCES}")
    return source, Span(begin.strip(), end.strip())


def _instant(text: str, last: float) -> float:
    """Seconds since the epoch."""
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        return last - float(ago[1]) * SECONDS_BY_UNIT[ago[2]]
    try:
        return utc_instant(text.strip()).timestamp()
    except ValueError:
        raise MinuteError(
            f"{text!r} is no instant: give one such as 2026-11-27T16:00:00Z, or -30m for half an hour before "
            "the last minute's end"
        ) from None


def _iso(wall_seconds: float) -> str:
    when = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=wall_seconds)
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"


# ---------------------------------------------------------------------------------------------- sources


def _of_sidecar(target: Target) -> list[EngineMinute]:
    """All that it remembers, page by page."""
    source = HttpSource(target)
    found: list[EngineMinute] = []
    since = 0.0
    try:
        for _ in range(_MOST_PAGES):
            body = source.fetch(f"{MINUTES_PATH}?since={since:.6f}")
            page = list(read_lines(body.splitlines(), f"{source.place}{MINUTES_PATH}"))
            found += page
            ends = [minute.end_wall_seconds for minute in page]
            if not ends or max(ends) <= since:
                return found
            since = max(ends)
    finally:
        source.close()
    raise MinuteError(f"{source.place}{MINUTES_PATH}: more pages than a day can fill; is it a sidecar?")


def _of_ledger(root: str, span: Span | None) -> list[EngineMinute]:
    """Of a span without relative ends only the days that it needs are read; what cannot be read is named."""
    begin, end = (None, None) if span is None or not span.absolute else span.instants(0.0)
    with open_ledger(root) as ledger:
        found = list(ledger.minutes(begin, end))
        for path, reason in ledger.rejected:
            click.echo(f"{path}: {reason}", err=True)
    return found


def _of_trace(path: Path, policy: Policy | None) -> list[EngineMinute]:
    """Of what can be read; what cannot is counted, and the first of it is named."""
    found: list[EngineMinute] = []
    with TraceReader(path) as reader:
        for _ in Replay(reader, policy or policy_of_settings(), on_minute=found.append):
            pass
    if reader.rejected:
        counts = ", ".join(f"{reason} {count}" for reason, count in sorted(reader.rejected.items()))
        click.echo(f"{path}: not used: {counts}; first: {reader.first_rejected}", err=True)
    return found


def policy_of_settings(flags: Mapping[str, str | None] = MappingProxyType({})) -> Policy:
    """As a sidecar with the same settings, and these flags, would account."""
    settings, _ = load(flags, os.environ)
    return policy_of(settings)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes, decompressed."""
    try:
        with path.open("rb") as raw:
            if path.suffix == ".gz":
                yield gunzipped(raw)
            elif path.suffix == ".zst":
                yield unzstd(raw)
            else:
                yield raw
    except UNREADABLE as error:
        raise MinuteError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _from_first_line(path: Path, file: IO[bytes]) -> Iterator[bytes] | None:
    """The lines of a file of minutes; ``None`` if its first line is none, so that it may be a trace."""
    first = file.readline(1 << 24)
    if not first.strip():
        raise MinuteError(f"{path} is empty or begins with an empty line: neither minutes nor a trace")
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not {"engine", "start", "end"} <= row.keys():
        return None

    def lines() -> Iterator[bytes]:
        yield first
        yield from file

    return lines()
