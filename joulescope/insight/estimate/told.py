"""An estimate as plain values for programs: joules, seconds and watts, names with their units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from joulescope.insight.estimate.document import to_document
from joulescope.insight.estimate.estimate import JOULES_PER_WATT_HOUR, MIX, Estimate, Fleet, Part, priced
from joulescope.insight.estimate.parameters import Parameters, changed
from joulescope.insight.estimate.presets import PRESETS, Published
from joulescope.insight.estimate.sensitivity import Swing
from joulescope.insight.estimate.spread import Spread
from joulescope.insight.estimate.versus import Versus

_JOULES_PER_GWH = 3.6e12


def told(found: Estimate, *, versus: Versus | None = None, swings: Sequence[Swing] = ()) -> dict[str, Any]:
    """Everything that the text says, and the parameters whole."""
    preset = PRESETS.get(found.parameters.preset)
    return {
        "parameters": to_document(found.parameters),
        "preset": found.parameters.preset or None,
        "changed_from_preset": [] if preset is None else list(changed(found.parameters, preset.parameters)),
        "assumptions": assumptions(found),
        "queries": [_part(part, found.parameters) for part in found.queries],
        "models": [{"model": part.model, **_part(part, found.parameters)} for part in found.models],
        "levers": [
            {
                "scenario": each.scenario,
                "lever": each.lever or None,
                "query": each.query,
                "factor": asdict(each.factor),
                "joules": asdict(each.joules),
            }
            for each in found.levers
        ],
        "fleets": [_fleet(fleet) for fleet in found.fleets],
        "published": [
            {
                "name": each.name,
                "unit": unit,
                "published": each.value,
                "published_quartiles": each.quartiles,
                "estimated": ours,
                "estimated_quartiles": quartiles,
            }
            for each, unit, ours, quartiles in beside_published(found)
        ],
        "versus": None if versus is None else _versus(versus),
        "sensitivity": [{**asdict(swing), "ratio": _finite(swing.ratio)} for swing in swings],
        "notes": list(found.notes),
    }


def assumptions(found: Estimate) -> list[str]:
    """Those of the preset that this estimate still rests on."""
    preset = PRESETS.get(found.parameters.preset)
    if preset is None:
        return []
    other = changed(found.parameters, preset.parameters)
    return [f"{preset.version}: {text}" for parameter, text in preset.assumptions if parameter not in other]


def _finite(ratio: float) -> float | None:
    """JSON has no infinity: a median that goes to zero has no ratio."""
    return ratio if math.isfinite(ratio) else None


_BOUNDS = ("p5", "mean", "p95")


def _part(part: Part, parameters: Parameters) -> dict[str, Any]:
    carbon = priced(part.joules.mean, parameters.carbon_grams_per_kwh, 1.0)
    price = priced(part.joules.mean, parameters.price_per_kwh, 1.0)
    return {
        "query": part.query,
        "weight": part.weight,
        "joules": asdict(part.joules),
        "output_tokens_mean": part.output_tokens_mean,
        "node_tokens_per_second": part.tokens_per_second,
        "extrapolated_ratio": part.extrapolated,
        "carbon_grams_mean": _bounds(carbon),
        "price_mean": _bounds(price),
    }


def _fleet(fleet: Fleet) -> dict[str, Any]:
    carbon, price = fleet.carbon_kilograms, fleet.price
    return {
        "scenario": fleet.scenario or None,
        "joules_per_day": fleet.joules,
        "joules_per_day_error": fleet.joules_error,
        "watts": fleet.watts,
        "busy_nodes": fleet.busy_nodes,
        "carbon_kilograms_per_day": _bounds(carbon),
        "price_per_day": _bounds(price),
    }


def _bounds(values: tuple[float, float, float] | None) -> dict[str, float] | None:
    return None if values is None else dict(zip(_BOUNDS, values, strict=True))


def _versus(versus: Versus) -> dict[str, Any]:
    measured = versus.measured
    return {
        "query": versus.query,
        "estimated_joules": versus.estimated_joules,
        "measured_joules": versus.measured_joules,
        "factor": versus.factor,
        "factors": [{**asdict(each), "log": each.log} for each in versus.factors],
        "measured": {
            "engines": list(measured.engines),
            "gpu_names": list(measured.gpu_names),
            "queries": measured.queries,
            "joules": measured.joules,
            "serving_joules": measured.serving_joules,
            "busy_gpu_seconds": measured.busy_gpu_seconds,
            "output_tokens": measured.output_tokens,
            "input_tokens_mean": measured.input_tokens_mean,
            "output_tokens_mean": measured.output_tokens_mean,
        },
        "notes": list(versus.notes),
    }


Beside = tuple[Published, str, float, tuple[float, float] | None]
"""A published figure, its unit, and the estimate's: value, quartiles."""


def beside_published(found: Estimate) -> list[Beside]:
    """Figures of the preset's version that this estimate has too, in the paper's units."""
    preset = PRESETS.get(found.parameters.preset)
    if preset is None:
        return []
    ours = {part.query: part.joules for part in found.queries if part.query != MIX}
    rows: list[Beside] = []
    for each in preset.published:
        if each.name in ours:
            spread = ours[each.name]
            rows.append((each, "Wh", _wh(spread.median), _quartiles(spread)))
        else:
            rows += [
                (each, "GWh/day", joules / _JOULES_PER_GWH, None)
                for joules in _fleet_joules(found, each.name)
            ]
    return rows


def _wh(joules: float) -> float:
    return joules / JOULES_PER_WATT_HOUR


def _quartiles(spread: Spread) -> tuple[float, float]:
    return _wh(spread.lower_quartile), _wh(spread.upper_quartile)


def _fleet_joules(found: Estimate, name: str) -> list[float]:
    """The fleet's joules, where its mix and its day are those that the published figure is of."""
    total = sum(query.weight for query in found.parameters.queries)
    shares = {query.name: query.weight / total for query in found.parameters.queries}
    long = 0.1 if "10%-long" in name else 0.0
    if shares.keys() != {"typical", "long"} or abs(shares["long"] - long) > 1e-9:
        return []
    scenario = "fleet" if name.endswith("improved") else ""
    if found.parameters.queries_per_day != 1e9:
        return []
    return [fleet.joules for fleet in found.fleets if fleet.scenario == scenario]
