"""Changes that an engine is restarted for: other limits, another layout, another precision.

They turn one world into another; a run in the one and a run in the other are the two sides of a comparison.
What may change while an engine runs is in :mod:`joulescope.simulation.changes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from joulescope.simulation.parts import GPU_MEMORY_UTILIZATION, World
from joulescope.simulation.worlds import H100, H100_FP8


def restarted(world: World, kind: str, size: float) -> World:
    """The world after a restart with something otherwise.

    Args:
        kind: of :data:`RESTARTS`.
        size: what it says there.

    Raises:
        ValueError: the kind is unknown.
    """
    change = RESTARTS.get(kind)
    if change is None:
        raise ValueError(f"{kind!r} is no change at a restart; there are {', '.join(RESTARTS)}")
    return change[1](world, size)


def _kv(world: World, size: float) -> World:
    limits = world.limits
    return replace(world, limits=replace(limits, kv_cache_tokens=int(limits.kv_cache_tokens * size)))


def _batch(world: World, size: float) -> World:
    return replace(world, limits=replace(world.limits, max_num_seqs=max(int(size), 1)))


def _layout(world: World, size: float) -> World:
    tensor = int(size)
    wider = replace(world, parallel=replace(world.parallel, tensor=tensor))
    freed = (tensor - world.parallel.tensor) * GPU_MEMORY_UTILIZATION * world.hardware.memory_bytes
    return _with_room(wider, freed)


def _precision(world: World, size: float) -> World:
    """Weights of so many bytes for each that there was, computed in 8 bits."""
    model, hardware = world.model, world.hardware
    lighter = replace(
        model,
        name=f"{model.name}-FP8",
        weight_bytes=model.weight_bytes * size,
        stored_bytes=int(model.stored_bytes * size),
    )
    faster = replace(
        hardware,
        flops_per_second=hardware.flops_per_second * H100_FP8.flops_per_second / H100.flops_per_second,
        joules_per_flop=hardware.joules_per_flop * H100_FP8.joules_per_flop / H100.joules_per_flop,
    )
    freed = model.stored_bytes - lighter.stored_bytes
    return _with_room(replace(world, model=lighter, hardware=faster), freed)


def _with_room(world: World, freed_bytes: float) -> World:
    """Memory that becomes free is given to the KV cache."""
    more = int(freed_bytes / world.model.kv_bytes_per_token)
    limits = replace(world.limits, kv_cache_tokens=max(world.limits.kv_cache_tokens + more, 1))
    return replace(world, limits=limits)


RESTARTS: dict[str, tuple[str, Callable[[World, float], World]]] = {
    "kv": ("the KV cache has such a part of its place", _kv),
    "batch": ("so many requests may run at a time", _batch),
    "layout": ("tensor parallel over so many GPUs, whose memory is the KV cache's", _layout),
    "precision": ("weights take such a part of their bytes, and are computed in 8 bits", _precision),
}
"""Kinds by name: what the size says, and what is done."""
