"""What a number of engines can serve under a cap on their power: of a GPU, a node or a rack."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from joulescope.errors import PlanError
from joulescope.insight.bisection import narrowed
from joulescope.insight.capacity.curves import capacity_of, with_batch, with_rate
from joulescope.insight.capacity.forecast import FIGURES, Figure, Forecast, Forecaster, Setting
from joulescope.insight.capacity.goals import Goal, answer
from joulescope.insight.capacity.observed import Observed
from joulescope.insight.capacity.what_if import WhatIf, setting_of
from joulescope.insight.steady import Workload, steady_state

_HALVINGS = 30
_ALMOST = 0.999


@dataclass(frozen=True, slots=True)
class Cap:
    """A cap on power, and what stands under it."""

    watts: float
    per: str
    """``gpu``, ``node`` or ``rack``."""
    gpus: int = 1
    """Under the cap."""
    host_watts: float = 0.0
    """That the nodes under it draw beside their GPUs."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to keep the cap."""

    name: str
    setting: str
    engines: int
    """That serve; the others under the cap idle."""
    forecast: Forecast
    """Of each engine that serves."""
    requests_per_second: Figure
    """Of all together, as the next two."""
    tokens_per_second: Figure
    watts: float
    binding: str
    """What bounds it: ``power``, ``capacity``, or a goal."""


@dataclass(frozen=True, slots=True)
class CapAnswer:
    """What can be served under a cap; the best way first."""

    cap: Cap
    engines: int
    ways: tuple[Way, ...]
    """Those that keep the goals too."""
    unmet: str | None = None
    """The figure that keeps its goal at no rate at all, so that there is no way."""


def under_cap(
    forecaster: Forecaster, setting: Setting, workload: Workload, cap: Cap, goals: tuple[Goal, ...] = ()
) -> CapAnswer:
    """The ways to serve as much as a cap allows, in mean power.

    Raises:
        PlanError: no engine fits under it, or they draw more at rest.
    """
    each, laws = setting.service.gpu_count, setting.service.laws
    engines = cap.gpus // each
    if engines < 1:
        raise PlanError(f"power cap: an engine has {each} GPUs, and there are {cap.gpus} under the cap")
    budget = cap.watts - cap.host_watts
    resting = engines * each * laws.idle_watts
    if budget <= resting:
        raise PlanError(
            f"power cap: {cap.watts:g} W less {cap.host_watts:g} W of hosts is no more than the "
            f"{resting:.0f} W that {engines * each} GPUs draw at rest"
        )
    under = _Under(forecaster, workload, goals, engines, budget)
    most = under.most(setting)
    if most.rate is None:
        return CapAnswer(cap, engines, (), most.bound)
    ways = [
        under.all_serve(setting, most),
        *under.some_serve(setting, most),
        *under.limited(setting),
    ]
    ways.sort(key=lambda way: -way.tokens_per_second.value)
    return CapAnswer(cap, engines, tuple(ways))


@dataclass(frozen=True, slots=True)
class _Most:
    """What one engine can serve, whatever it draws."""

    rate: float | None
    """Requests a second that keep the goals; ``None``: not even the smallest does."""
    bound: str
    """``capacity``, or the figure that stands in the way."""


@dataclass(frozen=True, slots=True)
class _Under:
    """So many engines that share ``budget`` watts."""

    forecaster: Forecaster
    workload: Workload
    goals: tuple[Goal, ...]
    engines: int
    budget: float

    def most(self, setting: Setting) -> _Most:
        """The largest rate that keeps the goals, and what bounds it."""
        high = _ALMOST * capacity_of(self.workload, setting)
        if not self.goals:
            return _Most(high, "capacity")
        met = answer(self.forecaster, setting, self.workload, self.goals).rate
        if met.load is not None and met.load >= high:
            return _Most(high, "capacity")
        return _Most(met.load, met.limited_by)

    def all_serve(self, setting: Setting, most: _Most) -> Way:
        """All share the load alike, each at the rate at which its mean power is its part of the budget."""
        return self._way("all engines serve", setting, most, self.engines, self.budget / self.engines)

    def some_serve(self, setting: Setting, most: _Most) -> list[Way]:
        """Fewer serve, each at a larger batch, which costs fewer joules a token; the others idle."""
        idle = setting.service.gpu_count * setting.service.laws.idle_watts
        ways: list[Way] = []
        for serving in range(self.engines - 1, 0, -1):
            rest = (self.engines - serving) * idle
            name, watts = f"{serving} of {self.engines} serve", (self.budget - rest) / serving
            ways.append(self._way(name, setting, most, serving, watts, rest))
            if ways[-1].binding != "power":
                break
        return sorted(ways, key=lambda way: -way.tokens_per_second.value)[:1]

    def limited(self, setting: Setting) -> list[Way]:
        """The GPUs' own power limit keeps the cap at any instant, bursts included."""
        watts = self.budget / (self.engines * setting.service.gpu_count)
        if not setting.service.laws.limit_watts or watts >= setting.service.laws.limit_watts:
            return []
        observed: Observed = replace(self.forecaster.observed, service=setting.service)
        try:
            capped = setting_of(WhatIf(power_limit_watts=watts), observed)
        except PlanError:  # below what is known of limits: then this is no way
            return []
        capped = replace(capped, variants=(*setting.variants, *capped.variants), ceiling=setting.ceiling)
        most = self.most(capped)
        if most.rate is None:  # the goals need faster clocks
            return []
        return [self._way(f"power limit {watts:.0f} W", capped, most, self.engines, math.inf)]

    def _way(
        self, name: str, setting: Setting, most: _Most, engines: int, watts: float, rest: float = 0.0
    ) -> Way:
        """So many engines serve at ``watts`` each; the others draw ``rest`` together."""
        rate, binding = self._rate(setting, most, watts)
        forecast = self.forecaster.of(with_rate(self.workload, rate), setting)
        return Way(
            name=name,
            setting=setting.name,
            engines=engines,
            forecast=forecast,
            requests_per_second=self._times(forecast, setting, "requests_per_second", engines, binding),
            tokens_per_second=self._times(forecast, setting, "tokens_per_second", engines, binding),
            watts=engines * forecast.operation.watts + rest,
            binding=binding,
        )

    def _times(self, forecast: Forecast, setting: Setting, name: str, engines: int, binding: str) -> Figure:
        """A flow of all engines. How much may come under a cap on power is as unsure as what a token costs;
        else as the capacity is."""
        value = engines * (FIGURES[name](forecast.operation) or 0.0)
        if binding == "power":
            by = forecast.figures.get("joules_per_token")
            ends = None if by is None else (by.value / by.high, by.value / by.low)
        else:
            full = self.forecaster.of(with_batch(self.workload, math.inf), setting)
            by = full.figures.get("tokens_per_second")
            ends = None if by is None else (by.low / by.value, by.high / by.value)
        low, high = ends or (0.0, math.inf)
        return Figure(value, low * value, high * value)

    def _rate(self, setting: Setting, most: _Most, watts: float) -> tuple[float, str]:
        """The largest rate of one engine that keeps its power and the goals, and what bounds it."""
        high = most.rate or 0.0
        if self._watts(setting, high) <= watts:
            return high, most.bound
        low, _ = narrowed(0.0, high, lambda rate: self._watts(setting, rate) <= watts, _HALVINGS)
        return max(low, 1e-9), "power"

    def _watts(self, setting: Setting, rate: float) -> float:
        return steady_state(with_rate(self.workload, rate), setting.service).watts
