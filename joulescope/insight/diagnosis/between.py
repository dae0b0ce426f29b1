"""The states between two windows: each cause as it was in the one or in the other."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from joulescope.attribution.baseline import same_work
from joulescope.insight.diagnosis import causes
from joulescope.insight.diagnosis.acceptance import Passes, passes_between
from joulescope.insight.diagnosis.cache import CacheChange, Found, change_by_sort, common_change
from joulescope.insight.diagnosis.drivers import State, duty_of, fare
from joulescope.insight.diagnosis.law_change import LawChange, compare_laws, levelled, waits_changed
from joulescope.insight.diagnosis.window import Window
from joulescope.insight.steady import Service
from joulescope.minute_model import GpuSums, Laws

_LEAST_CLOCK, _LEAST_LIMIT, _LEAST_THROTTLED = 0.02, 0.01, 0.1
_LEAST_ROOM, _LEAST_DRAFTS = 0.02, 0.02
_LEAST_FACTOR = 0.02
"""What is left of a factor beside that of the clocks, and less than this, is theirs too."""

_LEAST_DRAFTED, _LEAST_DRAFTED_RATIO = 0.5, 0.25
"""By how many tokens for a request and step, and by what part, drafting must differ for it to be another way
of drafting: the drafter computes in the steps, and the engine does not tell what."""

_ANOTHER = (causes.MODEL, causes.LAYOUT)
"""What makes an engine another, with another KV cache."""

_CROWDED = 0.5
"""A KV cache that is fuller than this evicts prefixes."""


@dataclass(slots=True)
class Between:
    """Two windows, and every state between them."""

    first: Window
    second: Window
    owner: str | None = None
    """The cause that all differences of the laws belong to, where they cannot be told apart."""
    change: LawChange | None = None
    cache: CacheChange = field(default_factory=CacheChange)
    passes: Passes = field(default_factory=Passes)
    closed: bool = False
    """Whether clients wait for answers, so that their number is given and not their rate."""
    clock_ratio: float | None = None
    """Clock of the second window by that of the first."""
    players: list[str] = field(default_factory=list)
    """Causes of which anything differs."""
    _duties: tuple[float, float] = (1.0, 1.0)
    factors: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By cause: of the time of work, and of joules."""
    _closures: tuple[float, float] = (1.0, 1.0)

    def state(self, chosen: frozenset[str]) -> State:
        """The state in which these causes are as in the second window, and all others as in the first."""

        def side(cause: str) -> Window:
            return self.second if cause in chosen else self.first

        asked, load = side(causes.MIX).observed.workload, side(causes.LOAD)
        keeps = side(self._keeper)
        return State(
            classes=asked.classes,
            shared_tokens=keeps.observed.workload.shared_tokens,
            found=self._found(chosen),
            arrivals_per_second=load.observed.workload.arrivals_per_second or 0.0,
            duty=self._duties[load is self.second],
            service=self._service(chosen),
            clients=load.present if self.closed else None,
        )

    @property
    def _keeper(self) -> str:
        """The cause by which prefixes are kept in the one way or the other."""
        known = (causes.PREFIX_CACHE, causes.KV_CAPACITY)
        return next((cause for cause in known if cause in self.players), causes.MIX)

    def _found(self, chosen: frozenset[str]) -> Found:
        """How much is found of what the classes found where they were seen."""
        return self.cache.found(causes.MIX in chosen, self._keeper in chosen)

    def _service(self, chosen: frozenset[str]) -> Service:
        first, second = self.first.observed.service, self.second.observed.service
        laid = second if causes.LAYOUT in chosen else first
        limits, drafts = (
            second if cause in chosen else first for cause in (causes.BATCH_LIMIT, causes.SPECULATION)
        )
        keeper = self.owner if self.owner in _ANOTHER else causes.KV_CAPACITY
        room = second if keeper in chosen else first
        return replace(
            laid,
            laws=self._laws(chosen),
            limits=replace(limits.limits, kv_cache_tokens=room.limits.kv_cache_tokens),
            tokens_per_pass=self._tokens_per_pass(chosen),
            drafted_per_pass=drafts.drafted_per_pass,
        )

    def _tokens_per_pass(self, chosen: frozenset[str]) -> float:
        """As far as tasks have drafts accepted otherwise, that goes with the mix."""
        asked, drafts = causes.MIX in chosen, causes.SPECULATION in chosen
        return self.passes.of((self.second if asked else self.first).observed.workload.classes, drafts)

    def _laws(self, chosen: frozenset[str]) -> Laws:
        change = self.change
        if change is None:
            return levelled(self.second if self.owner in chosen else self.first)
        laws, new = change.before, self.second.laws
        times, joules = list(laws.time_coefficients), list(laws.energy_coefficients)
        if causes.HOST in chosen:
            times[0], times[1] = times[0] * change.launch, times[1] * change.sequence
            if waits_changed(self.first, self.second):
                laws = replace(laws, wait_seconds=new.wait_seconds)
        for cause, (slower, dearer) in self.factors.items():
            if cause in chosen:
                times[2:] = [slower * each for each in times[2:]]
                joules = [dearer * each for each in joules]
        if causes.CLOCKS in chosen:
            laws = replace(laws, limit_watts=new.limit_watts)
        if causes.EFFICIENCY in chosen and change.joules != 1.0 and self.second.whole.joules.idle > 0.0:
            laws = replace(laws, idle_watts=new.idle_watts)
        return replace(laws, time_coefficients=tuple(times), energy_coefficients=tuple(joules))

    def joules_per_token(self, chosen: frozenset[str]) -> float:
        """Of a state, corrected so that both ends are as measured."""
        overhead = (self.second if causes.OVERHEAD in chosen else self.first).overhead
        nobody = (self.second if causes.UNATTRIBUTED in chosen else self.first).unattributed
        closure = self._closures[causes.UNEXPLAINED in chosen]
        return overhead + nobody + closure * fare(self.state(chosen)).joules_per_token

    @property
    def misfit(self) -> tuple[float, float]:
        """Measured by modelled J/token of both windows, less one."""
        return self._closures[0] - 1.0, self._closures[1] - 1.0


