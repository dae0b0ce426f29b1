"""What lies between two operating points of a side.

A step that serves a batch of b requests costs a part that does not depend on b and a part that grows with it:

    E = a + c·b^q joules    in    T = a' + c'·b^q' seconds

so J/unit = E/b, units a second = b/T, and the times between units and of requests go as T. In dense models
each request adds the same, and q is 1. In a mixture of experts the first requests add more, for each calls on
experts that nobody called on before, until all are read: q is less, 0.3 to 0.8 in ML.ENERGY's published data.
Two points do not tell q; a third one does, for E and for T by itself. Where there is none, q is
taken to be 1. Power is joules by unit times throughput; what follows no such law (time to the first token,
where a queue may stand before it) goes as a power of b.

How far other ways between the two points would lead is told as an error of the form: the straight line
(q = 1), a power of b, and where no third point told q the logarithm of b too (q = 0). It is small between
neighbours and grows with the gap, most where little can be told from a time, because it hardly changes with
the batch. To it comes 3 % between points an octave apart or more, and less between nearer ones: by so much
published runs, each by itself, lie off any smooth curve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from joulescope.insight.compare.growth import LINE, LOGARITHM, exponent, grown, shrunk
from joulescope.insight.compare.ratios import relative_half, with_relative_half
from joulescope.insight.compare.values import At, Figure, Point

_LEAST_GAP = 1.01
"""Batches that differ by less do not tell how a figure follows the batch."""
_ROUGHNESS = 0.03
"""By octave of batch between two points, one at most."""
_SHARED, _STEP, _RATE = "shared", "step", "rate"
"""What is of a step: the figure times the batch, the figure, the batch by the figure."""
_PRODUCTS = {
    "watts": ("joules_per_unit", "units_per_second"),
    "watts_all": ("joules_per_unit_all", "units_per_second_all"),
}
_Pair = tuple[float, float]


def _kind(figure: str) -> str | None:
    """How a figure comes from a step; ``None``: it is no figure of steps."""
    if figure.startswith("joules"):
        return _SHARED
    if figure.endswith(("_per_second", "_per_second_all")):
        return _RATE
    return _STEP if figure.startswith(("itl", "tpot", "e2e")) else None


def _of_step(kind: str, figure: float, batch: float) -> float:
    return {_SHARED: figure * batch, _STEP: figure, _RATE: batch / figure}[kind]


def _from_step(kind: str, step: float, batch: float) -> float:
    return {_SHARED: step / batch, _STEP: step, _RATE: batch / step}[kind]


@dataclass(frozen=True, slots=True)
class _Way:
    """One way from point to point; ``q`` of each figure by name, ``None``: as a power of the batch."""

    before: Point
    after: Point
    axis: str
    exponents: Mapping[str, float | None]
    default: float | None = None

    def figure(self, name: str, at: float) -> float:
        """A figure where the axis has a value, inside of what the two points have."""
        ends, values = self._ends(self.axis), self._ends(name)
        kind, q = self._law(name)
        if kind is None or q is None:
            share = _share(math.log(ends[0]), math.log(ends[1]), math.log(at))
            found = math.exp(_between(math.log(values[0]), math.log(values[1]), share))
        else:
            low, high = (_of_step(kind, value, end) for value, end in zip(values, ends, strict=True))
            share = _share(grown(ends[0], q), grown(ends[1], q), grown(at, q))
            found = _from_step(kind, _between(low, high, share), at)
        return min(max(found, min(values)), max(values))

    def place(self, name: str, value: float) -> float:
        """Where on the axis a figure has a value."""
        ends, values = self._ends(self.axis), self._ends(name)
        kind, q = self._law(name)
        if kind != _STEP or q is None:
            share = _share(math.log(values[0]), math.log(values[1]), math.log(value))
            return math.exp(_between(math.log(ends[0]), math.log(ends[1]), share))
        low, high = (grown(end, q) for end in ends)
        return shrunk(_between(low, high, _share(*values, value)), q)

    def roughness(self) -> float:
        """How far points of real runs lie off any curve; 0 where there is no batch to tell."""
        if self.axis != "batch":
            return 0.0
        low, high = sorted(self._ends("batch"))
        return _ROUGHNESS * min(math.log2(high / low), 1.0)

    def _ends(self, name: str) -> _Pair:
        return self.before.figures[name].value, self.after.figures[name].value

    def _law(self, name: str) -> tuple[str | None, float | None]:
        kind = _kind(name) if self.axis == "batch" else None
        return kind, self.exponents.get(name, self.default)


def _share(low: float, high: float, at: float) -> float:
    return (at - low) / (high - low)


def _between(low: float, high: float, share: float) -> float:
    return low + share * (high - low)


def between(before: Point, after: Point, figure: str, value: float, others: Sequence[Point] = ()) -> At:
    """The figures where one of them has this value, which lies between those of the two points.

    By their batches where both are known and differ; else everything goes as a power of that figure.

    Args:
        others: further points of the side, which tell how it grows with the batch.
    """
    axis = "batch" if _batches_tell(before, after) else figure
    names = [
        name
        for name in before.figures
        if name in after.figures and min(before.figures[name].value, after.figures[name].value) > 0
    ]
    exponents = _exponents(before, after, others, names) if axis == "batch" else {}
    way = _Way(before, after, axis, exponents, LINE if axis == "batch" else None)
    place = value if axis == figure else way.place(figure, value)
    figures, form = {axis: Figure(place)}, {}
    for name in before.figures:
        if name not in after.figures or name in (axis, figure):
            continue
        if name not in names:
            figures[name], form[name] = _of_nothing(before, after, name, way, place), 0.0
            continue
        found = way.figure(name, place)
        form[name] = _form(way, name, figure, value, found)
        figures[name] = _with_error(before, after, name, found, form[name])
    for name, factors in _PRODUCTS.items():
        if name in figures and axis == "batch":
            figures[name] = _product(figures, name, factors)
    return At({**figures, figure: Figure(value)}, (before, after), form)


def _form(way: _Way, name: str, matched: str, value: float, found: float) -> float:
    """How far the figure may be off between the points, relative, however sure the points are."""

    def by(other: _Way, value: float) -> float:
        place = value if way.axis == matched else other.place(matched, value)
        return abs(other.figure(name, place) / found - 1)

    rough = way.roughness()
    elsewhere = 0.0 if way.axis == matched else by(way, value * (1 + rough))
    return math.hypot(max(by(other, value) for other in _other_ways(way, name)), rough, elsewhere)


def _exponents(
    before: Point, after: Point, others: Sequence[Point], names: Sequence[str]
) -> dict[str, float | None]:
    """By figure what a third point tells; figures of which none does are left out."""
    found: dict[str, float | None] = {}
    for name in names:
        kind = _kind(name)
        known = [each for each in others if (each.value(name) or 0) > 0 and (each.value("batch") or 0) > 0]
        if kind is None or not known:
            continue
        third = min(known, key=lambda each: _unsuited(each, before, after))
        steps = [
            (batch, _of_step(kind, each.figures[name].value, batch))
            for each in (before, after, third)
            for batch in (each.figures["batch"].value,)
        ]
        q = exponent(*steps)
        if q is not None:
            found[name] = q
    return found


def _unsuited(third: Point, before: Point, after: Point) -> float:
    """How much nearer or further a third point is than the two are to each other, by logarithms of batches.

    A point beside one of them tells little but its own error; one far away tells of other loads.
    """
    low, high, at = (math.log(each.figures["batch"].value) for each in (before, after, third))
    return abs(min(abs(at - low), abs(at - high)) - abs(high - low))


def _other_ways(way: _Way, name: str) -> list[_Way]:
    """Ways that would be as good, of which one might be the true one."""
    if way.axis != "batch":
        return [
            _Way(way.before, way.after, way.axis, {}, None),
            _Straight(way.before, way.after, way.axis, {}, None),
        ]
    defaults = (LINE, None) if name in way.exponents else (LINE, None, LOGARITHM)
    return [_Way(way.before, way.after, way.axis, {}, default) for default in defaults]


class _Straight(_Way):
    """Straight in whatever is matched on: there is no batch that could tell more."""

    def figure(self, name: str, at: float) -> float:
        return _between(*self._ends(name), _share(*self._ends(self.axis), at))


def _batches_tell(before: Point, after: Point) -> bool:
    low, high = before.value("batch"), after.value("batch")
    return bool(low and high) and max(low or 0, high or 0) > _LEAST_GAP * min(low or 0, high or 0)


def _with_error(before: Point, after: Point, name: str, value: float, form: float) -> Figure:
    """With its error made of those of the points and of the form."""
    ends = before.figures[name], after.figures[name]
    halves = relative_half(ends[0]), relative_half(ends[1])
    if halves[0] is None or halves[1] is None:
        return Figure(value)
    low, high = ends[0].value, ends[1].value
    share = (value - low) / (high - low) if low != high else 0.5
    errors = (1 - share) * halves[0] * low / value, share * halves[1] * high / value, form
    return with_relative_half(value, math.hypot(*errors))


def _of_nothing(before: Point, after: Point, name: str, way: _Way, place: float) -> Figure:
    """A figure that is 0 at a point, of which no law tells."""
    share = _share(before.figures[way.axis].value, after.figures[way.axis].value, place)
    return Figure(_between(before.figures[name].value, after.figures[name].value, share))


def _product(figures: Mapping[str, Figure], name: str, factors: tuple[str, str]) -> Figure:
    """So that power, throughput and joules by unit stay consistent."""
    one, other = (figures.get(factor) for factor in factors)
    if one is None or other is None:
        return figures[name]
    return with_relative_half(one.value * other.value, relative_half(figures[name]))
