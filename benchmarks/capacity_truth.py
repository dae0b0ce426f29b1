"""What simulated engines do under a load, and what their minutes tell: what plans are held against."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from joulescope.hook.wire import AnyRecord, RequestEnd, RequestStart, Step
from joulescope.insight.capacity.observed import Observed, observe
from joulescope.insight.steady import LengthClass
from joulescope.minute_model import EngineMinute
from joulescope.minutes import length_bin
from joulescope.replay import Replay
from joulescope.simulation.fleet import Fleet
from joulescope.simulation.parts import World
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.workload import PlannedRequest, Workload
from joulescope.units import ns_from_seconds

PERCENTILES = (50.0, 90.0, 95.0, 99.0)


@dataclass(frozen=True)
class Truth:
    """A window of a simulated engine, after it had settled."""

    joules_per_token: float
    watts: float
    tokens_per_second: float
    requests_per_second: float
    """That came."""
    batch: float
    inter_token_seconds: float
    first_token_seconds: float
    """From where the engine takes a request in."""
    kv_usage_ratio: float
    running: float
    preemptions_per_second: float
    tokens_per_pass: float
    drafted_per_pass: float
    classes: tuple[LengthClass, ...]
    """Lengths of the requests that ended."""
    inter_token_percentiles: tuple[float, ...]
    """:data:`PERCENTILES` of the seconds between the outputs of a request, over all of them."""
    arrival_percentiles: tuple[float, ...]
    """The same of the seconds from where a client asks to its first token."""


KEPT: list[Path] = []
"""A folder in which what was simulated is kept, if there is one: simulating takes nearly all of the time, and
only what is foreseen changes with the code that is measured."""

_Made = TypeVar("_Made")


def kept(key: tuple[object, ...], make: Callable[[], _Made]) -> _Made:
    """What was made before with this key, or is made now."""
    if not KEPT:
        return make()
    path = KEPT[0] / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.pickle"
    if path.exists():
        made: _Made = pickle.loads(path.read_bytes())
        return made
    made = make()
    part = path.with_suffix(f".{os.getpid()}")
    part.write_bytes(pickle.dumps(made))
    part.replace(path)
    return made


def run(world: World, rate: float, *, settle: float, seconds: float, seed: int) -> Truth:
    """Lets a world serve requests at a rate, and looks at it once it has settled."""
    key = ("truth", repr(world), rate, settle, seconds, seed)
    return kept(key, lambda: _run(world, rate, settle=settle, seconds=seconds, seed=seed))


def _run(world: World, rate: float, *, settle: float, seconds: float, seed: int) -> Truth:
    workload = Workload(rate, 0, classes=world.classes, seed=seed, max_prompt_tokens=world.max_prompt_tokens)
    begin_ns, end_ns = ns_from_seconds(settle), ns_from_seconds(settle + seconds)
    came: dict[str, int] = {}
    requests = _noted(takewhile(lambda plan: plan.arrival_ns < end_ns, iter(workload)), came)
    fleet = Fleet(world, requests, start_ns=0, limits=world.limits, ledger=None, seed=seed)
    gpus = fleet.gpus_by_rank
    before = list(fleet.advance(begin_ns))
    begun = sum(gpu.energy_joules_at(gpu.uuid, begin_ns) for gpu in gpus)
    window = list(fleet.advance(end_ns))
    joules = sum(gpu.energy_joules_at(gpu.uuid, end_ns) for gpu in gpus) - begun
    return _truth(before, window, joules, seconds, came)


def _noted(plans: Iterable[PlannedRequest], came: dict[str, int]) -> Iterator[PlannedRequest]:
    """Notes when each request comes, which the engine does not know."""
    for plan in plans:
        came[plan.request_id] = plan.arrival_ns
        yield plan


def _truth(
    before: Sequence[AnyRecord],
    window: Sequence[AnyRecord],
    joules: float,
    seconds: float,
    came: Mapping[str, int],
) -> Truth:
    steps = [record for record in window if isinstance(record, Step)]
    starts = {each.request: each for each in (*before, *window) if isinstance(each, RequestStart)}
    first, cached = _first_tokens([*before, *window])
    ends = [each for each in window if isinstance(each, RequestEnd) and each.request in first]
    tokens = sum(sum(step.sampled) if step.sampled else len(step.request) for step in steps)
    gaps = np.diff([step.output_end_ns for step in steps])
    drafts = [drafted for step in steps for _, drafted in step.drafted]
    between = sum(each.time_ns - first[each.request] for each in ends) / 1e9
    lengths = [
        (starts[each.request].prompt_tokens, each.output_tokens, cached.get(each.request, 0)) for each in ends
    ]
    return Truth(
        joules_per_token=joules / tokens,
        watts=joules / seconds,
        tokens_per_second=tokens / seconds,
        requests_per_second=sum(isinstance(each, RequestStart) for each in window) / seconds,
        batch=float(np.mean([len(step.request) for step in steps])),
        inter_token_seconds=between / max(sum(each.output_tokens - 1 for each in ends), 1),
        first_token_seconds=float(
            np.mean([(first[each.request] - starts[each.request].time_ns) / 1e9 for each in ends])
        ),
        kv_usage_ratio=float(np.average([step.kv_usage_ratio for step in steps[1:]], weights=gaps)),
        running=float(np.average([step.running for step in steps[1:]], weights=gaps)),
        preemptions_per_second=sum(len(step.preempted) for step in steps) / seconds,
        tokens_per_pass=1.0 + _accepted(steps) / max(len(drafts), 1),
        drafted_per_pass=sum(drafts) / max(len(drafts), 1),
        classes=_classes(lengths),
        inter_token_percentiles=_percentiles(_gaps(steps)),
        arrival_percentiles=_percentiles(
            [(first[each.request] - came[starts[each.request].request_id]) / 1e9 for each in ends]
        ),
    )


def _percentiles(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(np.percentile(values, PERCENTILES).tolist())


def _gaps(steps: Sequence[Step]) -> list[float]:
    """Seconds between the outputs of each request."""
    latest: dict[int, int] = {}
    gaps = []
    for step in steps:
        for request, sampled in zip(step.request, step.sampled or [1] * len(step.request), strict=True):
            if sampled:
                if request in latest:
                    gaps.append((step.output_end_ns - latest[request]) / 1e9)
                latest[request] = step.output_end_ns
    return gaps


def _first_tokens(records: Sequence[AnyRecord]) -> tuple[dict[int, int], dict[int, int]]:
    """When each request's first token came, and what of its prompt was cached."""
    first: dict[int, int] = {}
    cached: dict[int, int] = {}
    for step in records:
        if not isinstance(step, Step):
            continue
        for request, local, external in step.cached:
            cached[request] = local + external
        for request, sampled in zip(step.request, step.sampled or [1] * len(step.request), strict=True):
            if sampled:
                first.setdefault(request, step.output_end_ns)
    return first, cached


