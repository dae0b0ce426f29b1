"""The figures that are compared: their names, units and how they are written, and how parts give them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from joulescope.insight.compare.ratios import mean, ratio
from joulescope.insight.compare.values import Figure, Mean, Part, Point, Work

QUANTILES = (50, 90, 95, 99)
LATENCIES = ("itl", "ttft", "e2e")
"""Inter-token time, time to the first token, time from the request to its end."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a figure is called and how it is written.

    ``heading`` has ``{unit}`` where the unit of the output stands; ``scale`` is for reading only.
    """

    heading: str
    unit: str
    scale: float = 1.0
    digits: int = 3
    """Significant digits shown."""
    meaning: str = ""


def _latency_kinds() -> dict[str, Kind]:
    kinds = {
        "itl": Kind("ITL", "ms", 1e3, meaning="mean time from one {unit} of a request to its next"),
        "ttft": Kind("TTFT", "ms", 1e3, meaning="mean time from a request to its first {unit}"),
        "e2e": Kind("E2E", "s", meaning="mean time from a request to its end"),
    }
    quantiles = {
        "tpot": "of requests: each one's mean time from one {unit} to the next",
        "itl": "of single {unit}s: time from one to the next",
        "ttft": "of requests: time to the first {unit}",
        "e2e": "of requests: time to the end",
    }
    for name, meaning in quantiles.items():
        for level in QUANTILES:
            unit, scale = ("s", 1.0) if name == "e2e" else ("ms", 1e3)
            kinds[f"{name}_p{level}"] = Kind(
                f"{name.upper()} p{level}", unit, scale, meaning=f"{level} % quantile {meaning}"
            )
    return kinds


FIGURES: Mapping[str, Kind] = {
    "batch": Kind("batch", "requests", meaning="mean number of requests that run at once, while any does"),
    "joules_per_unit": Kind(
        "J/{unit} steady", "J/{unit}", meaning="joules of the GPUs with idle left out, by what came out"
    ),
    "joules_per_unit_all": Kind(
        "J/{unit} all in", "J/{unit}", meaning="all joules of the GPUs, idle included, by what came out"
    ),
    "joules_per_request": Kind(
        "J/request", "J", meaning="J/{unit} steady times the mean output of a request"
    ),
    "watts": Kind("W", "W", meaning="power of the GPUs together while any request runs"),
    "watts_all": Kind("W all in", "W", meaning="power of the GPUs together, idle included"),
    "units_per_second": Kind(
        "{unit}/s", "{unit}/s", meaning="what comes out in a second in which any request runs"
    ),
    "units_per_second_all": Kind("{unit}/s all in", "{unit}/s", meaning="the same, idle included"),
    "requests_per_second": Kind("requests/s", "1/s", meaning="requests ended in a second, idle included"),
    **_latency_kinds(),
}


def is_by_unit(name: str) -> bool:
    """Whether a figure is by, or of, what comes out, so that it says nothing beside one of another unit."""
    return "{unit}" in FIGURES[name].unit


def heading(name: str, unit: str) -> str:
    """Of a column, with the unit in which it is written."""
    kind = FIGURES[name]
    title = kind.heading.format(unit=unit)
    written = kind.unit.format(unit=unit)
    return title if written in title or name in ("batch", "joules_per_request") else f"{title} {written}"


def point_of(parts: Sequence[Part], where: str, quantiles: Mapping[str, Figure] | None = None) -> Point:
    """What parts come to, in the order of time; ``quantiles``: of single requests, where they are known."""
    figures: dict[str, Figure | None] = {
        "batch": _of(parts, lambda part: _pair(part.batch)),
        "joules_per_unit": _of(parts, lambda part: _joules_by(part.steady, _units)),
        "joules_per_unit_all": _of(parts, lambda part: _joules_by(part.whole, _units)),
        "watts": _of(parts, lambda part: _joules_by(part.steady, _seconds)),
        "watts_all": _of(parts, lambda part: _joules_by(part.whole, _seconds)),
        "units_per_second": _of(parts, lambda part: _rate(part.steady)),
        "units_per_second_all": _of(parts, lambda part: _rate(part.whole)),
        "requests_per_second": _of(parts, _request_rate),
    }
    for name in LATENCIES:
        figures[name] = _of(parts, lambda part, name=name: _pair(part.latencies.get(name)))  # type: ignore[misc]
    figures.update(quantiles_of(parts))
    figures.update(quantiles or {})
    length = mean_output(parts)
    per_unit = figures["joules_per_unit"]
    lasting = [part for part in parts if part.lasted]
    if per_unit is not None and length is not None:
        figures["joules_per_request"] = per_unit.scaled(length)
    return Point(
        where=where,
        figures={name: figures[name] for name in FIGURES if figures.get(name) is not None},  # type: ignore[misc]
        parts=len(parts),
        requests=sum(part.requests.count for part in lasting),
        gpu_hours=_total((part.gpu_seconds for part in lasting), scale=1 / 3600),
        seconds=_total(_first(part, _seconds) for part in lasting),
        units=_total(_first(part, _units) for part in lasting),
    )


def quantiles_of(parts: Sequence[Part]) -> dict[str, Figure | None]:
    """Those that sources give, weighted by requests: a quantile of several parts is their mean."""
    names = {name for part in parts for name in part.quantiles}
    found = {}
    for name in names:
        have = [part for part in parts if name in part.quantiles]
        weights = [float(max(part.requests.count, 1)) for part in have]
        found[name] = mean([part.quantiles[name] for part in have], weights)
    return found


def mean_output(parts: Sequence[Part]) -> float | None:
    """Output of a request in the mean, in the side's unit."""
    have = [part.requests for part in parts if part.requests.output_units is not None]
    count = sum(each.count for each in have)
    return math.fsum(each.output_units or 0.0 for each in have) / count if count else None


def _of(parts: Iterable[Part], pair: Callable[[Part], tuple[float, float] | None]) -> Figure | None:
    pairs = [each for part in parts if (each := pair(part)) is not None]
    return ratio([top for top, _ in pairs], [bottom for _, bottom in pairs])


def _pair(mean_of: Mean | None) -> tuple[float, float] | None:
    return None if mean_of is None else (mean_of.total, mean_of.count)


def _joules_by(work: Work | None, by: Callable[[Work], float]) -> tuple[float, float] | None:
    return None if work is None or work.joules is None else (work.joules, by(work))


def _units(work: Work) -> float:
    return work.units


def _seconds(work: Work) -> float:
    return work.seconds


def _rate(work: Work | None) -> tuple[float, float] | None:
    return None if work is None else (work.units, work.seconds)


def _request_rate(part: Part) -> tuple[float, float] | None:
    work = part.whole or part.steady
    if work is None or not part.lasted:
        return None
    return float(part.requests.count), work.seconds


def _first(part: Part, of: Callable[[Work], float]) -> float | None:
    work = part.whole or part.steady
    return None if work is None else of(work)


def _total(values: Iterable[float | None], scale: float = 1.0) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) * scale if known else None
