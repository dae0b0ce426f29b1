"""A frame of the view: as many lines as the terminal has, each as wide at most.

Everything but ages is drawn from one reading, so that figures agree with each other and with ``/metrics``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from rich.text import Text

from joulescope import __version__
from joulescope.model import Snapshot
from joulescope.terminal.balance import Balance, joules_text
from joulescope.terminal.fetcher import Link
from joulescope.terminal.glyphs import Look, clean, duration, figure, percent, small
from joulescope.terminal.help import help_lines
from joulescope.terminal.history import History, total_watts
from joulescope.terminal.machines_table import (
    GPU_COLUMNS,
    engine_rows,
    gpu_rows,
    needed_engine_columns,
)
from joulescope.terminal.plain import joules_per_output_token
from joulescope.terminal.problems import Problem, problems
from joulescope.terminal.requests_table import (
    ENDED_COLUMNS,
    RUNNING_COLUMNS,
    RequestRow,
    ended_rows,
    needed,
    one_unit,
    running_rows,
)
from joulescope.terminal.source import Reading
from joulescope.terminal.state import PANES, ViewState
from joulescope.terminal.tables import Column, fit, heading, ordered, row_line
from joulescope.terminal.tasks_table import HINT, needed_task_columns, task_rows

Row = TypeVar("Row")

_STALE_FACTOR, _STALE_SECONDS = 3.0, 3.0
_SECOND_TABLE_LINES, _SECOND_TABLE_FROM = 9, 22
_PARTS = (
    ("prefill", "P", "cyan"),
    ("decode", "D", "green"),
    ("idle", ".", "bright_black"),
    ("overhead", "o", "yellow"),
    ("unattributed", "?", "red"),
)
_SHORT = {"overhead": "ovhd", "unattributed": "unattr"}
_WIDE, _NARROW = 110, 76
_HARDLY = 0.005
_SPARK_SECONDS = (60, 120, 300, 600)
"""Sparklines cover the least of these that all of the past fits into."""
_STILL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What a frame is drawn from."""

    link: Link
    history: History
    state: ViewState
    place: str
    now_ns: int
    look: Look = field(default_factory=Look)
    log: str = ""
    """The last line that was logged while the view had the terminal."""

    @property
    def is_stale(self) -> bool:
        """What is shown is older than it should be."""
        if self.state.paused:
            return self.link.error is not None
        patience_seconds = max(_STALE_FACTOR * self.state.interval_seconds, _STALE_SECONDS)
        return self.link.error is not None or self.link.age_seconds(self.now_ns) > patience_seconds


@dataclass(frozen=True, slots=True)
class Frame:
    """Lines, and how far the pane is scrolled: no farther than it has rows."""

    lines: list[Text]
    scroll: int


def frame(scene: Scene, width: int, height: int) -> Frame:
    """Exactly ``height`` lines of at most ``width`` cells."""
    scroll = scene.state.scroll
    if scene.state.help:
        lines = help_lines(scene.look, height)
    elif scene.link.reading is None:
        lines = [_title(scene), Text(), *_no_reading(scene)]
    else:
        lines, scroll = _figures(scene, scene.link.reading, width, height)
    lines = lines[:height]
    if height > 1:
        lines = lines[: height - 1]
        lines += [Text()] * (height - 1 - len(lines))
        lines.append(_footer(scene))
    for line in lines:
        line.no_wrap = True
        line.truncate(width)
    return Frame(lines, scroll)


def _no_reading(scene: Scene) -> list[Text]:
    error = scene.link.error
    if error is None:
        return [Text(f"asking {scene.place} ...")]
    retry = (
        f"next try in {duration((scene.link.retry_ns - scene.now_ns) / 1e9)}, try {scene.link.failures + 1}"
    )
    return [Text(line, "bold red") for line in str(error).split("; ")] + [Text(retry, "dim")]


