"""A comparison as tables of words: for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from joulescope.insight.compare.comparable import unit_of
from joulescope.insight.compare.figures import FIGURES, heading
from joulescope.insight.compare.match import cost_figure, written
from joulescope.insight.compare.ratios import change, relative_half
from joulescope.insight.compare.values import At, Comparison, Figure, Match, Outside, Point, Side

UNKNOWN = "–"
FAR_ERROR = 0.03
"""An error of the form beyond this is told where no interval is."""
SHOWN = (
    "joules_per_unit",
    "joules_per_unit_all",
    "joules_per_request",
    "watts",
    "units_per_second",
    "batch",
    "itl",
    "ttft",
    "e2e",
)
"""Figures that stand in every table, as far as any side tells them."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of words; the first column is to the left, the others to the right."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables_of(comparison: Comparison, *, points: bool = False) -> list[Table]:
    """What is compared, over everything, at each match, and the frontier; ``points``: all of them too."""
    if not comparison.sides:
        return []
    sides, more = comparison.sides, comparison.shown
    found = [sides_table(sides), whole_table(sides, more)]
    found += [match_table(sides, match, more) for match in comparison.matches]
    if points:
        found.append(points_table(sides, more))
    if len(comparison.frontier) > 1:
        found.append(frontier_table(comparison))
    return found


def sides_table(sides: Sequence[Side]) -> Table:
    """Who is compared, and how much stands behind it."""
    headings = (
        "side",
        "model",
        "precision",
        "GPUs",
        "layout",
        "software",
        "task",
        "unit",
        "requests",
        "GPU-hours",
        "prompt",
        "answer",
        "batch seen",
        "source",
    )
    rows = []
    several = len({side.setup.unit for side in sides}) > 1
    for side in sides:
        setup, mix = side.setup, side.mix
        reach = [value for point in side.points if (value := point.value("batch")) is not None]
        rows.append(
            (
                side.name,
                setup.model.rpartition("/")[2],
                setup.precision,
                f"{setup.gpu_count or '?'}×{setup.gpu or '?'}",
                setup.parallel,
                setup.software,
                setup.task,
                setup.unit if several else "",
                *evidence(side.whole),
                plain(mix.prompt_tokens),
                plain(mix.output_units),
                written("batch", (min(reach), max(reach))) if reach else "",
                side.origin.format,
            )
        )
    return _without_empty(Table("Compared", headings, tuple(rows)))


def whole_table(sides: Sequence[Side], more: Sequence[str] = ()) -> Table:
    """All that was seen of each side, and the cheapest point of it."""
    return figures_table(
        "Over everything, whatever the load",
        sides,
        {side.name: side.whole.figures for side in sides},
        extra={"cheapest point": [_cheapest(side) for side in sides]},
        more=more,
    )


def _cheapest(side: Side) -> str:
    cost = cost_figure([side])
    known = [(figure.value, point) for point in side.points if (figure := point.figures.get(cost))]
    if not known:
        return ""
    value, point = min(known, key=lambda each: each[0])
    return f"{number(value, FIGURES[cost].digits)} at {point.where}"


def match_table(sides: Sequence[Side], match: Match, more: Sequence[str] = ()) -> Table:
    """All sides at one value of one figure, and how the others differ from the first."""
    ats = {name: each for name, each in match.sides.items() if isinstance(each, At)}
    cost = cost_figure([side for side in sides if side.name in ats] or sides)
    extra: dict[str, list[str]] = {}
    names = [side.name for side in sides]
    if len(sides) > 1:
        extra[f"{heading(cost, unit_of(sides))} vs {names[0]}"] = [
            _against(match, sides[0], side, cost) for side in sides
        ]
    if match.within:
        extra["cheapest no slower"] = [_within(match, name, cost) for name in names]
    extra["requests"], extra["GPU-hours"] = (
        list(each) for each in zip(*(_behind(match, n) for n in names), strict=True)
    )
    extra["from"] = [_from(match, name, cost) for name in names]
    return figures_table(
        f"At {written_value(match.figure, match.value, unit_of(sides))}",
        sides,
        {name: at.figures for name, at in ats.items()},
        extra=extra,
        more=more,
    )


def written_value(figure: str, value: float, unit: str) -> str:
    """``batch 32``, ``ITL 20 ms``."""
    kind = FIGURES[figure]
    shown = f"{kind.heading.format(unit=unit)} {number(value * kind.scale, 4)}"
    return shown if figure == "batch" else f"{shown} {kind.unit}"


def _against(match: Match, first: Side, other: Side, cost: str) -> str:
    mine, its = match.sides.get(first.name), match.sides.get(other.name)
    if other is first or not isinstance(mine, At) or not isinstance(its, At):
        return ""
    if first.setup.unit != other.setup.unit:
        return UNKNOWN
    if cost not in mine.figures or cost not in its.figures:
        return ""
    moved = change(its.figures[cost], mine.figures[cost])
    return "" if moved is None else percent(moved)


def percent(moved: Figure) -> str:
    """``−32 % (−35…−29)``."""
    value = f"{100 * moved.value:+.0f} %".replace("-", "−")
    if moved.low is None or moved.high is None:
        return value
    return f"{value} ({100 * moved.low:+.0f}…{100 * moved.high:+.0f})".replace("-", "−")


