"""Everything that an estimate is made of, as frozen values; nothing is taken from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from joulescope.errors import ConfigError
from joulescope.insight.estimate.distributions import Distribution, Empirical, Fixed
from joulescope.insight.estimate.throughput import Throughput

_ONE = Fixed(1.0)
_MOST = 1e30
"""Means beyond this cannot be reckoned with: their squares would not be finite."""
_LEAST_KEPT = 0.05
"""Part of the draws that medians are to be taken of."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model on a kind of node, and what share of the queries it serves."""

    name: str
    weight: float
    node_max_watts: Distribution
    """What a node can draw at most, all of it."""
    throughput: Throughput
    """Of a node."""
    gpus_per_node: int = 8


@dataclass(frozen=True, slots=True)
class Query:
    """A kind of query, and its share."""

    name: str
    weight: float
    input_tokens: Distribution
    output_tokens: Distribution
    paired: bool = False
    """Whether both are empirical, and the values at one place were observed together."""


@dataclass(frozen=True, slots=True)
class Lever:
    """Something that divides the joules of a query by a factor."""

    name: str
    factor: Distribution
    queries: tuple[str, ...] = ()
    """The kinds of query it acts on; empty: all."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Levers that are pulled together."""

    name: str
    levers: tuple[Lever, ...]


@dataclass(frozen=True, slots=True)
class Parameters:
    """One estimate, whole."""

    models: tuple[Model, ...]
    queries: tuple[Query, ...]
    preset: str = ""
    """The version of the paper that they began from, empty if none."""
    pue: Distribution = _ONE
    """Power usage effectiveness: joules of the building for a joule of the nodes."""
    node_power_ratio: Distribution = _ONE
    """Power that a serving node draws, by the most it can draw."""
    trim_quantiles: tuple[float, float] | None = None
    """Medians and quartiles are taken of what lies between these quantiles of each model; means of all."""
    queries_per_day: float = 0.0
    fleet_factors: tuple[tuple[str, float], ...] = ()
    """What a fleet takes beyond its busy nodes; the product is the paper's beta."""
    carbon_grams_per_kwh: Distribution | None = None
    price_per_kwh: Distribution | None = None
    currency: str = ""
    scenarios: tuple[Scenario, ...] = ()
    samples: int = 50_000
    """For each model and kind of query."""
    seed: int = 1

    @property
    def beta(self) -> float:
        """The factor of a fleet."""
        return math.prod(factor for _, factor in self.fleet_factors)


def check(parameters: Parameters) -> Parameters:
    """The same, if an estimate can be made of it.

    Raises:
        ConfigError: a figure cannot be; the message says which, and what can be.
    """
    problems = list(_problems(parameters))
    if problems:
        raise ConfigError("; ".join(problems))
    return parameters


def _problems(parameters: Parameters) -> Iterator[str]:
    yield from _low(parameters.pue, "pue", 1.0, "no building takes less than its nodes")
    yield from _low(parameters.node_power_ratio, "node_power_ratio", 0.0, "a node draws power")
    if (high := parameters.node_power_ratio.quantile(0.95)) > 1.0:
        yield (
            f"node_power_ratio: {parameters.node_power_ratio.text()}: its P95 is {high:.4g}; it is to be 1 "
            "or below: a node draws no more than the most it can"
        )
    for kind, parts in (("models", parameters.models), ("queries", parameters.queries)):
        weights = [part.weight for part in parts]
        if not parts:
            yield f"{kind}: there is none; name a preset, or give a file of parameters"
        elif min(weights) < 0.0 or not 0.0 < sum(weights) < math.inf:
            yield f"{kind}: weights are to be 0 or above, and one above 0"
    for model in parameters.models:
        yield from _low(
            model.node_max_watts, f"models.{model.name}.node_max_watts", 0.0, "a node draws power"
        )
        if model.gpus_per_node < 1:
            yield f"models.{model.name}.gpus_per_node: {model.gpus_per_node} is not 1 or above"
    for query in parameters.queries:
        for name in ("input_tokens", "output_tokens"):
            where, found = f"queries.{query.name}.{name}", getattr(query, name)
            yield from _low(found, where, 0.0, "tokens are counted", open_end=False)
        if query.paired and not are_pairs(query):
            yield f"queries.{query.name}.paired: both lengths are to be empirical, with the same weights"
    trim = parameters.trim_quantiles
    if trim is not None and not (0.0 <= trim[0] < trim[1] <= 1.0 and trim[1] - trim[0] >= _LEAST_KEPT):
        yield f"trim_quantiles: {list(trim)} are to rise, from 0 to 1, by {_LEAST_KEPT:g} or more"
    yield from _fleet_problems(parameters)
    if not 100 <= parameters.samples <= 10_000_000:
        yield f"samples: {parameters.samples} is not from 100 to 10000000"
    if parameters.seed < 0:
        yield f"seed: {parameters.seed} is below 0"


