"""Which parameter moves the median most: each at its P5 and at its P95, the others as they are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from joulescope.insight.estimate.distributions import Distribution, Fixed
from joulescope.insight.estimate.draws import draw
from joulescope.insight.estimate.parameters import Model, Parameters
from joulescope.insight.estimate.spread import spread, trimmed
from joulescope.insight.estimate.throughput import Law, Table, Throughput, scaled

LOW, HIGH = 0.05, 0.95


@dataclass(frozen=True, slots=True)
class Swing:
    """What one parameter does to the median of one kind of query, in joules."""

    query: str
    parameter: str
    low: str
    """What it was held at, as text; so ``high``."""
    high: str
    low_joules: float
    """Median with the parameter at its P5; for throughput at the end of its own spread that lies lower."""
    high_joules: float

    @property
    def ratio(self) -> float:
        """The higher of both medians by the lower; 1 if they are the same, infinite if the lower is zero."""
        low, high = sorted((self.low_joules, self.high_joules))
        if low == high:
            return 1.0
        return high / low if low > 0.0 else math.inf


def sensitivity(parameters: Parameters) -> tuple[Swing, ...]:
    """Swings of every parameter that is spread, the largest first, kind by kind.

    The draws of all others are the same at both ends, so that no noise of theirs is in a swing.
    """
    swings = []
    for query in parameters.queries:
        alone = replace(parameters, queries=(replace(query, weight=1.0),), scenarios=())
        found = [
            Swing(query.name, name, low_text, high_text, _median(low), _median(high))
            for name, (low_text, low), (high_text, high) in _ends(alone)
        ]
        swings += sorted(found, key=lambda swing: -swing.ratio)
    return tuple(swings)


def _median(parameters: Parameters) -> float:
    (draws,) = draw(parameters).values()
    strata = [(each.weight, trimmed(each.joules, parameters.trim_quantiles)) for each in draws]
    return spread(strata).median


_End = tuple[str, Parameters]


def _ends(parameters: Parameters) -> Iterator[tuple[str, _End, _End]]:
    """Name of each parameter that is spread, and the parameters with it at either end."""
    (query,) = parameters.queries
    for name in ("pue", "node_power_ratio"):
        distribution: Distribution = getattr(parameters, name)
        if _is_spread(distribution):
            yield name, *_both(distribution, partial(_with, parameters, name))
    for name in ("input_tokens", "output_tokens"):
        distribution = getattr(query, name)
        if _is_spread(distribution):
            yield name, *_both(distribution, partial(_with_query, parameters, name))
    yield from _model_ends(parameters)


def _model_ends(parameters: Parameters) -> Iterator[tuple[str, _End, _End]]:
    models = [model for model in parameters.models if model.weight]
    if len(models) > 1:
        alone = [(model.name, replace(parameters, models=(model,))) for model in models]
        ordered = sorted(alone, key=lambda each: _median(each[1]))
        yield "model", ordered[0], ordered[-1]
    if any(_is_spread(model.node_max_watts) for model in models):
        ends = [
            _with_models(
                parameters,
                [replace(model, node_max_watts=_at(model.node_max_watts, share)) for model in models],
            )
            for share in (LOW, HIGH)
        ]
        yield "node_max_watts", ("P5", ends[0]), ("P95", ends[1])
    if any(model.throughput.scatter for model in models):
        lows, highs = ([_at_scatter(model, sign) for model in models] for sign in (-1.0, 1.0))
        yield (
            "throughput",
            ("P5 of its scatter", _with_models(parameters, lows)),
            ("P95 of its scatter", _with_models(parameters, highs)),
        )


def _is_spread(distribution: Distribution) -> bool:
    return distribution.quantile(LOW) != distribution.quantile(HIGH)


def _at(distribution: Distribution, share: float) -> Fixed:
    return Fixed(distribution.quantile(share))


def _both(distribution: Distribution, hold: Callable[[Fixed], Parameters]) -> tuple[_End, _End]:
    low, high = _at(distribution, LOW), _at(distribution, HIGH)
    return (f"{low.value:.4g}", hold(low)), (f"{high.value:.4g}", hold(high))


def _with(parameters: Parameters, name: str, held: Fixed) -> Parameters:
    changes: dict[str, Any] = {name: held}
    return replace(parameters, **changes)


def _with_query(parameters: Parameters, name: str, held: Fixed) -> Parameters:
    (query,) = parameters.queries
    changes: dict[str, Any] = {name: held}
    return replace(parameters, queries=(replace(query, paired=False, **changes),))


def _with_models(parameters: Parameters, models: Sequence[Model]) -> Parameters:
    return replace(parameters, models=tuple(models))


_P95_NORMAL = 1.6448536269514722


def _at_scatter(model: Model, sign: float) -> Model:
    held = scaled(model.throughput, math.exp(sign * _P95_NORMAL * model.throughput.scatter))
    return replace(model, throughput=_without_scatter(held))


def _without_scatter(throughput: Throughput) -> Throughput:
    return replace(throughput, scatter=0.0) if isinstance(throughput, Law | Table) else throughput
