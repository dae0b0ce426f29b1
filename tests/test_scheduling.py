"""Tests are shared out by file, and those of ``tests/real`` run one after the other when the rest is done."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from xdist.workermanage import parse_tx_spec_config

from tests.scheduling import RealOnesLast, is_alone

QUICK = [f"tests/room{room}/test_it.py::test_{number}" for room in range(7) for number in range(1 + 3 * room)]
REAL = [f"tests/real/test_{part}.py::test_{number}" for part in "ab" for number in range(4)]


class Worker:
    """xdist's controller of a worker, and the worker: it runs a test once it knows what follows."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.queue: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, indices: list[int]) -> None:
        assert not self.shutting_down
        self.queue += indices

    def shutdown(self) -> None:
        self.shutting_down = True

    @property
    def can_run(self) -> bool:
        return len(self.queue) > 1 or (self.shutting_down and bool(self.queue))


def scheduled(tests: list[str], workers: int, seed: int, crash_after: int | None = None) -> list[set[str]]:
    """What was under way at each moment, until nothing is left; workers end their tests in any order."""
    chance = random.Random(seed)
    option = SimpleNamespace(tx=["popen"] * workers, loadscopereorder=True, px=[], rsyncdir=[])
    config: Any = SimpleNamespace(option=option, getvalue=lambda name: getattr(option, name))
    assert len(parse_tx_spec_config(config)) == workers
    scheduler = RealOnesLast(config)
    nodes = [Worker(f"gw{number}") for number in range(workers)]
    for node in nodes:
        scheduler.add_node(node)
        scheduler.add_node_collection(node, tests)
    scheduler.schedule()
    moments = []
    while any(node.queue for node in nodes):
        running = [node for node in nodes if node.can_run]
        assert running, "everybody waits"
        moments.append({tests[node.queue[0]] for node in running})
        done = chance.choice(running)
        scheduler.mark_test_complete(done, done.queue.pop(0))
        for node in [node for node in scheduler.nodes if node.shutting_down and not node.queue]:
            scheduler.remove_node(node)
        if len(moments) == crash_after:
            _replace(scheduler, nodes, chance.choice(scheduler.nodes), tests)
    assert not scheduler.has_pending
    return moments


def _replace(scheduler: RealOnesLast, nodes: list[Any], crashed: Any, tests: list[str]) -> None:
    """As xdist does it: another worker collects, and takes part."""
    nodes.remove(crashed)
    crashed.shutting_down = True
    nodes.append(Worker("another"))
    scheduler.remove_node(crashed)
    scheduler.add_node(nodes[-1])
    scheduler.add_node_collection(nodes[-1], tests)
    scheduler.schedule()


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("tests", [QUICK + REAL, QUICK, REAL, QUICK[:1] + REAL, REAL[:1]])
@pytest.mark.parametrize("seed", range(5))
def test_every_test_runs_and_real_ones_alone(tests: list[str], workers: int, seed: int) -> None:
    """Whatever ends first, and however few tests of either kind were asked for."""
    moments = scheduled(tests, workers, seed)
    assert len(moments) == len(tests)
    assert set().union(*moments) == set(tests)
    real = [moment for moment in moments if any(map(is_alone, moment))]
    assert all(len(moment) == 1 for moment in real)
    assert moments[len(moments) - len(real) :] == real


def test_files_are_shared_out() -> None:
    """Two workers do have something to do at once, and no file is torn."""
    moments = scheduled(QUICK, 2, seed=1)
    assert sum(len(moment) == 2 for moment in moments) > len(moments) / 2
    assert all(len({test.partition("::")[0] for test in moment}) == len(moment) for moment in moments)


@pytest.mark.parametrize("seed", range(20))
def test_a_worker_that_crashes_is_replaced(seed: int) -> None:
    """Its tests are run by others, and real ones alone all the same."""
    moments = scheduled(QUICK + REAL, 2, seed, crash_after=3 + 3 * seed)
    assert set().union(*moments) == set(QUICK + REAL)
    assert all(len(moment) == 1 for moment in moments if any(map(is_alone, moment)))
