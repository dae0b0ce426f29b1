"""The GPUs and engines of one world, wired together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import tee

import numpy as np

from joulescope.hook.wire import AnyRecord, Hello
from joulescope.model import GpuInfo
from joulescope.simulation.book import GpuBook
from joulescope.simulation.engine import SimulatedEngine, advance_together
from joulescope.simulation.facts import hello
from joulescope.simulation.gpu import SimulatedGpu
from joulescope.simulation.parts import GPU_MEMORY_UTILIZATION, Hardware, World
from joulescope.simulation.scheduler import EngineLimits
from joulescope.simulation.truth import TrueLedger
from joulescope.simulation.workload import PlannedRequest


class Fleet:
    """All GPUs of a world, seen as one source by a sensor, and all engines on them.

    Args:
        world: what there is; its ``parallel`` says how many of each.
        requests: what clients will do; each goes to one engine.
        start_ns: the instant at which everything begins.
        limits: arguments of each engine.
        ledger: learns who truly caused the joules.
        seed: decides UUIDs, and which engine a request goes to.
        change_ns: when the world's change of settings comes, if it has one.
    """

    def __init__(
        self,
        world: World,
        requests: Iterable[PlannedRequest],
        *,
        start_ns: int,
        limits: EngineLimits,
        ledger: TrueLedger | None,
        seed: int = 0,
        change_ns: int | None = None,
    ) -> None:
        parallel = world.parallel
        self.world, self.limits = world, limits
        self._change_ns = change_ns
        self.gpus_by_rank = tuple(
            SimulatedGpu(
                world.hardware,
                start_ns,
                memory_used_bytes=int(GPU_MEMORY_UTILIZATION * world.hardware.memory_bytes),
                seed=seed,
                index=index,
            )
            for index in range(parallel.ranks * parallel.engines)
        )
        self._by_uuid = {gpu.uuid: gpu for gpu in self.gpus_by_rank}
        self.books = tuple(GpuBook(gpu, start_ns) for gpu in self.gpus_by_rank)
        count = parallel.engines * parallel.tenants
        streams = _split(requests, count, parallel.skew, seed)
        self.engines = tuple(
            SimulatedEngine(
                world,
                self._books_of(index),
                stream,
                start_ns=start_ns,
                limits=limits,
                ledger=ledger,
                change_ns=change_ns,
                session=index + 1,
            )
            for index, stream in enumerate(streams)
        )
        if parallel.dummy_steps:
            for engine in self.engines:
                engine.peers = tuple(other for other in self.engines if other is not engine)

    @property
    def idle(self) -> bool:
        """Whether no engine has anything to do any more."""
        return all(engine.idle for engine in self.engines)

    def hellos(self, time_ns: int) -> list[Hello]:
        """What each engine says of itself. Session numbers count from 1."""
        parallel = self.world.parallel
        greetings = []
        for index in range(len(self.engines)):
            greeting = hello(
                self.world,
                self.limits,
                [book.gpu.uuid for book in self._books_of(index)],
                time_ns=time_ns,
                instance_id="simulated" if parallel.tenants == 1 else f"simulated-{index}",
                data_parallel_index=index if parallel.engines > 1 else 0,
            )
            greeting.session = index + 1
            greetings.append(greeting)
        return greetings

    def become(self, world: World) -> None:
        """From the next steps on all engines live in another world; see :meth:`SimulatedEngine.become`."""
        for engine in self.engines:
            engine.become(world)

    def advance(self, until_ns: int) -> Iterator[AnyRecord]:
        """What all engines tell until then, each with its session's number."""
        advance_together(self.engines, until_ns)
        for session, engine in enumerate(self.engines, start=1):
            for record in engine.told(until_ns):
                record.session = session
                yield record

    def _books_of(self, index: int) -> tuple[GpuBook, ...]:
        """The GPUs of one engine: its own, or those that all tenants share."""
        ranks = self.world.parallel.ranks
        first = 0 if self.world.parallel.tenants > 1 else index * ranks
        return self.books[first : first + ranks]

    # ------------------------------------------------------- joulescope.sensors.simulated.SimulatedSource

    def gpus(self) -> Sequence[GpuInfo]:
        return tuple(gpu.info() for gpu in self.gpus_by_rank)

    def energy_joules_at(self, gpu: str, time_ns: int) -> float:
        return self._by_uuid[gpu].energy_joules_at(gpu, time_ns)

    def power_watts_at(self, gpu: str, time_ns: int) -> float:
        return self._by_uuid[gpu].power_watts_at(gpu, time_ns)

    def memory_used_bytes_at(self, gpu: str, time_ns: int) -> int | None:
        return self._by_uuid[gpu].memory_used_bytes_at(gpu, time_ns)

    def sm_utilization_ratio_at(self, gpu: str, time_ns: int) -> float | None:
        return self._by_uuid[gpu].sm_utilization_ratio_at(gpu, time_ns)

    def power_limit_watts_at(self, gpu: str, time_ns: int) -> float | None:
        return self._hardware_at(gpu, time_ns).power_limit_watts

    def clocks_hertz_at(self, gpu: str, time_ns: int) -> tuple[float, float] | None:
        return self._hardware_at(gpu, time_ns).clocks_hertz

    def _hardware_at(self, gpu: str, time_ns: int) -> Hardware:
        change = self.world.change
        changed = change is not None and self._change_ns is not None and time_ns >= self._change_ns
        return change.hardware if change is not None and changed else self._by_uuid[gpu].hardware


def _split(
    requests: Iterable[PlannedRequest], count: int, skew: Sequence[float], seed: int
) -> list[Iterator[PlannedRequest]]:
    """One stream of requests as several, each request in one of them, by weights."""
    if count == 1:
        return [iter(requests)]
    shares = np.cumsum(skew or [1.0] * count) / sum(skew or [1.0] * count)
    rng = np.random.default_rng(seed)
    routed = ((int(np.searchsorted(shares, rng.random())), plan) for plan in requests)
    return [_of(copy, index) for index, copy in enumerate(tee(routed, count))]


def _of(routed: Iterable[tuple[int, PlannedRequest]], index: int) -> Iterator[PlannedRequest]:
    return (plan for chosen, plan in routed if chosen == index)
