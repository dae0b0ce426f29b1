"""Steps and runs in the worlds, for tests that ask what makes a world different."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import numpy as np

from joulescope.hook.wire import AnyRecord, Step
from joulescope.simulation.group import law_of
from joulescope.simulation.physics import Floats, features_of
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.worlds import WORLDS

_R = TypeVar("_R")

PREFILL, DECODE = (0, 900), (500, 1)


def features(*requests: tuple[int, int]) -> Floats:
    """A step of requests given as (context, scheduled), all of which sample."""
    context, scheduled = np.array(requests, dtype=np.int64).T
    return features_of(context, scheduled, np.ones(len(requests), dtype=np.int64))


def seconds_and_joules(name: str, *requests: tuple[int, int]) -> tuple[float, float]:
    """Of one step, all GPUs together, the seconds those of the slowest."""
    cost = law_of(WORLDS[name]).cost(features(*requests).sum(axis=1))
    return float(cost.seconds.max()), float(cost.joules.sum())


@cache
def run_of(name: str, seconds: float = 4.0, rate: float = 8.0) -> tuple[SimulatedRun, list[AnyRecord]]:
    """A run of a world, told to its end, and its records; made once for all tests that ask."""
    run = SimulatedRun(seconds, seed=6, rate_per_second=rate, world=WORLDS[name], keep_steps=True)
    return run, list(run.records())


def of(kind: type[_R], records: list[AnyRecord]) -> list[_R]:
    return [record for record in records if isinstance(record, kind)]


def columns(step: Step) -> list[tuple[int, int, int, int]]:
    """(request, context, scheduled, sampled), with the wire's shorthands undone."""
    ones = [1] * len(step.request)
    return list(zip(step.request, step.context, step.scheduled or ones, step.sampled or ones, strict=True))
