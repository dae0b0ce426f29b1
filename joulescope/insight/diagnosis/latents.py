"""What lies between causes and joules: utilisation and memory, measured in a window. ``None``: not known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from joulescope.insight.diagnosis import causes
from joulescope.insight.diagnosis.window import Window
from joulescope.minute_model import TaskSums


@dataclass(frozen=True, slots=True)
class TaskShare:
    """One task class of the requests that finished."""

    task: str
    requests_ratio: float
    """Of all requests."""
    joules_per_token: float | None
    """Joules of their whole lives by token that came out."""
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Latents:
    """Ratios are 0..1."""

    batch: float
    """Mean requests in a step."""
    step_seconds: float
    inter_token_seconds: float | None
    """Of a decode step, waiting included, by tokens that a request gets of it."""
    watts_per_gpu: float
    gpus: int
    requests_per_second: float
    present: float
    """Mean requests that run or wait."""
    prompt_tokens: float | None
    """Mean of finished requests; so is the next."""
    output_tokens: float | None
    cached_ratio: float | None
    """Of prompt tokens."""
    drafted_per_pass: float
    """Tokens that are drafted for a request in a step."""
    accepted_ratio: float | None
    """Of drafted tokens."""
    busy_ratio: float | None
    idle_joules_ratio: float
    """Of the measured joules."""
    static_joules_ratio: float | None
    """Of the joules of steps: static power, that is paid for their time whatever they do."""
    waited_ratio: float
    """Of the time with requests running: the GPUs waited for the host."""
    arithmetic_intensity: float | None
    """FLOPs of a step by bytes that it reads."""
    memory_bound_ratio: float | None
    """Of the time of steps; so are the next two."""
    compute_bound_ratio: float | None
    power_bound_ratio: float | None
    sm_active_ratio: float | None
    tensor_active_ratio: float | None
    dram_active_ratio: float | None
    sm_clock_hertz: float | None
    power_limit_watts: float | None
    throttled_ratio: float | None
    max_num_seqs: int | None
    """Limits, as the engine says at the end; so are the next two."""
    max_num_batched_tokens: int | None
    kv_cache_tokens: int | None
    kv_usage_ratio: float | None
    kv_full_ratio: float | None
    """Of the time."""
    preemptions_per_request: float | None
    preempted_joules_ratio: float
    """Of the measured joules: computing again what a preemption lost."""
    tasks: tuple[TaskShare, ...]
    """The most requests first; empty where tasks are not told apart."""
    model: str
    """What served: names as the engine says them, and the next three; empty where it does not."""
    dtype: str
    quantization: str
    gpu_name: str

    def joules_per_token_of_others(self, task: str) -> float | None:
        """Of all tasks but one, by token that came out."""
        known = [each for each in self.tasks if each.task != task and each.joules_per_token is not None]
        joules = sum((each.joules_per_token or 0.0) * each.output_tokens for each in known)
        return _part(joules, sum(each.output_tokens for each in known))


def latents_of(window: Window) -> Latents:
    """The latent figures of a window."""
    whole, fared, kind = window.whole, window.observed.fared, window.observed.kind
    joules, load, gpu, tokens = whole.joules, whole.load, whole.gpu, whole.tokens
    kinds = window.steps()
    gpus = window.observed.service.gpu_count
    seconds = sum(each.seconds for each in kinds)
    waited = sum(each.waited_seconds for each in kinds)
    read = sum(each.weight_bytes + each.kv_bytes for each in kinds)
    modelled = sum(each.modelled_joules for each in kinds)
    requests = sum(cell.requests for cell in whole.tasks)
    prompts = sum(cell.prompt_tokens for cell in whole.tasks)
    decode = whole.decode_steps
    passes = window.observed.service.tokens_per_pass
    known = gpu.throttle_known_seconds
    throttled = gpu.throttled_power_seconds + gpu.throttled_thermal_seconds + gpu.throttled_other_seconds
    lost = joules.overhead_preemption or joules.wasted_preemption
    return Latents(
        batch=fared.batch,
        step_seconds=fared.step_seconds,
        inter_token_seconds=_part(decode.seconds + decode.waited_seconds, decode.steps * gpus * passes),
        watts_per_gpu=fared.watts / gpus,
        gpus=gpus,
        requests_per_second=fared.requests_per_second,
        present=window.present,
        prompt_tokens=_part(prompts, requests),
        output_tokens=_part(sum(cell.output_tokens for cell in whole.tasks), requests),
        cached_ratio=_part(sum(cell.cached_tokens for cell in whole.tasks), prompts),
        drafted_per_pass=window.observed.service.drafted_per_pass,
        accepted_ratio=_part(tokens.accepted, tokens.drafted),
        busy_ratio=_part(load.busy_seconds, load.seconds),
        idle_joules_ratio=joules.idle / joules.measured,
        static_joules_ratio=_part(sum(each.static_joules for each in kinds), modelled),
        waited_ratio=waited / max(seconds + waited, 1e-9),
        arithmetic_intensity=_part(sum(each.flops for each in kinds), read),
        memory_bound_ratio=_part(sum(each.memory_bound_seconds for each in kinds), seconds),
        compute_bound_ratio=_part(sum(each.compute_bound_seconds for each in kinds), seconds),
        power_bound_ratio=_part(sum(each.power_bound_seconds for each in kinds), seconds),
        sm_active_ratio=_part(gpu.sm_active_seconds, gpu.sm_active_known_seconds),
        tensor_active_ratio=_part(gpu.tensor_active_seconds, gpu.tensor_active_known_seconds),
        dram_active_ratio=_part(gpu.dram_active_seconds, gpu.dram_active_known_seconds),
        sm_clock_hertz=_part(gpu.sm_clock_hertz_seconds, gpu.sm_clock_known_seconds),
        power_limit_watts=_part(gpu.power_limit_joules, gpu.power_limit_known_seconds),
        throttled_ratio=_part(throttled, known),
        max_num_seqs=whole.limits.max_num_seqs,
        max_num_batched_tokens=whole.limits.max_num_batched_tokens,
        kv_cache_tokens=whole.limits.kv_cache_tokens,
        kv_usage_ratio=fared.kv_usage_ratio,
        kv_full_ratio=_part(load.kv_full_seconds, load.kv_known_seconds),
        preemptions_per_request=_part(load.preemptions, requests),
        preempted_joules_ratio=lost / joules.measured,
        tasks=tasks_of(whole.tasks),
        model=kind.model,
        dtype=kind.dtype,
        quantization=kind.quantization,
        gpu_name=kind.gpu_name,
    )


def tasks_of(cells: Iterable[TaskSums]) -> tuple[TaskShare, ...]:
    """The task classes of cells; none where tasks are not told apart."""
    sums: dict[str, list[float]] = {}
    for cell in cells:
        of_task = sums.setdefault(cell.task, [0.0] * 4)
        for at, value in enumerate((cell.requests, cell.output_tokens, cell.joules, cell.measured_requests)):
            of_task[at] += value
    if sums.keys() <= {""}:
        return ()
    whole = sum(each[0] for each in sums.values())
    shares = (
        TaskShare(task, requests / whole, _by_token(joules, measured, requests, tokens), int(tokens))
        for task, (requests, tokens, joules, measured) in sums.items()
    )
    return tuple(sorted(shares, key=lambda each: (-each.requests_ratio, each.task)))


def _by_token(joules: float, measured: float, requests: float, tokens: float) -> float | None:
    """Of requests of which not all were measured: as if the others had drawn as much."""
    return _part(joules * requests / measured, tokens) if measured else None


def _part(value: float, whole: float) -> float | None:
    return value / whole if whole > 0.0 else None


_EVERYWHERE = ("batch", "watts_per_gpu", "inter_token_seconds")

BESIDE: dict[str, tuple[str, ...]] = {
    causes.MIX: (
        "tasks",
        "prompt_tokens",
        "output_tokens",
        "batch",
        "arithmetic_intensity",
        "compute_bound_ratio",
    ),
    causes.LOAD: (
        "requests_per_second",
        "present",
        "batch",
        "busy_ratio",
        "idle_joules_ratio",
        "static_joules_ratio",
    ),
    causes.BATCH_LIMIT: (
        "max_num_seqs",
        "max_num_batched_tokens",
        "batch",
        "static_joules_ratio",
        "memory_bound_ratio",
        "dram_active_ratio",
    ),
    causes.KV_CAPACITY: (
        "kv_cache_tokens",
        "kv_usage_ratio",
        "kv_full_ratio",
        "batch",
        "preemptions_per_request",
        "preempted_joules_ratio",
    ),
    causes.PREFIX_CACHE: ("cached_ratio", "compute_bound_ratio", "arithmetic_intensity", "kv_usage_ratio"),
    causes.SPECULATION: ("drafted_per_pass", "accepted_ratio", "inter_token_seconds", "batch"),
    causes.HOST: ("waited_ratio", "step_seconds", *_EVERYWHERE, "kv_usage_ratio", "sm_active_ratio"),
    causes.CLOCKS: (
        "sm_clock_hertz",
        "power_limit_watts",
        "throttled_ratio",
        "power_bound_ratio",
        *_EVERYWHERE,
    ),
    causes.LAYOUT: ("gpus", "kv_cache_tokens", "static_joules_ratio", *_EVERYWHERE),
    causes.MODEL: ("arithmetic_intensity", "memory_bound_ratio", "kv_cache_tokens", *_EVERYWHERE),
    causes.EFFICIENCY: ("step_seconds", *_EVERYWHERE, "sm_active_ratio", "dram_active_ratio"),
    causes.OVERHEAD: ("busy_ratio",),
    causes.UNATTRIBUTED: (),
    causes.UNEXPLAINED: _EVERYWHERE,
}
"""Which figures stand beside a cause; those that are not known are left out."""
