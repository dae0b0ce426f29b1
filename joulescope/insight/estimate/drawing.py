"""An estimate as a picture: joules of queries as they are spread, and with the levers pulled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from joulescope.errors import ConfigError
from joulescope.insight.estimate.estimate import JOULES_PER_WATT_HOUR, MIX, Estimate, Lowered
from joulescope.insight.estimate.parameters import changed
from joulescope.insight.estimate.presets import PRESETS
from joulescope.insight.estimate.spread import Spread
from joulescope.insight.picture import COLOURS, new_figure, save, without_frame

_SIZE, _BINS = (11.0, 4.8), 160


def draw(found: Estimate, path: Path) -> None:
    """Writes the picture; the ending says in which format (png, svg, pdf).

    Raises:
        ConfigError: the file cannot be written, or its ending is no picture's.
        MissingExtra: without matplotlib.
    """
    figure = new_figure(*_SIZE)
    if found.levers:
        left, right = figure.subplots(1, 2)
        _draw_levers(right, found)
    else:
        left = figure.subplots()
    _draw_spreads(left, found)
    figure.suptitle(_title(found), fontsize=10)
    save(figure, path, ConfigError)


def _title(found: Estimate) -> str:
    preset = PRESETS.get(found.parameters.preset)
    if preset is None:
        return "Joules of a query, estimated"
    other = changed(found.parameters, preset.parameters)
    but = f", but for: {', '.join(other)}" if other else ""
    return f"Joules of a query, estimated: parameters of arXiv 2509.20241 {preset.version}{but}"


def _draw_spreads(axes: Any, found: Estimate) -> None:
    """Density over the logarithm of watt hours, with median and quartiles of each kind."""
    for index, (query, draws) in enumerate(found.draws.items()):
        colour = COLOURS[index % len(COLOURS)]
        values = np.concatenate([each.joules for each in draws]) / JOULES_PER_WATT_HOUR
        weights = np.concatenate(
            [np.full(each.joules.size, each.weight / each.joules.size) for each in draws]
        )
        above = values > 0.0
        if not above.any():
            continue
        low, high = np.quantile(values[above], (0.001, 0.999))
        edges = np.geomspace(low, high * (1.0 + 1e-9) + 1e-300, _BINS + 1)
        density, _ = np.histogram(values, edges, weights=weights)
        density = density / np.log10(edges[1:] / edges[:-1])
        axes.stairs(density, edges, fill=True, color=colour, alpha=0.22)
        part = next(part for part in found.queries if part.query == query)
        spread, top = part.joules, float(density.max())
        quartiles = [each / JOULES_PER_WATT_HOUR for each in (spread.lower_quartile, spread.upper_quartile)]
        median = spread.median / JOULES_PER_WATT_HOUR
        label = f"{query}: {median:.3g} Wh ({quartiles[0]:.2g} to {quartiles[1]:.2g})"
        axes.plot([median, median], [0.0, top], color=colour, lw=1.6, label=label)
        axes.axvspan(*quartiles, color=colour, alpha=0.08, lw=0)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0.0)
    _label(axes, "watt hours of a query, building included", "share of queries per decade")
    axes.set_title("All draws; lines: medians, bands: quartiles", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _draw_levers(axes: Any, found: Estimate) -> None:
    """Median and quartiles of the joules that are left, one row a lever."""
    rows: list[tuple[str, Spread, str]] = []
    for index, part in enumerate(part for part in found.queries if part.query != MIX):
        colour = COLOURS[index % len(COLOURS)]
        rows.append((part.query, part.joules, colour))
        rows += [
            (f"{part.query}, {_name(each)}", each.joules, colour)
            for each in found.levers
            if each.query == part.query
        ]
    for at, (_, spread, colour) in enumerate(rows):
        low, middle, high = (
            each / JOULES_PER_WATT_HOUR
            for each in (spread.lower_quartile, spread.median, spread.upper_quartile)
        )
        axes.plot([low, high], [at, at], color=colour, lw=3, alpha=0.45, solid_capstyle="butt")
        axes.plot([middle], [at], "o", color=colour, ms=4)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    _label(axes, "watt hours of a query", "")
    axes.set_title("With levers pulled: medians and quartiles", fontsize=9)


def _name(lowered: Lowered) -> str:
    return lowered.lever or f"all of {lowered.scenario}"


def _label(axes: Any, below: str, left: str) -> None:
    axes.set_xlabel(below, fontsize=9)
    axes.set_ylabel(left, fontsize=9)
    axes.grid(visible=True, alpha=0.25, lw=0.5)
    without_frame(axes)
    axes.tick_params(labelsize=8)
