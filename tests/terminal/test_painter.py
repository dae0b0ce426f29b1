"""What is sent makes the screen right, and is little."""

from __future__ import annotations

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from joulescope.terminal.painter import Painter

COLUMNS, LINES = 24, 4

letters = st.text(st.sampled_from("ab1 漢é█\u0301"), max_size=30)
styles = st.sampled_from(["", "bold", "red", "dim reverse"])
texts = st.lists(st.tuples(letters, styles), max_size=3).map(lambda parts: Text.assemble(*parts))
frames = st.lists(st.lists(texts, max_size=LINES), min_size=1, max_size=5)


class Screen:
    """A terminal that is fed by a painter."""

    def __init__(self, *, colour: bool = True) -> None:
        self.painter = Painter(colour=colour)
        self.screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.Stream(self.screen)
        self._stream.feed("\x1b[?7l")  # no wrapping, as tty.Terminal has it

    def paint(self, lines: list[Text]) -> str:
        written = self.painter.paint(lines, COLUMNS, LINES)
        self._stream.feed(written)
        return written

    def cells(self) -> list[list[tuple[object, ...]]]:
        """What is seen: letters and, where there is ink or reverse, how they look."""
        return [
            [
                (cell.data, cell.fg, cell.bold, cell.reverse) if cell.data.strip() or cell.reverse else (" ",)
                for cell in (self.screen.buffer[y][x] for x in range(COLUMNS))
            ]
            for y in range(LINES)
        ]


@given(frames)
def test_the_screen_is_as_if_it_had_been_drawn_anew(sequence: list[list[Text]]) -> None:
    """After any frames, wide letters and combining ones included, it shows the last."""
    screen = Screen()
    for lines in sequence:
        screen.paint(lines)
        fresh = Screen()
        fresh.paint(lines)
        assert screen.cells() == fresh.cells()


def test_a_frame_that_is_the_same_costs_nothing() -> None:
    """Nothing is written; a single digit costs a cursor movement and itself."""
    screen = Screen()
    screen.paint([Text("power 512 W", "bold"), Text("idle")])
    assert screen.paint([Text("power 512 W", "bold"), Text("idle")]) == ""
    written = screen.paint([Text("power 513 W", "bold"), Text("idle")])
    assert len(written) < 20
    assert "3" in written
    assert screen.screen.display[0].startswith("power 513 W")


def test_after_another_size_all_is_drawn() -> None:
    """A resize clears the screen, and so does a request to forget."""
    painter = Painter(colour=True)
    first = painter.paint([Text("abc")], 10, 2)
    assert painter.paint([Text("abc")], 10, 2) == ""
    assert "abc" in painter.paint([Text("abc")], 11, 2)
    painter.forget()
    assert painter.paint([Text("abc")], 11, 2).startswith("\x1b[0m\x1b[2J")
    assert first.endswith("abc\x1b[0m") or "abc" in first


@pytest.mark.parametrize("colour", [True, False])
def test_without_colour_the_rest_remains(colour: bool) -> None:
    """Bold and reverse are drawn, colours only where there are any."""
    screen = Screen(colour=colour)
    screen.paint([Text("x", "bold reverse red")])
    cell = screen.screen.buffer[0][0]
    assert (cell.data, cell.bold, cell.reverse) == ("x", True, True)
    assert cell.fg == ("red" if colour else "default")
