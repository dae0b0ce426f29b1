"""Frozen value types that speak of engines: who they are, what they have under way, and how they fare.

Part of :mod:`joulescope.model`, from which everybody imports them.
"""

from __future__ import annotations

from dataclasses import dataclass

TOKEN = "token"
"""Unit in which language models count what they compute and what comes out."""

OPEN_PHASES = ("waiting", "prefill", "decode", "ended")
"""Where an open request is: in the queue (again, if it was preempted); computing its prompt (or recomputing);
generating; ended, while the joules of its last steps are not divided yet."""


@dataclass(frozen=True, slots=True)
class CostFacts:
    """What a step of a model costs in bytes and FLOPs, summed over the GPUs of one replica.

    ``flops = tokens·flops_per_token + Σ(tokens·context)·flops_per_token_context + samples·flops_per_sample``
    and ``bytes read = weights(tokens) + Σ context·kv_bytes_per_token``. A step of ``T`` tokens reads
    ``weights(T) = weight_bytes − expert_weight_bytes·(1 − expert_choice_ratio)^T``: experts that no token
    chose are left alone. For a dense model that is ``weight_bytes``.
    """

    source: str = "unknown"
    """``vllm`` (its ModelMetrics), ``config`` (HF's), ``declared``, ``work`` (follows it), ``unknown``."""
    weight_bytes: float = 0.0
    kv_bytes_per_token: float = 0.0
    flops_per_token: float = 0.0
    flops_per_token_context: float = 0.0
    flops_per_sample: float = 0.0
    expert_weight_bytes: float = 0.0
    """Of the weights, those of routed experts."""
    expert_choice_ratio: float = 0.0
    """Chance that a token chooses a given expert: chosen / all, 0..1."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Who an engine is. ``engine`` is its label: stable across restarts, unique at any time."""

    engine: str
    instance_id: str = ""
    data_parallel_index: int = 0
    model: str = ""
    served_model: str = ""
    dtype: str = ""
    quantization: str = ""
    vllm_version: str = ""
    hook_version: str = ""
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    kv_cache_tokens: int | None = None
    executor: str = ""
    async_scheduling: bool = False
    scheduler_class: str = ""
    capabilities: frozenset[str] = frozenset()
    software: str = "vllm"
    """What runs the model; empty where that is not known."""
    unit: str = TOKEN
    """What comes out: what output and generated tokens are of this engine."""
    work_unit: str = TOKEN
    """What is computed: what prompt, scheduled and computed tokens are."""
    gpus: tuple[str, ...] = ()
    cost: CostFacts = CostFacts()

    @property
    def gpu_count(self) -> int:
        """GPUs of one replica, as far as the engine says."""
        return max(len(self.gpus), self.tensor_parallel * self.pipeline_parallel)


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """What a request whose account is not closed has used so far. Joules lag by half a second or so."""

    request_id: str
    external_id: str
    engine: str
    model: str
    lora: str
    kind: str
    start_ns: int
    first_token_ns: int | None
    phase: str
    """Of :data:`OPEN_PHASES`."""
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    preemptions: int
    attributed_joules: float | None
    """``None`` before anything of it was measured."""
    prefill_joules: float | None
    marginal_joules: float | None
    task: str = ""
    """Its task class; empty while its output has yet to decide it, and where tasks are not told apart."""


@dataclass(frozen=True, slots=True)
class BaselineTotals:
    """What an engine's work costs against what the same work used to cost."""

    learned_ratio: float | None
    """How much of the learning is done, 0..1; 1: there is a baseline. ``None``: there is none, and none is
    learned."""
    name: str
    """Of the baseline, empty before there is one."""
    source: str
    """``pinned`` or ``learned``."""
    version: str
    """Of the software whose work it was learned from."""
    created_wall_seconds: float | None
    actual_joules: float | None
    """Measured of the steps that were compared."""
    expected_joules: float | None
    """What they should have cost."""
    error_ratio: float | None
    """Relative standard error of what is expected, for the work of late."""
