"""What keys do."""

from __future__ import annotations

import pytest

from joulescope.terminal.state import INTERVALS_SECONDS, PANES, SORTABLE, Sort, ViewState, press


def after(keys: list[str], state: ViewState | None = None, engines: tuple[str, ...] = ()) -> ViewState:
    state = state or ViewState()
    for key in keys:
        state = press(state, key, engines)
    return state


def test_panes_are_switched_by_number_and_in_turn() -> None:
    """1 to 5 name them; tab goes round, and back."""
    assert [after([number]).pane for number in "12345"] == list(PANES)
    assert [after(["tab"] * times).pane for times in range(1, 6)] == [
        "finished",
        "engines",
        "gpus",
        "tasks",
        "running",
    ]
    assert after(["back-tab"]).pane == "tasks"


@pytest.mark.parametrize("pane", PANES)
def test_every_column_can_be_sorted_by(pane: str) -> None:
    """``s`` comes by all of them once and is back; ``S`` goes the other way."""
    state = ViewState(pane=pane)
    names = [after(["s"] * times, state).sort.name for times in range(len(SORTABLE[pane]))]
    assert sorted(names) == sorted(SORTABLE[pane])
    assert after(["s", "S"], state).sort.name == state.sort.name


@pytest.mark.parametrize(
    ("key", "name"), [("w", "watts"), ("o", "per_output"), ("a", "age"), ("t", "tokens"), ("n", "engine")]
)
def test_keys_name_columns(key: str, name: str) -> None:
    """Figures begin with the largest, names with the first; the same key again turns it round."""
    first = after([key]).sort
    assert first == Sort(name, descending=name != "engine")
    assert after([key, key]).sort == Sort(name, descending=not first.descending)


def test_a_column_that_a_pane_lacks_changes_nothing() -> None:
    """GPUs have no tokens."""
    assert after(["4", "t"]) == after(["4"])


def test_each_pane_keeps_its_own_order() -> None:
    """Sorting one does not sort the others."""
    state = after(["a", "2", "t", "1"])
    assert state.sort.name == "age"
    assert after(["2"], state).sort.name == "tokens"
    assert after(["r"]).sort == Sort("joules", descending=False)


def test_the_filter_is_typed() -> None:
    """Letters that are keys elsewhere are letters here; enter keeps it, escape clears it."""
    typed = after(["/", "q", "s", "x", "backspace", "tab"])
    assert (typed.filter, typed.typing, typed.quit, typed.pane) == ("qs", True, False, "running")
    kept = after(["enter", "s"], typed)
    assert (kept.filter, kept.typing, kept.sort.name != "joules") == ("qs", False, True)
    assert after(["escape"], typed).filter == ""
    assert after(["escape"], kept).filter == ""
    assert len(after(["/"] + ["x"] * 500).filter) == 64


def test_engines_are_chosen_in_turn() -> None:
    """One after the other, then all; one that is gone gives way to all."""
    engines = ("a", "b")
    assert [after(["e"] * times, engines=engines).engine for times in range(1, 4)] == ["a", "b", None]
    assert press(ViewState(engine="gone"), "e", engines).engine is None
    assert after(["e"]).engine is None


def test_help_covers_the_keys() -> None:
    """Any key goes back and does nothing else; q quits all the same."""
    assert after(["?"]).help
    assert after(["?", "s"]) == ViewState()
    assert after(["h", "q"]).quit


def test_pause_and_quit() -> None:
    """p and space pause and go on; q and Ctrl-C quit, Ctrl-C from everywhere."""
    assert after(["p"]).paused
    assert not after(["p", " "]).paused
    assert after(["q"]).quit
    assert after(["/", "ctrl-c"]).quit


def test_scrolling_and_intervals_have_ends() -> None:
    """No farther up than the first row; no shorter and no longer than the intervals there are."""
    assert after(["up"]).scroll == 0
    assert after(["down", "page-down", "up"]).scroll == 10
    assert after(["down", "home"]).scroll == 0
    assert after(["end"]).scroll > 1000
    assert after(["down", "s"]).scroll == 0
    assert after(["+"] * 20).interval_seconds == INTERVALS_SECONDS[0]
    assert after(["-"] * 20).interval_seconds == INTERVALS_SECONDS[-1]
    assert after(["-", "+"]).interval_seconds == 1.0


def test_other_keys_do_nothing() -> None:
    """A key that means nothing leaves everything as it was."""
    assert after(["x", "enter", "ctrl-l", "backspace", "ü"]) == ViewState()
