"""What steps cost on several GPUs that share one model.

GPUs of a tensor-parallel group do the same work on their part of each layer and add up their results twice in
a layer: who is done first waits, spinning, for the slowest. Pipeline stages work one after the other, each
on its part of the layers; when they work is the engine's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from joulescope.simulation.parts import Hardware, Model, Parallel, World
from joulescope.simulation.physics import Cost, Floats, GpuLaw, Law, Share

_BYTES_PER_ACTIVATION = 2.0


def law_of(world: World, hardware: Hardware | None = None) -> Law:
    """What steps of one engine cost; on other hardware than the world's if it is given."""
    gpu, parallel = hardware or world.hardware, world.parallel
    if parallel.ranks == 1:
        return GpuLaw(gpu, world.model, world.runtime, world.drafter)
    parts = tuple(
        GpuLaw(
            _individual(gpu, parallel, rank),
            world.model,
            world.runtime,
            world.drafter,
            _share(parallel, rank),
        )
        for rank in range(parallel.ranks)
    )
    return GroupLaw(parts, world.model, parallel)


def _individual(gpu: Hardware, parallel: Parallel, rank: int) -> Hardware:
    """One of several GPUs of a kind: no two are quite alike."""
    slowness = parallel.slowness[rank] if parallel.slowness else 1.0
    hunger = parallel.hunger[rank] if parallel.hunger else 1.0
    return replace(
        gpu,
        bytes_per_second=gpu.bytes_per_second / slowness,
        flops_per_second=gpu.flops_per_second / slowness,
        joules_per_byte=gpu.joules_per_byte * hunger,
        joules_per_flop=gpu.joules_per_flop * hunger,
        active_watts=gpu.active_watts * hunger,
    )


def _share(parallel: Parallel, rank: int) -> Share:
    last = rank // parallel.tensor == parallel.pipeline - 1
    return Share(
        layers=1.0 / parallel.ranks,
        heads=1.0 / parallel.tensor if last else 0.0,
        sequences=1.0 / parallel.ranks,
        stages=1.0 / parallel.pipeline,
    )


@dataclass(frozen=True, slots=True)
class GroupLaw(Law):
    """Costs per GPU, in rank order; GPUs of one stage begin and end together."""

    parts: tuple[GpuLaw, ...]
    model: Model
    parallel: Parallel

    def cost(self, sums: Floats) -> Cost:
        tensor = self.parallel.tensor
        own = [part.cost(sums) for part in self.parts]
        shape = (self.parallel.pipeline, tensor, *sums.shape[1:])
        seconds = np.concatenate([each.seconds for each in own]).reshape(shape)
        joules = np.concatenate([each.joules for each in own]).reshape(shape)
        talk_seconds, talk_bytes = self._talk(sums)
        whole = seconds.max(axis=1, keepdims=True) + talk_seconds
        joules = joules + self.parallel.spin_watts * (whole - seconds)
        joules = joules + talk_bytes * self.parallel.reduce_joules_per_byte
        ranks = (self.parallel.ranks, *sums.shape[1:])
        return Cost(seconds=np.broadcast_to(whole, shape).reshape(ranks), joules=joules.reshape(ranks))

    def warmed(self, leak_watts: Sequence[float]) -> GroupLaw:
        warm = (part.warmed([leak]) for part, leak in zip(self.parts, leak_watts, strict=True))
        return replace(self, parts=tuple(warm))

    def _talk(self, sums: Floats) -> tuple[Floats, Floats]:
        """Seconds and bytes that each GPU spends on talking to the others."""
        parallel, tokens = self.parallel, sums[1]
        activations = tokens * (self.model.hidden * _BYTES_PER_ACTIVATION)
        layers = self.model.layers / parallel.pipeline
        rounds = 2.0 * layers if parallel.tensor > 1 else 0.0
        # A ring moves each activation 2·(n−1)/n times over every link; the next stage gets it once.
        moved = activations * (rounds * 2.0 * (parallel.tensor - 1) / parallel.tensor)
        if parallel.pipeline > 1:
            rounds, moved = rounds + 1.0, moved + activations
        return rounds * parallel.reduce_seconds + moved / parallel.reduce_bytes_per_second, moved
