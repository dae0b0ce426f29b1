"""A plan as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from joulescope.insight.capacity.curves import Point
from joulescope.insight.capacity.forecast import PERCENTILES, Figure, Forecast
from joulescope.insight.capacity.goals import Goal, GoalAnswer, Met
from joulescope.insight.capacity.plan import Alternative, Plan
from joulescope.insight.capacity.power_cap import CapAnswer

_SHORT = {
    "inter_token_seconds": "ITL",
    "first_token_seconds": "TTFT",
    "capacity": "capacity",
    "power": "power",
}
_MARKS = {"seen": " ", "beyond": "*", "refused": "!"}


def plan_lines(plan: Plan) -> Iterator[str]:
    """The plan, for people."""
    yield from _observed(plan)
    for alternative in plan.alternatives:
        yield from _alternative(alternative, plan)
    yield ""
    yield "± is half the 90 % interval. * beyond what was seen, by the model alone; ! too far beyond to say."
    yield (
        "ITL and TTFT: time from token to token, and to the first one with the queue before it; means where "
        "no percentile stands beside them."
    )


def _observed(plan: Plan) -> Iterator[str]:
    observed, fared = plan.observed, plan.observed.fared
    kind, seen = observed.kind, observed.seen
    name = kind.served_model or kind.model or kind.engine
    yield f"{name} on {observed.service.gpu_count}×{kind.gpu_name or 'GPU'}"
    yield (
        f"{observed.minutes} minutes: {fared.requests_per_second:.3g} requests/s, "
        f"{fared.tokens_per_second:.0f} tokens/s, {fared.watts:.0f} W, "
        f"{_joules(fared.joules_per_token)}; batch {fared.batch:.3g} "
        f"({seen.batch.low:.3g} to {seen.batch.high:.3g} by minute), step {1e3 * fared.step_seconds:.3g} ms"
    )
    limits = observed.service.limits
    yield (
        f"limits: {limits.max_num_seqs or '?'} requests at a time, {limits.kv_cache_tokens or '?'} tokens of "
        f"KV cache; measured joules of steps are {observed.scale:.3f} of the model's"
    )


def _joules(value: float | None) -> str:
    return "J/token not known" if value is None else f"{value:.3g} J/token"


def _alternative(alternative: Alternative, plan: Plan) -> Iterator[str]:
    setting = alternative.setting
    yield ""
    limits = setting.service.limits
    more = f" ({limits.kv_cache_tokens} tokens of KV cache)" if setting.assumptions else ""
    yield f"── {setting.name}{more}"
    for assumption in setting.assumptions:
        yield f"   assumes: {assumption}"
    rate = plan.workload.arrivals_per_second
    if rate:
        yield f"   at {rate:.3g} requests/s: {_in_words(alternative.at_load)}"
        yield from _percentiles(alternative)
    yield ""
    yield from _table(alternative.batches, "batch", plan)
    yield ""
    yield from _table(alternative.rates, "req/s", plan)
    if alternative.goals is not None:
        yield ""
        yield from _goals(alternative.goals, plan.asked.goals)
    if alternative.cap is not None:
        yield ""
        yield from _cap(alternative.cap)
    for note in _notes(alternative):
        yield f"   {note}"


def _percentiles(alternative: Alternative) -> Iterator[str]:
    for figure in ("inter_token_seconds", "first_token_seconds"):
        told = [
            f"p{each.percent:g} {_with_interval(alternative.latencies[each.name], 1e3)}"
            for each in PERCENTILES
            if each.figure == figure and each.name in alternative.latencies
        ]
        if told:
            yield f"      {_SHORT[figure]} ms: {', '.join(told)}"


def _in_words(forecast: Forecast) -> str:
    if not forecast.figures:
        return "too far from what was seen: " + "; ".join(forecast.support.notes)
    parts = [
        f"{_figure(forecast, 'joules_per_token')} J/token",
        f"{_figure(forecast, 'watts')} W",
        f"ITL {_figure(forecast, 'inter_token_seconds', 1e3)} ms",
    ]
    if "first_token_seconds" in forecast.figures:
        parts.append(f"TTFT {_figure(forecast, 'first_token_seconds', 1e3)} ms")
    if forecast.operation.saturated:
        parts.append("more comes than can be served")
    return ", ".join(parts) + _MARKS[forecast.support.verdict].rstrip()


def _table(points: Sequence[Point], load: str, plan: Plan) -> Iterator[str]:
    by_rate = load != "batch"
    first = "TTFT ms" if by_rate else "tokens/J"
    yield f"   {load:>7}  {'ITL ms':>14} {first:>14} {'tokens/s':>15} {'W':>13} {'J/token':>16}  bound"
    for point in points:
        forecast = point.forecast
        if not forecast.figures:
            yield f" ! {point.load:7.3g}  {'; '.join(forecast.support.notes)}"
            continue
        second = _figure(forecast, "first_token_seconds", 1e3) if by_rate else _per_joule(forecast)
        chosen = (
            " frontier" if not by_rate and len(plan.alternatives) > 1 and id(point) in plan.frontier else ""
        )
        yield (
            f" {_MARKS[forecast.support.verdict]} {point.load:7.3g}  "
            f"{_figure(forecast, 'inter_token_seconds', 1e3):>14} {second:>14} "
            f"{_figure(forecast, 'tokens_per_second'):>15} {_figure(forecast, 'watts'):>13} "
            f"{_figure(forecast, 'joules_per_token'):>16}  {_bound(forecast)}{chosen}"
        )


def _bound(forecast: Forecast) -> str:
    operation = forecast.operation
    if operation.kv_full_ratio > 0.5:
        return f"{forecast.bound}, KV cache full"
    return forecast.bound


def _figure(forecast: Forecast, name: str, factor: float = 1.0) -> str:
    figure = forecast.figures.get(name)
    return "-" if figure is None else _with_interval(figure, factor)


def _with_interval(figure: Figure, factor: float = 1.0) -> str:
    """Value and half its interval in percent; both ends where these lie unlike."""
    value = figure.value * factor
    if value == 0.0:
        return "0"
    up, down = figure.high / figure.value - 1.0, 1.0 - figure.low / figure.value
    if max(up, down) > 2.0 * max(min(up, down), 0.02):
        return f"{_short(value)} ({_short(figure.low * factor)}..{_short(figure.high * factor)})"
    return f"{_short(value)} ±{100.0 * 0.5 * (up + down):.0f} %"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 1000.0 else f"{value:.3g}"


def _per_joule(forecast: Forecast) -> str:
    joules = forecast.figures["joules_per_token"]
    return _short(1.0 / joules.value)


def _goals(answer: GoalAnswer, goals: tuple[Goal, ...]) -> Iterator[str]:
    told = " and ".join(f"{_name(goal.name)} ≤ {1e3 * goal.seconds:g} ms" for goal in goals)
    yield f"   goal {told}:"
    if any(goal.figure == "inter_token_seconds" for goal in goals):
        yield f"     batch      {_met(answer.batch)}"
    yield f"     requests/s {_met(answer.rate)}"


def _name(figure: str) -> str:
    """``ITL``, ``TTFT p99`` and so on."""
    mean, is_percentile, percent = figure.partition("_p")
    return f"{_SHORT[mean]} p{percent}" if is_percentile and mean in _SHORT else _SHORT[figure]


def _met(met: Met) -> str:
    if met.load is None:
        return f"none keeps it: {_name(met.limited_by)} is longer even with hardly any load"
    sure = "none for sure" if met.sure_load is None else f"{met.sure_load:.3g} with a chance of 95 %"
    why = (
        "nothing stands in the way but capacity"
        if met.limited_by == "capacity"
        else f"then {_name(met.limited_by)}"
    )
    said = "" if met.forecast is None else f"; there {_in_words(met.forecast)}"
    said += "".join(
        f", {_name(name)} {_with_interval(each, 1e3)} ms" for name, each in met.percentiles.items()
    )
    return f"up to {met.load:.3g} ({sure}; {why}){said}"


def _cap(answer: CapAnswer) -> Iterator[str]:
    cap = answer.cap
    hosts = f", {cap.host_watts:g} W of it for hosts" if cap.host_watts else ""
    yield (
        f"   under {cap.watts:g} W a {cap.per if cap.per != 'gpu' else 'replica'}{hosts}: {answer.engines} "
        f"engine{'s' if answer.engines > 1 else ''} on {cap.gpus} GPU{'s' if cap.gpus > 1 else ''}"
    )
    if answer.unmet is not None:
        yield f"     no way: {_name(answer.unmet)} is longer than its goal even with hardly any load"
    for way in answer.ways:
        tokens, requests = _with_interval(way.tokens_per_second), _with_interval(way.requests_per_second)
        yield (
            f"   {_MARKS[way.forecast.support.verdict]} {way.name:<20} {tokens} tokens/s, {requests} "
            f"requests/s at {way.watts:.0f} W, {_figure(way.forecast, 'joules_per_token')} J/token, "
            f"ITL {_figure(way.forecast, 'inter_token_seconds', 1e3)} ms; bounded by {_name(way.binding)}"
        )


def _notes(alternative: Alternative) -> list[str]:
    """What was not seen, said once."""
    bounds = sorted(
        {
            note
            for point in alternative.batches
            for note in point.forecast.support.notes
            if note.startswith("steps bound by")
        }
    )
    return [f"* {note}" for note in bounds]
