"""Quantiles of single requests, for the operating point in which each ended.

A minute tells means only. Where single requests are at hand, in a trace or a ledger, they give quantiles,
with intervals from the order statistics: the rank of the q-quantile of n requests scatters by √(n·q·(1 − q)).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from joulescope.insight.compare.figures import QUANTILES
from joulescope.insight.compare.ratios import NORMAL_90
from joulescope.insight.compare.sides import EVERYTHING, grouped
from joulescope.insight.compare.values import Figure, Source

LEAST = 20
"""Fewer requests than this give no quantiles."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The times of one finished request, in seconds."""

    engine: str
    end_wall_seconds: float
    task: str
    e2e: float
    ttft: float | None
    tpot: float | None
    """Mean time from one unit of output to the next; ``None`` where fewer than two came out."""


def sample(
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
        engine=engine,
        end_wall_seconds=end_wall_seconds,
        task=task,
        e2e=end_wall_seconds - start_wall_seconds,
        ttft=None if first is None else first - start_wall_seconds,
        tpot=None if first is None or output_units < 2 else (end_wall_seconds - first) / (output_units - 1),
    )


def with_quantiles(source: Source, samples: Iterable[Sample], task: str | None = None) -> Source:
    """The source with quantiles of the requests that ended in its minutes; ``task``: of these only."""
    place = {
        part.key: where for where, parts in grouped(source.parts) for part in parts if part.key is not None
    }
    known = {part.key for part in source.parts}
    by_place: dict[str, list[Sample]] = {EVERYTHING: []}
    for each in samples:
        key = (each.engine, int(each.end_wall_seconds // 60) * 60)
        if key not in known or (task is not None and each.task != task):
            continue
        by_place[EVERYTHING].append(each)
        if key in place:
            by_place.setdefault(place[key], []).append(each)
    return replace(source, quantiles={where: quantiles(found) for where, found in by_place.items()})


def quantiles(samples: Sequence[Sample]) -> dict[str, Figure]:
    """``ttft_p90`` and so on, as far as enough requests tell them."""
    found: dict[str, Figure] = {}
    for name in ("tpot", "ttft", "e2e"):
        values = np.sort([value for each in samples if (value := getattr(each, name)) is not None])
        if len(values) >= LEAST:
            found.update({f"{name}_p{level}": _quantile(values, level / 100) for level in QUANTILES})
    return found


def _quantile(values: NDArray[np.float64], level: float) -> Figure:
    """Of sorted values; an end that lies beyond them is not known, and then neither is."""
    value = float(np.quantile(values, level))
    rank, count = level * (len(values) - 1), len(values)
    half = NORMAL_90 * math.sqrt(count * level * (1 - level))
    low, high = math.floor(rank - half), math.ceil(rank + half)
    if low < 0 or high > count - 1:
        return Figure(value)
    return Figure(value, float(values[low]), float(values[high]))
