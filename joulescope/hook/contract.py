"""Every name of vLLM that the hook touches, in one table.

At start-up the hook looks the names up in the running vLLM (:func:`inspect_running`), so that the sidecar
learns what this version provides; ``tools/compat.py`` looks the same names up in the sources of each
supported wheel. A name that is not in this table may only be used where its absence costs no more
than a field of the hello.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
SCHEDULER_OUTPUT = "vllm.v1.core.sched.output:SchedulerOutput"
NEW_REQUEST = "vllm.v1.core.sched.output:NewRequestData"
CACHED_REQUESTS = "vllm.v1.core.sched.output:CachedRequestData"
REQUEST = "vllm.v1.request:Request"
CORE_OUTPUT = "vllm.v1.engine:EngineCoreOutput"
CORE_OUTPUTS = "vllm.v1.engine:EngineCoreOutputs"
PREFILL_STATS = "vllm.v1.metrics.stats:PrefillStats"
ENGINE_CORE = "vllm.v1.engine.core:EngineCore"
WORKER_WRAPPER = "vllm.v1.worker.worker_base:WorkerWrapperBase"
CONFIG = "vllm.config.vllm:VllmConfig"
PARALLEL_CONFIG = "vllm.config.parallel:ParallelConfig"
MODEL_METRICS = "vllm.v1.metrics.perf:ModelMetrics"
EXECUTION_CONTEXT = "vllm.v1.metrics.perf:ExecutionContext"

OLDEST_VLLM, NEWEST_VLLM = (0, 14), (0, 33)
"""Releases against whose sources the names below were looked up (``docs/compatibility.md``): these and some
between."""

REQUIRED = "steps"
"""The capability without which the hook has nothing to say and stays idle."""


@dataclass(frozen=True, slots=True)
class Touch:
    """One name: where it lives, what it is, and which capability is lost without it.

    ``alternative`` marks a name that only some versions have: of the names of one capability that carry
    the same ``alternative``, all must be there, and one such group is enough.
    """

    owner: str
    """``module:Class``, or ``module`` for a function of the module."""
    name: str
    capability: str
    parameters: tuple[str, ...] | None = None
    """For methods: the leading parameters after ``self`` that the hook relies on; ``None`` for fields."""
    alternative: str = ""


def _fields(owner: str, capability: str, names: Iterable[str], alternative: str = "") -> list[Touch]:
    return [Touch(owner, name, capability, alternative=alternative) for name in names]


CONTRACT: tuple[Touch, ...] = (
    # What every step record needs.
    Touch(SCHEDULER, "__init__", REQUIRED, ("vllm_config",)),
    Touch(SCHEDULER, "schedule", REQUIRED, ()),
    Touch(SCHEDULER, "update_from_output", REQUIRED, ("scheduler_output", "model_runner_output")),
    Touch(SCHEDULER, "add_request", REQUIRED, ("request",)),
    *_fields(
        SCHEDULER_OUTPUT,
        REQUIRED,
        (
            "num_scheduled_tokens",
            "total_num_scheduled_tokens",
            "scheduled_new_reqs",
            "scheduled_cached_reqs",
            "finished_req_ids",
        ),
    ),
    *_fields(NEW_REQUEST, REQUIRED, ("req_id", "num_computed_tokens")),
    *_fields(CACHED_REQUESTS, REQUIRED, ("req_ids", "num_computed_tokens")),
    *_fields(CORE_OUTPUTS, REQUIRED, ("outputs",)),
    *_fields(CORE_OUTPUT, REQUIRED, ("request_id", "new_token_ids")),
    *_fields(REQUEST, REQUIRED, ("request_id", "num_prompt_tokens", "max_tokens", "pooling_params")),
    # Ends with their reason; without it an end is only noticed at the next step, its reason unknown.
    Touch(SCHEDULER, "_free_request", "ends", ("request",)),
    *_fields(REQUEST, "ends", ("num_output_tokens", "status")),
    Touch(REQUEST, "get_finished_reason", "ends", ()),
    # The split of prefix-cache hits.
    *_fields(REQUEST, "cached_split", ("prefill_stats",), alternative="0.20 and later"),
    *_fields(
        PREFILL_STATS,
        "cached_split",
        ("num_local_cached_tokens", "num_external_cached_tokens"),
        alternative="0.20 and later",
    ),
    *_fields(REQUEST, "cached_split", ("num_external_computed_tokens",), alternative="0.19 and earlier"),
    # The rest, each for itself.
    *_fields(SCHEDULER_OUTPUT, "drafts", ("scheduled_spec_decode_tokens", "num_invalid_spec_tokens")),
    *_fields(SCHEDULER_OUTPUT, "preempted", ("preempted_req_ids",)),
    *_fields(REQUEST, "preemptions", ("num_preemptions",)),
    *_fields(SCHEDULER_OUTPUT, "encoder", ("scheduled_encoder_inputs",)),
    *_fields(REQUEST, "encoder", ("mm_features",)),
    Touch(REQUEST, "get_num_encoder_embeds", "encoder", ("input_id",)),
    *_fields(REQUEST, "lora", ("lora_request",)),
    *_fields(REQUEST, "trace_headers", ("trace_headers",)),
    *_fields(SCHEDULER, "gauges", ("running", "waiting", "kv_cache_manager")),
    *_fields(SCHEDULER, "lookup", ("requests",)),
    Touch(SCHEDULER, "shutdown", "shutdown", ()),
    Touch(ENGINE_CORE, "execute_dummy_batch", "dummy_batch", ()),
    *_fields(ENGINE_CORE, "dummy_batch", ("scheduler",)),
    Touch(WORKER_WRAPPER, "init_device", "workers", ()),
    *_fields(WORKER_WRAPPER, "workers", ("worker", "vllm_config")),
    *_fields(
        CONFIG,
        "facts",
        (
            "instance_id",
            "model_config",
            "cache_config",
            "parallel_config",
            "scheduler_config",
            "device_config",
            "speculative_config",
        ),
    ),
    *_fields(
        PARALLEL_CONFIG,
        "facts",
        (
            "data_parallel_index",
            "data_parallel_size",
            "tensor_parallel_size",
            "pipeline_parallel_size",
            "distributed_executor_backend",
        ),
    ),
    Touch(MODEL_METRICS, "__init__", "model_metrics", ("vllm_config",)),
    Touch(MODEL_METRICS, "get_num_flops", "model_metrics", ("ctx",)),
    Touch(MODEL_METRICS, "get_read_bytes", "model_metrics", ("ctx",)),
    *_fields(MODEL_METRICS, "model_metrics", ("metrics",)),
    Touch(
        EXECUTION_CONTEXT,
        "from_single_request",
        "model_metrics",
        ("num_tokens", "context_len", "is_prefill"),
    ),
)


def missing_capabilities(absent: Callable[[Touch], bool]) -> tuple[list[str], dict[str, list[str]]]:
    """Which capabilities a vLLM provides, and for each one that it lacks the names that are absent.

    :param absent: tells of a row of the table whether this vLLM lacks it.
    """
    provided: list[str] = []
    lacking: dict[str, list[str]] = {}
    for capability in dict.fromkeys(touch.capability for touch in CONTRACT):
        rows = [touch for touch in CONTRACT if touch.capability == capability]
        gone: dict[str, list[str]] = {row.alternative: [] for row in rows}
        for row in rows:
            if absent(row):
                gone[row.alternative].append(f"{row.owner.rpartition(':')[2]}.{row.name}")
        common = gone.pop("", [])
        choice = min(gone.values(), key=len, default=[])
        if common or choice:
            lacking[capability] = common + choice
        else:
            provided.append(capability)
    return provided, lacking


def absent_at_run_time(touch: Touch) -> bool:
    """Looks a name up in the modules that are loaded; a module that is not loaded yet lacks nothing."""
    module_name, _, class_name = touch.owner.partition(":")
    module = sys.modules.get(module_name)
    if module is None:
        return False
    owner = getattr(module, class_name, None)
    return owner is None or not _has(owner, touch.name)


def _has(owner: type, name: str) -> bool:
    """True if instances of ``owner`` have ``name``: a method, a declared field, or one that methods use."""
    for ancestor in owner.__mro__:
        members = vars(ancestor)
        if name in members or name in members.get("__annotations__", {}):
            return True
        if any(name in _names_used(member) for member in members.values()):
            return True
    return name in getattr(owner, "__struct_fields__", ())


def _names_used(member: object) -> tuple[str, ...]:
    """The attribute names in the code of a function, seen through decorators."""
    while hasattr(member, "__wrapped__"):
        member = member.__wrapped__
    return getattr(getattr(member, "__code__", None), "co_names", ())


def inspect_running() -> tuple[list[str], dict[str, list[str]]]:
    """:func:`missing_capabilities` of the vLLM in this process."""
    return missing_capabilities(absent_at_run_time)