def are_pairs(query: Query) -> bool:
    """Whether the lengths of a query can be drawn together."""
    one, other = query.input_tokens, query.output_tokens
    return isinstance(one, Empirical) and isinstance(other, Empirical) and one.weights == other.weights


def _fleet_problems(parameters: Parameters) -> Iterator[str]:
    if not 0.0 <= parameters.queries_per_day <= _MOST:
        yield f"queries_per_day: {parameters.queries_per_day} is not 0 or above, or too large"
    for name, factor in parameters.fleet_factors:
        if not 1.0 <= factor <= _MOST:
            yield (
                f"fleet.factors.{name}: {factor} is below 1 or too large; a fleet takes no less than its "
                "busy nodes"
            )
    for name in ("carbon_grams_per_kwh", "price_per_kwh"):
        if (found := getattr(parameters, name)) is not None:
            yield from _low(found, name, 0.0, "it is no credit", open_end=False)
    known = {query.name for query in parameters.queries}
    for scenario in parameters.scenarios:
        for lever in scenario.levers:
            where = f"levers.{scenario.name}.{lever.name}"
            yield from _low(lever.factor, where, 0.0, "joules are divided by it")
            yield from (
                f"{where}: there is no query {name}; there is {', '.join(sorted(known))}"
                for name in lever.queries
                if name not in known
            )


def _low(
    found: Distribution, where: str, least: float, reason: str, *, open_end: bool = True
) -> Iterator[str]:
    """A distribution of which more than a twentieth lies where nothing can be, or that is not finite.

    Not its least value: a lognormal PUE from 1.05 to 1.40 (P5 to P95) has a tail below 1, and the paper has
    that tail too. Of values that were observed none may be there: that one is no tail but an error.
    """
    what, low = ("P5", found.quantile(0.05))
    if isinstance(found, Empirical):
        what, low = ("least value", min(found.values))
    if low < least or (open_end and least == 0.0 and low <= 0.0):
        wanted = _least(least, open_end)
        yield f"{where}: {found.text():.120}: its {what} is {low:.4g}; it is to be {wanted}: {reason}"
    if not _mean(found) <= _MOST:
        yield f"{where}: {found.text():.120}: its mean is too large to reckon with; check its unit"


def _mean(found: Distribution) -> float:
    try:
        return found.mean
    except OverflowError:
        return math.inf


def _least(least: float, open_end: bool) -> str:
    return "above 0" if open_end and least == 0.0 else f"{least:g} or above"


def changed(parameters: Parameters, preset: Parameters) -> tuple[str, ...]:
    """Names of what differs from a preset and moves the figures."""
    still = {"preset", "samples", "seed", "carbon_grams_per_kwh", "price_per_kwh", "currency"}
    found = [
        each.name
        for each in fields(Parameters)
        if each.name not in still and getattr(parameters, each.name) != getattr(preset, each.name)
    ]
    same = _without_weights(parameters.queries) == _without_weights(preset.queries)
    return tuple("mix" if name == "queries" and same else name for name in found)


def _without_weights(queries: tuple[Query, ...]) -> list[Query]:
    return [replace(query, weight=0.0) for query in queries]
