"""Planted causes: pairs of simulated services that differ in known ways, and what each truly costs.

Two windows of a service are two runs. Between them one thing changes, or several. The truth is by
counterfactual: the same service is run with every subset of the changes, and a cause's part is its Shapley
value over these runs. Where the windows have other clients too (another seed), *luck* is a player like the
others: what these clients would have cost anyway. No part of joulescope but the simulator has a hand in it.

Of one seed all clients come at the same instants, whatever they ask for, so that a change of the mix is no
other luck of arrivals. Where clients wait for answers, each sends its next request when it has one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, takewhile
from math import factorial

from joulescope.attribution.labels import LabelRules
from joulescope.attribution.policy import Policy
from joulescope.hook.wire import AnyRecord, RequestEnd, Step
from joulescope.minute_model import EngineMinute
from joulescope.replay import Replay
from joulescope.simulation.changes import KINDS, PlannedChange, changed_world, requests
from joulescope.simulation.parts import World
from joulescope.simulation.restarts import RESTARTS, restarted
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.workload import SUMMARISE, PlannedRequest, Workload
from joulescope.simulation.worlds import H100_LLAMA_8B
from joulescope.units import ns_from_seconds

LUCK = "luck"
WARM_UP_SECONDS = 60.0
"""A run begins with an empty engine and a model that knows nothing: its first minute is in no window."""

CAUSE_OF = {
    "mix": "mix",
    "share": "mix",
    "drafted": "mix",
    "clients": "load",
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
    clients: int = 0
    """So many clients, each of which waits for its answer; 0: requests come whenever they like."""
    labelled: bool = False
    """Whether tasks are told apart."""


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
    world = case.world
    for plant in plants:
        if plant.kind in RESTARTS:
            world = restarted(world, plant.kind, plant.size)
        elif plant.kind in KINDS:
            world = changed_world(world, PlannedChange(plant.kind, plant.size, 0.0))
    simulated = SimulatedRun(warm_up + seconds, seed=seed, rate_per_second=_NOBODY, world=world, truth=False)
    end_ns = simulated.start_ns + ns_from_seconds(warm_up + seconds)
    plans = plans_of(case, plants, seed, simulated.start_ns)
    clients = round(case.clients * _times("clients", plants))
    come = _waiting(simulated, plans, clients, end_ns) if clients else _arriving(simulated, plans, end_ns)
    ran = Ran()
    records = _watched(come, simulated, ran, warm_up, seconds)
    minutes: list[EngineMinute] = []
    if account:
        for _ in Replay(records, _LABELLED if case.labelled else Policy(), on_minute=minutes.append):
            pass
    else:
        for _ in records:
            pass
    begin = min((minute.start_wall_seconds for minute in minutes), default=0.0) + warm_up
    ran.minutes = tuple(
        minute for minute in minutes if begin - 5.0 <= minute.start_wall_seconds < begin + seconds - 5.0
    )
    return ran


_NOBODY = 1e-12
"""Requests a second of a run to which requests are submitted."""

_LABELLED = Policy(labels=LabelRules(task_from=("request_id",), task_pattern=re.compile("(?P<task>[a-z]+)-")))

_ROUND_TRIP_NS = 2_000_000
"""From the end of an answer to the client's next request, beyond what the poll of the simulation adds."""


def _times(kind: str, plants: Sequence[Plant]) -> float:
    """The product of all sizes of a kind."""
    product = 1.0
    for plant in plants:
        product *= plant.size if plant.kind == kind else 1.0
    return product


def plans_of(case: Case, plants: Sequence[Plant], seed: int, start_ns: int) -> Iterator[PlannedRequest]:
    """What clients ask for, endless."""
    rate = case.rate * _times("load", plants)
    asked = [
        PlannedChange(plant.kind, plant.size, 0.0)
        for plant in plants
        if plant.kind in ("cache", "acceptance", "duty")
    ]
    most = case.world.max_prompt_tokens
    stream = requests(
        rate, start_ns, classes=case.world.classes, seed=seed, max_prompt_tokens=most, changes=asked
    )
    for plant in plants:
        if plant.kind == "mix":
            longer = Workload(
                rate,
                start_ns,
                classes=(replace(SUMMARISE, name="long"),),
                seed=seed + 1000,
                max_prompt_tokens=most,
            )
            stream = _in_place(stream, longer, plant.size)
        elif plant.kind in _OTHER_TASK:
            stream = _of_another_task(stream, plant)
    return stream


def _chosen(number: int, part: float) -> bool:
    """Whether a request is among such a part of all, which is spread evenly."""
    return number * 0.6180339887498949 % 1.0 < part


