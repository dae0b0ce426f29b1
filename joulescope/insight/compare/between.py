"""What lies between two operating points of a side.

A step that serves a batch of b requests costs a fixed part and a part for each: E = a + b·e joules in
T = c + b·t seconds (of the dense models of ML.ENERGY's data R² is 0.98 and more). So between two points

    joules by unit  are linear in 1/b        inter-token and end-to-end times  are linear in b
    1 / throughput  is linear in 1/b         power  is joules by unit times throughput

and what follows no such law (time to the first token, where a queue may stand before it) goes as a power of
b. Mixtures of experts follow it less: their fixed part grows with the batch, until all experts are read. So
how far one would come with powers alone is counted as an error of the form: it is small between neighbours
and grows with the gap, most where little can be told from a time, because it hardly changes with the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from joulescope.insight.compare.ratios import relative_half, with_relative_half
from joulescope.insight.compare.values import At, Figure, Point

_LEAST_GAP = 1.01
"""Batches that differ by less do not tell how a figure follows the batch."""


@dataclass(frozen=True, slots=True)
class _Law:
    """What is straight against what: ``y(figure)`` against ``x(batch)``, with the inverse of both."""

    x: Callable[[float], float]
    y: Callable[[float], float]
    back_x: Callable[[float], float]
    back_y: Callable[[float], float]

    def value(self, ends: tuple[float, float], figures: tuple[float, float], at: float) -> float:
        """The figure at ``at`` between two ends."""
        share = (self.x(at) - self.x(ends[0])) / (self.x(ends[1]) - self.x(ends[0]))
        return self.back_y(_between(self.y(figures[0]), self.y(figures[1]), share))

    def at(self, ends: tuple[float, float], figures: tuple[float, float], value: float) -> float:
        """Where the figure has a value."""
        share = (self.y(value) - self.y(figures[0])) / (self.y(figures[1]) - self.y(figures[0]))
        return self.back_x(_between(self.x(ends[0]), self.x(ends[1]), share))


def _between(low: float, high: float, share: float) -> float:
    return low + share * (high - low)


def _same(value: float) -> float:
    return value


def _inverse(value: float) -> float:
    return 1.0 / value


_SHARED = _Law(_inverse, _same, _inverse, _same)
_STEP = _Law(_same, _same, _same, _same)
_RATE = _Law(_inverse, _inverse, _inverse, _inverse)
_POWER = _Law(math.log, math.log, math.exp, math.exp)
_PRODUCTS = {
    "watts": ("joules_per_unit", "units_per_second"),
    "watts_all": ("joules_per_unit_all", "units_per_second_all"),
}


def _law(figure: str) -> _Law:
    if figure.startswith("joules"):
        return _SHARED
    if figure.endswith(("_per_second", "_per_second_all")):
        return _RATE
    return _STEP if figure.startswith(("itl", "tpot", "e2e")) else _POWER


def between(before: Point, after: Point, figure: str, value: float) -> At:
    """The figures where one of them has this value, which lies between those of the two points.

    By their batches where both are known and differ; else everything goes as a power of that figure.
    """
    axis = "batch" if _batches_tell(before, after) else figure
    ends = _values(before, after, axis)
    places = _Places(value, value)
    if axis != figure:
        own = _values(before, after, figure)
        places = _Places(_law(figure).at(ends, own, value), _POWER.at(ends, own, value))
    figures, form = {axis: Figure(places.law)}, {}
    for name in before.figures:
        if name in after.figures and name not in (axis, figure):
            figures[name], form[name] = _figure(before, after, name, ends, places, axis)
    for name, factors in _PRODUCTS.items():
        if name in figures and axis == "batch":
            figures[name] = _product(figures, name, factors)
    return At({**figures, figure: Figure(value)}, (before, after), form)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where on the axis the value is, by the law of the figure and as if it went as a power."""

    law: float
    power: float


def _batches_tell(before: Point, after: Point) -> bool:
    low, high = before.value("batch"), after.value("batch")
    return bool(low and high) and max(low or 0, high or 0) > _LEAST_GAP * min(low or 0, high or 0)


def _values(before: Point, after: Point, name: str) -> tuple[float, float]:
    return before.figures[name].value, after.figures[name].value


def _figure(
    before: Point, after: Point, name: str, ends: tuple[float, float], places: _Places, axis: str
) -> tuple[Figure, float]:
    """One figure, its error made of those of the points and of the form; and the error of the form alone."""
    values = _values(before, after, name)
    if min(values) <= 0:
        return Figure(_STEP.value(ends, values, places.law)), 0.0
    other = _POWER.value(ends, values, places.power)
    value = _law(name).value(ends, values, places.law) if axis == "batch" else other
    if axis != "batch":
        other = _STEP.value(ends, values, places.law)
    form = abs(other - value) / value
    halves = relative_half(before.figures[name]), relative_half(after.figures[name])
    if halves[0] is None or halves[1] is None:
        return Figure(value), form
    share = (value - values[0]) / (values[1] - values[0]) if values[0] != values[1] else 0.5
    errors = (1 - share) * halves[0] * values[0] / value, share * halves[1] * values[1] / value, form
    return with_relative_half(value, math.hypot(*errors)), form


def _product(figures: Mapping[str, Figure], name: str, factors: tuple[str, str]) -> Figure:
    """So that power, throughput and joules by unit stay consistent."""
    one, other = (figures.get(factor) for factor in factors)
    if one is None or other is None:
        return figures[name]
    return with_relative_half(one.value * other.value, relative_half(figures[name]))
