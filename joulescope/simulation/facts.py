"""What a simulated engine says of itself: the same hello that the hook sends."""

from __future__ import annotations

from joulescope import __version__
from joulescope.hook.wire import CostFacts, EngineFacts, Hello
from joulescope.simulation.scheduler import EngineLimits
from joulescope.simulation.worlds import World

CAPABILITIES = ("steps", "ends", "cached_split", "preempted", "preemptions", "gauges", "trace_headers")
"""What the simulated engine reports, by the names that the hook uses; there is no speculative
decoding, LoRA or multimodal input."""


def hello(
    world: World,
    limits: EngineLimits,
    gpu: str,
    *,
    time_ns: int,
    wall_ns: int = 0,
    pid: int = 0,
    instance_id: str = "simulated",
) -> Hello:
    """The first record of a simulated engine's session, at ``time_ns`` on the monotonic clock."""
    model = world.model
    facts = EngineFacts(
        instance_id=instance_id,
        model=model.name,
        served_model=model.name,
        dtype=model.dtype,
        vllm_version="simulated",
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        max_model_len=model.max_model_len,
        kv_cache_tokens=limits.kv_cache_tokens,
        block_size=limits.block_size,
        executor="simulated",
        async_scheduling=limits.async_scheduling,
        scheduler_class="joulescope.simulation.scheduler.Scheduler",
        prefix_caching=True,
        device="cuda",
        gpus=[gpu],
        cost=CostFacts(
            source="config",
            weight_bytes=model.weight_bytes,
            kv_bytes_per_token=model.kv_bytes_per_token,
            flops_per_token=model.flops_per_token,
            flops_per_token_context=model.flops_per_token_context,
            flops_per_sample=model.flops_per_sample,
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
