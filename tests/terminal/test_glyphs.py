"""Figures, bars and sparklines as text."""

from __future__ import annotations

import pytest

from joulescope.terminal.glyphs import (
    Look,
    clean,
    count,
    duration,
    figure,
    joules,
    joules_unit,
    percent,
    small,
)
from joulescope.terminal.tables import Column, fit, heading, ordered, row_line
from joulescope.terminal.tty import look_of


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (48, "48s"),
        (184, "3m04"),
        (7800, "2h10"),
        (273600, "3d04"),
        (-1, "0.0s"),
        (None, "-"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    """Two figures of the two largest units; what is before now is now."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "counted", "in_joules"),
    [
        (0, "0", "0.00"),
        (95.4, "95", "95.40"),
        (950, "950", "950"),
        (12_345, "12.3k", "12.35 kJ"),
        (450_000, "450k", "450.00 kJ"),
        (4.5e7, "45.0M", "45.00 MJ"),
        (None, "-", "-"),
    ],
)
def test_counts_and_joules(value: float | None, counted: str, in_joules: str) -> None:
    """Short enough for a column, and never without at least two figures."""
    assert count(value) == counted
    assert joules(value) == in_joules
    assert joules_unit(value) == "-" if value is None else joules_unit(value).endswith("J")


def test_unknown_figures_are_dashes() -> None:
    """Not known is not zero."""
    assert (figure(None, 1, "W"), percent(None), small(None)) == ("-", "-", "-")
    assert (figure(0.0, 1, "W"), percent(0.0), small(0.0)) == ("0.0 W", "0 %", "0.000")


def test_sparklines() -> None:
    """The least is the lowest letter, the greatest the highest; gaps stay; a level line is in the middle."""
    look, plain = Look(), Look(unicode=False)
    assert look.spark([0.0, 50.0, 100.0, None]) == "▁▅█ "
    assert plain.spark([0.0, 50.0, 100.0, None]) == "_=# "
    assert look.spark([5.0, 5.0]) == "▄▄"
    assert look.spark([5.0, 5.0], lowest=0.0) == "██"
    assert look.spark([None, None]) == "  "
    assert look.spark([]) == ""


@pytest.mark.parametrize(
    "ratios", [[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [0.333, 0.333, 0.334], [0.999, 0.001, 0.0]]
)
def test_a_stacked_bar_is_as_long_as_it_should_be(ratios: list[float]) -> None:
    """The parts fill it exactly, each by its share to within a cell."""
    parts = [(ratio, letter, "red") for ratio, letter in zip(ratios, "abc", strict=True)]
    bar = Look(colour=False).stacked(parts, 37).plain
    assert len(bar) == 37
    for ratio, letter in zip(ratios, "abc", strict=True):
        assert abs(bar.count(letter) - ratio * 37) <= 1
    assert set(Look().stacked(parts, 37).plain) == {"█"}


def test_control_characters_are_shown_as_question_marks() -> None:
    """Escapes, newlines, direction marks and half characters."""
    assert clean("a\x1b[31m\n\u202e\ud800é漢") == "a?[31m???é漢"
    assert Look(unicode=False).text("é漢…▲") == "??~^"


# ------------------------------------------------------------------------------------------- tables

COLUMNS = (
    Column[tuple[str, float | None]]("name", "name", lambda row: row[0], 6, left=True, grows=10, middle=True),
    Column[tuple[str, float | None]](
        "value", "value", lambda row: figure(row[1]), 6, rank=1, value=lambda row: row[1]
    ),
    Column[tuple[str, float | None]]("more", "more", lambda row: "x", 6, rank=2),
)


def test_columns_go_the_least_needed_first_and_the_rest_grows() -> None:
    """The last one to go stays, however narrow it is."""
    shown = {
        width: [(column.name, cells) for column, cells in fit(COLUMNS, width)] for width in (40, 22, 20, 3)
    }
    assert shown[40] == [("name", 16), ("value", 6), ("more", 6)]
    assert shown[22] == [("name", 6), ("value", 6), ("more", 6)]
    assert shown[20] == [("name", 12), ("value", 6)]
    assert shown[3] == [("name", 6)]


def test_ids_lose_their_middle_and_wide_letters_keep_their_cells() -> None:
    """Both ends of an id are seen; a cell is never wider than its column."""
    fitted = fit(COLUMNS, 40)
    look = Look()
    line = row_line(("chatcmpl-0123456789abcdef", 1.0), fitted, look).plain
    assert line.startswith("chatcmp…89abcdef ")
    assert row_line(("漢" * 20, 1.0), fitted, look).cell_len == row_line(("x", 1.0), fitted, look).cell_len
    assert heading(fitted, look, sort="value", descending=True).plain.split() == ["name", "value▼", "more"]


def test_rows_without_a_figure_come_last_either_way() -> None:
    """Equal ones keep their order; a column without values sorts nothing."""
    rows = [("a", None), ("b", 1.0), ("c", 2.0), ("d", 1.0)]
    assert [row[0] for row in ordered(rows, COLUMNS, "value", True)] == ["c", "b", "d", "a"]
    assert [row[0] for row in ordered(rows, COLUMNS, "value", False)] == ["b", "d", "c", "a"]
    assert ordered(rows, COLUMNS, "more", True) == rows


@pytest.mark.parametrize(
    ("environ", "utf8_mode", "unicode", "colour"),
    [
        ({"TERM": "xterm-256color"}, 0, True, True),
        ({"TERM": "xterm-256color"}, 1, False, True),
        ({"TERM": "vt220"}, 0, False, False),
        ({"TERM": "linux"}, 0, False, True),
        ({"TERM": "xterm-mono"}, 0, True, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, 0, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, 0, True, True),
    ],
)
def test_what_the_environment_says_of_the_terminal(
    environ: dict[str, str], utf8_mode: int, unicode: bool, colour: bool
) -> None:
    """The C locale, old terminals, and ``NO_COLOR``; an empty one is none."""
    assert look_of(environ, utf8_mode=utf8_mode, encoding="UTF-8") == Look(unicode, colour)
    assert not look_of(environ, utf8_mode=utf8_mode, encoding="latin-1").unicode
    assert not look_of(environ, utf8_mode=utf8_mode, encoding="utf-8", ascii_only=True).unicode
    assert look_of(environ, utf8_mode=utf8_mode, encoding="utf-8", ascii_only=False).unicode
