"""What is seen of a cause, in plain words, and the lever to pull where tokens became dearer."""

from __future__ import annotations

from collections.abc import Callable

from joulescope.insight.diagnosis import causes
from joulescope.insight.diagnosis.latents import Latents
from joulescope.insight.diagnosis.levers import lever_of

_LEAST_GROWTH = 0.02
"""Of the requests: a task that grew by less is not worth its name."""

_Say = Callable[[Latents, Latents], str]


def sentence_of(
    cause: str, joules_per_token: float, before: Latents, after: Latents, *, closed: bool = False
) -> str:
    """One or two sentences about a cause that is significant.

    Args:
        closed: whether clients wait for answers.
    """
    facts = (_clients if closed and cause == causes.LOAD else _SAY[cause])(before, after)
    lever = lever_of(cause, before, after, closed=closed) if joules_per_token > 0.0 else ""
    return f"{facts}: {lever}." if lever else f"{facts}."


def _from_to(name: str, one: float | None, other: float | None, form: str, unit: str = "") -> str:
    """``name 1 to 2``; empty where either is not known."""
    if one is None or other is None:
        return ""
    return f"{name} {one:{form}} to {other:{form}}{unit}"


def _ratio(name: str, one: float | None, other: float | None) -> str:
    if one is None or other is None:
        return ""
    return f"{name} {100.0 * one:.0f} to {100.0 * other:.0f} %"


def _moved(name: str, one: float | None, other: float | None, form: str, unit: str = "") -> str:
    """The same where it moved as far as it is told."""
    same = one is not None and other is not None and f"{one:{form}}" == f"{other:{form}}"
    return "" if same else _from_to(name, one, other, form, unit)


def _moved_ratio(name: str, one: float | None, other: float | None) -> str:
    same = one is not None and other is not None and round(100.0 * one) == round(100.0 * other)
    return "" if same else _ratio(name, one, other)


def _join(*facts: str) -> str:
    kept = [fact for fact in facts if fact]
    text = "; ".join(kept)
    return text[:1].upper() + text[1:]


def _mix(before: Latents, after: Latents) -> str:
    facts = _join(
        _tasks(before, after),
        _moved("mean prompt", before.prompt_tokens, after.prompt_tokens, ".0f", " tokens"),
        _moved("mean answer", before.output_tokens, after.output_tokens, ".0f", " tokens"),
        _moved("FLOPs a byte", before.arithmetic_intensity, after.arithmetic_intensity, ".0f"),
    )
    return facts or "Lengths are divided otherwise"


def _tasks(before: Latents, after: Latents) -> str:
    """The task of which there is most more, if tasks are told apart."""
    old = {each.task: each for each in before.tasks}
    grown = max(
        after.tasks,
        key=lambda each: each.requests_ratio - (old[each.task].requests_ratio if each.task in old else 0.0),
        default=None,
    )
    if grown is None or len({*old, *(each.task for each in after.tasks)}) < 2:
        return ""
    was = old[grown.task].requests_ratio if grown.task in old else 0.0
    if grown.requests_ratio - was < _LEAST_GROWTH:
        return ""
    said = f"task {grown.task} {100.0 * was:.0f} to {100.0 * grown.requests_ratio:.0f} % of requests"
    if grown.joules_per_token is None:
        return said
    others = after.joules_per_token_of_others(grown.task)
    beside = "" if others is None else f" where the others cost {others:.3g}"
    return f"{said}, at {grown.joules_per_token:.3g} J/token{beside}"


def _load(before: Latents, after: Latents) -> str:
    return _join(
        _from_to("requests", before.requests_per_second, after.requests_per_second, ".2f", " a second"),
        _from_to("batch", before.batch, after.batch, ".1f"),
        _ratio("requests running", before.busy_ratio, after.busy_ratio) + " of the time"
        if before.busy_ratio is not None and after.busy_ratio is not None
        else "",
        _ratio("idle joules", before.idle_joules_ratio, after.idle_joules_ratio),
    )


def _clients(before: Latents, after: Latents) -> str:
    return _join(
        _from_to("clients that wait for answers", before.present, after.present, ".1f"),
        _from_to("batch", before.batch, after.batch, ".1f"),
    )


def _batch(before: Latents, after: Latents) -> str:
    return _join(
        _from_to("batch", before.batch, after.batch, ".1f"),
        _moved("max_num_seqs", before.max_num_seqs, after.max_num_seqs, ".0f"),
        _moved("max_num_batched_tokens", before.max_num_batched_tokens, after.max_num_batched_tokens, ".0f"),
        _static(before, after),
    )


def _static(before: Latents, after: Latents) -> str:
    told = _ratio("static power", before.static_joules_ratio, after.static_joules_ratio)
    return f"{told} of the joules of steps" if told else ""


