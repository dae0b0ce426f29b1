"""Tables of a fixed width: what fits is shown, the least needed columns go first, rows are single lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from joulescope.terminal.glyphs import Look

Row = TypeVar("Row")
SortValue = float | int | str | None
Figure = TypeVar("Figure", bound=SortValue)

_GAP = 2


@dataclass(frozen=True)  # with slots, Python 3.11 cannot make a Column[Row]
class Column(Generic[Row]):
    """One column of rows of some type."""

    name: str
    """By which it is sorted; unique in its table."""
    heading: str
    text: Callable[[Row], str]
    width: int
    """Cells that it has; of a column that grows, the least."""
    rank: int = 0
    """When room is scarce, columns of the highest rank go first; those of rank 0 stay."""
    value: Callable[[Row], SortValue] | None = None
    """What rows are sorted by; ``None``: they are not sorted by this."""
    ascending: bool = False
    """Which way it is sorted at first."""
    left: bool = False
    grows: int = 0
    """Up to so many cells more, if there is room."""
    style: Callable[[Row], str] = lambda row: ""
    middle: bool = False
    """What is too long loses its middle and not its end: ids differ at both."""


def shown(
    name: str,
    heading: str,
    value: Callable[[Row], Figure],
    show: Callable[[Figure], str],
    width: int,
    *,
    rank: int = 0,
    ascending: bool = False,
    left: bool = False,
    grows: int = 0,
    style: Callable[[Row], str] = lambda row: "",
) -> Column[Row]:
    """A column that is sorted by what it shows."""
    return Column(
        name, heading, lambda row: show(value(row)), width, rank, value, ascending, left, grows, style
    )


def fit(columns: Sequence[Column[Row]], width: int) -> list[tuple[Column[Row], int]]:
    """The columns that ``width`` has room for, each with its cells."""
    shown = list(columns)

    def used() -> int:
        return sum(column.width for column in shown) + _GAP * (len(shown) - 1)

    while len(shown) > 1 and used() > width:
        least = max(shown, key=lambda column: column.rank)
        if least.rank == 0:
            break
        shown.remove(least)
    spare = width - used()
    cells = []
    for column in shown:
        more = min(max(spare, 0), column.grows)
        spare -= more
        cells.append((column, column.width + more))
    return cells


def heading(
    columns: Sequence[tuple[Column[Row], int]],
    look: Look,
    *,
    sort: str = "",
    descending: bool = False,
    unit: str = "",
) -> Text:
    """The line of headings; the column that is sorted by stands out. ``{unit}`` becomes the unit."""
    line = Text(no_wrap=True)
    for column, cells in columns:
        chosen = column.name == sort
        text = column.heading.replace("{unit}", unit)
        if chosen and cell_len(text) < cells:
            text += "▼" if descending else "▲"
        _append(line, text, cells, column.left, "bold reverse" if chosen else "dim", look)
    return line


def row_line(row: Row, columns: Sequence[tuple[Column[Row], int]], look: Look, style: str = "") -> Text:
    """One row; ``style`` is that of all its cells."""
    line = Text(no_wrap=True)
    for column, cells in columns:
        own = column.style(row)
        text = column.text(row)
        if column.middle and cell_len(text) > cells:
            text = _without_middle(text, cells)
        _append(line, text, cells, column.left, f"{style} {own}".strip(), look)
    return line


def _without_middle(text: str, cells: int) -> str:
    """The beginning and the end; a wide letter that has no room whole is a blank."""
    tail = max(cells // 2, 1)
    begin = len(text)
    while begin > 0 and cell_len(text[begin - 1 :]) <= tail:
        begin -= 1
    return set_cell_size(text, cells - 1 - cell_len(text[begin:])) + "…" + text[begin:]


def _append(line: Text, text: str, cells: int, left: bool, style: str, look: Look) -> None:
    if line.plain:
        line.append(" " * _GAP)
    text = look.text(text)
    if cell_len(text) > cells:
        text = set_cell_size(text, max(cells - 1, 0)) + look.text("…" if cells else "")
    padding = " " * (cells - cell_len(text))
    line.append(f"{text}{padding}" if left else f"{padding}{text}", style or None)


def ordered(rows: Sequence[Row], columns: Sequence[Column[Row]], sort: str, descending: bool) -> list[Row]:
    """Rows by a column; those whose figure is not known come last, whichever way it goes."""
    value = next((column.value for column in columns if column.name == sort and column.value), None)
    if value is None:
        return list(rows)
    known: list[tuple[float | int | str, Row]] = []
    unknown: list[Row] = []
    for row in rows:
        figure = value(row)
        if figure is None:
            unknown.append(row)
        else:
            known.append((figure, row))
    known.sort(key=lambda pair: pair[0], reverse=descending)
    return [row for _, row in known] + unknown
