"""A ledger in its folder or object store, opened for questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    files = {
        kind: sorted(map(str, folder.glob(f"{kind}/date=*/*.parquet"))) for kind in ("requests", "minutes")
    }
    opened = Opened(root, span, open_duckdb(files["requests"], files["minutes"], span))
    if not _has_rows(opened.tables):
        raise QueryError(_nothing(root, span, open_duckdb(files["requests"], files["minutes"])))
    return opened


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
