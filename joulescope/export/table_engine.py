"""Rows of the metric table that speak of engines and their requests."""

from __future__ import annotations

from joulescope.export import readers
from joulescope.export.metric import Kind, Metric
from joulescope.model import COMPUTED_TOKEN_KINDS, FINISH_REASONS, GENERATED_TOKENS, EngineTotals


def _computed_tokens(totals: EngineTotals) -> dict[str, float]:
    return {kind: totals.tokens.get(kind, 0) for kind in COMPUTED_TOKEN_KINDS}


ENGINE = (
    Metric(
        "joulescope_engine_up",
        Kind.GAUGE,
        "",
        ("engine",),
        "1 while the engine's hook is connected, 0 after it left.",
        readers.of_engine(lambda engine: int(engine.up)),
    ),
    Metric(
        "joulescope_engine_info",
        Kind.INFO,
        "",
        (
            "engine",
            "model",
            "served_model",
            "dtype",
            "quantization",
            "vllm_version",
            "hook_version",
            "tensor_parallel",
            "pipeline_parallel",
            "data_parallel",
            "data_parallel_index",
            "cost_source",
            "software",
            "unit",
            "work_unit",
        ),
        "Who an engine is, where the cost facts of its model come from (vllm, config, declared, work, "
        "unknown), and what it counts: unit is what comes out, work_unit what it computes. Where a metric of "
        "it says tokens, it means these.",
        readers.engine_identity,
    ),
    Metric(
        "joulescope_engine_gpu_info",
        Kind.INFO,
        "",
        ("engine", "gpu"),
        "Which engine runs on which GPU, to join series by gpu with series by engine.",
        readers.engine_gpus,
    ),
    Metric(
        "joulescope_requests_started_total",
        Kind.COUNTER,
        "requests",
        ("engine",),
        "Requests that entered the engine's scheduler.",
        readers.of_engine(lambda engine: engine.requests_started),
    ),
    Metric(
        "joulescope_requests_finished_total",
        Kind.COUNTER,
        "requests",
        ("engine", "reason"),
        "Requests that left the engine's scheduler, by vLLM's finish reason.",
        readers.of_engine_by(lambda engine: engine.requests_finished, FINISH_REASONS),
    ),
    Metric(
        "joulescope_requests_open",
        Kind.GAUGE,
        "requests",
        ("engine",),
        "Requests that started and whose account is not closed yet.",
        readers.of_engine(lambda engine: engine.requests_open),
    ),
    Metric(
        "joulescope_requests_running",
        Kind.GAUGE,
        "requests",
        ("engine",),
        "Requests in the running batch after the last step. Absent while the engine is not connected.",
        readers.of_live_engine(lambda engine: engine.running),
    ),
    Metric(
        "joulescope_requests_waiting",
        Kind.GAUGE,
        "requests",
        ("engine",),
        "Requests in the queue after the last step. Absent while the engine is not connected.",
        readers.of_live_engine(lambda engine: engine.waiting),
    ),
    Metric(
        "joulescope_kv_cache_usage_ratio",
        Kind.GAUGE,
        "ratio",
        ("engine",),
        "Share of KV-cache blocks in use, 0 to 1. Absent while the engine is not connected.",
        readers.of_live_engine(lambda engine: engine.kv_usage_ratio),
    ),
    Metric(
        "joulescope_batch_tokens",
        Kind.GAUGE,
        "tokens",
        ("engine",),
        "Tokens computed in the last step, of prompts and outputs together; 0 when nothing runs. Absent "
        "while the engine is not connected.",
        readers.of_live_engine(lambda engine: engine.batch_tokens),
    ),
    Metric(
        "joulescope_marginal_energy_per_output_token_joules",
        Kind.GAUGE,
        "joules",
        ("engine",),
        "What one more request would add to the last step, decoding a token with as much context as the "
        "others have: the price of the moment, by the cost model, on all GPUs of the engine. Absent when "
        "nothing runs.",
        readers.of_live_engine(lambda engine: engine.next_token_joules),
    ),
    Metric(
        "joulescope_steps_total",
        Kind.COUNTER,
        "steps",
        ("engine",),
        "Scheduler iterations that computed something.",
        readers.of_engine(lambda engine: engine.steps),
    ),
    Metric(
        "joulescope_computed_tokens_total",
        Kind.COUNTER,
        "tokens",
        ("engine", "kind"),
        "Tokens computed in steps: prefill, decode, recomputed (again after a preemption), rejected "
        "(speculative). Each token is of one kind. In the engine's work_unit.",
        readers.of_engine_by(_computed_tokens, COMPUTED_TOKEN_KINDS),
    ),
    Metric(
        "joulescope_cached_tokens_total",
        Kind.COUNTER,
        "tokens",
        ("engine", "cache"),
        "Prompt tokens found in a cache and so not computed: local (prefix cache) or external.",
        readers.cached_tokens,
    ),
    Metric(
        "joulescope_generated_tokens_total",
        Kind.COUNTER,
        "tokens",
        ("engine",),
        "Tokens that came out of the model, or images or whatever else is the unit of the engine by "
        "joulescope_engine_info: the divisor for joules per output token.",
        readers.of_engine(lambda engine: engine.tokens.get(GENERATED_TOKENS, 0)),
    ),
    Metric(
        "joulescope_preemptions_total",
        Kind.COUNTER,
        "preemptions",
        ("engine",),
        "Times a running request was pushed out of the KV cache.",
        readers.of_engine(lambda engine: engine.preemptions),
    ),
    Metric(
        "joulescope_request_energy_joules",
        Kind.HISTOGRAM,
        "joules",
        ("engine",),
        "Attributed energy of finished requests. Exemplars carry the trace id.",
        readers.of_engine(lambda engine: engine.joules_per_request),
    ),
    Metric(
        "joulescope_request_output_token_energy_joules",
        Kind.HISTOGRAM,
        "joules",
        ("engine",),
        "Attributed energy per output token (or image, by the engine's unit) of finished requests. Exemplars "
        "carry the trace id.",
        readers.of_engine(lambda engine: engine.joules_per_output_token),
    ),
    Metric(
        "joulescope_records_dropped_total",
        Kind.COUNTER,
        "records",
        ("engine",),
        "Records that the engine's hook dropped because its queue was full.",
        readers.of_engine(lambda engine: engine.records_dropped),
    ),
    Metric(
        "joulescope_record_gaps_total",
        Kind.COUNTER,
        "gaps",
        ("engine",),
        "Stretches of time of which records are missing; their energy is unattributed.",
        readers.of_engine(lambda engine: engine.gaps),
    ),
)
