"""The one table of names in spans: a convention that comes later is a changed name here.

``gen_ai.*`` are OpenTelemetry's GenAI semantic conventions (status: development). No convention exists
for the energy of a request, and custom names may not squat an existing namespace: ours begin with
``joulescope.``. Prompts and outputs never reach this process, so none can stand here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from joulescope.export.phases import Phase
from joulescope.label_model import clean
from joulescope.model import INTERVAL_LEVEL, TOKEN, FinishedRequest
from joulescope.units import seconds_from_ns

Value = str | bool | int | float | tuple[str, ...]

SPAN_NAME = "joulescope.request"

PHASE_NAME = SPAN_NAME + ".{phase}"
"""Name of the span, or event, of a phase."""

_LEVEL = f"{INTERVAL_LEVEL:.0%}".replace("%", " %")

_OPERATIONS = {"generate": "text_completion", "pooling": "embeddings"}
_GENERATE_ELSE = "generate_content"
"""The convention's word for a model whose output is not text alone."""


@dataclass(frozen=True, slots=True)
class SpanAttribute:
    """One attribute; it is left out of the span where ``read`` returns ``None`` or an empty text."""

    name: str
    unit: str
    help: str
    read: Callable[[FinishedRequest], Value | None]


def _operation(request: FinishedRequest) -> str:
    if request.kind == "generate" and request.unit != TOKEN:
        return _GENERATE_ELSE
    return _OPERATIONS.get(request.kind, request.kind)


def _in_tokens(unit: str, count: int) -> int | None:
    """A count for an attribute that promises tokens; ``None`` where it is of something else."""
    return count if unit == TOKEN else None


def _output(request: FinishedRequest) -> int | None:
    return None if request.unit == TOKEN else request.output_tokens


def _work(request: FinishedRequest) -> int | None:
    return None if request.work_unit == TOKEN else request.scheduled_tokens


def _first_token_seconds(request: FinishedRequest) -> float | None:
    if request.first_token_ns is None:
        return None
    return seconds_from_ns(request.first_token_ns - request.start_ns)


def _energy_source(request: FinishedRequest) -> str | None:
    return None if request.attributed_joules is None else request.energy_source


