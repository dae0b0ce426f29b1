"""One engine played by several copies: they agree, and each shows its own by its own clock."""

from __future__ import annotations

import pytest

from joulescope.clock import ManualClock
from joulescope.hook.wire import Step
from joulescope.simulation.nodes import FarClock, NodeGpus, NodesEngine, NodesPlan
from joulescope.simulation.worlds import WORLDS
from tests.worlds import SECOND

START_NS = 100 * SECOND


class Kept:
    """Keeps what the engine tells."""

    def __init__(self) -> None:
        self.items: list[object] = []

    def put(self, item: object) -> None:
        self.items.append(item)


def plan(world: str = "tensor-parallel-2") -> NodesPlan:
    return NodesPlan(WORLDS[world], START_NS, START_NS + SECOND, 3.0, 4.0, seed=3)


def played(turns: int, step_seconds: float) -> tuple[NodesEngine, Kept]:
    """A copy that is asked in portions of this length."""
    clock, kept = ManualClock(START_NS), Kept()
    engine = NodesEngine(plan(), kept, clock, truth=True)
    for _ in range(turns):
        engine.turn()
        clock.advance(step_seconds)
    engine.turn()
    return engine, kept


def test_all_copies_play_the_same() -> None:
    """Whatever the portions, GPUs drew the same by any instant, and each request caused the same."""
    (head, told), (far, _) = played(1000, 0.005), played(50, 0.1)
    for gpu in head.fleet.gpus_by_rank:
        for at_ns in range(START_NS, START_NS + 5 * SECOND, SECOND // 7):
            assert head.fleet.energy_joules_at(gpu.uuid, at_ns) == far.fleet.energy_joules_at(gpu.uuid, at_ns)
    assert head.truth.true_joules() == far.truth.true_joules()
    assert any(isinstance(item, Step) for item in told.items)


def test_a_node_shows_its_own_gpus_by_its_own_clock() -> None:
    """An instant of the node is turned into the head's before the GPU is asked."""
    engine, _ = played(50, 0.1)
    ahead_ns = 1000 * SECOND
    gpus = NodeGpus(engine.fleet, [1], lambda time_ns: time_ns - ahead_ns)
    (info,) = gpus.gpus()
    assert info.gpu == engine.fleet.gpus_by_rank[1].uuid
    at_ns = START_NS + 2 * SECOND
    assert gpus.energy_joules_at(info.gpu, at_ns + ahead_ns) == engine.fleet.energy_joules_at(info.gpu, at_ns)
    assert gpus.power_watts_at(info.gpu, at_ns + ahead_ns) == engine.fleet.power_watts_at(info.gpu, at_ns)


def test_a_drifting_clock_can_be_turned_back() -> None:
    """After an hour at 50 ppm it is 0.18 s ahead; what it shows stands for one instant of the own clock."""
    own = ManualClock(START_NS)
    far = FarClock(own, START_NS, 5e-5)
    assert far.now_ns() == START_NS
    far.sleep(3600.0)
    assert far.now_ns() - own.now_ns() == pytest.approx(0.18 * SECOND, abs=2)
    assert far.own_ns(far.now_ns()) == pytest.approx(own.now_ns(), abs=2)


def test_an_engine_over_nodes_is_one() -> None:
    """Worlds of several engines are another thing."""
    with pytest.raises(ValueError, match="one engine"):
        NodesEngine(plan("two-engines"), Kept(), ManualClock(START_NS))
