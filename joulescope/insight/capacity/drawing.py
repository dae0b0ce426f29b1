"""A plan as a picture: joules per token against the time between tokens, and throughput per watt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from joulescope.errors import PlanError
from joulescope.insight.capacity.curves import Point
from joulescope.insight.capacity.plan import Alternative, Plan
from joulescope.insight.picture import COLOURS, new_figure, plain_ticks, save, without_frame

_KEY = "numbers: batch; hollow: not seen\nband: 90 %; black ring: on the frontier"
_SIZE = (11.0, 4.8)


def draw(plan: Plan, path: Path) -> None:
    """Writes the picture; the ending says in which format (png, svg, pdf).

    Raises:
        PlanError: the file cannot be written, or its ending is no picture's.
        MissingExtra: without matplotlib.
    """
    figure = new_figure(*_SIZE)
    left, right = figure.subplots(1, 2)
    for index, alternative in enumerate(plan.alternatives):
        colour = COLOURS[index % len(COLOURS)]
        _draw_frontier(left, alternative, plan, colour)
        _draw_throughput(right, alternative, colour)
    _draw_goals(left, plan)
    _draw_measured(left, plan)
    _label(left, "time from token to token, ms", "joules per token (busy GPUs)", "Time and energy by batch")
    _label(right, "requests in a step", "tokens per second and watt", "Throughput per watt")
    left.set_xscale("log")
    left.set_yscale("log")
    for axis in (left.xaxis, left.yaxis, right.xaxis):
        plain_ticks(axis)
    left.legend(frameon=False, fontsize=8, title=_KEY, title_fontsize=7)
    kind = plan.observed.kind
    name = kind.served_model or kind.model or kind.engine
    figure.suptitle(f"{name} on {plan.observed.service.gpu_count}×{kind.gpu_name or 'GPU'}", fontsize=10)
    save(figure, path, PlanError)


def _known(alternative: Alternative) -> list[Point]:
    return [point for point in alternative.batches if point.forecast.figures]


def _draw_frontier(axes: Any, alternative: Alternative, plan: Plan, colour: str) -> None:
    points = _known(alternative)
    if not points:
        return
    times = [1e3 * point.forecast.figures["inter_token_seconds"].value for point in points]
    joules = [point.forecast.figures["joules_per_token"] for point in points]
    axes.fill_between(
        times, [each.low for each in joules], [each.high for each in joules], color=colour, alpha=0.13, lw=0
    )
    axes.plot(times, [each.value for each in joules], color=colour, lw=1.4, label=alternative.setting.name)
    for point, time, figure in zip(points, times, joules, strict=True):
        seen = point.forecast.support.verdict == "seen"
        edge = "black" if id(point) in plan.frontier and len(plan.alternatives) > 1 else colour
        face = colour if seen else "white"
        axes.plot([time], [figure.value], "o", ms=5, mfc=face, mec=edge, mew=1.1)
        axes.annotate(
            f"{point.load:.0f}", (time, figure.value), xytext=(4, 4), textcoords="offset points", fontsize=7
        )


def _draw_throughput(axes: Any, alternative: Alternative, colour: str) -> None:
    points = _known(alternative)
    if not points:
        return
    batches = [point.load for point in points]
    joules = [point.forecast.figures["joules_per_token"] for point in points]
    low, high = [1.0 / each.high for each in joules], [1.0 / each.low for each in joules]
    axes.fill_between(batches, low, high, color=colour, alpha=0.13, lw=0)
    axes.plot(
        batches, [1.0 / each.value for each in joules], color=colour, lw=1.4, label=alternative.setting.name
    )
    axes.set_xscale("log", base=2)


def _draw_goals(axes: Any, plan: Plan) -> None:
    for goal in plan.asked.goals:
        if goal.name == "inter_token_seconds":
            axes.axvline(
                1e3 * goal.seconds, color="#666666", lw=1.0, ls="--", label=f"goal {1e3 * goal.seconds:g} ms"
            )


def _draw_measured(axes: Any, plan: Plan) -> None:
    """Where the engine was, as measured: the mean step and joules of all but idle time."""
    fared = plan.observed.fared
    if fared.busy_joules_per_token is None or not fared.step_seconds:
        return
    service = plan.observed.service
    time = 1e3 * fared.step_seconds * service.pipeline_parallel / service.tokens_per_pass
    axes.plot([time], [fared.busy_joules_per_token], "x", color="black", ms=7, mew=1.6, label="measured mean")


def _label(axes: Any, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, which="major", lw=0.4, alpha=0.5)
    without_frame(axes)
