"""The simulated bench: joulescope's own simulation, in which the truth is known.

The estimator and the comparison see what they would see of a real server, a trace. The truth is computed
beside it, from the world's own cost of a step: what the step would have cost without a request.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.gpu.characterise import characterise_simulated
from benchmarks.gpu.plan import BACKGROUND_ID, Background, Kind, Plan
from benchmarks.gpu.recording import Recording
from joulescope.hook import wire
from joulescope.simulation.physics import StepPhysics
from joulescope.simulation.traces import START_NS, SimulatedRun
from joulescope.simulation.workload import PlannedRequest
from joulescope.simulation.worlds import World
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
        spans: dict[str, list[int]] = defaultdict(list)
        names: dict[int, str] = {}
        for record in self._records(background, injected, 4.0 + 2.0 * len(kinds) + 4.0):
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
        records = self._records(plan.background, injected, plan.length_seconds)
        return Recording(plan, START_NS, records, truth=TrueSavings(self.world))

    def _records(
        self, background: Background, injected: Sequence[PlannedRequest], seconds: float
    ) -> Iterator[wire.AnyRecord]:
        """The trace of a closed-loop background with requests injected, and of its end."""
        run = SimulatedRun(
            seconds,
            seed=self.seed,
            rate_per_second=NOBODY,
            world=self.world,
            sample_hz=SAMPLE_HZ,
            truth=False,
        )
        for plan in injected:
            run.engine.submit(plan)
        turn = itertools.count()
        for stream in range(background.streams):
            tokens = background.first_output_tokens(stream)
            run.engine.submit(
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
                    run.engine.submit(again)
            yield record


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


class TrueSavings:
    """What each step would have cost without a request, by the world's own law: a ``Truth``."""

    def __init__(self, world: World) -> None:
        self._physics = StepPhysics(world)
        self._single: dict[int, float] = defaultdict(float)
        self._group: dict[int, float] = defaultdict(float)
        self.steps_joules = 0.0
        """All steps, as computed here: it must be what the simulated GPU drew for them."""

    def step(self, step: wire.Step, blocks: Sequence[int | None]) -> None:
        count = len(step.request)
        columns = np.array([step.context, step.scheduled or [1] * count, step.sampled or [1] * count])
        whole = self._joules(columns)
        self.steps_joules += whole
        for block in set(blocks) - {None}:
            assert block is not None
            rows = [row for row, other in enumerate(blocks) if other == block]
            self._group[block] += whole - self._joules(np.delete(columns, rows, axis=1))
            self._single[block] += sum(whole - self._joules(np.delete(columns, row, axis=1)) for row in rows)

    def saved_joules(self, block: int) -> tuple[float, float]:
        return self._single[block], self._group[block]

    def _joules(self, columns: np.ndarray[Any, np.dtype[np.int64]]) -> float:
        """Energy of a step of these requests; one without any does not take place."""
        if not columns.shape[1]:
            return 0.0
        context, scheduled, sampled = columns
        return self._physics.cost(self._physics.terms(context, scheduled, sampled)).energy_joules
