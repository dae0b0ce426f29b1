"""A stretch of wall time, as a command line gives it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal

from joulescope.clock import utc_instant
from joulescope.errors import ConfigError
from joulescope.units import NANOSECONDS_PER_SECOND, SECONDS_BY_UNIT

_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_DAY_NS = 86_400 * NANOSECONDS_PER_SECOND
_LAST_NS = 2**63 - 1 - 2 * _DAY_NS
"""Nanoseconds since the epoch are 64 bits in a ledger, and the day after a span is looked at too."""
_FIRST_NS = -_LAST_NS


@dataclass(frozen=True, slots=True)
class Span:
    """From ``begin_ns``, inclusive, to ``end_ns``, exclusive: nanoseconds since the epoch; ``None`` is open.

    A request belongs to the span in which it ended, a minute of an engine to that in which it started.
    """

    begin_ns: int | None = None
    end_ns: int | None = None

    @property
    def begin(self) -> datetime | None:
        return None if self.begin_ns is None else moment(self.begin_ns)

    @property
    def end(self) -> datetime | None:
        return None if self.end_ns is None else moment(self.end_ns)

    def __str__(self) -> str:
        if self == ALWAYS:
            return "at any time"
        begin, end = self.begin, self.end
        parts = [f"from {text_of(begin)}" if begin else "", f"until {text_of(end)}" if end else ""]
        return " ".join(filter(None, parts))


ALWAYS = Span()


def moment(unix_ns: int) -> datetime:
    """The instant in UTC, to the microsecond."""
    seconds, rest_ns = divmod(unix_ns, NANOSECONDS_PER_SECOND)
    return datetime.fromtimestamp(seconds, timezone.utc).replace(microsecond=rest_ns // 1000)


def text_of(instant: datetime) -> str:
    """``2026-01-31T12:00Z``, with seconds where there are any."""
    return f"{instant:%Y-%m-%dT%H:%M:%S}Z" if instant.second else f"{instant:%Y-%m-%dT%H:%M}Z"


def parse_span(since: str | None, until: str | None, now_ns: int) -> Span:
    """The span between two texts: ISO 8601 (UTC where no offset is given), ``now``, or an age such as ``7d``.

    Raises:
        ConfigError: if a text is neither or beyond the years of a ledger, or the span does not end after it
            begins.
    """
    begin_ns = None if since is None else _instant(since, "--since", now_ns)
    end_ns = None if until is None else _instant(until, "--until", now_ns)
    if begin_ns is not None and begin_ns == end_ns:
        raise ConfigError(
            f"--since {since} and --until {until} are the same instant, and --until is not in the span: give "
            "a later one, of a day the day after"
        )
    if begin_ns is not None and end_ns is not None and end_ns < begin_ns:
        raise ConfigError(f"--until {until} is not after --since {since}: exchange them")
    return Span(begin_ns, end_ns)


def _instant(text: str, flag: str, now_ns: int) -> int:
    unix_ns = _unix_ns(text, flag, now_ns)
    if not _FIRST_NS <= unix_ns <= _LAST_NS:
        raise ConfigError(
            f"{flag} {text!r} is beyond what a ledger can hold, the years {moment(_FIRST_NS).year} to "
            f"{moment(_LAST_NS).year}: leave {flag} out to have everything"
        )
    return unix_ns


def _unix_ns(text: str, flag: str, now_ns: int) -> int:
    if text == "now":
        return now_ns
    if ago := _AGO.fullmatch(text):
        return now_ns - round(Decimal(ago[1]) * SECONDS_BY_UNIT[ago[2]] * NANOSECONDS_PER_SECOND)
    try:
        instant = utc_instant(text.upper())
    except ValueError:
        raise ConfigError(
            f"{flag} {text!r} is no instant: write a date or time such as 2026-01-31 or "
            "2026-01-31T12:00:00Z (UTC unless it has an offset), an age such as 7d or 12h, or now"
        ) from None
    whole = instant - _EPOCH
    return (whole.days * 86_400 + whole.seconds) * NANOSECONDS_PER_SECOND + whole.microseconds * 1000
