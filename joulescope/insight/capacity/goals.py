"""What batch and what rate of requests keep a latency that is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from joulescope.insight.capacity.curves import capacity_of, largest_batch, with_batch, with_rate
from joulescope.insight.capacity.forecast import (
    FIGURES,
    Figure,
    Forecast,
    Forecaster,
    Percentile,
    Setting,
    queue_is_told,
)
from joulescope.insight.steady import Service, Workload, latencies, steady_state

_HALVINGS, _HALVINGS_OF_PERCENTILES = 24, 12
"""The second is within half a percent; percentiles are drawn, and no surer than that."""

_ALMOST = 0.999


_PARTS = (1.0, 0.9, 0.8, 0.65, 0.5, 0.3)
"""Of a load that keeps the goals: the first at which their upper ends are known is where these are taken."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A mean, or a percentile, that must not be exceeded."""

    figure: str
    """``inter_token_seconds`` or ``first_token_seconds``, as in :data:`.forecast.FIGURES`."""
    seconds: float
    percent: float | None = None
    """Which percentile; ``None``: the mean."""

    @property
    def name(self) -> str:
        """Of the figure that is bounded."""
        return self.figure if self.percent is None else Percentile(self.figure, self.percent).name


@dataclass(frozen=True, slots=True)
class Met:
    """The largest load that keeps the goals. ``None``: not even the smallest does."""

    load: float | None
    """Requests at a time, or requests a second."""
    sure_load: float | None
    """That keeps them at the upper end of the interval too, that is, with a chance of 95 %."""
    forecast: Forecast | None
    """At ``load``."""
    percentiles: dict[str, Figure]
    """There, those that the goals bound, by their names."""
    limited_by: str
    """The figure that stands in the way; ``capacity`` where none does."""


@dataclass(frozen=True, slots=True)
class GoalAnswer:
    """What keeps the goals in one setting."""

    setting: str
    batch: Met
    rate: Met


def answer(
    forecaster: Forecaster, setting: Setting, workload: Workload, goals: tuple[Goal, ...]
) -> GoalAnswer:
    """The largest batch and the largest rate that keep all goals. The batch is asked of the time from token
    to token only: the time to the first one depends on how requests come."""
    most, capacity = largest_batch(workload, setting), capacity_of(workload, setting)
    between = tuple(goal for goal in goals if goal.figure == "inter_token_seconds")
    batch = _met(forecaster, setting, lambda load: with_batch(workload, load), between, (1.0, most))
    low, high = 1e-3 * capacity, _ALMOST * capacity
    rate = _met(forecaster, setting, lambda load: with_rate(workload, load), goals, (low, high))
    return GoalAnswer(setting.name, batch, rate)


def _met(
    forecaster: Forecaster,
    setting: Setting,
    at: Callable[[float], Workload],
    goals: tuple[Goal, ...],
    span: tuple[float, float],
) -> Met:
    load, reason = _largest(setting, at, goals, span, {})
    if load is None:
        return Met(None, None, None, {}, reason)
    forecast = forecaster.of(at(load), setting)
    asked = [Percentile(goal.figure, goal.percent) for goal in goals if goal.percent is not None]
    refused = forecast.support.verdict == "refused"
    found = forecaster.percentiles(at(load), setting, asked) if asked and not refused else {}
    sure = None
    for part in () if refused else _PARTS:
        wide = _wide(forecaster, setting, at(part * load), goals)
        if wide is not None:
            sure = _largest(setting, at, goals, (span[0], max(part * load, span[0])), wide)[0]
            break
    return Met(load, sure, forecast, found, reason)


def _wide(
    forecaster: Forecaster, setting: Setting, workload: Workload, goals: tuple[Goal, ...]
) -> dict[str, float] | None:
    """By how much the upper end of each goal's figure is longer; ``None`` where one has no longest time, as
    near the capacity, where steps that are a little longer make the queue grow."""
    figures = forecaster.of(workload, setting).figures
    asked = [Percentile(goal.figure, goal.percent) for goal in goals if goal.percent is not None]
    if asked:
        figures = figures | forecaster.percentiles(workload, setting, asked)
    if any(goal.name not in figures for goal in goals):
        return None
    return {goal.name: figures[goal.name].high / max(figures[goal.name].value, 1e-12) for goal in goals}


def _largest(
    setting: Setting,
    at: Callable[[float], Workload],
    goals: tuple[Goal, ...],
    span: tuple[float, float],
    wide: dict[str, float],
) -> tuple[float | None, str]:
    """By halving: latency grows with load. With what stands in the way."""
    low, high = span
    broken = _broken(at(high), setting.service, goals, wide)
    if broken is None:
        return high, "capacity"
    if _broken(at(low), setting.service, goals, wide) is not None:
        return None, broken
    drawn = any(goal.percent is not None for goal in goals)
    for _ in range(_HALVINGS_OF_PERCENTILES if drawn else _HALVINGS):
        middle = math.sqrt(low * high)
        now = _broken(at(middle), setting.service, goals, wide)
        low, high = (middle, high) if now is None else (low, middle)
        broken = now or broken
    return low, broken


def _broken(
    workload: Workload, service: Service, goals: tuple[Goal, ...], wide: dict[str, float]
) -> str | None:
    """A goal that is not kept; the means first, which cost less to know."""
    operation = steady_state(workload, service)
    for goal in goals:
        if goal.percent is None:
            value = FIGURES[goal.figure](operation)
            if value is None or value * wide.get(goal.name, 1.0) > goal.seconds:
                return goal.name
    drawn = [goal for goal in goals if goal.percent is not None]
    found = latencies(workload, service) if drawn else None
    for goal in drawn:
        value = None if found is None else found.percentile(goal.figure, goal.percent or 0.0)
        if goal.figure == "first_token_seconds" and not queue_is_told(operation):
            value = None
        if value is None or value * wide.get(goal.name, 1.0) > goal.seconds:
            return goal.name
    return None
