"""Services whose cost is known: the laws that simulated worlds have, in the model's own form."""

from __future__ import annotations

from joulescope.insight.steady import Service
from joulescope.minute_model import Laws, Limits
from joulescope.model import CostFacts
from joulescope.simulation.parts import World
from joulescope.simulation.scheduler import EngineLimits


def facts_of(world: World) -> CostFacts:
    model = world.model
    return CostFacts(
        source="config",
        weight_bytes=model.weight_bytes,
        kv_bytes_per_token=model.kv_bytes_per_token,
        flops_per_token=model.flops_per_token,
        flops_per_token_context=model.flops_per_token_context,
        flops_per_sample=model.flops_per_sample,
        expert_weight_bytes=model.experts.weight_bytes if model.experts else 0.0,
        expert_choice_ratio=model.experts.choice_ratio if model.experts else 0.0,
    )


def laws_of(world: World, limits: EngineLimits) -> Laws:
    """What a perfect fit would know of a world that has the model's form."""
    gpu, runtime, stages = world.hardware, world.runtime, world.parallel.pipeline
    per_byte, cost = 1.0 / gpu.bytes_per_second, facts_of(world)
    time = [runtime.step_seconds / stages, runtime.sequence_seconds / stages, per_byte, per_byte]
    time.append(1.0 / gpu.flops_per_second)
    if cost.expert_weight_bytes:
        time += [per_byte, 0.0]
    joules = (gpu.joules_per_byte, gpu.joules_per_byte, gpu.joules_per_flop)
    host = runtime.schedule_seconds + runtime.prepare_seconds + runtime.update_seconds
    wait = (host + runtime.readback_seconds, 3.0 * runtime.host_seconds_per_sequence)
    return Laws(
        cost=cost,
        time_coefficients=tuple(time),
        energy_coefficients=(*joules, runtime.sequence_joules / world.parallel.ranks, gpu.active_watts),
        limit_watts=gpu.power_limit_watts,
        idle_watts=gpu.idle_watts,
        wait_seconds=(0.0, 0.0) if limits.async_scheduling else wait,
    )


def service_of(world: World, limits: EngineLimits | None = None) -> Service:
    """The engine of a world as a perfect fit would know it."""
    limits = limits or world.limits
    return Service(
        laws=laws_of(world, limits),
        limits=Limits(
            max_num_seqs=limits.max_num_seqs,
            max_num_batched_tokens=limits.max_num_batched_tokens,
            max_model_len=world.model.max_model_len,
            kv_cache_tokens=limits.kv_cache_tokens,
        ),
        gpu_count=world.parallel.ranks,
        pipeline_parallel=world.parallel.pipeline,
        async_scheduling=limits.async_scheduling,
    )
