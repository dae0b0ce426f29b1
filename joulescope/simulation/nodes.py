"""One engine over several nodes in real time: a process a node, each with a clock of its own.

What an engine and its GPUs do follows from the seed and the instants alone. So each node's process runs the
whole simulation and shows what stands in its node: the head the engine, every node its own GPUs, seen by its
own clock. Nothing passes between them that does not pass between real nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from joulescope.clock import Clock
from joulescope.model import GpuInfo
from joulescope.simulation.changes import requests
from joulescope.simulation.fleet import Fleet
from joulescope.simulation.live import LiveEngine, RecordQueue
from joulescope.simulation.parts import World
from joulescope.simulation.truth import TrueLedger
from joulescope.units import ns_from_seconds


@dataclass(frozen=True, slots=True)
class NodesPlan:
    """What all nodes know of the run; instants by the head's clock."""

    world: World
    start_ns: int
    """The GPUs are idle from here on."""
    arrive_ns: int
    """Clients come from here on."""
    seconds: float
    """So long they come."""
    rate_per_second: float
    seed: int = 0

    def requests_end_ns(self) -> int:
        return self.arrive_ns + ns_from_seconds(self.seconds)


class FarClock:
    """Another node's clock, made of this process's own: faster by a drift since an instant.

    It is for who plays the node; who measures must find it out. An offset is better had from the kernel
    (``unshare --time``), since then it is every process's on the node.
    """

    def __init__(self, own: Clock, begin_ns: int, drift_ratio: float = 0.0) -> None:
        self._own, self._begin_ns, self._drift_ratio = own, begin_ns, drift_ratio

    def now_ns(self) -> int:
        own_ns = self._own.now_ns()
        return own_ns + round((own_ns - self._begin_ns) * self._drift_ratio)

    def own_ns(self, time_ns: int) -> int:
        """What the process's own clock shows when this one shows ``time_ns``."""
        return self._begin_ns + round((time_ns - self._begin_ns) / (1.0 + self._drift_ratio))

    def sleep(self, duration_seconds: float) -> None:
        self._own.sleep(duration_seconds)


class NodesEngine:
    """The engine of a plan and all its GPUs, as one process plays them.

    Args:
        plan: of the run.
        queue: where the engine's records go, when their time has come; on a node without the engine nowhere.
        head_clock: tells the head's time.
        truth: whether :attr:`truth` learns who caused the joules.
    """

    def __init__(
        self, plan: NodesPlan, queue: RecordQueue, head_clock: Clock, *, truth: bool = False
    ) -> None:
        world, end_ns = plan.world, plan.requests_end_ns()
        if world.parallel.engines * world.parallel.tenants != 1:
            raise ValueError("an engine over nodes is one engine")
        asked = requests(
            plan.rate_per_second,
            plan.arrive_ns,
            classes=world.classes,
            seed=plan.seed,
            max_prompt_tokens=world.max_prompt_tokens,
        )
        self.truth = TrueLedger()
        self.fleet = Fleet(
            world,
            takewhile(lambda plan: plan.arrival_ns < end_ns, asked),
            start_ns=plan.start_ns,
            limits=world.limits,
            ledger=self.truth if truth else None,
            seed=plan.seed,
        )
        self._live = LiveEngine(self.fleet.engines[0], queue, head_clock)

    @property
    def idle(self) -> bool:
        """Whether all requests are done, or will be within the little that the engine is ahead."""
        return self.fleet.idle

    def turn(self) -> None:
        """Lives on as far as the clock is, and hands over what is due; for who has no thread."""
        self._live.turn()

    def start(self) -> None:
        """Lives from now on, in a thread that ends with the process."""
        self._live.turn()
        self._live.start()


class NodeGpus:
    """The GPUs of some ranks as this node's clock shows them: a source for a simulated sensor.

    ``head_ns`` turns an instant of this node into the head's.
    """

    def __init__(self, fleet: Fleet, ranks: Sequence[int], head_ns: Callable[[int], int]) -> None:
        self._fleet, self._head_ns = fleet, head_ns
        self._gpus = tuple(fleet.gpus_by_rank[rank] for rank in ranks)

    def gpus(self) -> Sequence[GpuInfo]:
        return tuple(gpu.info() for gpu in self._gpus)

    def energy_joules_at(self, gpu: str, time_ns: int) -> float:
        return self._fleet.energy_joules_at(gpu, self._head_ns(time_ns))

    def power_watts_at(self, gpu: str, time_ns: int) -> float:
        return self._fleet.power_watts_at(gpu, self._head_ns(time_ns))

    def memory_used_bytes_at(self, gpu: str, time_ns: int) -> int | None:
        return self._fleet.memory_used_bytes_at(gpu, self._head_ns(time_ns))

    def sm_utilization_ratio_at(self, gpu: str, time_ns: int) -> float | None:
        return self._fleet.sm_utilization_ratio_at(gpu, self._head_ns(time_ns))

    def power_limit_watts_at(self, gpu: str, time_ns: int) -> float | None:
        return self._fleet.power_limit_watts_at(gpu, self._head_ns(time_ns))

    def clocks_hertz_at(self, gpu: str, time_ns: int) -> tuple[float, float] | None:
        return self._fleet.clocks_hertz_at(gpu, self._head_ns(time_ns))
