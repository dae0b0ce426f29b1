"""What flags and files of ``joulescope estimate`` ask for, as parameters."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from joulescope.cli.minutes_source import read_minutes
from joulescope.errors import ConfigError
from joulescope.insight.estimate.distributions import Distribution, parse_distribution
from joulescope.insight.estimate.document import EMPTY, from_document
from joulescope.insight.estimate.files import empirical_from_file, read_document, read_points
from joulescope.insight.estimate.measured import measured_lengths, measured_mixtures
from joulescope.insight.estimate.mixture_fit import fit_mixtures
from joulescope.insight.estimate.parameters import Lever, Model, Parameters, Query, Scenario
from joulescope.insight.estimate.presets import PRESETS, one_version
from joulescope.insight.estimate.throughput import Fit, Throughput, constant, fit

_NAMED = re.compile(r"([A-Za-z0-9][\w.-]*)\s*=\s*(.*)", re.DOTALL)
_POINT_FILES = (".csv", ".json")

GIVEN = "given"
"""Name of the scenario of levers that flags name."""


@dataclass(frozen=True)
class Flags:
    """The flags that change parameters, as they were written; field names are those of the flags."""

    preset: tuple[str, ...] = ()
    parameters: tuple[Path, ...] = ()
    pue: str | None = None
    node_power_ratio: str | None = None
    node_max_watts: str | None = None
    gpus_per_node: int | None = None
    tokens_per_second: float | None = None
    throughput: str | None = None
    knot: tuple[str, ...] = ()
    input_tokens: tuple[str, ...] = ()
    output_tokens: tuple[str, ...] = ()
    lengths: str | None = None
    mix: str | None = None
    trim: bool = True
    beta: float | None = None
    queries_per_day: float | None = None
    carbon: str | None = None
    price: str | None = None
    currency: str | None = None
    lever: tuple[str, ...] = ()
    samples: int | None = None
    seed: int | None = None


def parameters_of(flags: Flags) -> tuple[Parameters, tuple[str, ...]]:
    """The parameters, and what a fit leaves open, in words.

    A preset comes first, then files in their order, then flags.

    Raises:
        ConfigError: something cannot be used, or two presets are named.
        MinuteError: what was measured cannot be had.
    """
    documents = [(path, read_document(path)) for path in flags.parameters]
    named = {f"--preset {version}": version for version in flags.preset}
    named |= {str(path): str(document.get("preset") or "") for path, document in documents}
    version = one_version(named)
    made = PRESETS[version].parameters if version else EMPTY
    for path, document in documents:
        made = from_document(document, str(path), made)
    made, notes = _with_models(made, flags)
    return _with_rest(_with_queries(made, flags), flags), notes


def _read(text: str, flag: str) -> Distribution:
    return parse_distribution(text, flag, read_file=empirical_from_file)


def _with_rest(made: Parameters, flags: Flags) -> Parameters:
    if flags.pue is not None:
        made = replace(made, pue=_read(flags.pue, "--pue"))
    if flags.node_power_ratio is not None:
        made = replace(made, node_power_ratio=_read(flags.node_power_ratio, "--node-power-ratio"))
    if flags.carbon is not None:
        made = replace(made, carbon_grams_per_kwh=_read(flags.carbon, "--carbon"))
    if flags.price is not None:
        made = replace(made, price_per_kwh=_read(flags.price, "--price"))
    if flags.beta is not None:
        made = replace(made, fleet_factors=(("beta", flags.beta),))
    if flags.lever:
        made = replace(made, scenarios=_with_levers(made.scenarios, flags.lever))
    return replace(
        made,
        trim_quantiles=made.trim_quantiles if flags.trim else None,
        queries_per_day=made.queries_per_day if flags.queries_per_day is None else flags.queries_per_day,
        currency=made.currency if flags.currency is None else flags.currency,
        samples=made.samples if flags.samples is None else flags.samples,
        seed=made.seed if flags.seed is None else flags.seed,
    )


def _with_levers(scenarios: Sequence[Scenario], texts: Sequence[str]) -> tuple[Scenario, ...]:
    """The levers of flags beside those that a file has in the same scenario; a flag wins."""
    levers: dict[str, Lever] = {}
    for name, text in map(_pair, texts):
        if name in levers:
            raise ConfigError(f"--lever: {name} comes twice: give each lever a name of its own")
        levers[name] = Lever(name, _read(text, "--lever"))
    before = {each.name: each for scenario in scenarios if scenario.name == GIVEN for each in scenario.levers}
    rest = (scenario for scenario in scenarios if scenario.name != GIVEN)
    return (*rest, Scenario(GIVEN, tuple({**before, **levers}.values())))


def _pair(text: str) -> tuple[str, str]:
    found = _NAMED.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"--lever: {text!r} is not NAME=DISTRIBUTION, such as fp8=uniform(1.1, 1.5)")
    return found[1], found[2]


# ----------------------------------------------------------------------------------------------- models


def _with_models(made: Parameters, flags: Flags) -> tuple[Parameters, tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    if flags.tokens_per_second is not None and flags.throughput is not None:
        raise ConfigError("--tokens-per-second and --throughput say the same: give one")
    watts = None if flags.node_max_watts is None else _read(flags.node_max_watts, "--node-max-watts")
    if flags.tokens_per_second is not None:
        if not 0.0 < flags.tokens_per_second < math.inf:
            raise ConfigError("--tokens-per-second: it is to be above 0, and finite")
        made = _one_model(made, "given", constant(flags.tokens_per_second, "given"), watts, flags)
    elif flags.throughput is not None:
        gpus = flags.gpus_per_node or _same_gpus(made)
        found = _fit(flags.throughput, gpus, _knots(flags.knot))
        notes = tuple(f"{flags.throughput}: {note}" for note in found.notes)
        made = _one_model(made, "fitted", found.law, watts, flags)
    elif flags.knot:
        raise ConfigError("--knot: knots are of a fit; --throughput says of what")
    if watts is not None:
        made = replace(made, models=tuple(replace(model, node_max_watts=watts) for model in made.models))
    if flags.gpus_per_node is not None:
        gpus = flags.gpus_per_node
        made = replace(made, models=tuple(replace(model, gpus_per_node=gpus) for model in made.models))
    return made, notes


def _same_gpus(made: Parameters) -> int:
    found = {model.gpus_per_node for model in made.models}
    return found.pop() if len(found) == 1 else 8


def _one_model(
    made: Parameters, name: str, throughput: Throughput, watts: Distribution | None, flags: Flags
) -> Parameters:
    """One model in place of all: its power is to be said, unless all before had the same."""
    powers = {model.node_max_watts for model in made.models}
    if watts is None and len(powers) != 1:
        raise ConfigError(
            "the throughput is that of one model on one kind of node: say with --node-max-watts what the "
            "node can draw"
        )
    gpus = flags.gpus_per_node or _same_gpus(made)
    return replace(made, models=(Model(name, 1.0, watts or powers.pop(), throughput, gpus),))


def _fit(source: str, gpus_per_node: int, knots: Mapping[str, Sequence[float]]) -> Fit:
    """Of a table or results of benchmarks, by their ending; whatever else tells minutes."""
    inputs, outputs = knots["input"], knots["output"]
    if source.endswith(_POINT_FILES):
        points = read_points(Path(source))
        return fit(points, input_knots=inputs, output_knots=outputs, source=source)
    mixtures = measured_mixtures(read_minutes(source), gpus_per_node, source)
    return fit_mixtures(mixtures, input_knots=inputs, output_knots=outputs, source=source)


def _knots(texts: Sequence[str]) -> dict[str, list[float]]:
    knots: dict[str, list[float]] = {"input": [], "output": []}
    for text in texts:
        side, _, tokens = text.partition("=")
        try:
            knots[side].append(float(tokens))
        except (KeyError, ValueError):
            raise ConfigError(f"--knot: {text!r} is not input=TOKENS or output=TOKENS") from None
    for values in knots.values():
        values.sort()
        if values and (values[0] <= 1.0 or len(set(values)) < len(values)):
            raise ConfigError("--knot: knots are to be above one token, and each but once")
    return knots


# ---------------------------------------------------------------------------------------------- queries


def _with_queries(made: Parameters, flags: Flags) -> Parameters:
    if flags.lengths is not None:
        inputs, outputs = measured_lengths(read_minutes(flags.lengths), flags.lengths)
        made = replace(made, queries=(Query("measured", 1.0, inputs, outputs, paired=True),))
        lever = [scenario for scenario in made.scenarios if any(each.queries for each in scenario.levers)]
        made = replace(made, scenarios=tuple(each for each in made.scenarios if each not in lever))
    if not made.queries and flags.input_tokens and flags.output_tokens:
        one = _read("1", "")
        made = replace(made, queries=(Query("query", 1.0, one, one),))
    for name, texts in (("input_tokens", flags.input_tokens), ("output_tokens", flags.output_tokens)):
        for text in texts:
            made = _with_length(made, name, text)
    return made if flags.mix is None else _with_mix(made, flags.mix)


def _with_length(made: Parameters, name: str, text: str) -> Parameters:
    """``KIND=DISTRIBUTION``, or a distribution for all kinds."""
    flag = f"--{name.replace('_', '-')}"
    found = _NAMED.fullmatch(text.strip())
    kind, written = (found[1], found[2]) if found is not None else ("", text)
    if kind:
        _known(made, kind, flag)
    distribution = _read(written, flag)
    change: Callable[[Query], Query] = (
        (lambda query: replace(query, input_tokens=distribution, paired=False))
        if name == "input_tokens"
        else (lambda query: replace(query, output_tokens=distribution, paired=False))
    )
    return replace(
        made, queries=tuple(change(each) if kind in ("", each.name) else each for each in made.queries)
    )


def _known(made: Parameters, kind: str, flag: str) -> None:
    names = [query.name for query in made.queries]
    if kind not in names:
        raise ConfigError(f"{flag}: there is no kind of query {kind}; there is {', '.join(names) or 'none'}")


def _with_mix(made: Parameters, text: str) -> Parameters:
    """``typical=0.9,long=0.1``: kinds that are not named get none."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        kind, equals, share = (each.strip() for each in part.partition("="))
        _known(made, kind, "--mix")
        if kind in weights:
            raise ConfigError(f"--mix: {kind} comes twice")
        try:
            weights[kind] = float(share)
        except ValueError:
            equals = ""
        if not equals:
            raise ConfigError(f"--mix: {part.strip()!r} is not KIND=SHARE")
    return replace(
        made, queries=tuple(replace(each, weight=weights.get(each.name, 0.0)) for each in made.queries)
    )
