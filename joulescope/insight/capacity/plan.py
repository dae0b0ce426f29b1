"""A plan: what an observed engine, and others like it, would do at other loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from joulescope.insight.capacity.curves import Point, batch_curve, on_frontier, rate_curve
from joulescope.insight.capacity.forecast import Figure, Forecast, Forecaster, Setting
from joulescope.insight.capacity.goals import Goal, GoalAnswer, answer
from joulescope.insight.capacity.observed import Observed
from joulescope.insight.capacity.power_cap import Cap, CapAnswer, under_cap
from joulescope.insight.capacity.what_if import WhatIf, as_it_is, setting_of
from joulescope.insight.steady import Workload


@dataclass(frozen=True, slots=True)
class Asked:
    """What a plan is to answer."""

    goals: tuple[Goal, ...] = ()
    cap: Cap | None = None
    what_ifs: tuple[WhatIf, ...] = ()
    rate: float | None = None
    """Requests a second, in place of those that were observed."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """One setting: the observed one, or a what-if."""

    setting: Setting
    at_load: Forecast
    """Under the observed (or given) rate."""
    latencies: dict[str, Figure]
    """There, percentiles of latencies by their names; none where refused."""
    batches: tuple[Point, ...]
    rates: tuple[Point, ...]
    goals: GoalAnswer | None
    cap: CapAnswer | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be, by setting; the observed one first."""

    observed: Observed
    asked: Asked
    workload: Workload
    alternatives: tuple[Alternative, ...]
    frontier: frozenset[int]
    """``id`` of the points of :attr:`Alternative.batches` that no other beats in time and in energy."""


def plan(observed: Observed, asked: Asked) -> Plan:
    """Answers what is asked.

    Raises:
        PlanError: something that is asked cannot be; the message names it.
    """
    forecaster = Forecaster(observed)
    workload = observed.workload
    if asked.rate is not None:
        workload = replace(workload, arrivals_per_second=asked.rate, concurrency=None)
    settings = [as_it_is(observed), *(setting_of(what_if, observed) for what_if in asked.what_ifs)]
    alternatives = tuple(_alternative(forecaster, setting, workload, asked) for setting in settings)
    return Plan(observed, asked, workload, alternatives, frozenset(_frontier(alternatives)))


def _alternative(forecaster: Forecaster, setting: Setting, workload: Workload, asked: Asked) -> Alternative:
    cap, at_load = asked.cap, forecaster.of(workload, setting)
    return Alternative(
        setting=setting,
        at_load=at_load,
        latencies=forecaster.percentiles(workload, setting) if at_load.figures else {},
        batches=tuple(batch_curve(forecaster, setting, workload)),
        rates=tuple(rate_curve(forecaster, setting, workload)),
        goals=answer(forecaster, setting, workload, asked.goals) if asked.goals else None,
        cap=under_cap(forecaster, setting, workload, cap, asked.goals) if cap is not None else None,
    )


def _frontier(alternatives: Sequence[Alternative]) -> set[int]:
    return on_frontier([point for alternative in alternatives for point in alternative.batches])
