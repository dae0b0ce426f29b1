"""A ledger in its folder or object store, opened for questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from joulescope.errors import QueryError
from joulescope.insight.queries.balance import coverage
from joulescope.insight.queries.source import open_duckdb
from joulescope.insight.queries.span import ALWAYS, Span, moment, text_of
from joulescope.insight.queries.tables import Tables


@dataclass(frozen=True, slots=True)
class Opened:
    """The tables of a span of a ledger, and what could not be read of it."""

    root: str
    span: Span
    tables: Tables
    rejected: Sequence[tuple[str, str]] = ()
    """Path and reason of each file that was left out."""

    @property
    def where(self) -> str:
        return f"{self.root}" if self.span == ALWAYS else f"{self.root} {self.span}"


def open_root(root: str, span: Span = ALWAYS) -> Opened:
    """Opens a ledger.

    Raises:
        QueryError: if there is no ledger, or nothing in it of that span.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise QueryError(f"{root}: no such folder; a ledger is where the setting ledger says")
    opened = Opened(root, span, open_duckdb(*_files(folder, span), span))
    if not _has_rows(opened.tables):
        raise QueryError(_nothing(root, span, open_duckdb(*_files(folder, ALWAYS))))
    return opened


def _files(folder: Path, span: Span) -> tuple[list[str], list[str]]:
    """Requests and minutes of the days that a span touches. A day more at each end: a minute that starts in
    the span may end in the next day."""
    begin, end = span.begin, span.end
    first = "" if begin is None else f"date={begin - timedelta(days=1):%Y-%m-%d}"
    last = "date=~" if end is None else f"date={end + timedelta(days=1):%Y-%m-%d}"
    requests, minutes = (
        [
            str(path)
            for path in sorted(folder.glob(f"{kind}/date=*/*.parquet"))
            if first <= path.parent.name <= last
        ]
        for kind in ("requests", "minutes")
    )
    return requests, minutes


def _has_rows(tables: Tables) -> bool:
    return any(tables.rows(table.limit(1).select("engine")) for table in (tables.requests, tables.minutes))


def _nothing(root: str, span: Span, whole: Tables) -> str:
    """What to say of a span without a row: where there are some."""
    known = coverage(whole)
    if not known["requests"] and not known["minutes"]:
        return (
            f"{root} holds no requests and no minutes yet; is this the folder that the setting ledger names?"
        )
    return f"{root} holds nothing {span}; {extent_text(known)}"


def extent_text(known: Mapping[str, Any]) -> str:
    """From when to when there is something, of :func:`joulescope.insight.queries.balance.coverage`."""
    firsts = [known[name] for name in ("first_request_ns", "first_minute_ns") if known[name] is not None]
    lasts = [known[name] for name in ("last_request_ns", "last_minute_ns") if known[name] is not None]
    return f"what it holds is from {text_of(moment(min(firsts)))} until {text_of(moment(max(lasts)))}"
