"""How near joules come where nothing is said of the cost, by simulated engines whose true cost is known."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from joulescope.hook import wire
from joulescope.model import FinishedRequest, GpuInfo, GpuReading
from joulescope.pipeline import Pipeline, Scope
from joulescope.sdk.facts import FLOPS_PER_WORK
from tests.worlds import GPU, MS, SECOND, end, hello, start, step

WATTS = 500.0
BY_WORK = wire.CostFacts(source="work", flops_per_token=FLOPS_PER_WORK)
NOTHING_KNOWN = wire.CostFacts()


@dataclass(frozen=True)
class Law:
    """What a step takes: a fixed part, which its requests owe alike, and so much for each unit of work."""

    fixed_seconds: float
    unit_seconds: float
    scale: int
    """Units of work as the engine counts them, for each that costs ``unit_seconds``."""


@dataclass
class _Open:
    work: int
    steps_left: int
    context: int = 0


class World:
    """Four requests at a time, of 1 to 9 units a step and 5 to 19 steps, on a GPU of constant power."""

    def __init__(self, law: Law, cost: wire.CostFacts) -> None:
        self.law, self.chance = law, random.Random(1)
        self.true_joules: dict[int, float] = {}
        self.open: dict[int, _Open] = {}
        self.pipeline = Pipeline(scope=Scope(all_gpus=True))
        self.pipeline.gpus_found([GpuInfo(GPU, name="NVIDIA H100 80GB HBM3", power_limit_watts=700.0)])
        self.pipeline.take(0, [hello(cost=cost)])

    def mean_error(self, seconds: float) -> float:
        """Mean relative error of the requests that finished in so long a time."""
        now_ns, number, read_ns = 0, 0, 0
        while now_ns < seconds * SECOND:
            self._admit(now_ns)
            number += 1
            begun_ns, now_ns = now_ns, now_ns + round(self._step_seconds() * SECOND)
            self._tell(number, begun_ns, now_ns)
            while read_ns <= now_ns:
                self.pipeline.read([GpuReading(GPU, read_ns, energy_joules=WATTS * read_ns / SECOND)])
                self.pipeline.settle(read_ns)
                read_ns += 100 * MS
        self.pipeline.finish(now_ns)
        accounts = [each for each in self.pipeline.drain_finished() if each.complete]
        assert len(accounts) > 5
        return sum(map(self._error, accounts)) / len(accounts)

    def _error(self, account: FinishedRequest) -> float:
        true_joules = self.true_joules[int(account.request_id[1:])]
        assert account.attributed_joules is not None
        return abs(account.attributed_joules - true_joules) / true_joules

    def _admit(self, now_ns: int) -> None:
        while len(self.open) < 4:
            handle = len(self.true_joules) + 1
            self.true_joules[handle] = 0.0
            self.open[handle] = _Open(self.chance.choice([1, 2, 4, 9]), self.chance.randint(5, 19))
            self.pipeline.take(0, [start(handle, now_ns, prompt=0)])

    def _step_seconds(self) -> float:
        return self.law.fixed_seconds + self.law.unit_seconds * sum(each.work for each in self.open.values())

    def _tell(self, number: int, begun_ns: int, ended_ns: int) -> None:
        running = dict(self.open)
        told = step(
            number,
            begun_ns,
            ended_ns,
            list(running),
            context=[each.context for each in running.values()],
            scheduled=[each.work * self.law.scale for each in running.values()],
            sampled=[0] * len(running),
        )
        self.pipeline.take(0, [told])
        for handle, each in running.items():
            own_seconds = self.law.unit_seconds * each.work + self.law.fixed_seconds / len(running)
            self.true_joules[handle] += WATTS * own_seconds
            each.context += each.work * self.law.scale
            each.steps_left -= 1
            if not each.steps_left:
                self.pipeline.take(0, [end(handle, ended_ns, number, reason="stop")])
                del self.open[handle]


@pytest.mark.parametrize(
    ("law", "most"),
    [
        (Law(fixed_seconds=0.005, unit_seconds=0.010, scale=1), 0.03),
        (Law(fixed_seconds=0.005, unit_seconds=0.010, scale=4096), 0.05),
        (Law(fixed_seconds=0.002, unit_seconds=0.002, scale=1), 0.08),
        (Law(fixed_seconds=0.020, unit_seconds=0.100, scale=1), 0.03),
        (Law(fixed_seconds=0.030, unit_seconds=0.010, scale=16384), 0.15),
    ],
)
def test_without_a_cost_joules_follow_the_work(law: Law, most: float) -> None:
    """Milliseconds or a tenth of a second a unit, counted in ones or in thousands: the error is what the docs
    say, and a fraction of that of equal parts."""
    by_work, equal = World(law, BY_WORK).mean_error(40.0), World(law, NOTHING_KNOWN).mean_error(40.0)
    assert by_work < most
    assert by_work < 0.25 * equal