def _in_place(
    plans: Iterable[PlannedRequest], others: Iterable[PlannedRequest], part: float
) -> Iterator[PlannedRequest]:
    """Such a part of the requests is others, that arrive at the same instants."""
    for plan, other in zip(plans, others, strict=False):
        yield replace(other, arrival_ns=plan.arrival_ns) if _chosen(plan.number, part) else plan


_OTHER_TASK: Mapping[str, Callable[[PlannedRequest], PlannedRequest]] = {
    "share": lambda plan: replace(plan, prefix=""),
    "drafted": lambda plan: replace(plan, acceptance=min(2.0 * plan.acceptance, 1.0)),
}
"""What another task does otherwise, with prompts and answers of the same lengths: it shares no prefix; what
is drafted for it is right twice as often."""


def _of_another_task(plans: Iterable[PlannedRequest], plant: Plant) -> Iterator[PlannedRequest]:
    """Such a part of the requests is of the task ``other``."""
    for plan in plans:
        if not _chosen(plan.number, plant.size):
            yield plan
            continue
        renamed = {
            name: getattr(plan, name).replace(plan.kind, "other", 1) for name in ("request_id", "external_id")
        }
        yield _OTHER_TASK[plant.kind](replace(plan, kind="other", **renamed))


def _arriving(simulated: SimulatedRun, plans: Iterable[PlannedRequest], end_ns: int) -> Iterator[AnyRecord]:
    """The records of a run whose requests come whenever they like."""
    (engine,) = simulated.fleet.engines
    for plan in takewhile(lambda plan: plan.arrival_ns < end_ns, plans):
        engine.submit(plan)
    return simulated.records()


def _waiting(
    simulated: SimulatedRun, plans: Iterator[PlannedRequest], clients: int, end_ns: int
) -> Iterator[AnyRecord]:
    """The records of a run whose clients wait for their answers."""
    (engine,) = simulated.fleet.engines
    for number in range(clients):
        engine.submit(replace(next(plans), arrival_ns=simulated.start_ns + (number + 1) * _ROUND_TRIP_NS))
    for record in simulated.records():
        if isinstance(record, RequestEnd) and record.time_ns < end_ns:
            engine.submit(replace(next(plans), arrival_ns=record.time_ns + _ROUND_TRIP_NS))
        yield record


def _watched(
    records: Iterable[AnyRecord], simulated: SimulatedRun, ran: Ran, warm_up: float, seconds: float
) -> Iterable[AnyRecord]:
    begin_ns = simulated.start_ns + int(warm_up * 1e9)
    end_ns = begin_ns + int(seconds * 1e9)
    meters: list[float] = []
    for record in records:
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


@dataclass(frozen=True, slots=True)
class Job:
    """One run that a case needs."""

    case: Case
    plants: tuple[Plant, ...]
    seed: int
    account: bool

    def key(self, seconds: float) -> str:
        """The same for runs that are the same, in whatever case, and of the same code of planting."""
        case = self.case
        told = (
            case.world,
            case.rate,
            case.clients,
            case.labelled,
            self.plants,
            self.seed,
            self.account,
            seconds,
        )
        return hashlib.sha256(repr(told).encode()).hexdigest()[:16]

    def run(self, seconds: float) -> Ran:
        return run(self.case, self.plants, self.seed, seconds, account=self.account)


def jobs_of(case: Case) -> dict[frozenset[object], Job]:
    """Every run of a case, by the players of which it has the second window's: its plants by number, and
    :data:`LUCK`. The first and the last are the windows, and have minutes."""
    players: list[object] = list(range(len(case.plants)))
    if case.seeds[0] != case.seeds[1]:
        players.append(LUCK)
    jobs: dict[frozenset[object], Job] = {}
    for size in range(len(players) + 1):
        for chosen in combinations(players, size):
            plants = tuple(case.plants[at] for at in chosen if isinstance(at, int))
            window = size in (0, len(players))
            jobs[frozenset(chosen)] = Job(case, plants, case.seeds[LUCK in chosen], window)
    return jobs


def truth_of(case: Case, ran: Mapping[frozenset[object], Ran]) -> Truth:
    """What every plant did, by the runs of :func:`jobs_of`."""
    players = sorted(frozenset[object]().union(*ran), key=str)
    values = {chosen: each.joules_per_token for chosen, each in ran.items()}
    parts: dict[str, float] = {}
    for player, value in shapley(players, values.__getitem__).items():
        name = LUCK if player == LUCK else CAUSE_OF[case.plants[int(str(player))].kind]
        parts[name] = parts.get(name, 0.0) + value
    return Truth(values[frozenset()], values[frozenset(players)], parts)


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
