"""Parameters that are plain enough to know the answer by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from joulescope.insight.estimate.distributions import Distribution, Fixed, parse_distribution
from joulescope.insight.estimate.parameters import Model, Parameters, Query
from joulescope.insight.estimate.throughput import Throughput, constant


def plain(
    *,
    tokens_per_second: float = 2000.0,
    throughput: Throughput | None = None,
    watts: float = 7000.0,
    output: str | float = 400.0,
    prompt: str | float = 500.0,
    **changes: Any,
) -> Parameters:
    """One model, one kind of query, nothing spread unless it is asked for."""
    model = Model("m", 1.0, Fixed(watts), throughput or constant(tokens_per_second))
    query = Query("q", 1.0, distribution(prompt), distribution(output))
    made = Parameters(models=(model,), queries=(query,), samples=2000)
    return replace(made, **changes)


def distribution(text: str | float) -> Distribution:
    return parse_distribution(text, "test")