def _accepted(steps: Sequence[Step]) -> int:
    accepted = 0
    for step in steps:
        if step.drafted:
            sampled = dict(zip(step.request, step.sampled or [1] * len(step.request), strict=True))
            accepted += sum(max(sampled[request] - 1, 0) for request, _ in step.drafted)
    return accepted


def _classes(lengths: Sequence[tuple[int, int, int]]) -> tuple[LengthClass, ...]:
    """Requests in the cells in which minutes have them, with their means."""
    cells: dict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
    for prompt, output, cached in lengths:
        cells[length_bin(prompt), length_bin(output)].append((prompt, output, cached))
    return tuple(
        LengthClass(float(len(cell)), *(float(mean) for mean in np.mean(cell, axis=0)))
        for cell in cells.values()
    )


def minutes_of(world: World, rate: float, *, seconds: float, seed: int) -> list[EngineMinute]:
    """The minutes of a simulated run, as a sidecar would have made them."""
    minutes: list[EngineMinute] = []
    run = SimulatedRun(seconds, seed=seed, rate_per_second=rate, world=world, truth=False)
    for _ in Replay(run.records(), on_minute=minutes.append):
        pass
    return minutes


def learn(world: World, rate: float, *, seconds: float, seed: int) -> Observed:
    """What the minutes of a simulated run tell."""
    minutes = kept(
        ("minutes", repr(world), rate, seconds, seed),
        lambda: minutes_of(world, rate, seconds=seconds, seed=seed),
    )
    labels = sorted({minute.kind.engine for minute in minutes if minute.kind.engine})
    return observe(minutes, labels[0])
