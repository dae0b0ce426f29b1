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
    figures, wide = forecast.figures | found, {}
    for goal in goals:
        figure = figures.get(goal.name)
        if figure is not None and figure.value > 0.0:
            wide[goal.name] = figure.high / figure.value
    sure = None if refused else _largest(setting, at, goals, span, wide)[0]
    return Met(load, sure, forecast, found, reason)


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
