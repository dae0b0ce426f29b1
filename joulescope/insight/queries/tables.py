"""The two tables of a ledger as Ibis sees them: the same columns whichever release of joulescope wrote them.

Joules become whole microjoules before anything is added up, as in the ledger of the sidecar
(docs/decisions/0002-integer-microjoules.md): sums then depend neither on their order nor on the engine that
makes them, and the parts of a chargeback add up to the last microjoule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from joulescope.errors import ConfigError, QueryError
from joulescope.insight.queries.kinds import Column, Table
from joulescope.insight.queries.span import ALWAYS, Span

REQUEST_COLUMNS: Mapping[str, str] = {
    "request_id": "string",
    "external_id": "string",
    "engine": "string",
    "model": "string",
    "tenant": "string",
    "lora": "string",
    "task": "string",
    "kind": "string",
    "finish_reason": "string",
    "unit": "string",
    "start_unix_ns": "int64",
    "end_unix_ns": "int64",
    "end_time": "timestamp",
    "prompt_tokens": "int64",
    "cached_tokens": "int64",
    "output_tokens": "int64",
    "attributed_joules": "float64",
    "wasted_joules": "float64",
    "avoided_joules": "float64",
    "complete": "boolean",
}
"""Columns of ``requests`` that are asked for, by Ibis' names of types; all others stay unread."""

JOULE_COLUMNS = (
    "measured",
    "prefill",
    "decode",
    "idle",
    "overhead_startup",
    "overhead_dummy_batch",
    "overhead_preemption",
    "overhead_rejected_draft",
    "unattributed",
    "wasted_abort",
    "wasted_rejected_draft",
    "wasted_preemption",
    "avoided",
)
"""Fields of :class:`joulescope.minute_model.Joules` that are asked for."""

MINUTE_COLUMNS: Mapping[str, str] = {
    "start": "timestamp",
    "engine": "string",
    "served_model": "string",
    "gpu_count": "int64",
    **{f"{name}_joules": "float64" for name in JOULE_COLUMNS},
    "generated_tokens": "int64",
    "gpu_seconds": "float64",
    "load_seconds": "float64",
    "load_busy_seconds": "float64",
}

DIMENSIONS = ("engine", "model", "tenant", "lora", "task", "finish_reason", "kind")
"""What requests can be told apart by."""

_NANOSECONDS: Mapping[str, int] = {"hour": 3_600 * 10**9, "day": 86_400 * 10**9}
PERIODS = ("hour", "day", "month")
"""Stretches of UTC by which figures can be told apart beside :data:`DIMENSIONS`."""

