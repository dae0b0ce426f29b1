"""Planted causes: pairs of simulated services that differ in known ways, and what each truly costs.

Two windows of a service are two runs. Between them one thing changes, or several. The truth is by
counterfactual: the same service is run with every subset of the changes, and a cause's part is its Shapley
value over these runs. Where the windows have other clients too (another seed), *luck* is a player like the
others: what these clients would have cost anyway. No part of joulescope but the simulator has a hand in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import factorial

from joulescope.hook.wire import AnyRecord, Step
from joulescope.minute_model import EngineMinute
from joulescope.replay import Replay
from joulescope.simulation.changes import KINDS, PlannedChange, changed_world
from joulescope.simulation.parts import World
from joulescope.simulation.restarts import RESTARTS, restarted
from joulescope.simulation.scheduler import EngineLimits
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.workload import CODE, RequestClass
from joulescope.simulation.worlds import H100_LLAMA_8B, WORLDS

LUCK = "luck"
WARM_UP_SECONDS = 60.0
"""A run begins with an empty engine and a model that knows nothing: its first minute is in no window."""

CAUSE_OF = {
    "mix": "mix",
    "load": "load",
    "duty": "load",
    "batch": "batch_limit",
    "kv": "kv_capacity",
    "cache": "prefix_cache",
    "acceptance": "speculation",
    "host": "host",
    "clocks": "clocks",
    "cap": "clocks",
    "layout": "layout",
    "precision": "model",
    "kernels": "efficiency",
    "power": "efficiency",
}
"""What a diagnosis should call each kind of change."""


@dataclass(frozen=True, slots=True)
class Plant:
    """One change between the windows."""

    kind: str
    size: float

    def __str__(self) -> str:
        return f"{self.kind}={self.size:g}"


@dataclass(frozen=True, slots=True)
class Case:
    """Two windows of one service."""

    name: str
    plants: tuple[Plant, ...]
    world: World = H100_LLAMA_8B
    rate: float = 8.0
    seeds: tuple[int, int] = (1, 1)
    """Of the clients of either window."""


@dataclass(slots=True)
class Ran:
    """What a run drew and said between its warm-up and its end."""

    joules: float = 0.0
    tokens: int = 0
    minutes: tuple[EngineMinute, ...] = ()

    @property
    def joules_per_token(self) -> float:
        return self.joules / max(self.tokens, 1)


def run(
    case: Case,
    plants: Sequence[Plant],
    seed: int,
    seconds: float,
    *,
    account: bool,
    warm_up: float = WARM_UP_SECONDS,
) -> Ran:
    """One run with these changes from its begin on.

    Args:
        seconds: of the window, after the warm-up.
        account: whether its records go through the pipeline, so that there are minutes of it.
    """
    world, rate, asked = case.world, case.rate, []
    for plant in plants:
        if plant.kind in RESTARTS:
            world = restarted(world, plant.kind, plant.size)
        elif plant.kind == "load":
            rate *= plant.size
        elif plant.kind in KINDS:
            change = PlannedChange(plant.kind, plant.size, 0.0)
            world, asked = changed_world(world, change), [*asked, change]
    asked = [change for change in asked if changed_world(case.world, change) is case.world]
    simulated = SimulatedRun(
        warm_up + seconds, seed=seed, rate_per_second=rate, world=world, truth=False, changes=asked
    )
    ran = Ran()
    records = _watched(simulated, ran, warm_up, seconds)
    minutes: list[EngineMinute] = []
    if account:
        for _ in Replay(records, on_minute=minutes.append):
            pass
    else:
        for _ in records:
            pass
    begin = min((minute.start_wall_seconds for minute in minutes), default=0.0) + warm_up
    ran.minutes = tuple(
        minute for minute in minutes if begin - 5.0 <= minute.start_wall_seconds < begin + seconds - 5.0
    )
    return ran


def _watched(simulated: SimulatedRun, ran: Ran, warm_up: float, seconds: float) -> Iterable[AnyRecord]:
    begin_ns = simulated.start_ns + int(warm_up * 1e9)
    end_ns = begin_ns + int(seconds * 1e9)
    meters: list[float] = []
    for record in simulated.records():
        if isinstance(record, Step) and begin_ns < record.output_end_ns <= end_ns:
            ran.tokens += sum(record.sampled) if record.sampled else len(record.request)
        while len(meters) < 2 and simulated.time_ns >= (begin_ns, end_ns)[len(meters)]:
            at_ns = (begin_ns, end_ns)[len(meters)]
            meters.append(sum(gpu.energy_joules_at(gpu.uuid, at_ns) for gpu in simulated.gpus))
        yield record
        if len(meters) == 2 and simulated.time_ns > end_ns + 2_000_000_000:
            break
    ran.joules = meters[1] - meters[0]


@dataclass(frozen=True, slots=True)
class Truth:
    """What changed, by the meters of the simulated GPUs."""

    before: float
    """J/token of the first window; so is the next of the second."""
    after: float
    parts: Mapping[str, float]
    """J/token, by cause and for :data:`LUCK`; they sum to the change."""


def windows(case: Case, seconds: float, first: Ran | None = None) -> tuple[Ran, Ran]:
    """Both windows, with their minutes; the first may be known already."""
    first = first or run(case, (), case.seeds[0], seconds, account=True)
    return first, run(case, case.plants, case.seeds[1], seconds, account=True)


def truth_of(case: Case, first: Ran, second: Ran, seconds: float) -> Truth:
    """Runs what is missing of the counterfactual services."""
    players: list[object] = list(range(len(case.plants)))
    if case.seeds[0] != case.seeds[1]:
        players.append(LUCK)
    values: dict[frozenset[object], float] = {
        frozenset(): first.joules_per_token,
        frozenset(players): second.joules_per_token,
    }
    for size in range(len(players) + 1):
        for chosen in combinations(players, size):
            if frozenset(chosen) not in values:
                plants = [case.plants[at] for at in chosen if isinstance(at, int)]
                seed = case.seeds[LUCK in chosen]
                ran = run(case, plants, seed, seconds, account=False)
                values[frozenset(chosen)] = ran.joules_per_token
    parts: dict[str, float] = {}
    for player, value in shapley(players, values.__getitem__).items():
        name = LUCK if player == LUCK else CAUSE_OF[case.plants[int(str(player))].kind]
        parts[name] = parts.get(name, 0.0) + value
    return Truth(first.joules_per_token, second.joules_per_token, parts)


def shapley(players: Sequence[object], value: Callable[[frozenset[object]], float]) -> dict[object, float]:
    """Exact, over all subsets."""
    count, shares = len(players), {}
    for player in players:
        others = [other for other in players if other != player]
        share = 0.0
        for size in range(count):
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            for chosen in combinations(others, size):
                share += weight * (value(frozenset((*chosen, player))) - value(frozenset(chosen)))
        shares[player] = share
    return shares


_GROWING = RequestClass("growing", 0.6, 150, 0.5, 350, 0.6, 1024)
_ROOMY = replace(
    H100_LLAMA_8B,
    classes=(_GROWING, replace(CODE, weight=0.4)),
    limits=EngineLimits(kv_cache_tokens=80_000),
)
"""A service whose KV cache has place enough, until it is cut."""

_ONE: tuple[Case, ...] = (
    Case("mix: longer prompts", (Plant("mix", 0.6),), rate=4.0),
    Case("load: a quarter of the requests", (Plant("load", 0.25),)),
    Case("load: twice the requests", (Plant("load", 2.0),)),
    Case("load: in bursts", (Plant("duty", 0.3),), rate=2.0),
    Case("batch limit 12", (Plant("batch", 12),)),
    Case("KV cache cut to a tenth", (Plant("kv", 0.1),), world=_ROOMY, rate=14.0),
    Case("KV cache cut, with shared prefixes", (Plant("kv", 0.1),), rate=12.0),
    Case("prefix cache lost", (Plant("cache", 1.0),)),
    Case("prefix cache lost in part", (Plant("cache", 0.5),), world=WORLDS["prefix-heavy"]),
    Case("drafts accepted less", (Plant("acceptance", 0.4),), world=WORLDS["speculative"]),
    Case("host slower", (Plant("host", 3.0),)),
    Case("host slower, host-bound", (Plant("host", 2.0),), world=WORLDS["host-bound"]),
    Case("clocks down", (Plant("clocks", 0.7),)),
    Case("power cap", (Plant("cap", 0.6),)),
    Case("two GPUs", (Plant("layout", 2),)),
    Case("FP8", (Plant("precision", 0.55),)),
    Case("kernels slower", (Plant("kernels", 1.2),)),
    Case("GPU hungrier", (Plant("power", 1.2),)),
)

_SEVERAL: tuple[Case, ...] = (
    Case("half the load, slower kernels", (Plant("load", 0.5), Plant("kernels", 1.2))),
    Case("longer prompts, prefix cache lost", (Plant("mix", 0.6), Plant("cache", 1.0)), rate=4.0),
    Case("smaller KV cache, more load", (Plant("kv", 0.1), Plant("load", 2.0)), world=_ROOMY),
    Case("clocks down, less load", (Plant("clocks", 0.7), Plant("load", 0.5))),
    Case("FP8, twice the load", (Plant("precision", 0.55), Plant("load", 2.0))),
    Case("host slower, longer prompts", (Plant("host", 3.0), Plant("mix", 0.6)), rate=4.0),
    Case(
        "clocks down, slower kernels, less load",
        (Plant("clocks", 0.8), Plant("kernels", 1.2), Plant("load", 0.5)),
    ),
)

_OTHER_CLIENTS: tuple[Case, ...] = (
    Case("kernels slower, other clients", (Plant("kernels", 1.2),), seeds=(1, 2)),
    Case("clocks down, other clients", (Plant("clocks", 0.7),), seeds=(1, 2)),
    Case("half the load, other clients", (Plant("load", 0.5),), seeds=(1, 2)),
)

_OTHER_FORMS: tuple[Case, ...] = (
    Case("clocks that fall at the cap: half the load", (Plant("load", 0.5),), world=WORLDS["dvfs"]),
    Case("mixture of experts: half the load", (Plant("load", 0.5),), world=WORLDS["moe"]),
    Case("leakage that follows heat: GPU hungrier", (Plant("power", 1.2),), world=WORLDS["thermal"]),
    Case("soft roofline: twice the load", (Plant("load", 2.0),), world=WORLDS["blended-roofline"]),
)
"""Worlds in which steps do not cost what the fitted model can say."""

_UNSEEN: tuple[Case, ...] = (
    Case("unseen A: kernels much slower", (Plant("kernels", 1.4),), rate=6.0, seeds=(21, 21)),
    Case("unseen B: KV cache cut to a sixth", (Plant("kv", 0.16),), world=_ROOMY, rate=16.0, seeds=(22, 22)),
    Case("unseen A: host slower", (Plant("host", 2.0),), rate=12.0, seeds=(23, 23)),
    Case("unseen B: clocks down a little", (Plant("clocks", 0.85),), rate=10.0, seeds=(24, 25)),
    Case("unseen A: batch limit and load", (Plant("batch", 20), Plant("load", 1.5)), seeds=(26, 26)),
    Case(
        "unseen B: hungrier, longer prompts",
        (Plant("power", 1.1), Plant("mix", 0.4)),
        rate=5.0,
        seeds=(27, 27),
    ),
)
"""Written down when the diagnosis was finished, and run once: the others were looked at while it was made."""

UNSEEN: Mapping[str, Case] = {case.name: case for case in _UNSEEN}
OTHERS: Mapping[str, Case] = {case.name: case for case in (*_OTHER_CLIENTS, *_OTHER_FORMS)}
SINGLE: Mapping[str, Case] = {case.name: case for case in _ONE}
MIXED_CAUSES: Mapping[str, Case] = {case.name: case for case in _SEVERAL}
