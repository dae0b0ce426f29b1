"""Minutes of engines as values: added up, laid flat for a table, and written as JSON lines and read back.

Pure functions over :class:`joulescope.minute_model.EngineMinute`. ``docs/minutes.md`` lists the columns.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta, timezone
from operator import attrgetter
from typing import Any, TypeVar

from joulescope.clock import utc_instant
from joulescope.engine_model import CostFacts
from joulescope.errors import MinuteError
from joulescope.minute_model import (
    EngineMinute,
    GpuSums,
    Joules,
    Kind,
    Laws,
    Limits,
    Load,
    Steps,
    TaskSums,
    Tokens,
)

_SECTIONS: tuple[tuple[str, type, str], ...] = (
    ("kind", Kind, "{}"),
    ("limits", Limits, "{}"),
    ("joules", Joules, "{}_joules"),
    ("tokens", Tokens, "{}_tokens"),
    ("decode_steps", Steps, "decode_steps_{}"),
    ("prefill_steps", Steps, "prefill_steps_{}"),
    ("load", Load, "load_{}"),
    ("gpu", GpuSums, "gpu_{}"),
)
"""Parts of a minute that hold one figure a field, and how their fields are named when laid flat."""

_KEY_OF_CELL = attrgetter("task", "prompt_bin", "output_bin")
_ADDED_OF_CELL = tuple(field.name for field in fields(TaskSums))[3:]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _columns() -> dict[str, str]:
    columns = {"start": "time", "end": "time"}
    for _, section, pattern in _SECTIONS:
        columns.update({pattern.format(field.name): str(field.type) for field in fields(section)})
    return {**columns, "tasks": "cells", "finish_reasons": "counts", "laws": "laws"}


COLUMNS: Mapping[str, str] = _columns()
"""Columns of a minute laid flat, in order, with the type of each: ``str``, ``int``, ``int | None``,
``float``, ``time`` (a :class:`datetime.datetime` in UTC, whole microseconds), ``cells`` (a list of
dictionaries), ``counts`` (a dictionary of whole numbers) and ``laws`` (a JSON text, or ``None``)."""

CELL_COLUMNS: Mapping[str, str] = {field.name: str(field.type) for field in fields(TaskSums)}
"""The keys of each of ``cells``, and their types."""


# ------------------------------------------------------------------------------------------- adding up


def add(left: EngineMinute, right: EngineMinute) -> EngineMinute:
    """Both minutes as one stretch of time; the order does not matter.

    Limits and laws are those of the one that ended later.

    Raises:
        ValueError: if they are of different kinds.
    """
    if left.kind != right.kind:
        raise ValueError(f"minutes of different kinds are not added up: {left.kind} and {right.kind}")
    return _total((left, right))


def merge(minutes: Iterable[EngineMinute]) -> tuple[EngineMinute, ...]:
    """One stretch of time for each kind among them, in the order in which kinds appear.

    Sums are exact to the last bit, so that the order of the minutes does not change them.
    """
    by_kind: dict[Kind, list[EngineMinute]] = {}
    for minute in minutes:
        by_kind.setdefault(minute.kind, []).append(minute)
    return tuple(_total(of_kind) for of_kind in by_kind.values())


def _total(minutes: Sequence[EngineMinute]) -> EngineMinute:
    if len(minutes) == 1:
        return minutes[0]
    by_end = sorted(minutes, key=lambda minute: (minute.end_wall_seconds, minute.start_wall_seconds))
    reasons: Counter[str] = Counter()
    for minute in minutes:
        reasons.update(dict(minute.finish_reasons))
    sums = {
        name: _sum(section, [getattr(minute, name) for minute in minutes])
        for name, section, _ in _SECTIONS[2:]
    }
    return EngineMinute(
        kind=minutes[0].kind,
        start_wall_seconds=min(minute.start_wall_seconds for minute in minutes),
        end_wall_seconds=by_end[-1].end_wall_seconds,
        limits=by_end[-1].limits,
        tasks=_cells(cell for minute in minutes for cell in minute.tasks),
        finish_reasons=tuple(sorted(reasons.items())),
        laws=next((minute.laws for minute in reversed(by_end) if minute.laws is not None), None),
        **sums,
    )


_Section = TypeVar("_Section")


def _sum(section: type[_Section], parts: Sequence[_Section]) -> _Section:
    names = tuple(field.name for field in fields(section))  # type: ignore[arg-type]
    columns = zip(*map(attrgetter(*names), parts), strict=True)
    return section(*map(_added, columns))


def _added(values: Sequence[float]) -> float:
    """A sum that is rounded once; whole numbers stay whole."""
    return sum(values) if all(isinstance(value, int) for value in values) else math.fsum(values)


def _cells(cells: Iterable[TaskSums]) -> tuple[TaskSums, ...]:
    by_key: dict[tuple[str, int, int], list[TaskSums]] = {}
    for cell in cells:
        by_key.setdefault(_KEY_OF_CELL(cell), []).append(cell)
    return tuple(
        TaskSums(*key, *map(_added, zip(*map(attrgetter(*_ADDED_OF_CELL), of_key), strict=True)))  # type: ignore[arg-type]
        for key, of_key in sorted(by_key.items())
    )


# ---------------------------------------------------------------------------------------- bins of length


def length_bin(tokens: int) -> int:
    """The bin of a length, ⌊2·log₂ tokens⌋; 0 below one token. Exact, also at the edges."""
    if tokens < 1:
        return 0
    whole = tokens.bit_length() - 1
    return 2 * whole + (tokens * tokens >= 1 << (2 * whole + 1))


def bin_tokens(length_bin: int) -> tuple[int, int]:
    """Shortest and longest length in a bin; bin 0 holds 0 too, and some low bins hold nothing (1, 3 tokens
    and so on leave gaps): then the first is above the second."""
    shortest = _least(length_bin) if length_bin > 0 else 0
    return shortest, _least(length_bin + 1) - 1


def _least(length_bin: int) -> int:
    """The least whole number whose square is at least 2**length_bin."""
    root = math.isqrt(1 << length_bin)
    return root if root * root == 1 << length_bin else root + 1


# ------------------------------------------------------------------------------------------ flat columns


def flatten(minute: EngineMinute) -> dict[str, Any]:
    """A row of :data:`COLUMNS`, in their order."""
    row: dict[str, Any] = {
        "start": _time(minute.start_wall_seconds),
        "end": _time(minute.end_wall_seconds),
    }
    for name, section, pattern in _SECTIONS:
        part = getattr(minute, name)
        for field in fields(section):
            row[pattern.format(field.name)] = getattr(part, field.name)
    row["tasks"] = [_as_dict(cell) for cell in minute.tasks]
    row["finish_reasons"] = dict(minute.finish_reasons)
    row["laws"] = None if minute.laws is None else laws_text(minute.laws)
    return row


def unflatten(row: Mapping[str, Any]) -> EngineMinute:
    """The minute of a row. Columns that are absent or null have their defaults, unknown ones are left out:
    rows of older and newer versions can be read.

    Raises:
        MinuteError: if a value is not what its column holds; the message names the column.
    """
    for name in ("engine", "start", "end"):
        if row.get(name) is None:
            raise MinuteError(f"column {name} is missing; it is no minute of an engine")
    parts = {
        name: section(
            **{
                field.name: _value(row[column], str(field.type), column)
                for field in fields(section)
                if row.get(column := pattern.format(field.name)) is not None
            }
        )
        for name, section, pattern in _SECTIONS
    }
    start, end = (_wall_seconds(row[name], name) for name in ("start", "end"))
    if end < start:
        raise MinuteError(f"column end: {row['end']} is before the start, {row['start']}")
    return EngineMinute(
        start_wall_seconds=start,
        end_wall_seconds=end,
        tasks=tuple(map(_cell, _listed(row.get("tasks"), "tasks"))),
        finish_reasons=_counts(row.get("finish_reasons")),
        laws=None if row.get("laws") is None else laws_of(row["laws"]),
        **parts,
    )


def _time(wall_seconds: float) -> datetime:
    return _EPOCH + timedelta(microseconds=round(wall_seconds * 1e6))


def _wall_seconds(value: Any, column: str) -> float:
    if isinstance(value, str):
        try:
            value = utc_instant(value)
        except ValueError:
            raise MinuteError(
                f"column {column}: {value!r} is no instant such as 2026-11-27T16:00:00Z"
            ) from None
    if not isinstance(value, datetime):
        raise MinuteError(f"column {column}: {value!r} is no instant")
    instant: datetime = value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)
    return (instant - _EPOCH) // timedelta(microseconds=1) / 1e6


def _value(value: Any, kind: str, column: str) -> Any:
    """A value of a column, or an error."""
    if kind == "str":
        if isinstance(value, str):
            return value
    elif isinstance(value, bool) or not isinstance(value, int | float):
        pass
    elif kind.startswith("int"):
        if math.isfinite(value) and value == int(value):
            return int(value)
    elif math.isfinite(value):
        return float(value)
    raise MinuteError(f"column {column}: {value!r} is not of type {kind}")


def _listed(value: Any, column: str) -> Sequence[Any]:
    if value is None:
        return ()
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise MinuteError(f"column {column}: {value!r} is no list")
    return list(value)


def _cell(value: Any) -> TaskSums:
    if not isinstance(value, Mapping):
        raise MinuteError(f"column tasks: {value!r} is no object")
    found = {
        name: _value(value[name], kind, f"tasks.{name}")
        for name, kind in CELL_COLUMNS.items()
        if value.get(name) is not None
    }
    if not {"task", "prompt_bin", "output_bin"} <= found.keys():
        raise MinuteError(f"column tasks: {value!r} lacks task, prompt_bin or output_bin")
    return TaskSums(**found)


def _counts(value: Any) -> tuple[tuple[str, int], ...]:
    pairs = list(value.items()) if isinstance(value, Mapping) else _listed(value, "finish_reasons")
    counts: Counter[str] = Counter()
    for pair in pairs:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise MinuteError(f"column finish_reasons: {pair!r} is no reason with its count")
        name = _value(pair[0], "str", "finish_reasons")
        counts[name] += _value(pair[1], "int", f"finish_reasons.{name}")
    return tuple(sorted(counts.items()))


def _as_dict(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


# ---------------------------------------------------------------------------------------------- the laws


def laws_text(laws: Laws) -> str:
    """The laws as a JSON text."""
    return json.dumps(_laws_dict(laws), allow_nan=False)


def _laws_dict(laws: Laws) -> dict[str, Any]:
    return {**_as_dict(laws), "cost": _as_dict(laws.cost)}


def laws_of(told: str | Mapping[str, Any]) -> Laws:
    """The laws of a JSON text, or of what it holds.

    Raises:
        MinuteError: if that is no laws.
    """
    found = told if isinstance(told, Mapping) else _json(told, "column laws")
    cost = found.get("cost", {}) if isinstance(found, Mapping) else None
    if not isinstance(cost, Mapping) or not isinstance(found, Mapping):
        raise MinuteError(f"column laws: {told!r} is no object with an object `cost`")
    facts = {
        field.name: _value(cost[field.name], str(field.type), f"laws.cost.{field.name}")
        for field in fields(CostFacts)
        if cost.get(field.name) is not None
    }
    values = {
        field.name: _law(found[field.name], str(field.type), f"laws.{field.name}")
        for field in fields(Laws)[1:]
        if found.get(field.name) is not None
    }
    if not {"time_coefficients", "energy_coefficients"} <= values.keys():
        raise MinuteError("column laws: time_coefficients or energy_coefficients are missing")
    return Laws(cost=CostFacts(**facts), **values)


def _law(value: Any, kind: str, column: str) -> Any:
    if kind == "float":
        return _value(value, "float", column)
    if kind.startswith("tuple[tuple"):
        return tuple(_law(row, "tuple", column) for row in _listed(value, column))
    numbers = tuple(_value(each, "float", column) for each in _listed(value, column))
    if kind == "tuple[float, float]" and len(numbers) != 2:
        raise MinuteError(f"column {column}: {value!r} is no pair")
    return numbers


# ------------------------------------------------------------------------------------------- JSON lines


def json_row(minute: EngineMinute) -> dict[str, Any]:
    """A row that JSON can hold: instants as ISO 8601 in UTC, laws as an object."""
    row = flatten(minute)
    for name in ("start", "end"):
        row[name] = row[name].isoformat(timespec="microseconds").replace("+00:00", "Z")
    row["laws"] = None if minute.laws is None else _laws_dict(minute.laws)
    return row


def json_line(minute: EngineMinute) -> str:
    """One line with its end. Numbers come back as they were."""
    return json.dumps(json_row(minute), allow_nan=False, separators=(",", ":")) + "\n"


def parse_line(line: str | bytes) -> EngineMinute:
    """The minute of a line.

    Raises:
        MinuteError: if it is none; the message says what is wrong.
    """
    row = _json(line, "the line")
    if not isinstance(row, Mapping):
        raise MinuteError(f"{str(row)[:80]!r} is no object with the columns of a minute")
    return unflatten(row)


def read_lines(lines: Iterable[str | bytes], name: str) -> Iterator[EngineMinute]:
    """The minutes of a file of JSON lines; empty lines are passed over.

    Args:
        name: of the file, for messages.

    Raises:
        MinuteError: at the first line that is no minute; the message names it.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield parse_line(line)
        except MinuteError as error:
            raise MinuteError(f"{name}:{number}: {error}") from None


def _json(text: str | bytes, what: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise MinuteError(f"{what} is no JSON: {error}") from None


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")
