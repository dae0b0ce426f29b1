"""Frozen value types that say how one engine fared in one minute, as sums.

What a ledger keeps, what a sidecar remembers, and what a diagnosis compares. All figures but those of
:class:`Kind`, :class:`Limits` and :class:`Laws` are sums over the minute, so that minutes that agree in these
add up to any window: ratios are made last. A mean is a sum of ``value · seconds`` beside the seconds in which
the value was known. Joules and seconds of GPUs are summed over all GPUs of the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from joulescope.engine_model import TOKEN, CostFacts


@dataclass(frozen=True, slots=True)
class Kind:
    """What served: minutes of different kinds are never added up."""

    engine: str
    model: str = ""
    served_model: str = ""
    dtype: str = ""
    quantization: str = ""
    software: str = "vllm"
    software_version: str = ""
    joulescope_version: str = ""
    gpu_name: str = ""
    gpu_count: int = 1
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    unit: str = TOKEN
    work_unit: str = TOKEN
    method: str = ""
    method_version: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the batch; ``None`` where the engine does not say."""

    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    kv_cache_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Joules:
    """Where the joules of the engine's GPUs went.

    measured = prefill + decode + idle + the four of overhead + unattributed.
    """

    measured: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    idle: float = 0.0
    overhead_startup: float = 0.0
    overhead_dummy_batch: float = 0.0
    overhead_preemption: float = 0.0
    overhead_rejected_draft: float = 0.0
    unattributed: float = 0.0
    wasted_abort: float = 0.0
    """This and the next two are contained in the figures above."""
    wasted_rejected_draft: float = 0.0
    wasted_preemption: float = 0.0
    avoided: float = 0.0
    """Part of no sum: what prefix-cache hits would have cost."""
    marginal: float = 0.0


@dataclass(frozen=True, slots=True)
class Tokens:
    """Every token computed is ``prefill``, ``decode``, ``recomputed`` or ``rejected``."""

    prefill: int = 0
    decode: int = 0
    recomputed: int = 0
    rejected: int = 0
    cached_local: int = 0
    cached_external: int = 0
    generated: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps of one sort. Work is that of :class:`joulescope.engine_model.CostFacts`, of the whole replica."""

    steps: float = 0.0
    seconds: float = 0.0
    """In which the GPUs worked on them."""
    waited_seconds: float = 0.0
    """In which the GPUs waited for the host between steps, with requests running."""
    sequences: float = 0.0
    """Σ requests in a step; by ``steps`` the mean batch."""
    tokens: float = 0.0
    samples: float = 0.0
    weight_bytes: float = 0.0
    """Read, once a step; experts that no token chose are not."""
    kv_bytes: float = 0.0
    flops: float = 0.0
    memory_bound_seconds: float = 0.0
    """Part of ``seconds`` in which, by the time model, memory set the pace; the next two likewise."""
    compute_bound_seconds: float = 0.0
    power_bound_seconds: float = 0.0
    modelled_joules: float = 0.0
    """By the energy model of the moment; the next five are its parts."""
    static_joules: float = 0.0
    weight_joules: float = 0.0
    kv_joules: float = 0.0
    flop_joules: float = 0.0
    sequence_joules: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """What there was to do, by the engine's own gauges."""

    seconds: float = 0.0
    """In which the engine was connected and told: what follows is known of these."""
    busy_seconds: float = 0.0
    """In which at least one request ran."""
    running_seconds: float = 0.0
    """Σ running requests · seconds."""
    waiting_seconds: float = 0.0
    queued_seconds: float = 0.0
    """In which any request waited."""
    kv_usage_seconds: float = 0.0
    """Σ usage of the KV cache (0..1) · seconds."""
    kv_known_seconds: float = 0.0
    """Part of ``seconds`` in which the usage of the KV cache was told: not every engine has one."""
    kv_full_seconds: float = 0.0
    """In which the KV cache was full enough to hold requests back (usage of at least 0.95)."""
    requests_started: int = 0
    preemptions: int = 0


@dataclass(frozen=True, slots=True)
class GpuSums:
    """What the sensors said, summed over GPUs; each mean has its own seconds: not all is always read."""

    seconds: float = 0.0
    """GPU time of the minute that was measured."""
    sm_clock_hertz_seconds: float = 0.0
    sm_clock_known_seconds: float = 0.0
    memory_clock_hertz_seconds: float = 0.0
    memory_clock_known_seconds: float = 0.0
    power_limit_joules: float = 0.0
    """Σ power limit · seconds."""
    power_limit_known_seconds: float = 0.0
    sm_active_seconds: float = 0.0
    sm_active_known_seconds: float = 0.0
    dram_active_seconds: float = 0.0
    dram_active_known_seconds: float = 0.0
    tensor_active_seconds: float = 0.0
    tensor_active_known_seconds: float = 0.0
    throttled_power_seconds: float = 0.0
    throttled_thermal_seconds: float = 0.0
    throttled_other_seconds: float = 0.0
    throttle_known_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskSums:
    """Finished requests of one task class and about one length: a cell of the mix."""

    task: str
    """Empty where tasks are not told apart."""
    prompt_bin: int
    """⌊2·log₂(prompt tokens)⌋ of the requests, 0 below one token; the sums tell the mean."""
    output_bin: int
    requests: int = 0
    aborted: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    joules: float = 0.0
    measured_requests: int = 0
    """Of which joules are known."""
    seconds: float = 0.0
    """Σ from start to end."""
    first_token_seconds: float = 0.0
    first_token_requests: int = 0


@dataclass(frozen=True, slots=True)
class Laws:
    """The cost model as it stood at the end of the minute, enough to foresee any step.

    The orders of the coefficients are those of :class:`joulescope.attribution.baseline.Baseline`.
    """

    cost: CostFacts
    time_coefficients: tuple[float, ...]
    energy_coefficients: tuple[float, ...]
    time_covariance: tuple[tuple[float, ...], ...] = ()
    """Relative, as in a baseline; so is the next."""
    energy_covariance: tuple[tuple[float, ...], ...] = ()
    unevenness: float = 0.0
    limit_watts: float = 0.0
    """Per GPU; so is the next."""
    idle_watts: float = 0.0
    wait_seconds: tuple[float, float] = (0.0, 0.0)
    """What a step, and each sequence in it, makes the GPUs wait for the host."""


@dataclass(frozen=True, slots=True)
class EngineMinute:
    """One engine in one minute of wall time; shorter at its begin and end, and where it changed its kind."""

    kind: Kind
    start_wall_seconds: float
    """Seconds since the epoch; a whole minute, or later in it."""
    end_wall_seconds: float
    limits: Limits = Limits()
    joules: Joules = Joules()
    tokens: Tokens = Tokens()
    decode_steps: Steps = Steps()
    """In which no prompt was computed."""
    prefill_steps: Steps = Steps()
    """In which some prompt was computed, most often beside decoding."""
    load: Load = Load()
    gpu: GpuSums = GpuSums()
    tasks: tuple[TaskSums, ...] = ()
    finish_reasons: tuple[tuple[str, int], ...] = field(default=())
    laws: Laws | None = None
    """``None`` while nothing was learned."""
