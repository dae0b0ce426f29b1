"""A comparison as JSON, CSV and Markdown. Figures are SI in JSON and CSV: joules, watts, seconds."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from joulescope.insight.compare.figures import FIGURES, is_by_unit
from joulescope.insight.compare.ratios import change
from joulescope.insight.compare.tables import Table, tables_of
from joulescope.insight.compare.values import At, Comparison, Figure, Match, Outside, Point, Side

SCHEMA = "joulescope.compare/1"
_SETUP = ("model", "precision", "gpu", "gpu_count", "parallel", "software", "task", "unit")
_EVIDENCE = ("parts", "requests", "gpu_hours", "seconds", "units")


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything, for programs. A figure is an object with ``value``, and ``low`` and ``high`` or null."""
    return {
        "schema": SCHEMA,
        "level": 0.9,
        "reference": comparison.sides[0].name if comparison.sides else None,
        "sides": [_side(side) for side in comparison.sides],
        "matches": [_match(match, comparison) for match in comparison.matches],
        "unmatched": list(comparison.unmatched),
        "frontier": [{"side": name, **_point(point)} for name, point in comparison.frontier],
        "warnings": [
            {"code": each.code, "sides": list(each.sides), "text": each.text} for each in comparison.warnings
        ],
        "skipped": dict(comparison.skipped),
    }


def _side(side: Side) -> dict[str, Any]:
    mix, quality, origin = side.mix, side.quality, side.origin
    return {
        "name": side.name,
        "setup": {name: getattr(side.setup, name) for name in _SETUP},
        "origin": {
            "format": origin.format,
            "path": origin.path,
            "method": origin.method or None,
            "clock": origin.clock,
            "joules_are": "charged to requests" if origin.divided else "measured of GPUs",
        },
        "whole": _point(side.whole),
        "points": [_point(point) for point in side.points],
        "mix": {
            "tasks": dict(mix.tasks),
            "prompt_tokens": mix.prompt_tokens,
            "output_units": mix.output_units,
            "cached_ratio": mix.cached_ratio,
        },
        "quality": {
            "failed_ratio": quality.failed_ratio,
            "unmeasured_ratio": quality.unmeasured_ratio,
            "unattributed_ratio": quality.unattributed_ratio,
            "steady_seconds": quality.steady_seconds,
        },
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "where": point.where,
        **{name: getattr(point, name) for name in _EVIDENCE},
        "figures": _figures(point.figures),
    }


def _figures(figures: Mapping[str, Figure]) -> dict[str, Any]:
    return {name: _figure(figure) for name, figure in figures.items()}


def _figure(figure: Figure | None) -> dict[str, float | None] | None:
    return None if figure is None else {"value": figure.value, "low": figure.low, "high": figure.high}


def _match(match: Match, comparison: Comparison) -> dict[str, Any]:
    first, unit = match.sides.get(comparison.sides[0].name), comparison.sides[0].setup.unit
    return {
        "figure": match.figure,
        "value": match.value,
        "sides": {
            side.name: _at(match.sides[side.name], first, side.setup.unit == unit)
            for side in comparison.sides
        },
        "cheapest_within": {name: _point(point) for name, point in match.within.items()},
    }


def _at(at: At | Outside, first: At | Outside | None, same_unit: bool) -> dict[str, Any]:
    if isinstance(at, Outside):
        return {"observed": False, "low": at.low, "high": at.high}
    known = at.figures.keys() & first.figures.keys() if isinstance(first, At) and first is not at else ()
    return {
        "observed": True,
        "between": [
            {"where": point.where, **{n: getattr(point, n) for n in _EVIDENCE}} for point in at.between
        ],
        "crossings": at.crossings,
        "form_error": at.form,
        "figures": _figures(at.figures),
        "change": {
            name: _figure(change(at.figures[name], first.figures[name]))
            for name in FIGURES
            if name in known and isinstance(first, At) and (same_unit or not is_by_unit(name))
        },
    }


def as_csv(comparison: Comparison) -> str:
    """One row for each side as a whole, each of its points, and each match; figures with their ends."""
    names = [name for name in FIGURES if any(name in row["figures"] for row in _rows(comparison))]
    figure_columns = [column for name in names for column in (name, f"{name}_low", f"{name}_high")]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "row",
            "side",
            *_SETUP,
            "format",
            "where",
            "matched_figure",
            "matched_value",
            *_EVIDENCE,
            *figure_columns,
        ]
    )
    for row in _rows(comparison):
        side, figures = row["side"], row["figures"]
        cells = [row["row"], side.name, *(getattr(side.setup, name) for name in _SETUP), side.origin.format]
        cells += [row["where"], row.get("figure"), row.get("value"), *(row.get(name) for name in _EVIDENCE)]
        for name in names:
            figure = figures.get(name)
            cells += [None] * 3 if figure is None else [figure.value, figure.low, figure.high]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return out.getvalue()


def _rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for side in comparison.sides:
        yield {"row": "whole", "side": side, **_row_of(side.whole)}
        for point in side.points:
            yield {"row": "point", "side": side, **_row_of(point)}
    for match in comparison.matches:
        for side in comparison.sides:
            at = match.sides[side.name]
            if isinstance(at, At):
                where = " | ".join(point.where for point in at.between)
                yield {
                    "row": "match",
                    "side": side,
                    "where": where,
                    "figures": at.figures,
                    "figure": match.figure,
                    "value": match.value,
                }


def _row_of(point: Point) -> dict[str, Any]:
    return {
        "where": point.where,
        "figures": point.figures,
        **{name: getattr(point, name) for name in _EVIDENCE},
    }


def as_markdown(comparison: Comparison, *, points: bool = False) -> str:
    """The same tables as in the terminal, and what speaks against them."""
    pieces = [_markdown(table) for table in tables_of(comparison, points=points)]
    notes = [f"- {line}" for line in remarks(comparison)]
    if notes:
        pieces.append("**Before you compare**\n\n" + "\n".join(notes) + "\n")
    return "\n".join(pieces)


def remarks(comparison: Comparison) -> list[str]:
    """What speaks against the comparison, and what was left out of it, in sentences."""
    found = [f"{' and '.join(each.sides)}: {each.text}" for each in comparison.warnings]
    found += list(comparison.unmatched)
    found += [f"left out, {count} times: {reason}" for reason, count in comparison.skipped.items()]
    return found


def _markdown(table: Table) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "|---|" + "---:|" * (len(table.headings) - 1)
    return "\n".join([f"### {table.title}", "", line(table.headings), rule, *map(line, table.rows), ""])