def _within(match: Match, name: str, cost: str) -> str:
    point = match.within.get(name)
    if point is None:
        return "none"
    value = point.value(cost)
    return f"{number(value, FIGURES[cost].digits)} at {point.where}" if value is not None else point.where


def _behind(match: Match, name: str) -> tuple[str, str]:
    at = match.sides.get(name)
    if not isinstance(at, At):
        return "", ""
    hours = [point.gpu_hours for point in at.between]
    known = [each for each in hours if each is not None]
    requests = sum(point.requests for point in at.between)
    return (f"{requests:,}" if requests else UNKNOWN, number(sum(known), 2) if known else UNKNOWN)


def _from(match: Match, name: str, cost: str) -> str:
    at = match.sides.get(name)
    if isinstance(at, At):
        several = f" (met {at.crossings} times)" if at.crossings > 1 else ""
        error = at.form.get(cost, 0.0)
        far = f" (far apart: ±{100 * error:.0f} % by the way between)" if error > FAR_ERROR else ""
        return " | ".join(point.where for point in at.between) + several + far
    if not isinstance(at, Outside) or at.low is None or at.high is None:
        return "not known of it"
    return f"not observed there: {written(match.figure, (at.low, at.high))}"


def points_table(sides: Sequence[Side], more: Sequence[str] = ()) -> Table:
    """Every operating point of every side."""
    shown = _known([point.figures for side in sides for point in side.points], more)
    unit = unit_of(sides)
    rows = [
        (
            side.name,
            point.where,
            *(figure_text(name, point.figures.get(name)) for name in shown),
            *evidence(point),
        )
        for side in sides
        for point in side.points
    ]
    headings = ("side", "point", *(heading(name, unit) for name in shown), "requests", "GPU-hours")
    return Table("Operating points", headings, tuple(rows))


def frontier_table(comparison: Comparison) -> Table:
    """Fastest first."""
    cost = cost_figure(comparison.sides)
    unit = comparison.sides[0].setup.unit
    rows = [
        (
            name,
            point.where,
            figure_text("itl", point.figures.get("itl")),
            figure_text(cost, point.figures.get(cost)),
        )
        for name, point in comparison.frontier
    ]
    headings = ("side", "point", heading("itl", unit), heading(cost, unit))
    return Table("Time–energy frontier", headings, tuple(rows))


def figures_table(
    title: str,
    sides: Sequence[Side],
    figures: Mapping[str, Mapping[str, Figure]],
    *,
    extra: Mapping[str, Sequence[str]],
    more: Sequence[str] = (),
) -> Table:
    """One row a side; figures that no side tells are left out. ``more``: figures beside :data:`SHOWN`."""
    shown = _known(figures.values(), more)
    unit = unit_of(sides)
    rows = []
    for place, side in enumerate(sides):
        own = figures.get(side.name, {})
        cells = (figure_text(name, own.get(name)) for name in shown)
        rows.append((side.name, *cells, *(column[place] for column in extra.values())))
    headings = ("side", *(heading(name, unit) for name in shown), *extra)
    return _without_empty(Table(title, headings, tuple(rows)))


def _known(figures: Iterable[Mapping[str, Figure]], more: Sequence[str]) -> list[str]:
    told = {name for each in figures for name in each}
    return [name for name in FIGURES if name in told and (name in SHOWN or name in more)]


def figure_text(name: str, figure: Figure | None) -> str:
    """``0.119 ±3 %``; without ± where it is not known how sure it is."""
    if figure is None:
        return UNKNOWN
    kind = FIGURES[name]
    shown = number(figure.value * kind.scale, kind.digits)
    half = relative_half(figure)
    return shown if half is None else f"{shown} ±{_half_text(half)}"


def _half_text(half: float) -> str:
    if half > 1:
        return ">100 %"
    return f"{100 * half:.0f} %" if half >= 0.0095 else f"{100 * half:.1f} %"


def number(value: float, digits: int) -> str:
    """With so many significant digits and no exponent."""
    if value == 0:
        return "0"
    shown = f"{value:.{digits}g}"
    return f"{float(shown):,.0f}" if "e+" in shown or abs(value) >= 10 ** (digits - 1) else shown


def plain(value: float | None) -> str:
    return "" if value is None else number(value, 3)


def evidence(point: Point) -> tuple[str, str]:
    """Requests and GPU-hours behind it."""
    return (
        f"{point.requests:,}" if point.requests else UNKNOWN,
        UNKNOWN if point.gpu_hours is None else number(point.gpu_hours, 2),
    )


def width(table: Table) -> int:
    """Characters that the widest lines of its columns and the gaps between them need."""
    columns = zip(table.headings, *table.rows, strict=True)
    return sum(max(map(len, column)) + 3 for column in columns)


def turned(table: Table) -> Table:
    """Rows become columns: for few sides with many figures, where there is little room."""
    headings, *columns = zip(table.headings, *table.rows, strict=True)
    return Table(table.title, ("", *headings[1:]), tuple(tuple(column) for column in columns))


def _without_empty(table: Table) -> Table:
    """Without columns in which nothing stands."""
    kept = [
        place
        for place in range(len(table.headings))
        if place == 0 or any(row[place] not in ("", UNKNOWN) for row in table.rows)
    ]
    return Table(
        table.title,
        tuple(table.headings[place] for place in kept),
        tuple(tuple(row[place] for place in kept) for row in table.rows),
    )
