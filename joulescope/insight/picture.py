"""What all pictures have in common. They are drawn by matplotlib, which nothing else here needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from joulescope.errors import JoulescopeError, MissingExtra
from joulescope.insight.extra import ANALYSIS_LINE

COLOURS = ("#1f5fa8", "#c2571a", "#2f8f5b", "#8b4fa3", "#8a6d1d", "#a3304f")
_DPI = 150


def new_figure(width_inches: float, height_inches: float) -> Any:
    """An empty figure of matplotlib's.

    Raises:
        MissingExtra: without matplotlib; the message is the line that installs it.
    """
    try:
        from matplotlib import figure
    except ImportError:
        raise MissingExtra(ANALYSIS_LINE) from None
    return figure.Figure(figsize=(width_inches, height_inches), dpi=_DPI, layout="constrained")


def save(figure: Any, path: Path, error: type[JoulescopeError]) -> None:
    """Writes the picture; the ending says in which format (png, svg, pdf).

    Raises:
        JoulescopeError: of the kind asked for, if the file cannot be written, or its ending is no picture's.
    """
    try:
        figure.savefig(path)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"{path}: the picture cannot be written: {reason}; choose another file") from None


def without_frame(axes: Any) -> None:
    """Leaves the lines below and to the left."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def plain_ticks(axis: Any) -> None:
    """Numbers instead of powers along a logarithmic axis, at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if axis.get_transform().base == 10:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
