"""Quantiles of single requests.

A minute tells means only. Where single requests are at hand, in a trace or a ledger, they give quantiles,
with intervals from the order statistics: the rank of the q-quantile of n requests scatters by √(n·q·(1 − q)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from joulescope.insight.compare.figures import QUANTILES
from joulescope.insight.compare.ratios import NORMAL_90
from joulescope.insight.compare.values import Figure, Sample

LEAST = 20
"""Fewer requests than this give no quantiles."""


def sample(
    path: str,
    engine: str,
    task: str,
    start_wall_seconds: float,
    first_token_wall_seconds: float | None,
    end_wall_seconds: float,
    output_units: int,
) -> Sample:
    """The times of a request, of its instants."""
    first = first_token_wall_seconds
    return Sample(
        key=(path, engine, int(end_wall_seconds // 60) * 60),
        task=task,
        e2e=end_wall_seconds - start_wall_seconds,
        ttft=None if first is None else first - start_wall_seconds,
        tpot=None if first is None or output_units < 2 else (end_wall_seconds - first) / (output_units - 1),
    )


def quantiles(samples: Sequence[Sample]) -> dict[str, Figure]:
    """``ttft_p90`` and so on, as far as enough requests tell them."""
    found: dict[str, Figure] = {}
    for name in ("tpot", "ttft", "e2e"):
        values = np.sort([value for each in samples if (value := getattr(each, name)) is not None])
        if len(values) >= LEAST:
            found.update({f"{name}_p{level}": _quantile(values, level / 100) for level in QUANTILES})
    return found


def _quantile(values: NDArray[np.float64], level: float) -> Figure:
    """Of sorted values; where an end would lie beyond them, none is known."""
    value = float(np.quantile(values, level))
    rank, count = level * (len(values) - 1), len(values)
    half = NORMAL_90 * math.sqrt(count * level * (1 - level))
    low, high = math.floor(rank - half), math.ceil(rank + half)
    if low < 0 or high > count - 1:
        return Figure(value)
    return Figure(value, float(values[low]), float(values[high]))