def _kv(before: Latents, after: Latents) -> str:
    full, lost = after.kv_full_ratio, after.preempted_joules_ratio
    state = "" if full is None else f"KV cache full {100.0 * full:.0f} % of the time"
    cost = f"preemption cost {100.0 * lost:.0f} % of joules" if lost > 0.005 else ""
    return _join(
        state,
        cost,
        _from_to("batch", before.batch, after.batch, ".1f"),
        _from_to("room", before.kv_cache_tokens, after.kv_cache_tokens, ".0f", " tokens"),
    )


def _cache(before: Latents, after: Latents) -> str:
    return _join(_ratio("prompt tokens found in the prefix cache:", before.cached_ratio, after.cached_ratio))


def _speculation(before: Latents, after: Latents) -> str:
    facts = _join(
        _moved(
            "tokens drafted for a request in a step", before.drafted_per_pass, after.drafted_per_pass, ".1f"
        ),
        _ratio("drafted tokens accepted:", before.accepted_ratio, after.accepted_ratio),
    )
    return facts or "Drafts differ"


def _host(before: Latents, after: Latents) -> str:
    return _join(
        _pace(before, after),
        _from_to("power", before.watts_per_gpu, after.watts_per_gpu, ".0f", " W a GPU"),
        _ratio("GPUs waited for the host", before.waited_ratio, after.waited_ratio),
        f"KV cache {100.0 * after.kv_usage_ratio:.0f} % in use" if after.kv_usage_ratio is not None else "",
    )


def _pace(before: Latents, after: Latents) -> str:
    one, other = _ms(before.inter_token_seconds), _ms(after.inter_token_seconds)
    return _from_to("inter-token time", one, other, ".1f", " ms")


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000.0 * seconds


def _clocks(before: Latents, after: Latents) -> str:
    facts = _join(
        _moved("SM clock", _mega(before.sm_clock_hertz), _mega(after.sm_clock_hertz), ".0f", " MHz"),
        _moved("power limit", before.power_limit_watts, after.power_limit_watts, ".0f", " W"),
        _moved_ratio("throttled", before.throttled_ratio, after.throttled_ratio),
        _moved_ratio("steps held back by power", before.power_bound_ratio, after.power_bound_ratio),
    )
    return facts or "Clocks, throttling or the power limit differ"


def _mega(hertz: float | None) -> float | None:
    return None if hertz is None else hertz / 1e6


def _layout(before: Latents, after: Latents) -> str:
    return _join(
        _renamed("kind of GPU ", before.gpu_name, after.gpu_name),
        _from_to("GPUs", before.gpus, after.gpus, ".0f"),
        _from_to("batch", before.batch, after.batch, ".1f"),
        _moved("KV cache", before.kv_cache_tokens, after.kv_cache_tokens, ".0f", " tokens"),
        _static(before, after),
    )


def _model(before: Latents, after: Latents) -> str:
    named = [
        _renamed("model ", before.model, after.model),
        _renamed("dtype ", before.dtype, after.dtype),
        _renamed("quantization ", before.quantization, after.quantization),
    ]
    return _join(
        *(named if any(named) else ["another model or precision"]),
        _from_to("FLOPs a byte", before.arithmetic_intensity, after.arithmetic_intensity, ".0f"),
        _pace(before, after),
    )


def _renamed(what: str, one: str, other: str) -> str:
    """Both names where they differ."""
    return "" if one == other else f"{what}{one or 'none'} to {other or 'none'}"


def _efficiency(before: Latents, after: Latents) -> str:
    return _join(
        "the same steps cost otherwise, and no clock or limit says why",
        _pace(before, after),
        _from_to("power", before.watts_per_gpu, after.watts_per_gpu, ".0f", " W a GPU"),
    )


def _overhead(before: Latents, after: Latents) -> str:
    return "Start-up, warm-up or empty steps of data parallelism were in the window"


def _unattributed(before: Latents, after: Latents) -> str:
    return "Joules of time of which nothing is known: records were lost, or the GPUs were not read"


def _unexplained(before: Latents, after: Latents) -> str:
    return "The structural model does not say what this is"


_SAY: dict[str, _Say] = {
    causes.MIX: _mix,
    causes.LOAD: _load,
    causes.BATCH_LIMIT: _batch,
    causes.KV_CAPACITY: _kv,
    causes.PREFIX_CACHE: _cache,
    causes.SPECULATION: _speculation,
    causes.HOST: _host,
    causes.CLOCKS: _clocks,
    causes.LAYOUT: _layout,
    causes.MODEL: _model,
    causes.EFFICIENCY: _efficiency,
    causes.OVERHEAD: _overhead,
    causes.UNATTRIBUTED: _unattributed,
    causes.UNEXPLAINED: _unexplained,
}
