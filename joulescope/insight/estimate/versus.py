"""An estimate beside a measurement, and the factor between them split exactly into its causes.

Both are products: joules of a query = pue · fleet factor · watts · output tokens / (tokens a second). So is
their ratio, and its logarithm is a sum. The estimate's figures are those that make its mean: tokens a second
are mean tokens by mean seconds, watts are joules by seconds. Power and throughput are laid beside by GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from joulescope.errors import ConfigError
from joulescope.insight.estimate.draws import Draws
from joulescope.insight.estimate.estimate import MIX, Estimate
from joulescope.insight.estimate.measured import Measured
from joulescope.insight.estimate.parameters import Parameters


@dataclass(frozen=True, slots=True)
class Factor:
    """One cause of the difference."""

    name: str
    estimated: float
    measured: float
    unit: str
    factor: float
    """By which it lifts the estimate above the measurement."""

    @property
    def log(self) -> float:
        """Its part of the sum."""
        return math.log(self.factor)


@dataclass(frozen=True, slots=True)
class Versus:
    """Joules of a query: estimated, with the fleet's factor, and measured."""

    query: str
    estimated_joules: float
    measured_joules: float
    measured: Measured
    factors: tuple[Factor, ...]
    """Their product is ``factor``."""
    notes: tuple[str, ...]

    @property
    def factor(self) -> float:
        """Estimate by measurement."""
        return self.estimated_joules / self.measured_joules


@dataclass(frozen=True, slots=True)
class _Means:
    """What makes the mean of an estimate."""

    pue: float
    gpu_watts: float
    output_tokens: float
    gpu_tokens_per_second: float
    joules: float


def versus(
    found: Estimate, measured: Measured, *, query: str = MIX, measured_pue: float | None = None
) -> Versus:
    """Lays a measurement beside an estimate.

    Args:
        query: a kind of query, or the mix.
        measured_pue: what the measured joules of GPUs are to be multiplied with for those of the building;
            ``None`` leaves them as they are.

    Raises:
        ConfigError: there is no such kind of query.
    """
    means = _means(_chosen(found, query))
    law = _rate_at_lengths(found.parameters, measured)
    beta = found.parameters.beta
    pue = 1.0 if measured_pue is None else measured_pue
    factors = (
        _factor("pue", means.pue, pue, ""),
        _factor("idle-and-overhead", beta, measured.overhead_factor, ""),
        _factor("power", means.gpu_watts, measured.gpu_watts, "W/GPU"),
        _factor("output-length", means.output_tokens, measured.output_tokens_mean, "tokens"),
        _turned("throughput-by-length", means.gpu_tokens_per_second, law, "tokens/s/GPU"),
        _turned("throughput", law, measured.gpu_tokens_per_second, "tokens/s/GPU"),
    )
    return Versus(
        query=query,
        estimated_joules=means.joules * beta,
        measured_joules=measured.joules_per_query * pue,
        measured=measured,
        factors=factors,
        notes=tuple(_notes(measured_pue)),
    )


def _factor(name: str, estimated: float, measured: float, unit: str) -> Factor:
    return Factor(name, estimated, measured, unit, estimated / measured)


def _turned(name: str, estimated: float, measured: float, unit: str) -> Factor:
    """More throughput, fewer joules."""
    return Factor(name, estimated, measured, unit, measured / estimated)


def _chosen(found: Estimate, query: str) -> list[tuple[float, Draws]]:
    if query == MIX:
        total = sum(each.weight for each in found.parameters.queries)
        return [
            (kind.weight / total * each.weight, each)
            for kind in found.parameters.queries
            for each in found.draws[kind.name]
            if kind.weight
        ]
    if query not in found.draws:
        raise ConfigError(f"query: {query!r} is not there; there is {', '.join([*found.draws, MIX])}")
    return [(each.weight, each) for each in found.draws[query]]


def _rate_at_lengths(parameters: Parameters, measured: Measured) -> float:
    """Tokens a second and GPU that the estimate's law has for the queries that were measured.

    No draws: the lengths are taken as they came, prompt and answer together.
    """
    mixture = measured.mixture
    tokens = mixture.queries * mixture.output_tokens
    total = sum(model.weight for model in parameters.models)
    gpu_seconds = sum(
        model.weight
        / total
        * model.gpus_per_node
        * math.exp(0.5 * model.throughput.scatter**2)
        * float(np.sum(tokens / model.throughput.rates(mixture.input_tokens, mixture.output_tokens)))
        for model in parameters.models
    )
    return float(tokens.sum()) / gpu_seconds


def _means(draws: Sequence[tuple[float, Draws]]) -> _Means:
    tokens = sum(weight * float(each.output_tokens.mean()) for weight, each in draws)
    gpu_seconds = sum(weight * each.gpus_per_node * float(each.node_seconds.mean()) for weight, each in draws)
    node_joules = sum(weight * float((each.node_watts * each.node_seconds).mean()) for weight, each in draws)
    joules = sum(weight * float(each.joules.mean()) for weight, each in draws)
    if not min(tokens, gpu_seconds, node_joules) > 0.0:
        raise ConfigError("queries without output tokens cost nothing: there is no factor to a measurement")
    return _Means(joules / node_joules, node_joules / gpu_seconds, tokens, tokens / gpu_seconds, joules)


def _notes(measured_pue: float | None) -> list[str]:
    notes = [
        "power: the estimate's is that of the node by its GPUs, the measurement's of GPUs alone: processors, "
        "memory, fans and power supplies are in this factor",
        "throughput: the estimate's is at full load; an engine that was not loaded fully shows here",
    ]
    if measured_pue is None:
        notes.append("pue: measured joules are those of GPUs; no overhead of a building was given for them")
    return notes