def between(first: Window, second: Window, *, closed: bool = False) -> Between:
    """Finds out what differs.

    Args:
        closed: whether clients wait for answers.
    """
    made = Between(first, second, closed=closed)
    made.owner = _owner(first, second)
    made.clock_ratio = _clock_ratio(first.whole.gpu, second.whole.gpu)
    if made.owner is None:
        made.change = compare_laws(first, second)
        if made.change.fits:
            made.factors = _divided(made)
        else:
            made.owner = causes.CLOCKS if _clocks_changed(made) else causes.EFFICIENCY
            made.change = None
    evicts = _room_changed(first, second) and made.owner not in _ANOTHER and _crowded(first, second)
    made.cache = (change_by_sort if evicts else common_change)(first.whole.tasks, second.whole.tasks)
    made.passes = passes_between(first, second)
    made.players = _players(made)
    everything = frozenset(made.players)
    ends = []
    for at, window in enumerate((first, second)):
        load = window.whole.load
        if load.seconds > 0.0:
            state = made.state(everything if at else frozenset())
            duty = duty_of(state, load.busy_seconds / load.seconds)
            made._duties = (made._duties[0], duty) if at else (duty, made._duties[1])
        ends.append(fare(made.state(everything if at else frozenset())).joules_per_token)
    made._closures = (first.modelled / ends[0], second.modelled / ends[1])
    return made


def _owner(first: Window, second: Window) -> str | None:
    """What made the engine another, if anything did."""
    old, new = first.observed, second.observed
    names = ("model", "dtype", "quantization", "unit")
    if any(getattr(old.kind, name) != getattr(new.kind, name) for name in names):
        return causes.MODEL
    if not same_work(old.service.laws.cost, new.service.laws.cost):
        return causes.MODEL
    if _laid_otherwise(first, second):
        return causes.LAYOUT
    return causes.SPECULATION if _drafted_otherwise(old.service, new.service) else None


def _drafted_otherwise(old: Service, new: Service) -> bool:
    few, many = sorted((old.drafted_per_pass, new.drafted_per_pass))
    return many - few > max(_LEAST_DRAFTED, _LEAST_DRAFTED_RATIO * many)


def _laid_otherwise(first: Window, second: Window) -> bool:
    names = ("gpu_name", "gpu_count", "tensor_parallel", "pipeline_parallel", "data_parallel")
    return any(getattr(first.observed.kind, name) != getattr(second.observed.kind, name) for name in names)


