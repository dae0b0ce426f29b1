"""The columns of task classes: what a chat costs beside a summary, on each engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from joulescope.label_model import NO_TASK, OTHER
from joulescope.model import EngineTotals, Snapshot, TaskTotals
from joulescope.terminal.glyphs import clean, count, figure, joules, joules_unit, percent, small
from joulescope.terminal.tables import Column, shown

HINT = "tasks are not told apart; the setting task_from says how to"


@dataclass(frozen=True, slots=True)
class Task:
    """A task class of an engine, and what it used of late. ``None`` where it is not known yet."""

    engine: str
    name: str
    totals: TaskTotals
    ratio: float | None
    """Of the engine's attributed joules, ever."""
    watts: float | None = None
    outputs_per_second: float | None = None
    finished_per_second: float | None = None
    joules_per_output: float | None = None
    """Of the last seconds."""

    @property
    def joules(self) -> float:
        """Attributed, ever."""
        return sum(self.totals.joules.values())

    @property
    def joules_per_output_ever(self) -> float | None:
        return _ratio(self.joules, self.totals.generated_tokens)

    @property
    def joules_per_request(self) -> float | None:
        """Mean of those that have finished and were measured."""
        told = self.totals.joules_per_request
        return _ratio(told.total, sum(told.counts))


def task_rows(snapshot: Snapshot, earlier: Snapshot | None, engine: str | None = None) -> list[Task]:
    """Task classes of all engines, or of one; those of which nothing was ever seen are left out."""
    before = {} if earlier is None else {each.info.engine: each for each in earlier.engines}
    seconds = 0.0 if earlier is None else (snapshot.time_ns - earlier.time_ns) / 1e9
    return [
        _task(each, before.get(each.info.engine), name, seconds)
        for each in snapshot.engines
        if engine in (None, each.info.engine)
        for name, totals in each.tasks.items()
        if name not in (NO_TASK, OTHER) or totals.requests_finished or any(totals.joules.values())
    ]


def _task(engine: EngineTotals, before: EngineTotals | None, name: str, seconds: float) -> Task:
    totals = engine.tasks[name]
    used = sum(totals.joules.values())
    task = Task(
        clean(engine.info.engine), clean(name), totals, _ratio(used, sum(engine.attributed_joules.values()))
    )
    if before is None or seconds <= 0.0:
        return task
    then = before.tasks.get(name, TaskTotals({}))
    drawn = used - sum(then.joules.values())
    outputs = totals.generated_tokens - then.generated_tokens
    return replace(
        task,
        watts=drawn / seconds,
        outputs_per_second=outputs / seconds,
        finished_per_second=(totals.requests_finished - then.requests_finished) / seconds,
        joules_per_output=_ratio(drawn, outputs),
    )


def _ratio(value: float, whole: float) -> float | None:
    return value / whole if whole > 0 else None


def needed_task_columns(rows: Sequence[Task]) -> list[Column[Task]]:
    """Without the engine where all have the same."""
    several = len({row.engine for row in rows}) > 1
    return [column for column in TASK_COLUMNS if several or column.name != "engine"]


TASK_COLUMNS: tuple[Column[Task], ...] = (
    Column[Task](
        "task",
        "task",
        lambda row: row.name,
        12,
        left=True,
        grows=20,
        value=lambda row: row.name,
        ascending=True,
        middle=True,
    ),
    shown("engine", "engine", lambda row: row.engine, str, 8, rank=3, left=True, grows=14, ascending=True),
    shown("finished", "finished", lambda row: row.totals.requests_finished, count, 8, rank=2),
    Column[Task](
        "finished_per_second",
        "req/s",
        lambda row: figure(row.finished_per_second, 1),
        6,
        rank=5,
        value=lambda row: row.finished_per_second,
    ),
    shown("outputs", "{unit}/s", lambda row: row.outputs_per_second, count, 8, rank=4),
    Column[Task]("watts", "W", lambda row: figure(row.watts, 0), 6, rank=1, value=lambda row: row.watts),
    shown("per_request", "J/request", lambda row: row.joules_per_request, joules, 9),
    shown(
        "per_output",
        "J/{unit}",
        lambda row: row.joules_per_output,
        small,
        8,
        style=lambda row: "bold green",
    ),
    shown("per_output_ever", "ever", lambda row: row.joules_per_output_ever, small, 6, rank=2),
    shown("ratio", "share", lambda row: row.ratio, percent, 5, rank=1),
    shown("joules", "joules", lambda row: row.joules, joules_unit, 9, rank=3),
)
