"""Sides at one value of one figure: interpolated between the points that were observed, never beyond them.

How, is said in :mod:`joulescope.insight.compare.between`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from joulescope.errors import ComparisonError
from joulescope.insight.compare.between import between
from joulescope.insight.compare.figures import FIGURES
from joulescope.insight.compare.values import At, Match, Outside, Point, Side

MATCHABLE = tuple(
    name for name in FIGURES if name == "batch" or name.startswith(("itl", "tpot", "ttft", "e2e"))
)
CHEAP = "joules_per_unit", "joules_per_unit_all"
"""What "cheapest" goes by: the first that is known."""
_MOST_AUTOMATIC = 3
NEAR = 0.02
"""A point that is nearer than this to the value, relative to it, lies on it."""
_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
_NUMBER = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([a-z]*)")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is matched on; no values: chosen from what all sides were observed at."""

    figure: str
    values: tuple[float, ...] = ()


def parse_wish(text: str) -> Wish:
    """``batch``, ``batch=8,32``, ``itl=20ms``, ``ttft_p90=0.5s``.

    Raises:
        ComparisonError: if it is none; the message says what can be matched on.
    """
    name, _, values = text.partition("=")
    name = name.strip().lower()
    if name not in MATCHABLE:
        raise ComparisonError(
            f"--match {text}: {name or 'nothing'} cannot be matched on; choose one of {', '.join(MATCHABLE)}"
        )
    return Wish(name, tuple(_value(name, each, text) for each in values.split(",")) if values else ())


def _value(name: str, text: str, wish: str) -> float:
    found = _NUMBER.fullmatch(text.strip())
    unit = found.group(2) if found else ""
    if found is None or unit not in _UNITS or (name == "batch" and unit):
        example = "batch=8,32" if name == "batch" else f"{name}=20ms or {name}=0.5s"
        raise ComparisonError(f"--match {wish}: {text.strip()!r} is no value; write it as {example}")
    if name != "batch" and not unit:
        raise ComparisonError(
            f"--match {wish}: {text.strip()!r} has no unit; write {text.strip()}ms or {text.strip()}s"
        )
    value = float(found.group(1)) * _UNITS[unit]
    if not 0 < value < math.inf:
        raise ComparisonError(f"--match {wish}: {text.strip()!r} must be more than 0, and finite")
    return value


def reach(side: Side, figure: str) -> tuple[float, float] | None:
    """The least and the greatest value at which the side was observed."""
    values = [value for point in side.points if (value := point.value(figure)) is not None]
    return (min(values), max(values)) if values else None


def matched(sides: Sequence[Side], wish: Wish) -> tuple[tuple[Match, ...], tuple[str, ...]]:
    """The sides at each value asked for, and why there is none."""
    if wish.values:
        return tuple(match_at(sides, wish.figure, value) for value in wish.values), ()
    reaches = {side.name: reach(side, wish.figure) for side in sides}
    unknown = [name for name, each in reaches.items() if each is None]
    if unknown:
        return (), (f"{wish.figure} is not known of {', '.join(unknown)}: nothing to match them on",)
    known = [each for each in reaches.values() if each is not None]
    low, high = max(low for low, _ in known), min(high for _, high in known)
    if low > high * (1 + NEAR):
        ranges = "; ".join(f"{name} {written(wish.figure, each)}" for name, each in reaches.items() if each)
        return (), (f"no {wish.figure} at which all sides were observed: {ranges}",)
    values = automatic(wish.figure, low, max(low, high))
    return tuple(match_at(sides, wish.figure, value) for value in values), ()


def written(figure: str, ends: tuple[float, float]) -> str:
    """A range, in the unit in which the figure is read."""
    kind = FIGURES[figure]
    low, high = (f"{end * kind.scale:.3g}" for end in ends)
    unit = "" if figure == "batch" else f" {kind.unit}"
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def automatic(figure: str, low: float, high: float) -> tuple[float, ...]:
    """A few round values between two ends: powers of two for batches, 1, 2, 5 for times."""
    base = range(-4, 20) if figure == "batch" else range(-7, 5)
    series = (
        [2.0**exponent for exponent in base]
        if figure == "batch"
        else [digit * 10.0**exponent for exponent in base for digit in (1, 2, 5)]
    )
    inside = [value for value in series if low * (1 - NEAR) <= value <= high * (1 + NEAR)]
    if not inside:
        return (float(f"{math.sqrt(low * high):.3g}"),)
    if len(inside) <= _MOST_AUTOMATIC:
        return tuple(inside)
    last = len(inside) - 1
    return tuple(inside[round(place * last / (_MOST_AUTOMATIC - 1))] for place in range(_MOST_AUTOMATIC))


def match_at(sides: Sequence[Side], figure: str, value: float) -> Match:
    """All sides at one value; where a side was not observed there, it says so."""
    return Match(
        figure=figure,
        value=value,
        sides={side.name: at(side, figure, value) for side in sides},
        within={} if figure == "batch" else cheapest_within(sides, figure, value),
    )


def cheapest_within(sides: Sequence[Side], figure: str, value: float) -> dict[str, Point]:
    """By side, the cheapest observed point at which the figure is no more than ``value``."""
    found = {}
    for side in sides:
        cost = cost_figure([side])
        inside = [
            point
            for point in side.points
            if (seen := point.value(figure)) is not None and seen <= value * (1 + NEAR) and point.value(cost)
        ]
        if inside:
            found[side.name] = min(inside, key=lambda point, cost=cost: point.value(cost) or 0.0)  # type: ignore[misc]
    return found


def cost_figure(sides: Sequence[Side]) -> str:
    """Joules with idle left out where all sides that tell joules tell these, else all joules."""
    steady = [_tells(side, CHEAP[0]) for side in sides if _tells(side, CHEAP[0]) or _tells(side, CHEAP[1])]
    return CHEAP[0] if all(steady) else CHEAP[1]


def _tells(side: Side, figure: str) -> bool:
    return any(point.value(figure) is not None for point in side.points)


def at(side: Side, figure: str, value: float) -> At | Outside:
    """The side where the figure has this value, by its neighbouring points."""
    ends = reach(side, figure)
    if ends is None:
        return Outside(None, None)
    points = [point for point in side.points if (seen := point.value(figure)) is not None and seen > 0]
    found = [At(point.figures, (point,)) for point in points if _near(point.value(figure), value)]
    if not found:
        found = [
            between(before, after, figure, value, [each for each in points if each not in (before, after)])
            for before, after in pairwise(points)
            if _crosses(before, after, figure, value)
        ]
    if not found:
        return Outside(*ends)
    cost = cost_figure([side])
    best = min(found, key=lambda each: each.figures[cost].value if cost in each.figures else math.inf)
    return replace(best, crossings=len(found))


def _near(seen: float | None, value: float) -> bool:
    return seen is not None and abs(seen - value) <= NEAR * value


def _crosses(before: Point, after: Point, figure: str, value: float) -> bool:
    low, high = sorted((before.figures[figure].value, after.figures[figure].value))
    return low < value < high