def _players(made: Between) -> list[str]:
    """Causes of which anything differs, so that their states have to be asked for."""
    first, second = made.first, made.second
    old, new = first.observed.service, second.observed.service
    found = [causes.MIX, causes.LOAD]
    if (old.limits.max_num_seqs, old.limits.max_num_batched_tokens) != (
        new.limits.max_num_seqs,
        new.limits.max_num_batched_tokens,
    ):
        found.append(causes.BATCH_LIMIT)
    room = _room_changed(first, second) and made.owner not in _ANOTHER
    if room:
        found.append(causes.KV_CAPACITY)
    if made.cache.changed and not (room and _crowded(first, second)):
        found.append(causes.PREFIX_CACHE)
    drafts = max(made.passes.apart, abs(old.drafted_per_pass - new.drafted_per_pass))
    if drafts > _LEAST_DRAFTS:
        found.append(causes.SPECULATION)
    if made.owner is not None:
        laid = made.owner == causes.MODEL and _laid_otherwise(first, second)
        found += [cause for cause in (*([causes.LAYOUT] if laid else []), made.owner) if cause not in found]
    elif made.change is not None:
        host = (made.change.launch, made.change.sequence) != (1.0, 1.0) or waits_changed(first, second)
        found += [causes.HOST] if host else []
        limit = _apart(old.laws.limit_watts, new.laws.limit_watts) > _LEAST_LIMIT
        found += [causes.CLOCKS] if limit or causes.CLOCKS in made.factors else []
        found += [causes.EFFICIENCY] if causes.EFFICIENCY in made.factors else []
    for cause in (causes.OVERHEAD, causes.UNATTRIBUTED):
        found += [cause] if getattr(first, cause) or getattr(second, cause) else []
    return [*found, causes.UNEXPLAINED]


def _room_changed(first: Window, second: Window) -> bool:
    rooms = [each.observed.service.limits.kv_cache_tokens for each in (first, second)]
    return _apart(*rooms) > _LEAST_ROOM


def _crowded(first: Window, second: Window) -> bool:
    """Whether a KV cache of another size is why other prefixes are found."""
    usage = [each.observed.fared.kv_usage_ratio or 0.0 for each in (first, second)]
    return max(usage) > _CROWDED


def _apart(one: float | None, other: float | None) -> float:
    if not one or not other:
        return 0.0
    return abs(other / one - 1.0)


def _clock_ratio(first: GpuSums, second: GpuSums) -> float | None:
    if not first.sm_clock_known_seconds or not second.sm_clock_known_seconds:
        return None
    one, other = (each.sm_clock_hertz_seconds / each.sm_clock_known_seconds for each in (first, second))
    return other / one if one > 0.0 else None


def _clocks_changed(made: Between) -> bool:
    """Whether the sensors say that something held the clocks otherwise."""
    if made.clock_ratio is not None and abs(made.clock_ratio - 1.0) > _LEAST_CLOCK:
        return True
    throttled = [
        (each.throttled_thermal_seconds + each.throttled_other_seconds) / each.throttle_known_seconds
        if each.throttle_known_seconds
        else 0.0
        for each in (made.first.whole.gpu, made.second.whole.gpu)
    ]
    return abs(throttled[1] - throttled[0]) > _LEAST_THROTTLED or _limit_ratio(made) != 1.0


def _limit_ratio(made: Between) -> float:
    """Power limit of the second window by that of the first; 1 where it held nothing back."""
    limits = [window.laws.limit_watts for window in (made.first, made.second)]
    held = any(
        sum(each.power_bound_seconds for each in window.steps())
        > _LEAST_THROTTLED * sum(each.seconds for each in window.steps())
        for window in (made.first, made.second)
    )
    if not held or min(limits) <= 0.0 or _apart(*limits) <= _LEAST_LIMIT:
        return 1.0
    return limits[1] / limits[0]


def _slowed(made: Between) -> float | None:
    """The part of its speed that the GPU may have, by its clocks and its power limit; ``None``: not known."""
    limit = _limit_ratio(made)
    if made.clock_ratio is None:
        return limit if limit != 1.0 else None
    return made.clock_ratio * limit if (made.clock_ratio <= 1.0) == (limit <= 1.0) else made.clock_ratio


def _divided(made: Between) -> dict[str, tuple[float, float]]:
    """Whose the factors of time and joules are.

    Other clocks explain as much of the time as the sensors say of them, and no more. Joules of the same work
    may fall with clocks, not rise; under another power limit they may do either, for it stretches steps.
    """
    change = made.change
    assert change is not None
    clocks, speed = _clocks_changed(made), _slowed(made)
    slower, dearer = (change.work, change.joules) if clocks else (1.0, 1.0)
    if clocks and speed is not None:
        low, high = sorted((1.0, 1.0 / speed))
        slower = min(max(slower, low), high)
        if (speed < 1.0) == (dearer > 1.0) and _limit_ratio(made) == 1.0:
            dearer = 1.0
    found = {
        causes.CLOCKS: (slower, dearer),
        causes.EFFICIENCY: (change.work / slower, change.joules / dearer),
    }
    return {
        cause: factors
        for cause, factors in found.items()
        if max(abs(math.log(each)) for each in factors) > _LEAST_FACTOR
    }
