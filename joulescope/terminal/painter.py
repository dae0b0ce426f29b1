"""Sends a terminal what changed between two frames, and nothing else: a slow link carries few bytes.

A frame is kept as cells. In a line that changed only the stretches that differ are written; stretches that
lie closer together than a cursor movement is long are written as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from rich.text import Text

Cell = tuple[str, Style]
"""A letter and its style; the second cell of a wide letter is empty text."""

CLEAR = "\x1b[0m\x1b[2J"
_CLOSER = 8
_BLANK: Cell = (" ", Style.null())


class Painter:
    """Turns frames into what is to be written.

    Args:
        colour: without it bold, dim and reverse remain.
    """

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour
        self._console = Console(force_terminal=True, color_system="standard", width=1 << 10)
        self._shown: list[list[Cell]] = []
        self._size = (0, 0)

    def forget(self) -> None:
        """What the terminal shows is not known any more: the next frame is sent whole."""
        self._size = (0, 0)

    def paint(self, lines: Sequence[Text], width: int, height: int) -> str:
        """What makes the terminal show the lines."""
        frame = [self._cells(line, width) for line in lines[:height]]
        frame += [[_BLANK] * width for _ in range(height - len(frame))]
        out = []
        if self._size != (width, height):
            out.append(CLEAR)
            self._shown = [[_BLANK] * width for _ in range(height)]
            self._size = (width, height)
        for number, (before, after) in enumerate(zip(self._shown, frame, strict=True), 1):
            out += [
                f"\x1b[{number};{begin + 1}H{self._encoded(after[begin:end])}"
                for begin, end in _changes(before, after)
            ]
        self._shown = frame
        return "".join(out)

    def _cells(self, line: Text, width: int) -> list[Cell]:
        cells: list[Cell] = []
        base = self._console.get_style(line.style)  # rich leaves it out where a text has no other
        for segment in line.render(self._console):
            style = base + segment.style if segment.style else base
            if not self._colour:
                style = style.without_color
            for character in segment.text:
                size = cell_len(character)
                if size == 0:
                    _combine(cells, character)
                elif len(cells) + size <= width:
                    cells += [(character, style), ("", style)][:size]
        return cells + [_BLANK] * (width - len(cells))

    def _encoded(self, cells: Sequence[Cell]) -> str:
        return "".join(
            style.render("".join(text for text, _ in run), color_system=ColorSystem.STANDARD)
            for style, run in groupby(cells, key=lambda cell: cell[1])
        )


def _combine(cells: list[Cell], mark: str) -> None:
    """A mark belongs to the letter before it, which may have two cells; alone it is left out."""
    for index in range(len(cells) - 1, -1, -1):
        text, style = cells[index]
        if text:
            cells[index] = (text + mark, style)
            return


def _changes(before: Sequence[Cell], after: Sequence[Cell]) -> Iterator[tuple[int, int]]:
    """Stretches ``begin, end`` of a line that are to be written."""
    begin = end = -1
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        if old == new:
            continue
        if begin >= 0 and index - end >= _CLOSER:
            yield _whole(before, after, begin, end)
            begin = -1
        begin = index if begin < 0 else begin
        end = index + 1
    if begin >= 0:
        yield _whole(before, after, begin, end)


def _whole(before: Sequence[Cell], after: Sequence[Cell], begin: int, end: int) -> tuple[int, int]:
    """A stretch never begins or ends within a wide letter, of the old line or of the new one."""
    while begin > 0 and (not after[begin][0] or not before[begin][0]):
        begin -= 1
    while end < len(after) and (not after[end][0] or not before[end][0]):
        end += 1
    return begin, end
