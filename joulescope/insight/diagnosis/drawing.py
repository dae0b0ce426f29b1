"""A diagnosis as a picture: the waterfall."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from joulescope.errors import PlanError
from joulescope.insight.diagnosis.diagnosis import Diagnosis
from joulescope.insight.diagnosis.waterfall import Bar, bars_of, span_of
from joulescope.insight.picture import new_figure, save, without_frame

_LEVEL, _DEARER, _CHEAPER, _DOUBTFUL = "#5b6b7b", "#c2571a", "#2f8f5b", "#b9c0c7"


def draw(diagnosis: Diagnosis, path: Path) -> None:
    """Writes the picture; the ending says in which format (png, svg, pdf).

    Raises:
        PlanError: the file cannot be written, or its ending is no picture's.
        MissingExtra: without matplotlib.
    """
    bars = bars_of(diagnosis)
    figure = new_figure(max(6.0, 1.25 * len(bars) + 1.5), 4.6)
    axes = figure.subplots()
    low, high = span_of(bars)
    for at, bar in enumerate(bars):
        _draw_bar(axes, at, bar, low, high)
        if at + 1 < len(bars):
            axes.plot([at + 0.35, at + 0.65], [bar.end, bar.end], color="#888888", lw=0.8)
    axes.set_ylim(low, high + 0.16 * (high - low))
    axes.set_xticks(range(len(bars)), [_wrapped(bar.title) for bar in bars], fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    cut = " (the axis does not begin at 0)" if low > 0.0 else ""
    axes.set_ylabel(f"joules per {diagnosis.unit}{cut}", fontsize=9)
    axes.grid(visible=True, axis="y", lw=0.4, alpha=0.5)
    axes.set_axisbelow(True)
    without_frame(axes)
    before = diagnosis.before.joules_per_token
    axes.set_title(
        f"{diagnosis.engine}: {before:.4g} to {diagnosis.after.joules_per_token:.4g} J/{diagnosis.unit} "
        f"({diagnosis.change / before:+.1%})",
        fontsize=10,
    )
    save(figure, path, PlanError)


def _draw_bar(axes: Any, at: int, bar: Bar, low: float, high: float) -> None:
    colour = _LEVEL if bar.kind == "level" else _DEARER if bar.height > 0 else _CHEAPER
    if bar.kind == "doubtful":
        colour = _DOUBTFUL
    base = low if bar.kind == "level" else bar.begin
    axes.bar(at, bar.end - base, bottom=base, width=0.7, color=colour)
    if bar.error > 0.0:
        axes.errorbar(at, bar.end, yerr=bar.error, color="black", lw=0.9, capsize=3)
    text = f"{bar.end:.4g}" if bar.kind == "level" else f"{bar.height:+.3g}"
    top = max(base, bar.end) + bar.error + 0.015 * (high - low)
    axes.annotate(text, (at, top), ha="center", va="bottom", fontsize=8)


def _wrapped(title: str, width: int = 14) -> str:
    """A title in lines of about so many letters."""
    lines: list[str] = []
    for word in title.split():
        if lines and len(lines[-1]) + len(word) < width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)
