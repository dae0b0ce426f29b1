"""A plan as a JSON object: the same figures as in the text and the picture."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from joulescope.insight.capacity.curves import Point
from joulescope.insight.capacity.forecast import Figure, Forecast
from joulescope.insight.capacity.goals import GoalAnswer, Met
from joulescope.insight.capacity.observed import Observed
from joulescope.insight.capacity.plan import Alternative, Plan
from joulescope.insight.capacity.power_cap import CapAnswer
from joulescope.insight.steady import Parts

SCHEMA = "joulescope.plan/1"


def told(plan: Plan) -> dict[str, Any]:
    """The plan; figures with ``low`` and ``high`` are those with a 90 % interval. ``null``: not known."""
    return {
        "schema": SCHEMA,
        "engine": asdict(plan.observed.kind),
        "observed": _observed(plan.observed),
        "rate_per_second": plan.workload.arrivals_per_second,
        "alternatives": [_alternative(each, plan.frontier) for each in plan.alternatives],
    }


def _observed(observed: Observed) -> dict[str, Any]:
    limits = observed.seen.power_limit_watts
    return {
        "minutes": observed.minutes,
        "gpus": observed.service.gpu_count,
        "limits": asdict(observed.service.limits),
        "seen": {
            "batch": asdict(observed.seen.batch),
            "power_limit_watts": None if limits is None else asdict(limits),
            "memory_bound": observed.seen.memory_bound,
            "compute_bound": observed.seen.compute_bound,
            "power_bound": observed.seen.power_bound,
        },
        "fared": asdict(observed.fared),
        "measured_to_modelled_ratio": observed.scale,
        "length_classes": len(observed.workload.classes),
        "shared_tokens": observed.workload.shared_tokens,
    }


def _alternative(alternative: Alternative, frontier: frozenset[int]) -> dict[str, Any]:
    setting = alternative.setting
    return {
        "name": setting.name,
        "gpus": setting.service.gpu_count,
        "kv_cache_tokens": setting.service.limits.kv_cache_tokens,
        "power_limit_watts": setting.service.laws.limit_watts or None,
        "assumptions": list(setting.assumptions),
        "at_load": _forecast(alternative.at_load)
        | {"percentiles": {name: _figure(each) for name, each in alternative.latencies.items()}},
        "by_batch": [_point(point, "batch", frontier) for point in alternative.batches],
        "by_rate": [_point(point, "requests_per_second", frontier) for point in alternative.rates],
        "goals": None if alternative.goals is None else _goals(alternative.goals),
        "power_cap": None if alternative.cap is None else _cap(alternative.cap),
    }


def _point(point: Point, load: str, frontier: frozenset[int]) -> dict[str, Any]:
    return {"at": {load: point.load}, "on_frontier": id(point) in frontier, **_forecast(point.forecast)}


def _forecast(forecast: Forecast) -> dict[str, Any]:
    operation, refused = forecast.operation, not forecast.figures
    return {
        "support": forecast.support.verdict,
        "octaves_beyond": forecast.support.octaves,
        "notes": list(forecast.support.notes),
        "bound": forecast.bound,
        "batch": operation.batch,
        **{name: _figure(figure) for name, figure in forecast.figures.items()},
        "tokens_per_joule": _tokens_per_joule(forecast),
        "joules_per_token_parts": None if refused else _parts(operation.joules_per_token),
        "kv_usage_ratio": None if refused else operation.kv_usage_ratio,
        "preemptions_per_second": None if refused else operation.preemptions_per_second,
        "busy_ratio": None if refused else operation.busy_ratio,
        "saturated": operation.saturated,
    }


def _figure(figure: Figure) -> dict[str, float]:
    return asdict(figure)


def _parts(parts: Parts | None) -> dict[str, float] | None:
    return None if parts is None else asdict(parts)


def _tokens_per_joule(forecast: Forecast) -> dict[str, float] | None:
    """Tokens a second for each watt."""
    joules = forecast.figures.get("joules_per_token")
    if joules is None:
        return None
    return _figure(Figure(1.0 / joules.value, 1.0 / joules.high, 1.0 / joules.low))


def _goals(answer: GoalAnswer) -> dict[str, Any]:
    return {"batch": _met(answer.batch), "requests_per_second": _met(answer.rate)}


def _met(met: Met) -> dict[str, Any]:
    return {
        "load": met.load,
        "sure_load": met.sure_load,
        "limited_by": met.limited_by,
        "forecast": None if met.forecast is None else _forecast(met.forecast),
        "percentiles": {name: _figure(each) for name, each in met.percentiles.items()},
    }


def _cap(answer: CapAnswer) -> dict[str, Any]:
    return {
        "cap": asdict(answer.cap),
        "engines": answer.engines,
        "unmet": answer.unmet,
        "ways": [
            {
                "name": way.name,
                "engines": way.engines,
                "requests_per_second": _figure(way.requests_per_second),
                "tokens_per_second": _figure(way.tokens_per_second),
                "watts": way.watts,
                "binding": way.binding,
                "each": _forecast(way.forecast),
            }
            for way in answer.ways
        ],
    }
