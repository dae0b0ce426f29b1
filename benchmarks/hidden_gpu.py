"""A made-up GPU under a recorded trace, and who truly caused its joules.

The trace brings what no simulation has: the steps that a real scheduler made, and how long they took on
the machine that ran them. While a step runs the GPU draws the step's energy by a hidden law
(:mod:`benchmarks.hidden_laws`), spread evenly over the step's time: from the later of the previous output
and its own schedule until its output. Otherwise it idles. It is seen as NVML would show it: whole
millijoules that tick every 0.1 s with a phase of their own, polled at 20 Hz with jitter.

The truth is the Shapley value of each step's energy. Time between two steps while requests run is paid by the
requests of the later step in equal parts, at idle power; time in which nobody runs is nobody's.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from benchmarks.hidden_laws import BYTES_SCALE, FLOPS_SCALE, STATIC_WATTS, HiddenLaw, Observed
from joulescope.clock import ManualClock
from joulescope.gpu_records import gpu_record, sample_record
from joulescope.hook import wire
from joulescope.sensors.simulated import SimulatedSensor
from joulescope.simulation.gpu import SimulatedGpu
from joulescope.simulation.physics import FEATURES, Floats, features_of
from joulescope.simulation.shapley import Shares, shares_of
from joulescope.simulation.truth import StepWork, TrueLedger, charges_of
from joulescope.simulation.worlds import H100

POLL_SECONDS, JITTER_SECONDS = 0.05, 0.005
LEAD_SECONDS, TAIL_SECONDS = 5.0, 1.0
"""The GPU is polled from so long before the first request, or from the engine's hello, and until so long
after the last step."""

_PARTS = {"kv": [3], "arithmetic": [1, 2], "sequences": [0, 5]}
"""Rows of the features."""

HARDWARE = replace(H100, name="NVIDIA H100 80GB HBM3 (made up)")


@dataclass(frozen=True, slots=True)
class Ran:
    """A step of the trace on the clock."""

    told: wire.Step
    start_ns: int
    end_ns: int
    context: Floats
    scheduled: Floats
    sampled: Floats
    follows_running: bool
    """Whether a request of the step before was still running when it began."""

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


def steps_of(records: Iterable[wire.AnyRecord]) -> Iterator[Ran]:
    """The steps of one engine's trace, in order."""
    last_ns, before, ended = 0, frozenset[int](), set[int]()
    for record in records:
        if isinstance(record, wire.RequestEnd):
            ended.add(record.request)  # comes before the record of the request's last step
        elif isinstance(record, wire.Step):
            start_ns = max(last_ns, record.schedule_end_ns)
            end_ns = max(record.output_start_ns, start_ns + 1)
            yield Ran(
                record,
                start_ns,
                end_ns,
                _column(record.context, record),
                _column(record.scheduled, record),
                _column(record.sampled, record),
                follows_running=bool(before - ended),
            )
            last_ns, before = end_ns, frozenset(record.request)


def _column(values: Sequence[int], step: wire.Step) -> Floats:
    return np.array(values or [1] * len(step.request), dtype=np.float64)


@dataclass
class Truth:
    """What each request truly caused, by its id."""

    ledger: TrueLedger = field(default_factory=TrueLedger)
    prefill_joules: dict[str, float] = field(default_factory=dict)
    """Of a request's joules, those for first-time tokens of its prompt, in a step by tokens."""
    step_joules: float = 0.0
    gap_joules: float = 0.0
    """Of time between steps while requests ran."""
    most_watts: float = 0.0


