"""What finished requests used, told apart by whatever they carry."""

from __future__ import annotations

from collections.abc import Sequence

from joulescope.insight.queries.kinds import Column, Table
from joulescope.insight.queries.tables import PERIOD, Tables, keys_of, period_of_requests, wide_sum

SUMS = (
    "requests",
    "measured_requests",
    "incomplete_requests",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
    "measured_output_tokens",
    "joules_uj",
    "wasted_uj",
    "avoided_uj",
)
"""Columns of :func:`usage` beside its keys; all add up."""


def usage(tables: Tables, by: Sequence[str] = ()) -> Table:
    """One row for each combination of ``by`` and unit of output: how many requests, tokens and microjoules.

    ``by`` names :data:`DIMENSIONS` and at most one of :data:`PERIODS`, whose begin stands in ``period_ns``.
    The unit is always a key: images and tokens are not added up. ``measured_requests`` are those whose joules
    are known, ``measured_output_tokens`` theirs; ``incomplete_requests`` those of which a part is missing.
    The dearest comes first, within its period.
    """
    dimensions, period = keys_of(by)
    requests = tables.requests
    keys = [*dimensions, "unit"]
    if period is not None:
        requests = requests.mutate(**{PERIOD: period_of_requests(requests, period)})
        keys = [PERIOD, *keys]
    asked = requests.group_by(keys).agg(
        requests=requests.count(),
        measured_requests=_whole(requests.measured.cast("int64")),
        incomplete_requests=_whole(requests.incomplete.cast("int64")),
        prompt_tokens=_whole(requests.prompt_tokens),
        cached_tokens=_whole(requests.cached_tokens),
        output_tokens=_whole(requests.output_tokens),
        measured_output_tokens=_whole(requests.measured.ifelse(requests.output_tokens, 0)),
        **{name: _joules(requests[name], "engine" in dimensions) for name in SUMS[-3:]},
    )
    first = [] if period is None else [PERIOD]
    return asked.order_by([*first, asked.joules_uj.desc(), *keys[len(first) :]])


def _joules(column: Column, of_one_engine: bool) -> Column:
    return _whole(column) if of_one_engine else wide_sum(column)


def _whole(column: Column) -> Column:
    """A sum of whole numbers as 64 bits. Nothing to add up is none."""
    return column.sum().cast("int64").fill_null(0)
