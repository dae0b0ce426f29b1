"""What the person at the keys has chosen, and what a key makes of it. Nothing here draws or reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from joulescope.terminal.machines_table import ENGINE_COLUMNS, GPU_COLUMNS
from joulescope.terminal.requests_table import ENDED_COLUMNS, RUNNING_COLUMNS
from joulescope.terminal.tables import Column
from joulescope.terminal.tasks_table import TASK_COLUMNS

PANES = ("running", "finished", "engines", "gpus", "tasks")

INTERVALS_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

_COLUMNS: Mapping[str, tuple[Column[Any], ...]] = {
    "running": RUNNING_COLUMNS,
    "finished": ENDED_COLUMNS,
    "engines": ENGINE_COLUMNS,
    "gpus": GPU_COLUMNS,
    "tasks": TASK_COLUMNS,
}
SORTABLE: Mapping[str, tuple[str, ...]] = {
    pane: tuple(column.name for column in columns if column.value is not None)
    for pane, columns in _COLUMNS.items()
}
_ASCENDING: Mapping[str, frozenset[str]] = {
    pane: frozenset(column.name for column in columns if column.ascending)
    for pane, columns in _COLUMNS.items()
}
_DIRECT = {
    "j": "joules",
    "w": "watts",
    "o": "per_output",
    "a": "age",
    "t": "tokens",
    "n": "engine",
}
"""Keys that name a column."""

_MAX_FILTER = 64


@dataclass(frozen=True, slots=True)
class Sort:
    """By which column, and which way."""

    name: str
    descending: bool = True


@dataclass(frozen=True, slots=True)
class ViewState:
    """Everything that keys change."""

    pane: str = "running"
    sorts: Mapping[str, Sort] = field(
        default_factory=lambda: {
            "running": Sort("joules"),
            "finished": Sort("joules"),
            "engines": Sort("engine", descending=False),
            "gpus": Sort("gpu", descending=False),
            "tasks": Sort("joules"),
        }
    )
    filter: str = ""
    """Only requests whose id, engine, model, adapter, task or phase contains this."""
    engine: str | None = None
    """Only requests and tasks of this engine."""
    typing: bool = False
    """Letters go into the filter."""
    paused: bool = False
    help: bool = False
    scroll: int = 0
    interval_seconds: float = 1.0
    quit: bool = False

    @property
    def sort(self) -> Sort:
        """That of the pane that is shown."""
        return self.sorts[self.pane]


def press(state: ViewState, key: str, engines: Sequence[str] = ()) -> ViewState:
    """The state after a key; ``engines`` are those that can be chosen."""
    if key == "ctrl-c":
        return replace(state, quit=True)
    if state.typing:
        return _type(state, key)
    if state.help:
        return replace(state, help=False, quit=key == "q")
    changed = _choose(state, key, engines)
    return changed if changed is not None else _move(state, key)


def _type(state: ViewState, key: str) -> ViewState:
    if key == "enter":
        return replace(state, typing=False)
    if key == "escape":
        return replace(state, typing=False, filter="", scroll=0)
    if key == "backspace":
        return replace(state, filter=state.filter[:-1], scroll=0)
    if len(key) == 1 and key.isprintable() and len(state.filter) < _MAX_FILTER:
        return replace(state, filter=state.filter + key, scroll=0)
    return state


def _choose(state: ViewState, key: str, engines: Sequence[str]) -> ViewState | None:
    """Keys that choose what is shown and how; ``None`` for others."""
    if key in ("1", "2", "3", "4", "5"):
        return replace(state, pane=PANES[int(key) - 1], scroll=0)
    if key in ("tab", "back-tab"):
        step = 1 if key == "tab" else -1
        return replace(state, pane=PANES[(PANES.index(state.pane) + step) % len(PANES)], scroll=0)
    if key in ("s", "right", "S", "left"):
        return _next_sort(state, 1 if key in ("s", "right") else -1)
    if key in _DIRECT:
        return _sort_by(state, _DIRECT[key])
    if key == "r":
        return _with_sort(state, replace(state.sort, descending=not state.sort.descending))
    if key == "e":
        return replace(state, engine=_after(state.engine, engines), scroll=0)
    if key == "/":
        return replace(state, typing=True)
    if key == "escape":
        return replace(state, filter="", engine=None, scroll=0)
    if key in ("p", " "):
        return replace(state, paused=not state.paused)
    if key in ("?", "h"):
        return replace(state, help=True)
    if key == "q":
        return replace(state, quit=True)
    return None


def _move(state: ViewState, key: str) -> ViewState:
    """Keys that scroll, and those that change how often is read."""
    steps = {"down": 1, "up": -1, "page-down": 10, "page-up": -10}
    if key in steps:
        return replace(state, scroll=max(state.scroll + steps[key], 0))
    if key == "home":
        return replace(state, scroll=0)
    if key == "end":
        return replace(state, scroll=1 << 20)
    if key in ("+", "-"):
        return replace(state, interval_seconds=_interval(state.interval_seconds, slower=key == "-"))
    return state


def _next_sort(state: ViewState, step: int) -> ViewState:
    names = SORTABLE[state.pane]
    return _sort_by(state, names[(names.index(state.sort.name) + step) % len(names)])


def _sort_by(state: ViewState, name: str) -> ViewState:
    """A column that is sorted by already is turned round; one that the pane lacks changes nothing."""
    if name not in SORTABLE[state.pane]:
        return state
    if name == state.sort.name:
        return _with_sort(state, replace(state.sort, descending=not state.sort.descending))
    return _with_sort(state, Sort(name, descending=name not in _ASCENDING[state.pane]))


def _with_sort(state: ViewState, sort: Sort) -> ViewState:
    return replace(state, sorts={**state.sorts, state.pane: sort}, scroll=0)


def _after(engine: str | None, engines: Sequence[str]) -> str | None:
    """The engine after this one; after the last all of them."""
    choices = [None, *engines]
    return choices[(choices.index(engine) + 1) % len(choices)] if engine in choices else None


def _interval(seconds: float, *, slower: bool) -> float:
    if slower:
        return next((each for each in INTERVALS_SECONDS if each > seconds), INTERVALS_SECONDS[-1])
    return next((each for each in reversed(INTERVALS_SECONDS) if each < seconds), INTERVALS_SECONDS[0])
