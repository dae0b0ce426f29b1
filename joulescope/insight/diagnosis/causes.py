"""Causes of a change in joules per token: what they are called, and what can be done about each.

A cause is something that an engine was given: what clients ask for, limits, hardware, software. Batch, power,
step time, preemptions are consequences and no causes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause."""

    name: str
    title: str
    meaning: str


MIX, LOAD, BATCH_LIMIT, KV_CAPACITY = "mix", "load", "batch_limit", "kv_capacity"
PREFIX_CACHE, SPECULATION, HOST, CLOCKS = "prefix_cache", "speculation", "host", "clocks"
LAYOUT, MODEL, EFFICIENCY = "layout", "model", "efficiency"
OVERHEAD, UNATTRIBUTED, UNEXPLAINED = "overhead", "unattributed", "unexplained"

CAUSES = {
    each.name: each
    for each in (
        Cause(MIX, "workload mix", "prompts and answers have other lengths"),
        Cause(LOAD, "load", "more or fewer requests arrive, or at other times: batch and idle time follow"),
        Cause(BATCH_LIMIT, "batch limit", "max_num_seqs or max_num_batched_tokens is another"),
        Cause(KV_CAPACITY, "KV capacity", "the KV cache has another size: batch and preemptions follow"),
        Cause(PREFIX_CACHE, "prefix cache", "prompts of all lengths find another part of themselves cached"),
        Cause(SPECULATION, "speculation", "other numbers of tokens are drafted, or accepted"),
        Cause(HOST, "host", "launches, and waiting for the host between steps, take other times"),
        Cause(CLOCKS, "clocks and power cap", "clocks, throttling or the power limit changed"),
        Cause(LAYOUT, "GPUs and layout", "other GPUs, another number of them, or cut otherwise"),
        Cause(MODEL, "model or precision", "another model, or the same in another precision"),
        Cause(EFFICIENCY, "efficiency of the same work", "kernels, software or the GPU itself"),
        Cause(OVERHEAD, "overhead", "start-up and empty steps of data parallelism, as measured"),
        Cause(UNATTRIBUTED, "unattributed", "joules of time of which nothing is known, as measured"),
        Cause(UNEXPLAINED, "unexplained", "what the structural model does not say"),
    )
}
"""All causes by name, in the order in which they are told where nothing else decides."""

NAMED = tuple(name for name in CAUSES if name != UNEXPLAINED)
"""Those that explain something."""