def _figures(scene: Scene, reading: Reading, width: int, height: int) -> tuple[list[Text], int]:
    snapshot, earlier = reading.snapshot, scene.history.earlier()
    lines = [_title(scene), *_machines(scene, snapshot, earlier, width, max(height // 4, 2))]
    lines.append(_sparks(scene, snapshot, width))
    lines.append(_balance(snapshot, scene.look, width))
    wrong = [*_standing_still(scene), *problems(snapshot, earlier, reading.complaint)]
    lines += _problem_lines(wrong, scene, width, 1 if height < 30 else 3)
    pane, scroll = _pane(scene, reading, earlier, width, height - 1 - len(lines))
    lines += pane
    if scene.is_stale:
        for line in lines[1:]:
            line.stylize("dim")
    return lines, scroll


def _title(scene: Scene) -> Text:
    """Where the figures come from and how old they are; what is wrong with the connection stands first."""
    link, state = scene.link, scene.state
    line = Text.assemble(("joulescope top  ", "bold"))
    line.append(scene.look.text(scene.place))
    if link.reading is not None and link.reading.version != __version__:
        line.append(
            f"  sidecar {clean(link.reading.version) or 'of unknown version'}, top {__version__}", "yellow"
        )
    age = duration(link.age_seconds(scene.now_ns))
    if link.reading is not None and link.error is not None:
        retry = duration((link.retry_ns - scene.now_ns) / 1e9)
        cause = str(link.error).partition("; ")[0].rpartition(f"{scene.place}: ")[2]
        line = Text.assemble((f" DATA IS {age} OLD ", "bold reverse red"))
        line.append(f" {scene.look.text(cause)}; next try in {retry}", "red")
    elif link.reading is not None and scene.is_stale:
        line.append(f"  no answer for {age}", "bold reverse red")
    elif state.paused:
        line.append(f"  PAUSED {age} ago ", "bold reverse")
    else:
        line.append(f"  every {state.interval_seconds:g} s", "dim")
    return line


def _machines(
    scene: Scene, snapshot: Snapshot, earlier: Snapshot | None, width: int, most: int
) -> list[Text]:
    """GPUs and engines, a line each while there is room; not those that the pane below shows."""
    look, state = scene.look, scene.state
    unit = _unit(snapshot)
    gpus, engines = gpu_rows(snapshot, earlier), engine_rows(snapshot, scene.history)
    lines: list[Text] = []
    engine_room = min(len(engines), max(most // 2, most - len(gpus), 1))
    if state.pane != "gpus" and gpus:
        lines += _some(gpus, GPU_COLUMNS, look, width, max(most - engine_room, 1), "gpus", unit)
    if state.pane != "engines" and engines:
        lines += _some(engines, needed_engine_columns(engines), look, width, engine_room, "engines", unit)
    return lines


def _some(
    rows: Sequence[Row],
    columns: Sequence[Column[Row]],
    look: Look,
    width: int,
    room: int,
    pane: str,
    unit: str,
) -> list[Text]:
    fitted = fit(columns, width)
    lines = [heading(fitted, look, unit=unit)]
    shown = rows if len(rows) <= room else rows[: max(room - 1, 0)]
    lines += [row_line(row, fitted, look) for row in shown]
    if len(shown) < len(rows):
        name = {"gpus": "GPUs", "engines": "engines"}[pane]
        lines.append(Text(f"and {len(rows) - len(shown)} more {name}: press {PANES.index(pane) + 1}", "dim"))
    return lines


def _sparks(scene: Scene, snapshot: Snapshot, width: int) -> Text:
    """Power and joules per output over the last minutes, side by side."""
    unit = _unit(snapshot)
    watts = figure(total_watts(snapshot.gpus), 0, "W")
    names = ("power ", f"J/{unit} ")
    seconds = next((each for each in _SPARK_SECONDS if each >= scene.history.seconds), _SPARK_SECONDS[-1])
    span = f"  {seconds // 60} min"
    columns = max((width - len(span) - sum(map(len, names)) - 18) // 2, 4)
    per_output = scene.history.joules_per_output(columns, seconds)
    earlier = scene.history.earlier()
    latest = None if earlier is None else joules_per_output_token(snapshot, earlier)
    line = Text.assemble((names[0], "bold"))
    line.append(scene.look.spark(scene.history.watts(columns, seconds), lowest=0.0), "cyan")
    line.append(f" {watts:<8}  ")
    line.append(names[1], "bold")
    line.append(scene.look.spark(per_output, lowest=0.0), "green")
    line.append(f" {small(latest):<5}")
    line.append(span, "dim")
    return line


def _balance(snapshot: Snapshot, look: Look, width: int) -> Text:
    """Where all joules went since the sidecar started, as a bar."""
    balance = Balance.of(snapshot)
    if balance.measured_joules <= 0:
        return Text("balance  no joules measured yet", "dim")
    ratios = [getattr(balance, f"{name}_joules") / balance.measured_joules for name, _, _ in _PARTS]
    letters = not (look.unicode and look.colour)
    legend = Text("  ")
    for (name, letter, style), ratio in zip(_PARTS, ratios, strict=True):
        if width < _NARROW and ratio < _HARDLY:
            continue
        shown = name if width >= _WIDE else _SHORT.get(name, name)
        legend.append(f"{letter + '=' if letters else ''}{shown} {percent(ratio)}  ", style)
    total = joules_text(balance.measured_joules) if width >= _WIDE else ""
    line = Text.assemble(("balance  " if width >= _WIDE else "", "bold"))
    legend.rstrip()
    total = total and f"  {total}"
    cells = min(width - len(line) - len(legend) - len(total), 40)
    if cells >= 6:
        line.append_text(
            look.stacked(
                [(ratio, part[1], part[2]) for ratio, part in zip(ratios, _PARTS, strict=True)], cells
            )
        )
    line.append_text(legend)
    line.append(total, "bold")
    return line


def _standing_still(scene: Scene) -> list[Problem]:
    link = scene.link
    seconds = (link.received_ns - link.changed_ns) / 1e9
    if link.error is not None or seconds < _STILL_SECONDS:
        return []
    return [
        Problem(f"the sidecar answers, but has accounted for nothing for {duration(seconds)}", severe=True)
    ]


def _problem_lines(wrong: Sequence[Problem], scene: Scene, width: int, most: int) -> list[Text]:
    look = scene.look
    lines = [
        Text(look.text(f"! {each.text}"), "bold red" if each.severe else "yellow") for each in wrong[:most]
    ]
    if len(wrong) > most:
        more = f"  (and {len(wrong) - most} more)"
        lines[-1].truncate(max(width - len(more), 0))
        lines[-1].append(more, "not bold")
    if scene.log:
        lines.append(Text(look.text(f"! log: {clean(scene.log)}"), "yellow"))
    return lines


def _pane(
    scene: Scene, reading: Reading, earlier: Snapshot | None, width: int, room: int
) -> tuple[list[Text], int]:
    """The tabs, the table of the chosen pane, and how far it is scrolled."""
    state, snapshot = scene.state, reading.snapshot
    tabs, unit = _tabs(scene, reading, width), _unit(snapshot)
    second: list[Text] = []
    if state.pane == "engines":
        engines = engine_rows(snapshot, scene.history)
        lines, scroll = _table(engines, needed_engine_columns(engines), scene, width, room - 1, unit)
    elif state.pane == "gpus":
        lines, scroll = _table(gpu_rows(snapshot, earlier), GPU_COLUMNS, scene, width, room - 1, unit)
    elif state.pane == "tasks":
        tasks = task_rows(snapshot, earlier, state.engine)
        lines, scroll = _table(tasks, needed_task_columns(tasks), scene, width, room - 1, unit, HINT)
    elif reading.requests is None:
        return [tabs, Text("this sidecar's version has no page of single requests", "yellow")], 0
    else:
        rows = ended = _filtered(ended_rows(reading.requests), state)
        columns = ENDED_COLUMNS
        if state.pane == "running":
            rows, columns = _filtered(running_rows(reading.requests, scene.history), state), RUNNING_COLUMNS
            second = _costliest(ended, scene, width, unit) if room >= _SECOND_TABLE_FROM and ended else []
        lines, scroll = _table(rows, needed(columns, rows), scene, width, room - 1 - len(second), unit)
    return [tabs, *lines, *second], scroll


def _tabs(scene: Scene, reading: Reading, width: int) -> Text:
    """Panes with their counts, which are left out where what is chosen would have no room beside them."""
    state, snapshot, view = scene.state, reading.snapshot, reading.requests
    counts: dict[str, int | None] = {
        "running": None if view is None else view.open_total,
        "finished": sum(sum(each.requests_finished.values()) for each in snapshot.engines),
        "engines": len(snapshot.engines),
        "gpus": len(snapshot.gpus),
        "tasks": len({name for each in snapshot.engines for name in each.tasks}) or None,
    }
    chosen = Text()
    if state.engine is not None:
        chosen.append(f" engine {clean(state.engine)}", "yellow")
    if state.filter or state.typing:
        cursor = "_" if state.typing else ""
        chosen.append(scene.look.text(f" filter {clean(state.filter)}{cursor}"), "yellow")
    line = _panes(state.pane, counts)
    if len(line) + len(chosen) > width:
        line = _panes(state.pane, {})
    return line.append_text(chosen)


def _panes(shown: str, counts: Mapping[str, int | None]) -> Text:
    line = Text()
    for number, pane in enumerate(PANES, 1):
        name = "GPUs" if pane == "gpus" else pane
        number_of = counts.get(pane)
        text = f"{number} {name}" + ("" if number_of is None else f" {number_of}")
        line.append(f" {text} ", "bold reverse" if pane == shown else "")
        line.append(" ")
    return line


def _filtered(rows: Sequence[RequestRow], state: ViewState) -> list[RequestRow]:
    wanted = state.filter.casefold()

    def matches(row: RequestRow) -> bool:
        request = row.request
        if state.engine is not None and request.engine != state.engine:
            return False
        texts = (
            request.external_id,
            request.request_id,
            request.engine,
            request.model,
            request.lora,
            request.task,
            row.state,
        )
        return not wanted or any(wanted in text.casefold() for text in texts)

    return [row for row in rows if matches(row)]


def _table(
    rows: Sequence[Row],
    columns: Sequence[Column[Row]],
    scene: Scene,
    width: int,
    room: int,
    unit: str,
    none: str = "none",
) -> tuple[list[Text], int]:
    """Headings and as many rows as there is room for, from where it was scrolled to."""
    sort = scene.state.sort
    fitted = fit(columns, width)
    lines = [heading(fitted, scene.look, sort=sort.name, descending=sort.descending, unit=unit)]
    rows = ordered(rows, columns, sort.name, sort.descending)
    space = max(room - 1, 0)
    first = max(min(scene.state.scroll, len(rows) - space), 0)
    lines += [row_line(row, fitted, scene.look) for row in rows[first : first + space]]
    if not rows:
        lines.append(Text(none, "dim"))
    return lines + [Text()] * max(room - len(lines), 0), first


def _costliest(ended: Sequence[RequestRow], scene: Scene, width: int, unit: str) -> list[Text]:
    """The most expensive of those that ended of late, below those that run."""
    fitted = fit(needed(ENDED_COLUMNS, ended), width)
    rows = ordered(ended, ENDED_COLUMNS, "joules", True)[: _SECOND_TABLE_LINES - 3]
    title = Text("costliest of those that ended of late", "bold")
    lines = [Text(), title, heading(fitted, scene.look, sort="joules", descending=True, unit=unit)]
    return lines + [row_line(row, fitted, scene.look) for row in rows]


def _unit(snapshot: Snapshot) -> str:
    return one_unit(engine.info.unit for engine in snapshot.engines)


def _footer(scene: Scene) -> Text:
    state = scene.state
    if state.typing:
        return Text("type to filter   Enter keep   Esc clear", "reverse")
    if state.help:
        return Text("any key goes back   q quit", "reverse")
    pause = "go on" if state.paused else "pause"
    return Text(f"q quit  ? help  1-5 panes  s sort  r reverse  / filter  e engine  p {pause}", "reverse")
