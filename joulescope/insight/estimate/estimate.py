"""The estimate: what a query costs, what a fleet takes in a day, and what levers would save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from joulescope.insight.estimate.distributions import Distribution
from joulescope.insight.estimate.draws import Draws, draw, means, stream
from joulescope.insight.estimate.parameters import Lever, Parameters, Scenario, check
from joulescope.insight.estimate.spread import Floats, Spread, Stratum, inside, spread, trimmed

JOULES_PER_WATT_HOUR = 3600.0
JOULES_PER_KWH = 3.6e6
_SECONDS_PER_DAY = 86400.0

MIX = "mix"
"""Name of all kinds of query together, by their weights."""


@dataclass(frozen=True, slots=True)
class Part:
    """Queries of one kind, or of one kind by one model."""

    query: str
    model: str
    """Empty: all models."""
    weight: float
    joules: Spread
    """Of the building, for a query; trimmed where the parameters say so, but the mean never is."""
    output_tokens_mean: float
    tokens_per_second: float
    """Of a node: mean tokens by mean seconds."""
    extrapolated: float
    """Share of draws beyond the lengths for which the throughput was observed."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """What a lever, or all of a scenario, does to queries of one kind (or the mix)."""

    scenario: str
    lever: str
    """Empty: all of the scenario, combined."""
    query: str
    factor: Spread
    joules: Spread


@dataclass(frozen=True, slots=True)
class Fleet:
    """A day of all queries, overheads of a fleet included."""

    scenario: str
    """Whose levers are pulled; empty: none."""
    joules: float
    joules_error: float
    """From the number of draws alone."""
    watts: float
    """In the mean over the day."""
    busy_nodes: float | None
    """That many nodes at full load, without the fleet's factors; with levers not known, since some lower
    power and others raise throughput."""
    carbon_kilograms: tuple[float, float, float] | None
    """At the P5, the mean and the P95 of the intensity; ``None`` where none is given."""
    price: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """One estimate, with what it was made of."""

    parameters: Parameters
    queries: tuple[Part, ...]
    """One for each kind, then the mix where there is more than one."""
    models: tuple[Part, ...]
    levers: tuple[Lowered, ...]
    fleets: tuple[Fleet, ...]
    draws: Mapping[str, tuple[Draws, ...]]
    notes: tuple[str, ...]


def estimate(parameters: Parameters) -> Estimate:
    """Draws queries and sums them up; the same parameters give the same figures to the last bit.

    Raises:
        ConfigError: the parameters make no estimate.
    """
    check(parameters)
    draws = draw(parameters)
    shares = _shares(parameters)
    queries = [_part(parameters, name, shares[name], draws[name]) for name in draws]
    models = [
        _part(parameters, name, each.weight, (each,), each.model) for name in draws for each in draws[name]
    ]
    if len(draws) > 1:
        queries.append(_mix(parameters, shares, draws, queries))
    return Estimate(
        parameters=parameters,
        queries=tuple(queries),
        models=tuple(models),
        levers=tuple(_levers(parameters, shares, draws)),
        fleets=tuple(_fleets(parameters, shares, draws)),
        draws=draws,
        notes=tuple(_notes(parameters, queries)),
    )


def _shares(parameters: Parameters) -> dict[str, float]:
    total = sum(query.weight for query in parameters.queries)
    return {query.name: query.weight / total for query in parameters.queries}


def _part(parameters: Parameters, query: str, weight: float, draws: Sequence[Draws], model: str = "") -> Part:
    total = sum(each.weight for each in draws)
    tokens, seconds, _, _ = (each / total for each in means(draws))
    return Part(
        query=query,
        model=model,
        weight=weight,
        joules=_spread(parameters, [(each.weight, each.joules) for each in draws]),
        output_tokens_mean=tokens,
        tokens_per_second=tokens / seconds if seconds else 0.0,
        extrapolated=sum(each.weight * each.extrapolated for each in draws) / total,
    )


def _spread(parameters: Parameters, strata: Sequence[Stratum]) -> Spread:
    """Median and quartiles of the trimmed draws, mean of all."""
    kept = [(weight, trimmed(values, parameters.trim_quantiles)) for weight, values in strata]
    return _median_of_kept(parameters, spread(strata), kept)


def _median_of_kept(parameters: Parameters, whole: Spread, kept: Sequence[Stratum]) -> Spread:
    """The mean of all draws beside the quantiles of those that were kept of them."""
    if parameters.trim_quantiles is None:
        return whole
    found = spread(kept, parameters.trim_quantiles)
    return replace(found, mean=whole.mean, mean_error=whole.mean_error)


def _mix(
    parameters: Parameters,
    shares: Mapping[str, float],
    draws: Mapping[str, tuple[Draws, ...]],
    queries: Sequence[Part],
) -> Part:
    tokens = sum(part.weight * part.output_tokens_mean for part in queries)
    seconds = sum(
        part.weight * part.output_tokens_mean / part.tokens_per_second
        for part in queries
        if part.tokens_per_second
    )
    return Part(
        query=MIX,
        model="",
        weight=1.0,
        joules=_spread(parameters, _mixed(shares, draws)),
        output_tokens_mean=tokens,
        tokens_per_second=tokens / seconds if seconds else 0.0,
        extrapolated=sum(part.weight * part.extrapolated for part in queries),
    )


def _mixed(shares: Mapping[str, float], draws: Mapping[str, tuple[Draws, ...]]) -> list[Stratum]:
    return [
        (shares[name] * each.weight, each.joules) for name in draws for each in draws[name] if shares[name]
    ]


# ----------------------------------------------------------------------------------------------- levers


def _levers(
    parameters: Parameters, shares: Mapping[str, float], draws: Mapping[str, tuple[Draws, ...]]
) -> list[Lowered]:
    found = []
    for scenario in parameters.scenarios:
        pulled: list[tuple[str, tuple[Lever, ...]]] = [(each.name, (each,)) for each in scenario.levers]
        if len(pulled) > 1:
            pulled.append(("", scenario.levers))
        for name, levers in pulled:
            least = 1 if name else 2
            kinds = [query for query in draws if sum(_acts(lever, query) for lever in levers) >= least]
            found += [
                _lowered(parameters, scenario, name, query, [(1.0, query)], levers, draws) for query in kinds
            ]
            if len(draws) > 1 and not name:
                mixed = [(share, query) for query, share in shares.items() if share]
                found.append(_lowered(parameters, scenario, name, MIX, mixed, levers, draws))
    return found


def _acts(lever: Lever, query: str) -> bool:
    return not lever.queries or query in lever.queries


def _lowered(
    parameters: Parameters,
    scenario: Scenario,
    name: str,
    query: str,
    kinds: Sequence[tuple[float, str]],
    levers: Sequence[Lever],
    draws: Mapping[str, tuple[Draws, ...]],
) -> Lowered:
    """Factors multiply: each lever acts on what the others leave, by a draw of its own."""
    factors: list[Stratum] = []
    left: list[Stratum] = []
    kept: list[Stratum] = []
    for share, kind in kinds:
        for each in draws[kind]:
            weight = share * each.weight
            factor = _factors(parameters, scenario, levers, kind, each.model, each.joules.size)
            factors.append((weight, factor))
            left.append((weight, each.joules / factor))
            kept.append((weight, left[-1][1][inside(each.joules, parameters.trim_quantiles)]))
    joules = _median_of_kept(parameters, spread(left), kept)
    return Lowered(scenario.name, name, query, spread(factors), joules)


def _factors(
    parameters: Parameters, scenario: Scenario, levers: Sequence[Lever], query: str, model: str, count: int
) -> Floats:
    factor = np.ones(count)
    for lever in levers:
        if _acts(lever, query):
            random = stream(parameters.seed, "lever", scenario.name, lever.name, query, model)
            factor = factor * lever.factor.sample(random, count)
    return factor


# ------------------------------------------------------------------------------------------------ fleet


def _fleets(
    parameters: Parameters, shares: Mapping[str, float], draws: Mapping[str, tuple[Draws, ...]]
) -> list[Fleet]:
    if not parameters.queries_per_day:
        return []
    return [_fleet(parameters, shares, draws, scenario) for scenario in (None, *parameters.scenarios)]


def _fleet(
    parameters: Parameters,
    shares: Mapping[str, float],
    draws: Mapping[str, tuple[Draws, ...]],
    scenario: Scenario | None,
) -> Fleet:
    strata: list[Stratum] = []
    seconds = 0.0
    for name, share in shares.items():
        for each in draws[name] if share else ():
            values = each.joules
            if scenario is not None:
                values = values / _factors(
                    parameters, scenario, scenario.levers, name, each.model, values.size
                )
            strata.append((share * each.weight, values))
            seconds += share * each.weight * float(each.node_seconds.mean())
    query = spread(strata)
    scale = parameters.queries_per_day * parameters.beta
    joules = scale * query.mean
    return Fleet(
        scenario="" if scenario is None else scenario.name,
        joules=joules,
        joules_error=scale * query.mean_error,
        watts=joules / _SECONDS_PER_DAY,
        busy_nodes=parameters.queries_per_day * seconds / _SECONDS_PER_DAY if scenario is None else None,
        carbon_kilograms=priced(joules, parameters.carbon_grams_per_kwh, 1e-3),
        price=priced(joules, parameters.price_per_kwh, 1.0),
    )


def priced(joules: float, each: Distribution | None, scale: float) -> tuple[float, float, float] | None:
    """What joules come to at the P5, the mean and the P95 of an intensity by the kilowatt hour."""
    if each is None:
        return None
    kwh = joules / JOULES_PER_KWH
    values = each.quantile(0.05), each.mean, each.quantile(0.95)
    return kwh * scale * values[0], kwh * scale * values[1], kwh * scale * values[2]


# ------------------------------------------------------------------------------------------------ notes


def _notes(parameters: Parameters, queries: Sequence[Part]) -> list[str]:
    notes = [
        f"{part.extrapolated:.0%} of the {part.query} queries have lengths beyond those for which the "
        "throughput was observed: there the law is a guess"
        for part in queries
        if part.query != MIX and part.extrapolated >= 0.01
    ]
    if parameters.trim_quantiles is not None:
        low, high = parameters.trim_quantiles
        notes.append(
            f"medians and quartiles leave out what lies beyond P{100 * low:g} and P{100 * high:g} of each "
            "model, as the paper's do; means and the fleet take all"
        )
    return notes