SPAN_ATTRIBUTES = (
    SpanAttribute(
        "gen_ai.operation.name",
        "",
        "`text_completion`, `embeddings`, or `generate_content` where the output is not tokens",
        _operation,
    ),
    SpanAttribute(
        "gen_ai.provider.name", "", "`vllm`, or what the engine names", lambda request: request.software
    ),
    SpanAttribute(
        "gen_ai.request.model", "", "model as served", lambda request: request.lora or request.model
    ),
    SpanAttribute("gen_ai.response.model", "", "model that answered", lambda request: request.model),
    SpanAttribute(
        "gen_ai.usage.input_tokens",
        "{token}",
        "prompt tokens; absent where the engine computes other units",
        lambda request: _in_tokens(request.work_unit, request.prompt_tokens),
    ),
    SpanAttribute(
        "gen_ai.usage.cache_read.input_tokens",
        "{token}",
        "prompt tokens found in a cache",
        lambda request: _in_tokens(request.work_unit, request.cached_tokens),
    ),
    SpanAttribute(
        "gen_ai.usage.output_tokens",
        "{token}",
        "tokens generated; absent where something else came out",
        lambda request: _in_tokens(request.unit, request.output_tokens),
    ),
    SpanAttribute(
        "gen_ai.response.finish_reasons",
        "",
        "one finish reason, as vLLM names it",
        lambda request: (clean(request.finish_reason),),
    ),
    SpanAttribute(
        "joulescope.request.output", "", "units that came out, where these are not tokens", _output
    ),
    SpanAttribute(
        "joulescope.request.output_unit",
        "",
        "what came out, such as `image`; absent for tokens",
        lambda request: None if request.unit == TOKEN else request.unit,
    ),
    SpanAttribute(
        "joulescope.request.work", "", "units computed in its steps, where these are not tokens", _work
    ),
    SpanAttribute(
        "joulescope.request.work_unit",
        "",
        "what was computed, such as `denoising step`; absent for tokens",
        lambda request: None if request.work_unit == TOKEN else request.work_unit,
    ),
    SpanAttribute(
        "joulescope.request.energy", "J", "attributed energy", lambda request: request.attributed_joules
    ),
    SpanAttribute(
        "joulescope.request.energy_low",
        "J",
        f"lower end of the {_LEVEL} interval of its attributed energy",
        lambda request: request.attributed_low_joules,
    ),
    SpanAttribute(
        "joulescope.request.energy_high",
        "J",
        f"upper end of the {_LEVEL} interval of its attributed energy",
        lambda request: request.attributed_high_joules,
    ),
    SpanAttribute(
        "joulescope.request.marginal_energy",
        "J",
        "what would have been saved without it",
        lambda request: request.marginal_joules,
    ),
    SpanAttribute(
        "joulescope.request.marginal_energy_low",
        "J",
        f"lower end of the {_LEVEL} interval of its marginal energy",
        lambda request: request.marginal_low_joules,
    ),
    SpanAttribute(
        "joulescope.request.marginal_energy_high",
        "J",
        f"upper end of the {_LEVEL} interval of its marginal energy",
        lambda request: request.marginal_high_joules,
    ),
    SpanAttribute(
        "joulescope.request.prefill_energy",
        "J",
        "part of the energy spent on its prompt",
        lambda request: request.prefill_joules,
    ),
    SpanAttribute(
        "joulescope.request.decode_energy",
        "J",
        "part of the energy spent on its output",
        lambda request: request.decode_joules,
    ),
    SpanAttribute(
        "joulescope.request.wasted_energy",
        "J",
        "part of the energy whose work came to nothing",
        lambda request: request.wasted_joules,
    ),
    SpanAttribute(
        "joulescope.request.avoided_energy",
        "J",
        "what the prompt tokens found in a cache would have cost to compute; in no other figure",
        lambda request: request.avoided_joules,
    ),
    SpanAttribute(
        "joulescope.request.energy_source",
        "",
        "`counter`, `power` (integrated from power readings), `mig_gpm` (an estimate: split off a whole "
        "GPU's) or `mixed`",
        _energy_source,
    ),
    SpanAttribute(
        "joulescope.request.complete",
        "",
        "false if part of its life was not measured or its records were lost",
        lambda request: request.complete,
    ),
    SpanAttribute(
        "joulescope.request.time_to_first_token", "s", "from scheduler to first token", _first_token_seconds
    ),
    SpanAttribute(
        "joulescope.request.steps", "{step}", "steps it took part in", lambda request: request.steps
    ),
    SpanAttribute(
        "joulescope.request.preemptions",
        "{preemption}",
        "times it was pushed out of the KV cache",
        lambda request: request.preemptions,
    ),
    SpanAttribute(
        "gen_ai.request.id",
        "",
        "the id that the API answered, under the name that vLLM's own span `llm_request` gives it",
        lambda request: request.external_id,
    ),
    SpanAttribute("joulescope.request.id", "", "the engine's own id", lambda request: request.request_id),
    SpanAttribute(
        "joulescope.request.external_id",
        "",
        "the id that the API answered",
        lambda request: request.external_id,
    ),
    SpanAttribute("joulescope.request.lora", "", "adapter", lambda request: request.lora),
    SpanAttribute(
        "joulescope.request.tenant",
        "",
        "tenant, where tenants are told apart",
        lambda request: request.tenant,
    ),
    SpanAttribute(
        "joulescope.request.task",
        "",
        "task class, where these are told apart",
        lambda request: request.task,
    ),
    SpanAttribute("joulescope.engine", "", "engine, as in the metrics", lambda request: request.engine),
    SpanAttribute("joulescope.method", "", "rule that divided the energy", lambda request: request.method),
    SpanAttribute("joulescope.method_version", "", "its version", lambda request: request.method_version),
)


def attributes_of(request: FinishedRequest) -> dict[str, Value]:
    """What a span says about one finished request: what is not known is absent, not zero."""
    values = ((attribute.name, attribute.read(request)) for attribute in SPAN_ATTRIBUTES)
    return {
        name: clean(value) if isinstance(value, str) else value
        for name, value in values
        if value is not None and value != ""
    }


@dataclass(frozen=True, slots=True)
class PhaseAttribute:
    """One attribute of a phase's span or event; left out where ``read`` returns ``None``."""

    name: str
    unit: str
    help: str
    read: Callable[[FinishedRequest, Phase], Value | None]


PHASE_ATTRIBUTES = (
    PhaseAttribute("joulescope.phase", "", "which phase it is", lambda request, phase: phase.name),
    PhaseAttribute(
        "joulescope.phase_energy", "J", "the request's energy in it", lambda request, phase: phase.joules
    ),
    PhaseAttribute(
        "joulescope.engine", "", "engine, as in the metrics", lambda request, phase: clean(request.engine)
    ),
)
"""Not named as those of the request: a sum over all spans would count its joules twice."""

EVENT_ATTRIBUTES = (
    *PHASE_ATTRIBUTES[:2],
    PhaseAttribute(
        "joulescope.phase_duration",
        "s",
        "how long it took; of events only",
        lambda request, phase: seconds_from_ns(phase.end_ns - phase.start_ns),
    ),
)
"""An event is an instant of the request's span: it needs its length, and no engine."""


def phase_attributes(
    table: tuple[PhaseAttribute, ...], request: FinishedRequest, phase: Phase
) -> dict[str, Value]:
    """What the span or event of a phase says: what is not known is absent."""
    values = ((attribute.name, attribute.read(request, phase)) for attribute in table)
    return {name: value for name, value in values if value is not None}
