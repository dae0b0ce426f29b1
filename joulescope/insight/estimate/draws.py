"""Draws of queries, and what each costs by the formula: pue · node watts · output tokens / TPS.

Every parameter of every model and kind of query draws from a stream of its own, named by the seed and by what
it is: changing one parameter leaves the draws of all others as they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from joulescope.errors import ConfigError
from joulescope.insight.estimate.distributions import Distribution, Empirical
from joulescope.insight.estimate.parameters import Model, Parameters, Query

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Draws:
    """Queries of one kind, served by one model: arrays of one length."""

    query: str
    model: str
    weight: float
    """Share of all queries, of the kinds' and the models' weights; sums to one over a kind."""
    gpus_per_node: int
    pue: Floats
    node_watts: Floats
    input_tokens: Floats
    output_tokens: Floats
    tokens_per_second: Floats
    node_seconds: Floats
    """Time of a whole node that a query takes."""
    joules: Floats
    """Of the building, for a query."""
    extrapolated: float
    """Share of the draws with lengths beyond those for which the throughput was observed."""


_MOST_JOULES = 1e120
"""Of which squares and sums are still finite."""


def draw(parameters: Parameters) -> dict[str, tuple[Draws, ...]]:
    """Draws of each kind of query, by model; weights within a kind sum to one.

    Raises:
        ConfigError: a parameter is so large or so small that joules are not finite.
    """
    total = sum(model.weight for model in parameters.models)
    return {
        query.name: tuple(
            _draw(parameters, query, model, model.weight / total)
            for model in parameters.models
            if model.weight > 0.0
        )
        for query in parameters.queries
    }


def _draw(parameters: Parameters, query: Query, model: Model, weight: float) -> Draws:
    def sample(distribution: Distribution, name: str) -> Floats:
        found = distribution.sample(stream(parameters.seed, name, query.name, model.name), parameters.samples)
        return np.maximum(found, 0.0)

    if query.paired and isinstance(query.input_tokens, Empirical):
        random = stream(parameters.seed, "pairs", query.name, model.name)
        at = query.input_tokens.places(random, parameters.samples)
        inputs, outputs = (
            np.maximum(np.asarray(each.values)[at], 0.0)
            for each in (query.input_tokens, query.output_tokens)
            if isinstance(each, Empirical)
        )
    else:
        inputs = sample(query.input_tokens, "input_tokens")
        outputs = sample(query.output_tokens, "output_tokens")
    rates = _rates(parameters, query, model, inputs, outputs)
    pue = sample(parameters.pue, "pue")
    ratio = sample(parameters.node_power_ratio, "node_power_ratio")
    watts = ratio * sample(model.node_max_watts, "node_max_watts")
    with np.errstate(all="ignore"):
        seconds = outputs / rates
        joules = pue * watts * seconds
    if not ((joules <= _MOST_JOULES) & (rates > 0.0) & np.isfinite(rates)).all():
        raise ConfigError(
            f"queries.{query.name}, models.{model.name}: no figure comes of a draw: look at the throughput, "
            f"which goes from {rates.min():.3g} to {rates.max():.3g} tokens a second"
        )
    return Draws(
        query=query.name,
        model=model.name,
        weight=weight,
        gpus_per_node=model.gpus_per_node,
        pue=pue,
        node_watts=watts,
        input_tokens=inputs,
        output_tokens=outputs,
        tokens_per_second=rates,
        node_seconds=seconds,
        joules=joules,
        extrapolated=_beyond(model, inputs, outputs),
    )


def _rates(parameters: Parameters, query: Query, model: Model, inputs: Floats, outputs: Floats) -> Floats:
    """Tokens a second; 0 or infinite where a law leads beyond what a float holds."""
    with np.errstate(all="ignore"):
        rates = model.throughput.rates(inputs, outputs)
        if model.throughput.scatter:
            random = stream(parameters.seed, "scatter", query.name, model.name)
            rates = rates * np.exp(model.throughput.scatter * random.standard_normal(parameters.samples))
    return rates


def stream(seed: int, *names: str) -> np.random.Generator:
    """Random numbers of their own for whatever the names say."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def _beyond(model: Model, inputs: Floats, outputs: Floats) -> float:
    beyond = np.zeros(inputs.shape, dtype=bool)
    for tokens, seen in ((inputs, model.throughput.input_range), (outputs, model.throughput.output_range)):
        if seen is not None:
            beyond |= (tokens < seen[0]) | (tokens > seen[1])
    return float(beyond.mean())


def means(draws: Sequence[Draws]) -> tuple[float, float, float, float]:
    """Means over draws of one kind: output tokens, node seconds, node joules, building joules."""
    found = [0.0, 0.0, 0.0, 0.0]
    for each in draws:
        node_joules = each.node_watts * each.node_seconds
        for at, values in enumerate((each.output_tokens, each.node_seconds, node_joules, each.joules)):
            found[at] += each.weight * float(values.mean())
    return found[0], found[1], found[2], found[3]
