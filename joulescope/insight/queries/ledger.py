"""A ledger in its folder or object store, opened for questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from joulescope.errors import QueryError
from joulescope.insight.queries.balance import coverage
from joulescope.insight.queries.source import need_packages, open_duckdb
from joulescope.insight.queries.span import ALWAYS, Span, moment, text_of
from joulescope.insight.queries.tables import Tables
from joulescope.ledger.read import Ledger, open_ledger
from joulescope.units import NANOSECONDS_PER_SECOND

__all__ = ["Opened", "extent_text", "open_root"]

LONGEST_MINUTE_SECONDS = 61.0
"""A minute that starts in a span is filed by its end, which may lie in the day after."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The tables of a span of a ledger, and what could not be read of it."""

    root: str
    span: Span
    tables: Tables
    rejected: tuple[tuple[str, str], ...] = ()
    """Path and reason of each file that was left out."""

    @property
    def where(self) -> str:
        return f"{self.root}" if self.span == ALWAYS else f"{self.root} {self.span}"


@contextmanager
def open_root(
    root: str, span: Span = ALWAYS, *, spool: str | None = None, verify: bool = False
) -> Iterator[Opened]:
    """Opens a ledger until the end of the block: what is not yet a Parquet file is in temporary ones.

    Args:
        root: folder or URL. span: rows of other times are not read.
        spool: where ``root`` is a URL, the local folder of what is not yet there.
        verify: hold every byte of local files against the checksum of its name first.

    Raises:
        MissingExtra: without the packages of the extra ``analysis``.
        LedgerError: if there is no ledger.
        QueryError: if nothing in it is of that span, or DuckDB cannot read it.
    """
    need_packages()
    with open_ledger(root, spool=spool, verify=verify) as ledger:
        tables = _tables(ledger, span)
        if not any(tables.rows(table.select("engine").limit(1)) for table in tables.both):
            whole = tables if span == ALWAYS else _tables(ledger, ALWAYS)
            raise QueryError(_nothing(root, span, coverage(whole), ledger.rejected))
        yield Opened(root, span, tables, tuple(ledger.rejected))


def _tables(ledger: Ledger, span: Span) -> Tables:
    begin, end = _seconds(span.begin_ns), _seconds(span.end_ns)
    later = None if end is None else end + LONGEST_MINUTE_SECONDS
    requests = ledger.files("requests", begin, end)
    return open_duckdb(requests, ledger.files("minutes", begin, later), span)


def _seconds(unix_ns: int | None) -> float | None:
    return None if unix_ns is None else unix_ns / NANOSECONDS_PER_SECOND


def _nothing(root: str, span: Span, known: Mapping[str, Any], rejected: list[tuple[str, str]]) -> str:
    """What to say of a span without a row: where there are some."""
    if known["requests"] or known["minutes"]:
        return f"{root} holds nothing {span}; {extent_text(known)}"
    if rejected:
        path, reason = rejected[0]
        return f"nothing in {root} can be read; {len(rejected)} files were left out, {path}: {reason}"
    return f"{root} holds no requests and no minutes yet; is it the place that the setting ledger names?"


def extent_text(known: Mapping[str, Any]) -> str:
    """From when to when there is something, of :func:`joulescope.insight.queries.balance.coverage`."""
    firsts = [known[name] for name in ("first_request_ns", "first_minute_ns") if known[name] is not None]
    lasts = [known[name] for name in ("last_request_ns", "last_minute_ns") if known[name] is not None]
    return f"what it holds is from {text_of(moment(min(firsts)))} until {text_of(moment(max(lasts)))}"