PERIOD = "period_ns"
"""Name of the column that holds the begin of a row's hour, day or month, nanoseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Tables:
    """``requests`` and ``minutes`` of one span, with microjoules (``_uj``) in place of joules."""

    requests: Table
    minutes: Table
    backend: Any
    """The Ibis connection that both belong to."""
    errors: tuple[type[Exception], ...] = ()
    """What it raises where a file turns out not to be as it should."""

    @property
    def both(self) -> tuple[Table, Table]:
        return self.requests, self.minutes

    def rows(self, expression: Table) -> list[dict[str, Any]]:
        """The answer, a dictionary a row, in the order that the expression asks for.

        Raises:
            QueryError: if a file cannot be read after all.
        """
        answer: list[dict[str, Any]] = self.arrow(expression).to_pylist()
        return [{name: _plain(value) for name, value in row.items()} for row in answer]

    def arrow(self, expression: Table) -> Any:
        """The same as a ``pyarrow.Table``; sums beyond 64 bits are decimals there.

        Raises:
            QueryError: if a file cannot be read after all.
        """
        try:
            return self.backend.to_pyarrow(expression)
        except self.errors as problem:
            text = str(problem).partition("\n")[0]
            hint = "ask again if a file has gone; --verify names those that are damaged"
            raise QueryError(f"the ledger cannot be read to its end: {text}; {hint}") from problem


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, Decimal) else value


def wide_sum(column: Column) -> Column:
    """A sum of whole numbers beyond 64 bits: 2⁶³ µJ are 2.6 GWh, which a fleet draws in weeks."""
    return column.cast("decimal(18, 0)").sum()


def tables(
    requests: Table,
    minutes: Table,
    backend: Any,
    span: Span = ALWAYS,
    errors: tuple[type[Exception], ...] = (),
    where: Callable[[str, str], str] = lambda table, column: "some file",
) -> Tables:
    """Both tables as they were read, brought into one shape and cut to a span.

    Args:
        where: a file in which a column of a table is of another type than it should, for an error.
    """
    asked = _shaped("requests", requests, REQUEST_COLUMNS, where)
    asked = _within(asked, asked.end_unix_ns, span)
    texts = {name: asked[name].fill_null("") for name in (*DIMENSIONS, "unit", "request_id")}
    asked = asked.mutate(
        **texts,
        measured=asked.attributed_joules.notnull(),
        incomplete=(~asked.complete).fill_null(True),
        joules_uj=_microjoules(asked.attributed_joules),
        wasted_uj=_microjoules(asked.wasted_joules),
        avoided_uj=_microjoules(asked.avoided_joules),
    )
    kept = _shaped("minutes", minutes, MINUTE_COLUMNS, where)
    start_ns = kept.start.epoch_seconds().cast("int64") * 10**9
    kept = _within(kept.mutate(start_ns=start_ns), start_ns, span)
    kept = kept.mutate(
        engine=kept.engine.fill_null(""),
        model=kept.served_model.fill_null(""),
        generated_tokens=kept.generated_tokens.fill_null(0),
        **{name: kept[name].fill_null(0.0) for name in ("gpu_seconds", "load_seconds", "load_busy_seconds")},
        **{f"{name}_uj": _microjoules(kept[f"{name}_joules"]) for name in JOULE_COLUMNS},
    )
    return Tables(asked, kept, backend, errors)


def _shaped(name: str, table: Table, columns: Mapping[str, str], where: Callable[[str, str], str]) -> Table:
    """The columns asked for, each of its type; one that no file has is null in every row."""
    import ibis

    there = table.schema()
    for column, kind in columns.items():
        if column in there and not FITS[kind](there[column]):
            raise QueryError(
                f"{column} of the {name} is no {kind} in {where(name, column)}, as a ledger has it: "
                "move that file away, or ask for other days"
            )
    return table.select(
        **{
            column: table[column].cast(kind) if column in there else ibis.null().cast(kind)
            for column, kind in columns.items()
        }
    )


FITS: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda kind: bool(kind.is_string() or kind.is_null()),
    "int64": lambda kind: bool(kind.is_integer() or kind.is_null()),
    "float64": lambda kind: bool(kind.is_numeric() or kind.is_null()),
    "boolean": lambda kind: bool(kind.is_boolean() or kind.is_null()),
    "timestamp": lambda kind: bool(kind.is_timestamp() or kind.is_null()),
}
"""Which of Ibis' types may stand where a type is expected. Files that differ read as what holds all of them,
which is text in the end."""


def _within(table: Table, instant_ns: Column, span: Span) -> Table:
    if span.begin_ns is not None:
        table = table.filter(instant_ns >= span.begin_ns)
    if span.end_ns is not None:
        table = table.filter(instant_ns < span.end_ns)
    return table


def _microjoules(joules: Column) -> Column:
    """Whole microjoules; not known counts as none in sums, and is counted apart."""
    return (joules * 1e6).round().cast("int64").fill_null(0)


# ------------------------------------------------------------------------------------------- telling apart


def keys_of(by: Sequence[str]) -> tuple[list[str], str | None]:
    """The dimensions among ``by``, and its period if it names one.

    Raises:
        ConfigError: if a name is neither, two periods are named, or one name twice.
    """
    unknown = [name for name in by if name not in (*DIMENSIONS, *PERIODS)]
    if unknown:
        raise ConfigError(
            f"nothing is told apart by {unknown[0]!r}: choose from {', '.join((*DIMENSIONS, *PERIODS))}"
        )
    if len(set(by)) < len(by):
        raise ConfigError(f"{','.join(by)} names something twice: leave one out")
    periods = [name for name in by if name in PERIODS]
    if len(periods) > 1:
        raise ConfigError(f"{' and '.join(periods)} cannot both be told apart by: choose one")
    return [name for name in by if name in DIMENSIONS], periods[0] if periods else None


def period_of_requests(requests: Table, period: str) -> Column:
    """Begin of the hour, day or month in which each request ended, nanoseconds since the epoch, UTC."""
    return _begin(requests.end_unix_ns, requests.end_time, period)


def period_of_minutes(minutes: Table, period: str) -> Column:
    """Begin of the hour, day or month of each minute, nanoseconds since the epoch, UTC."""
    return _begin(minutes.start_ns, minutes.start, period)


def _begin(instant_ns: Column, instant: Column, period: str) -> Column:
    """By whole numbers, not by ``truncate``: what that does depends on the time zone of a session."""
    if period == "month":
        day_ns = instant_ns - instant_ns % _NANOSECONDS["day"]
        return day_ns - (instant.day().cast("int64") - 1) * _NANOSECONDS["day"]
    return instant_ns - instant_ns % _NANOSECONDS[period]
