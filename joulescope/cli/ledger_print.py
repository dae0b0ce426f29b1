"""Rows for people, for programs and for spreadsheets."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from joulescope.insight.queries.ledger import Opened
from joulescope.insight.queries.money import Prices
from joulescope.model import TOKEN
from joulescope.terminal.glyphs import clean

WIDTH_OF_A_FILE = 200
"""Columns that a table may take where standard output is not a terminal."""

_NOTHING: tuple[Any, ...] = (None, "")
_SILENT: Mapping[str, tuple[Any, ...]] = {"unit": (*_NOTHING, TOKEN)}
"""What says nothing in a column: one that has nothing else is left out."""

_LONGEST_TEXT = 128
"""Letters of a name that people are shown: a client may choose one of thousands, and a row is no page."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def print_note(text: str) -> None:
    """To standard error, beside the answer."""
    click.echo(f"joulescope: {clean(text)}", err=True)


def print_json(opened: Opened, prices: Prices, **answer: Any) -> None:
    """One object: the span, the prices, and the answer."""
    span = {"since": _iso(opened.span.begin), "until": _iso(opened.span.end)}
    left_out = [{"path": path, "reason": reason} for path, reason in opened.rejected]
    whole = {"root": opened.root, **span, "prices": asdict(prices), "rejected": left_out, **answer}
    click.echo(json.dumps(whole, indent=2, ensure_ascii=False))


def _iso(instant: Any) -> str | None:
    return None if instant is None else instant.isoformat().replace("+00:00", "Z")


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """A heading and a line for each row; nothing for what is not known."""
    if not rows:
        print_note("there are no rows to print")
        return
    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def _cell(value: Any) -> Any:
    """As a spreadsheet takes it for what it is: clients choose ids, and one that begins as a formula does
    would be computed there. Control characters are blanks: readers end a line at a carriage return or stop at
    NUL, and a terminal obeys others."""
    if not isinstance(value, str):
        return value
    text = _CONTROL.sub(" ", value)
    return f"'{text}" if value.startswith(_FORMULA) else text


def print_table(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Columns in line; those in which nothing is known are left out."""
    if not rows:
        return
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    columns = [name for name in rows[0] if any(row[name] not in _SILENT.get(name, _NOTHING) for row in rows)]
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        number = not any(isinstance(row[name], str) for row in rows)
        table.add_column(name.replace("_", " "), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(shown(row[name]) for name in columns))
    console.print(table)
    console.print()


def shown(value: Any) -> str:
    """A figure as people read it: four digits that count, thousands apart; ``-`` for what is not known."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    text = clean(str(value))
    return text[:_LONGEST_TEXT] + "…" if len(text) > _LONGEST_TEXT else text or "-"
