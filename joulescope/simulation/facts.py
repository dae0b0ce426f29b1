"""What a simulated engine says of itself: the same hello that the hook sends."""

from __future__ import annotations

from collections.abc import Sequence

from joulescope import __version__
from joulescope.hook.wire import CostFacts, EngineFacts, Hello
from joulescope.simulation.parts import World
from joulescope.simulation.scheduler import EngineLimits

CAPABILITIES = ("steps", "ends", "cached_split", "preempted", "preemptions", "gauges", "trace_headers")
"""What the simulated engine reports, by the names that the hook uses; there is no LoRA or multimodal
input."""


def hello(
    world: World,
    limits: EngineLimits,
    gpus: Sequence[str],
    *,
    time_ns: int,
    wall_ns: int = 0,
    pid: int = 0,
    instance_id: str = "simulated",
    data_parallel_index: int = 0,
) -> Hello:
    """The first record of a simulated engine's session, at ``time_ns`` on the monotonic clock.

    ``gpus`` are those of the engine, in rank order.
    """
    model, parallel = world.model, world.parallel
    facts = EngineFacts(
        instance_id=instance_id,
        data_parallel_index=data_parallel_index,
        model=model.name,
        served_model=model.name,
        dtype=model.dtype,
        vllm_version="simulated",
        tensor_parallel=parallel.tensor,
        pipeline_parallel=parallel.pipeline,
        data_parallel=parallel.engines,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        max_model_len=model.max_model_len,
        kv_cache_tokens=limits.kv_cache_tokens,
        block_size=limits.block_size,
        executor="simulated",
        async_scheduling=limits.async_scheduling,
        scheduler_class="joulescope.simulation.scheduler.Scheduler",
        speculative=f"draft_model:{world.drafter.tokens}" if world.drafter else "",
        prefix_caching=True,
        device="cuda",
        gpus=list(gpus),
        cost=CostFacts(
            source="config",
            weight_bytes=model.weight_bytes,
            kv_bytes_per_token=model.kv_bytes_per_token,
            flops_per_token=model.flops_per_token,
            flops_per_token_context=model.flops_per_token_context,
            flops_per_sample=model.flops_per_sample,
            expert_weight_bytes=model.experts.weight_bytes if model.experts else 0.0,
            expert_choice_ratio=model.experts.choice_ratio if model.experts else 0.0,
        ),
    )
    return Hello(
        time_ns=time_ns,
        pid=pid,
        hook_version=__version__,
        wall_ns=wall_ns,
        capabilities=list(CAPABILITIES),
        engine=facts,
    )
