"""The picture of a comparison: energy against time with the frontier, and bars at the matches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from joulescope.errors import ComparisonError
from joulescope.insight.compare.comparable import unit_of
from joulescope.insight.compare.figures import FIGURES, heading
from joulescope.insight.compare.match import cost_figure
from joulescope.insight.compare.tables import written_value
from joulescope.insight.compare.values import At, Comparison, Figure, Match, Point, Side
from joulescope.insight.picture import new_figure, plain_ticks, save

SUFFIXES = (".png", ".svg", ".pdf")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
"""Told apart by colour-blind eyes too (Okabe and Ito)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_MOST_BARS = 3
_LETTERS_BY_INCH, _HANDLE_LETTERS = 12.0, 7
"""Of the legend: letters that an inch holds, and what a line's sign takes beside its name."""


def draw(comparison: Comparison, path: Path) -> None:
    """Writes the picture; its form goes by the suffix.

    Raises:
        ComparisonError: if it cannot be written.
        MissingExtra: without matplotlib.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ComparisonError(f"--image {path}: choose a name that ends in {', '.join(SUFFIXES)}")
    save(drawn(comparison), path, ComparisonError)


def drawn(comparison: Comparison) -> Any:
    """The picture as matplotlib's figure.

    Raises:
        MissingExtra: without matplotlib.
    """
    matches = comparison.matches[:_MOST_BARS]
    canvas = new_figure(11 if matches else 6.5, 5.2)
    scatter, *rest = canvas.subplots(1, 2 if matches else 1, squeeze=False)[0]
    _scatter(scatter, comparison)
    if matches:
        _bars(rest[0], comparison.sides, matches)
    handles, names = scatter.get_legend_handles_labels()
    columns = _legend_columns(names, canvas.get_figwidth())
    canvas.legend(handles, names, loc="outside upper left", ncols=columns, frameon=False)
    return canvas


def _legend_columns(names: Sequence[str], width_inches: float) -> int:
    """As many as there is room for, of three at most: a name that is cut off tells nobody's bar."""
    longest = max(map(len, names), default=0) + _HANDLE_LETTERS
    return max(1, min(3, int(_LETTERS_BY_INCH * width_inches / longest)))


def _style(place: int) -> tuple[str, str]:
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]


def _scatter(axes: Any, comparison: Comparison) -> None:
    """Inter-token time across, joules up, both logarithmic; sides without times stand by their batch."""
    sides = comparison.sides
    unit, up = unit_of(sides), _up(sides)
    across = "itl" if any(_has(side, "itl") and _has(side, up) for side in sides) else "batch"
    has_points = False
    for place, side in enumerate(sides):
        colour, marker = _style(place)
        points = [point for point in side.points if across in point.figures and up in point.figures]
        if not points:  # it may have bars, and they want a name
            axes.plot([], [], marker, color=colour, label=side.name)
            continue
        has_points = True
        points.sort(key=lambda point: point.figures[across].value)
        xs = [point.figures[across].value * FIGURES[across].scale for point in points]
        ys = [point.figures[up].value for point in points]
        axes.plot(xs, ys, color=colour, linewidth=0.8, alpha=0.5)
        axes.errorbar(
            xs,
            ys,
            yerr=_ends(points, up),
            fmt=marker,
            color=colour,
            markersize=6,
            capsize=2,
            label=side.name,
        )
        _label_batches(axes, points, xs, ys)
    _frontier(axes, comparison, up, across)
    if not has_points:
        axes.text(0.5, 0.5, "no joules and no throughput to draw", ha="center", transform=axes.transAxes)
        return
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("log")
        plain_ticks(axis)
    axes.set_xlabel(heading(across, unit))
    axes.set_ylabel(heading(up, unit))
    axes.grid(True, which="both", alpha=0.2, linewidth=0.5)
    title = "Throughput against time" if up.startswith("units") else "Energy against time"
    axes.set_title(f"{title}; numbers are batches", fontsize=10, loc="left")


def _up(sides: Sequence[Side]) -> str:
    """What goes up: joules by unit, or throughput where no side tells joules."""
    cost = cost_figure(sides)
    choices = (cost, "units_per_second", "units_per_second_all")
    return next((name for name in choices if any(_has(side, name) for side in sides)), cost)


def _has(side: Side, name: str) -> bool:
    return any(name in point.figures for point in side.points)


def _ends(points: Sequence[Point], name: str) -> list[list[float]]:
    """Lengths of the error bars, below and above; none where it is not known."""
    figures = [point.figures[name] for point in points]
    return [
        [_gap(figure, figure.low) for figure in figures],
        [_gap(figure, figure.high) for figure in figures],
    ]


def _gap(figure: Figure, end: float | None) -> float:
    return 0.0 if end is None else min(abs(figure.value - end), 0.95 * figure.value)


def _label_batches(axes: Any, points: Sequence[Point], xs: Sequence[float], ys: Sequence[float]) -> None:
    for point, x, y in zip(points, xs, ys, strict=True):
        batch = point.value("batch")
        if batch is not None:
            axes.annotate(
                f"{batch:.0f}" if batch >= 9.5 else f"{batch:.1f}",
                (x, y),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=7,
                color="#555555",
            )


def _frontier(axes: Any, comparison: Comparison, up: str, across: str) -> None:
    if across != "itl" or up != cost_figure(comparison.sides) or len(comparison.frontier) < 2:
        return
    xs = [point.figures["itl"].value * FIGURES["itl"].scale for _, point in comparison.frontier]
    ys = [point.figures[up].value for _, point in comparison.frontier]
    axes.step(xs, ys, where="post", color="black", linewidth=1.2, linestyle=":", label="frontier", zorder=0)


def _bars(axes: Any, sides: Sequence[Side], matches: Sequence[Match]) -> None:
    """Joules of each side at each match, the share that is idle on top; what was not observed has no bar."""
    unit, cost = unit_of(sides), cost_figure(sides)
    width = 0.8 / len(sides)
    for place, side in enumerate(sides):
        colour, _ = _style(place)
        for group, match in enumerate(matches):
            at = match.sides[side.name]
            x = group + (place - (len(sides) - 1) / 2) * width
            if not isinstance(at, At) or cost not in at.figures:
                axes.text(
                    x, 0, "not\nobserved", ha="center", va="bottom", fontsize=6, color=colour, rotation=90
                )
                continue
            _bar(axes, x, width * 0.92, at, cost, colour)
    axes.set_xticks(range(len(matches)), [written_value(each.figure, each.value, unit) for each in matches])
    axes.set_ylabel(f"J/{unit}")
    what = "idle left out; pale: all in" if cost == "joules_per_unit" else "all in"
    axes.set_title(f"Joules at the same load, {what}", fontsize=10, loc="left")
    axes.grid(True, axis="y", alpha=0.2, linewidth=0.5)
    axes.set_ylim(bottom=0)


def _bar(axes: Any, x: float, width: float, at: At, cost: str, colour: str) -> None:
    whole, figure = at.figures.get("joules_per_unit_all"), at.figures[cost]
    if whole is not None and whole.value > figure.value:
        axes.bar(x, whole.value, width, color=colour, alpha=0.25)
    error = None
    if figure.low is not None and figure.high is not None:
        error = [[figure.value - figure.low], [figure.high - figure.value]]
    axes.bar(x, figure.value, width, color=colour, yerr=error, capsize=2, error_kw={"linewidth": 0.8})
    axes.annotate(
        f"{figure.value:.3g}",
        (x, max(figure.value, figure.high or 0.0, whole.value if whole else 0.0)),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=7,
    )
