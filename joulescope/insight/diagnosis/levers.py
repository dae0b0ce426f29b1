"""What can be done about a cause by which tokens became dearer.

Which way a setting went decides: a limit that was lowered is raised again, and one that was raised, lowered.
"""

from __future__ import annotations

from collections.abc import Callable

from joulescope.insight.diagnosis import causes
from joulescope.insight.diagnosis.latents import Latents

_LEAST = 0.05
"""By so much, relative, a mean or a load has to differ for a lever to depend on which way."""

_LEAST_CLOCK = 0.01
_NO_DRAFTS = 0.05
"""Tokens drafted for a request in a step, below which nothing is drafted."""

_MUCH_LOST = 0.4
"""Part of the joules that preemption must cost for another GPU to be worth it: two draw half as much again as
one for the same tokens in simulation, or more."""

_Lever = Callable[[Latents, Latents], str]


def lever_of(cause: str, before: Latents, after: Latents, *, closed: bool = False) -> str:
    """What to do about a cause that made tokens dearer; empty where nothing is known to help.

    Args:
        closed: whether clients wait for answers.
    """
    if closed and cause == causes.LOAD:
        return _clients(before, after)
    return _LEVERS[cause](before, after)


def _grew(one: float | None, other: float | None, least: float = 0.0) -> bool:
    """Whether a figure is larger in the second window by more than such a part."""
    return one is not None and other is not None and other > one * (1.0 + least)


def _always(lever: str) -> _Lever:
    return lambda before, after: lever


def _mix(before: Latents, after: Latents) -> str:
    lever = "clients ask for other work, nothing is broken; shorten or share prompts"
    if _grew(before.output_tokens, after.output_tokens, _LEAST):
        return f"{lever}, or set max_tokens"
    if _grew(after.output_tokens, before.output_tokens, _LEAST):
        return f"{lever}; fewer tokens bear the joules of a prompt, so look at joules a request too"
    return lever


_CROWDED = "more than the engine holds at a time: send some to another replica, or make room in the KV cache"


def _load(before: Latents, after: Latents) -> str:
    if _grew(before.requests_per_second, after.requests_per_second, _LEAST):
        return _CROWDED
    if _grew(before.present, after.present, _LEAST):
        return ""  # they wait here already: fewer replicas would make the queue longer
    return "send the same requests to fewer replicas, scale down when idle, or put offline work into the gaps"


def _clients(before: Latents, after: Latents) -> str:
    if _grew(before.present, after.present, _LEAST):
        return _CROWDED
    return "send the same requests to fewer replicas, or let clients send more at a time"


def _batch(before: Latents, after: Latents) -> str:
    """Back to what it was: a larger batch is not always cheaper, as where the KV cache does not hold it."""
    limits = {
        "max-num-seqs": (before.max_num_seqs, after.max_num_seqs),
        "max-num-batched-tokens": (before.max_num_batched_tokens, after.max_num_batched_tokens),
    }
    back = [
        f"{'lower' if _grew(was, now) else 'raise'} {flag} to {was} again"
        for flag, (was, now) in limits.items()
        if was is not None and was != now
    ]
    return ", and ".join(back) or "raise max-num-seqs or max-num-batched-tokens"


def _kv(before: Latents, after: Latents) -> str:
    if _grew(before.kv_cache_tokens, after.kv_cache_tokens):
        return ""
    if after.preempted_joules_ratio > _MUCH_LOST:
        return "raise gpu-memory-utilization, use an FP8 KV cache, or add a GPU"
    return "raise gpu-memory-utilization, or use an FP8 KV cache"


def _speculation(before: Latents, after: Latents) -> str:
    drafted = (before.drafted_per_pass, after.drafted_per_pass)
    if _grew(drafted[1], drafted[0], _LEAST):
        return "turn drafting on again" if drafted[1] < _NO_DRAFTS else "draft as many tokens as before"
    return "draft fewer tokens, or use a drafter that was trained for this traffic"


def _clocks(before: Latents, after: Latents) -> str:
    speeds = [
        (before.sm_clock_hertz, after.sm_clock_hertz),
        (before.power_limit_watts, after.power_limit_watts),
    ]
    slower = any(_grew(now, was, _LEAST_CLOCK) for was, now in speeds)
    if not slower and any(_grew(was, now, _LEAST_CLOCK) for was, now in speeds):
        return (
            "faster steps cost more joules; where the time between tokens allows, lower the limit or the "
            "clocks again (nvidia-smi -pl, -lgc)"
        )
    return "see who lowered clocks or the limit (nvidia-smi -q -d CLOCK,POWER), and cooling"


def _layout(before: Latents, after: Latents) -> str:
    if after.gpus > before.gpus:
        return (
            "the same batch on more GPUs costs more; let it serve more requests at a time, or use fewer GPUs"
        )
    if after.gpus < before.gpus:
        return (
            "fewer GPUs hold less KV cache and so fewer requests at a time; add GPUs again, or make room "
            "(gpu-memory-utilization, an FP8 KV cache)"
        )
    return "lay both side by side at the same load with 'joulescope compare'"


def _model(before: Latents, after: Latents) -> str:
    if before.model != after.model:
        return (
            "another model is other work, nothing is broken; lay both side by side with 'joulescope compare'"
        )
    return "low precision pays at large batches: compare both at your batch with 'joulescope plan'"


_LEVERS: dict[str, _Lever] = {
    causes.MIX: _mix,
    causes.LOAD: _load,
    causes.BATCH_LIMIT: _batch,
    causes.KV_CAPACITY: _kv,
    causes.PREFIX_CACHE: _always(
        "check that enable-prefix-caching is on, that prompts begin alike, and that requests with one prefix "
        "go to one replica"
    ),
    causes.SPECULATION: _speculation,
    causes.HOST: _always(
        "give the engine's process faster or freer CPU cores, check CUDA graphs (enforce-eager off) and "
        "asynchronous scheduling"
    ),
    causes.CLOCKS: _clocks,
    causes.LAYOUT: _layout,
    causes.MODEL: _model,
    causes.EFFICIENCY: _always(
        "look for another version of vLLM, the driver or attention kernels, or another GPU"
    ),
    causes.OVERHEAD: _always("restart less often; even out the load of data-parallel engines"),
    causes.UNATTRIBUTED: _always("see joulescope_records_dropped_total, and 'joulescope doctor'"),
    causes.UNEXPLAINED: _always(""),
}
