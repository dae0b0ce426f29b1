"""The simulated bench: joulescope's own simulation, in which the truth is known.

The estimator and the comparison see what they would see of a real server, a trace. The truth is computed
beside it, from the world's own cost of a step: what the step would have cost without a request.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.gpu.characterise import characterise_simulated
from benchmarks.gpu.plan import BACKGROUND_ID, Background, Kind, Plan
from benchmarks.gpu.recording import Recording
from joulescope.hook import wire
from joulescope.simulation.engine import SimulatedEngine
from joulescope.simulation.group import law_of
from joulescope.simulation.parts import World
from joulescope.simulation.physics import Floats, features_of
from joulescope.simulation.traces import START_NS, SimulatedRun
from joulescope.simulation.truth import TrueLedger
from joulescope.simulation.workload import PlannedRequest
from joulescope.units import ns_from_seconds, seconds_from_ns

NOBODY = 1e-9
"""Arrivals a second of the simulation's own clients: none within a lifetime."""

TURNAROUND_SECONDS = 0.002
"""A client's pause between an answer and its next request: loopback HTTP and a thread's waking."""

SAMPLE_HZ = 50.0


class SimulatedBench:
    """One simulated engine.

    Args:
        world: what steps cost.
        seed: decides the phase of the counter.
    """

    def __init__(self, world: World, seed: int = 0) -> None:
        self.world = world
        self.seed = seed

    def characterise(self) -> dict[str, Any]:
        return characterise_simulated(self.world, self.seed)

    def latencies_seconds(self, kinds: Sequence[Kind], background: Background) -> dict[str, float]:
        """Each kind alone under the background, two seconds apart."""
        lead_ns, pause_ns = ns_from_seconds(4.0), ns_from_seconds(2.0)
        injected = [
            planned(
                f"probe-{place}",
                START_NS + lead_ns + place * pause_ns,
                kind.prompt_tokens,
                kind.output_tokens,
            )
            for place, kind in enumerate(kinds)
        ]
        seconds = 8.0 + 2.0 * len(kinds)
        spans: dict[str, list[int]] = defaultdict(list)
        names: dict[int, str] = {}
        for record in serve(self.start(seconds), background, injected, seconds):
            if isinstance(record, wire.RequestStart):
                names[record.request] = record.request_id
            if isinstance(record, (wire.RequestStart, wire.RequestEnd)):
                spans[names[record.request]].append(record.time_ns)
        return {
            kind.name: seconds_from_ns(spans[f"probe-{place}"][1] - spans[f"probe-{place}"][0])
            for place, kind in enumerate(kinds)
        }

    def run(self, plan: Plan) -> Recording:
        injected = [
            planned(request_id, START_NS + ns_from_seconds(at), kind.prompt_tokens, kind.output_tokens)
            for at, request_id, kind in plan.injections()
        ]
        run = self.start(plan.length_seconds, truth=True)
        records = serve(run, plan.background, injected, plan.length_seconds)
        return Recording(plan, START_NS, records, truth=SimulatedTruth(self.world, run.truth))

    def start(self, seconds: float, *, truth: bool = False) -> SimulatedRun:
        """A simulation that no client has asked anything of."""
        return SimulatedRun(
            seconds,
            seed=self.seed,
            rate_per_second=NOBODY,
            world=self.world,
            sample_hz=SAMPLE_HZ,
            truth=truth,
        )


def serve(
    run: SimulatedRun, background: Background, injected: Sequence[PlannedRequest], seconds: float
) -> Iterator[wire.AnyRecord]:
    """The trace of a closed-loop background with requests injected, and of its end."""
    for plan in injected:
        engine_of(run).submit(plan)
    turn = itertools.count()
    for stream in range(background.streams):
        tokens = background.first_output_tokens(stream)
        engine_of(run).submit(
            planned(f"{BACKGROUND_ID}{next(turn)}", START_NS, background.prompt_tokens, tokens)
        )
    last_ns = START_NS + ns_from_seconds(seconds)
    ours: set[int] = set()
    for record in run.records():
        if isinstance(record, wire.RequestStart) and record.request_id.startswith(BACKGROUND_ID):
            ours.add(record.request)
        elif isinstance(record, wire.RequestEnd) and record.request in ours:
            ours.remove(record.request)
            at_ns = record.time_ns + ns_from_seconds(TURNAROUND_SECONDS)
            if at_ns < last_ns:
                name = f"{BACKGROUND_ID}{next(turn)}"
                again = planned(name, at_ns, background.prompt_tokens, background.output_tokens)
                engine_of(run).submit(again)
        yield record


def engine_of(run: SimulatedRun) -> SimulatedEngine:
    """The engine that clients speak to; the bench has one."""
    return run.fleet.engines[0]


def planned(request_id: str, arrival_ns: int, prompt_tokens: int, output_tokens: int) -> PlannedRequest:
    """A request that is answered at its full length and shares nothing with others."""
    return PlannedRequest(
        number=0,
        kind="bench",
        request_id=request_id,
        external_id=request_id,
        arrival_ns=arrival_ns,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens + 1,  # it ends by its limit, as with ``ignore_eos``
        max_tokens=output_tokens,
        prefix="",
        prefix_tokens=0,
        abort_after_tokens=None,
        abort_delay_ns=0,
        trace_parent="",
    )


class SimulatedTruth:
    """What requests truly added: alone by the simulation's own ledger, together by the world's law."""

    def __init__(self, world: World, ledger: TrueLedger) -> None:
        self._ledger = ledger
        self._law = law_of(world)
        self._is_lasting = not (world.change or world.hardware.thermal or world.drafter)
        """Whether one law holds for all steps, and the trace tells all that it needs."""
        self._group: dict[int, float] = defaultdict(float)

    def step(self, step: wire.Step, blocks: Sequence[int | None]) -> None:
        found = {block for block in blocks if block is not None}
        if not found or not self._is_lasting:
            return
        features = self.features(step)
        whole = features.sum(axis=1)
        for block in found:
            others = np.array([other != block for other in blocks])
            # A step of nobody does not take place.
            without = self.joules(features[:, others].sum(axis=1)) if others.any() else 0.0
            self._group[block] += self.joules(whole) - without

    def features(self, step: wire.Step) -> Floats:
        """What the law sees of a step: array [features, requests]."""
        ones = [1] * len(step.request)
        columns = (step.context, step.scheduled or ones, step.sampled or ones)
        return features_of(*(np.array(column, dtype=np.int64) for column in columns))

    def joules(self, sums: Floats) -> float:
        """Energy of a step from the sums of its requests' features."""
        return float(self._law.energy_joules(sums))

    def single_joules(self, request_ids: Iterable[str]) -> float:
        accounts = [self._ledger.get(request_id) for request_id in request_ids]
        return sum(account.marginal_joules for account in accounts if account is not None)

    def group_joules(self, block: int) -> float | None:
        return self._group[block] if self._is_lasting else None