class HiddenGpu:
    """The made-up GPU under one trace.

    Args:
        records: of one engine on one GPU, as :func:`benchmarks.real_recording.anonymous` leaves them.
        law: what its steps cost.
        scaled: whether the engine's hello tells the bytes and FLOPs of the large model that the law has in
            mind, or those of the tiny one that really ran.
        seed: phase of the counter, and jitter of the polls.
    """

    def __init__(
        self, records: Sequence[wire.AnyRecord], law: HiddenLaw, *, scaled: bool = True, seed: int = 0
    ) -> None:
        self._records, self._law, self._scaled, self._seed = records, law, scaled, seed
        self._steps = list(steps_of(records))
        first_ns = min(r.time_ns for r in records if isinstance(r, wire.RequestStart))
        up_ns = max(r.time_ns for r in records if isinstance(r, wire.Hello))
        self._start_ns = max(up_ns, first_ns - round(LEAD_SECONDS * 1e9))
        self.gpu = SimulatedGpu(HARDWARE, self._start_ns, seed=seed)
        self._energies = [self._energy_joules(step) for step in self._steps]
        for step, joules in zip(self._steps, self._energies, strict=True):
            self.gpu.append(step.start_ns, step.end_ns, joules / step.seconds)

    def _energy_joules(self, step: Ran) -> float:
        whole = features(step).sum(axis=1)
        return float(Observed(self._law, whole, step.seconds).energy_joules(whole))

    # -------------------------------------------------------------------------------- what is seen

    def trace(self) -> list[wire.AnyRecord]:
        """The engine's records and the sensor's samples, as a recording would have them."""
        clock = ManualClock(self._start_ns)
        sensor = SimulatedSensor(self.gpu, clock)
        engine = [self._told(record) for record in self._records]
        header, rest = engine[:1], engine[1:]
        merged = header + [gpu_record(info) for info in sensor.gpus()]
        due = self._polls()
        next_ns = next(due)
        for record in rest:
            while next_ns < _instant(record):
                clock.time_ns = next_ns
                merged += map(sample_record, sensor.read())
                next_ns = next(due)
            merged.append(record)
        last_ns = self._steps[-1].end_ns + round(TAIL_SECONDS * 1e9)
        while next_ns < last_ns:
            clock.time_ns = next_ns
            merged += map(sample_record, sensor.read())
            next_ns = next(due)
        return merged

    def _polls(self) -> Iterator[int]:
        rng = random.Random(self._seed)
        turn = 0
        while True:
            late = rng.uniform(0.0, JITTER_SECONDS)
            yield self._start_ns + round((turn * POLL_SECONDS + late) * 1e9)
            turn += 1

    def _told(self, record: wire.AnyRecord) -> wire.AnyRecord:
        if not isinstance(record, wire.Hello) or record.engine is None:
            return record
        cost = scaled(record.engine.cost) if self._scaled else record.engine.cost
        facts = msgspec.structs.replace(record.engine, gpus=[self.gpu.uuid], cost=cost)
        return msgspec.structs.replace(record, engine=facts)

    # ------------------------------------------------------------------------------------- the truth

    def parts(self) -> dict[str, float]:
        """What part of all steps' joules follows from what: what they would lack without it.

        Where the law is not additive these need not sum to 1.
        """
        sums = np.array([features(step).sum(axis=1) for step in self._steps]).T
        dynamic = self._law.dynamic_joules(sums)
        found = {"static": STATIC_WATTS * sum(step.seconds for step in self._steps)}
        found["weights"] = float(self._law.dynamic_joules(np.zeros(len(FEATURES)))) * len(self._steps)
        for name, rows in _PARTS.items():
            without = sums.copy()
            without[rows] = 0.0
            found[name] = float((dynamic - self._law.dynamic_joules(without)).sum())
        total = sum(self._energies)
        return {name: joules / total for name, joules in found.items()}

    def truth(self) -> Truth:
        """Shares of all steps; a second or two for a minute of steps."""
        found = Truth()
        names = {r.request: r.request_id for r in self._records if isinstance(r, wire.RequestStart)}
        for name in names.values():
            found.ledger.open(name)
        prompts = _Prompts(self._records)
        last_ns = self._start_ns
        for step, joules in zip(self._steps, self._energies, strict=True):
            gap_joules = 0.0
            if step.follows_running:
                gap_joules = (step.start_ns - last_ns) / 1e9 * HARDWARE.idle_watts
            last_ns = step.end_ns
            ids = [names[handle] for handle in step.told.request]
            columns = features(step)
            law = Observed(self._law, columns.sum(axis=1), step.seconds)
            shares = shares_of(law, columns, step.told.step)
            self._charge(found, step, ids, shares, gap_joules, prompts)
            found.step_joules += joules
            found.gap_joules += gap_joules
            found.most_watts = max(found.most_watts, joules / step.seconds)
        return found

    def _charge(
        self, found: Truth, step: Ran, ids: list[str], shares: Shares, gap_joules: float, prompts: _Prompts
    ) -> None:
        recomputed, prefill = prompts.split(step)
        flops = np.ones(len(ids))  # that rule is not asked for
        work = StepWork(step.scheduled, step.sampled, recomputed, flops)
        found.ledger.charge(ids, charges_of(shares, work, gap_joules))
        mine = (shares.shapley_joules + gap_joules / len(ids)) * prefill / step.scheduled
        for name, joules in zip(ids, mine.tolist(), strict=True):
            found.prefill_joules[name] = found.prefill_joules.get(name, 0.0) + joules


class _Prompts:
    """Tells tokens of a prompt from others, and first-time ones from those computed again."""

    def __init__(self, records: Iterable[wire.AnyRecord]) -> None:
        self._prompt = {r.request: r.prompt_tokens for r in records if isinstance(r, wire.RequestStart)}
        self._computed: dict[int, int] = {}
        self._lost_until: dict[int, int] = {}

    def split(self, step: Ran) -> tuple[Floats, Floats]:
        """Tokens of each request that are computed again, and those of its prompt that are new."""
        for handle in step.told.preempted:
            self._lost_until[handle] = self._computed.get(handle, 0)
        recomputed, prefill = [], []
        for handle, context, scheduled in zip(
            step.told.request, step.context.tolist(), step.scheduled.tolist(), strict=True
        ):
            after, lost = context + scheduled, self._lost_until.get(handle, 0)
            recomputed.append(max(min(after, lost) - context, 0))
            prefill.append(max(min(after, self._prompt[handle]) - max(context, lost), 0))
            self._computed[handle] = max(self._computed.get(handle, 0), int(after))
        return np.array(recomputed, dtype=np.float64), np.array(prefill, dtype=np.float64)


def features(step: Ran) -> Floats:
    """[features, requests]; the output head runs once for a request of which something came out."""
    heads = np.minimum(step.sampled, 1.0)
    return features_of(step.context, step.scheduled, heads)  # type: ignore[arg-type]


def scaled(cost: wire.CostFacts) -> wire.CostFacts:
    """The facts of the large model."""
    return msgspec.structs.replace(
        cost,
        weight_bytes=cost.weight_bytes * BYTES_SCALE,
        kv_bytes_per_token=cost.kv_bytes_per_token * BYTES_SCALE,
        flops_per_token=cost.flops_per_token * FLOPS_SCALE,
        flops_per_token_context=cost.flops_per_token_context * FLOPS_SCALE,
        flops_per_sample=cost.flops_per_sample * FLOPS_SCALE,
    )


def _instant(record: wire.AnyRecord) -> int:
    """When a sidecar would have heard of it, at the soonest."""
    if isinstance(record, wire.Step):
        return record.output_end_ns
    if isinstance(record, (wire.Gap, wire.Overhead)):
        return record.end_ns
    return 0 if isinstance(record, wire.Gpu) else record.time_ns
