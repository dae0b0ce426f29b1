"""The time–energy frontier: points that no other beats in both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from joulescope.insight.compare.match import cost_figure
from joulescope.insight.compare.values import Point, Side


def frontier(sides: Sequence[Side], time: str = "itl") -> tuple[tuple[str, Point], ...]:
    """Name of the side and point, fastest first; only points of which both figures are known.

    ``time``: the figure that stands for time. Sides whose output has another unit than the first one's take
    no part.
    """
    if not sides:
        return ()
    alike = [side for side in sides if side.setup.unit == sides[0].setup.unit]
    cost = cost_figure(alike)
    known = [
        (seconds, joules, side.name, point)
        for side in alike
        for point in side.points
        if (seconds := point.value(time)) is not None and (joules := point.value(cost)) is not None
    ]
    return tuple((name, point) for _, _, name, point in _undominated(known))


def _undominated(
    points: Iterable[tuple[float, float, str, Point]],
) -> list[tuple[float, float, str, Point]]:
    kept: list[tuple[float, float, str, Point]] = []
    for each in sorted(points, key=lambda each: each[:2]):
        if not kept or each[1] < kept[-1][1]:
            kept.append(each)
    return kept
