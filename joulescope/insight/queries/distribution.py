"""How joules are spread over requests, and which requests were the dearest."""

from __future__ import annotations

from collections.abc import Sequence

from joulescope.insight.queries.kinds import Table
from joulescope.insight.queries.tables import PERIOD, Tables, keys_of, period_of_requests

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
FIGURES = ("joules", "joules_per_output_token")

SORTS = {"joules": "joules_uj", "per-token": "joules_per_output_token", "wasted": "wasted_uj"}
"""What requests can be put in order by."""


def column_of(figure: str, quantile: float) -> str:
    """``joules_p50``, ``joules_per_output_token_p99``: the column of a quantile."""
    return f"{figure}_p{quantile * 100:.0f}"


def distribution(tables: Tables, by: Sequence[str] = ()) -> Table:
    """Quantiles and maximum of joules a request and joules an output token, one row for each combination.

    Requests whose joules are not known are left out, and for the second figure those without output. A
    quantile between two requests is interpolated linearly.
    """
    dimensions, period = keys_of(by)
    requests = _with_ratio(tables.requests)
    requests = requests.filter(requests.measured)
    keys = [*dimensions, "unit"]
    if period is not None:
        requests = requests.mutate(**{PERIOD: period_of_requests(requests, period)})
        keys = [PERIOD, *keys]
    columns = {"joules": requests.attributed_joules, FIGURES[1]: requests.joules_per_output_token}
    asked = requests.group_by(keys).agg(
        requests=requests.count(),
        # All quantiles of a column in one aggregate: DuckDB keeps each aggregate's values apart.
        **{f"{figure}_quantiles": column.quantile(list(QUANTILES)) for figure, column in columns.items()},
        **{f"{figure}_max": column.max() for figure, column in columns.items()},
    )
    single = {
        column_of(figure, quantile): asked[f"{figure}_quantiles"][at]
        for figure in FIGURES
        for at, quantile in enumerate(QUANTILES)
    }
    most = [f"{figure}_max" for figure in FIGURES]
    return asked.select(*keys, "requests", *most, **single).order_by(keys)


def dearest(tables: Tables, top: int, sort: str = "joules") -> Table:
    """The ``top`` requests by one of :data:`SORTS`, the dearest first; equal ones by engine and id."""
    requests = _with_ratio(tables.requests)
    requests = requests.filter(requests.measured)
    column = SORTS[sort]
    if column == FIGURES[1]:
        requests = requests.filter(requests.joules_per_output_token.notnull())
    asked = requests.select(
        "request_id",
        "external_id",
        "engine",
        "model",
        "tenant",
        "lora",
        "task",
        "finish_reason",
        "unit",
        "start_unix_ns",
        "end_unix_ns",
        "prompt_tokens",
        "cached_tokens",
        "output_tokens",
        "joules_uj",
        "wasted_uj",
        "joules_per_output_token",
        "incomplete",
    )
    return asked.order_by([asked[column].desc(), asked.engine, asked.request_id]).limit(top)


def _with_ratio(requests: Table) -> Table:
    tokens = requests.output_tokens.nullif(0)
    return requests.mutate(joules_per_output_token=requests.attributed_joules / tokens)
