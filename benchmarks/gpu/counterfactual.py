"""What would a service have drawn if a request had never come? Simulated twice, with it and without.

The marginal figure of a request is what its steps cost more because it was in them, the rest of each step
as it was. A whole service has two more effects. Where the GPU would else have been idle, its idle power is
drawn anyway. And longer steps let more of the other requests join the same step, so that the others need
fewer steps. Both lower what the request added to the total; this measures by how much, with the others'
arrivals kept as they were. It can be done in simulation only: nobody serves the same hour twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.gpu.intervals import Estimate, mean_interval
from benchmarks.gpu.plan import Kind, injected_id
from benchmarks.gpu.simulated import engine_of, planned
from joulescope.hook import wire
from joulescope.simulation.parts import World
from joulescope.simulation.traces import START_NS, SimulatedRun
from joulescope.units import ns_from_seconds, seconds_from_ns

MARGIN_SECONDS = 5.0
"""Nothing is injected so near to the begin and the end of the service."""


@dataclass(frozen=True, slots=True)
class Change:
    """One service with requests injected against the same without. Joules are per injected request."""

    total_joules: float
    """What the GPU drew more, from begin to end, both ends the same."""
    marginal_joules: float
    """True marginal joules of the injected requests, each left out alone of its steps."""
    idle_joules: float
    """Of the difference between the two: idle power in the time that the requests added."""
    idle_ratio: float
    """Part of the time in which the GPU was idle without them."""
    mean_batch: float
    """Requests in a step, without them."""


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """Changes of several seeds, summed up."""

    kind: str
    rate_per_second: float
    idle_ratio: float
    mean_batch: float
    marginal_joules: float
    total: Estimate
    idle_joules: float

    @property
    def fewer_steps_joules(self) -> float:
        """The rest of the difference: what the others' steps cost less because they were fewer."""
        return self.marginal_joules - self.total.value - self.idle_joules


@dataclass(slots=True)
class _Outcome:
    run: SimulatedRun
    busy_ns: int = 0
    steps: int = 0
    request_steps: int = 0
    marginal_joules: float = 0.0

    @property
    def end_ns(self) -> int:
        return self.run.time_ns


def counterfactual(
    world: World, kind: Kind, rate_per_second: float, seeds: Sequence[int], count: int, seconds: float
) -> Counterfactual:
    """Injects ``count`` requests at random into a service of mixed requests, for each seed."""
    changes = [change(world, kind, rate_per_second, seed, count, seconds) for seed in seeds]
    return Counterfactual(
        kind=kind.name,
        rate_per_second=rate_per_second,
        idle_ratio=float(np.mean([each.idle_ratio for each in changes])),
        mean_batch=float(np.mean([each.mean_batch for each in changes])),
        marginal_joules=float(np.mean([each.marginal_joules for each in changes])),
        total=mean_interval([each.total_joules for each in changes]),
        idle_joules=float(np.mean([each.idle_joules for each in changes])),
    )


def change(world: World, kind: Kind, rate_per_second: float, seed: int, count: int, seconds: float) -> Change:
    """One seed: the same service twice."""
    drawn = np.random.default_rng(seed).uniform(MARGIN_SECONDS, seconds - MARGIN_SECONDS, count)
    without = _serve(world, rate_per_second, seed, seconds, kind, ())
    with_them = _serve(world, rate_per_second, seed, seconds, kind, sorted(drawn))
    end_ns = max(without.end_ns, with_them.end_ns)
    drawn_joules = [each.run.gpu.energy_joules_at(each.run.gpu.uuid, end_ns) for each in (without, with_them)]
    added_seconds = seconds_from_ns(with_them.busy_ns - without.busy_ns)
    return Change(
        total_joules=(drawn_joules[1] - drawn_joules[0]) / count,
        marginal_joules=with_them.marginal_joules / count,
        idle_joules=added_seconds * world.hardware.idle_watts / count,
        idle_ratio=1 - without.busy_ns / (without.end_ns - START_NS),
        mean_batch=without.request_steps / max(without.steps, 1),
    )


def _serve(
    world: World,
    rate_per_second: float,
    seed: int,
    seconds: float,
    kind: Kind,
    instants_seconds: Sequence[float],
) -> _Outcome:
    run = SimulatedRun(
        seconds, seed=seed, rate_per_second=rate_per_second, world=world, truth=len(instants_seconds) > 0
    )
    ids = [injected_id(0, number) for number in range(len(instants_seconds))]
    for request_id, at_seconds in zip(ids, instants_seconds, strict=True):
        at_ns = START_NS + ns_from_seconds(at_seconds)
        engine_of(run).submit(planned(request_id, at_ns, kind.prompt_tokens, kind.output_tokens))
    outcome = _Outcome(run)
    last_ns = START_NS
    for record in run.records():
        if isinstance(record, wire.Step):
            outcome.busy_ns += record.output_start_ns - max(last_ns, record.schedule_end_ns)
            last_ns = record.output_start_ns
            outcome.steps += 1
            outcome.request_steps += len(record.request)
    accounts = [run.truth.get(request_id) for request_id in ids]
    outcome.marginal_joules = sum(account.marginal_joules for account in accounts if account is not None)
    return outcome
