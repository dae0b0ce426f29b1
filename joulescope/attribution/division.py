"""Divides the measured joules of one GPU interval: the heart of the accounting rule.

The interval's time falls into stretches in which steps ran, engines did work of their own, records
were lost, engines were idle, or nothing is known. Idle time is charged at the GPU's learned idle
power; the rest of the measured joules goes to the other stretches in proportion to their modelled
joules, and a step's part to its requests by their Shapley values. Only proportions are modelled: the
parts sum to the measured joules to the microjoule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.apportion import apportion
from joulescope.attribution.cost import WEIGHT
from joulescope.attribution.engine import Engine
from joulescope.attribution.gpu import GpuState
from joulescope.attribution.laws import SECONDS
from joulescope.attribution.ledger import Posting
from joulescope.attribution.spans import Span, clip, complement, length_ns, union
from joulescope.attribution.steps import Segment
from joulescope.attribution.uncertainty import clock_std_seconds
from joulescope.attribution.usage import Usage, usage_of
from joulescope.model import EnergyInterval, GpuInfo

_CLEAN, _BUSY = 0.9, 0.2
"""Part of an interval that must be busy for it to teach the busy power, and the cost of steps."""

_AT_LIMIT = 0.985
"""Part of the power limit that an interval must draw in the mean to have been held back by it throughout."""

_OVERLAPPING = 1.001
"""Steps of several engines that together tell more time than passed ran in turn, not one after the other."""


_Found = list[tuple[Engine, list[Segment]]]


@dataclass(slots=True)
class EngineShare:
    """What one engine's steps got of an interval."""

    engine: Engine
    segments: list[Segment]
    """The steps that overlap the interval."""
    usage: Usage
    request_uj: NDArray[np.int64]
    """What each of the requests of ``usage`` pays for its steps."""
    scale: float
    """Measured by modelled joules."""
    extra_uj: NDArray[np.int64] | int = 0
    """What each pays for what else happened in the interval, by the operator's policy."""
    is_clean: bool = False
    """Whether the GPU was busy and nothing else happened: what was measured is of the steps."""
    at_limit: bool = False
    """Whether the power limit held the GPU back all the time."""
    fall_watts: float = 0.0
    """Power at the interval's begin less that at its end, as modelled; 0 where its clock is sure."""


@dataclass(slots=True)
class Stretches:
    """The interval's time by use, nanoseconds."""

    idle_ns: int = 0
    busy_ns: int = 0
    overhead_ns: Counter[str] = field(default_factory=Counter)
    unknown_ns: Counter[str] = field(default_factory=Counter)


def divide(
    interval: EnergyInterval,
    gpu: GpuState,
    engines: Sequence[Engine],
    silent: Sequence[Engine] = (),
    otherwise: str = "no_engine",
) -> tuple[Posting, list[EngineShare]]:
    """Divides an interval among the steps of the engines that run on this GPU.

    Args:
        engines: those that drive the GPU, alive at any time in the interval.
        silent: those of them that have not said what they did up to the interval's end, and that are
            waited for no longer.
        otherwise: reason for time in which no engine is known to hold the GPU.
    """
    found = [(engine, engine.steps_in(interval)) for engine in engines]
    stretches = _classify(interval, gpu, engines, silent, found, otherwise)
    _take_turns(found, stretches)
    posting = Posting(interval)
    posting.idle_uj = _idle_uj(interval, gpu, stretches)
    rest_uj = interval.energy_uj - posting.idle_uj
    at_limit = _is_at_limit(interval, stretches, gpu.info)
    for engine, segments in found:
        engine.price(segments, at_limit)
    shares = _divide_rest(rest_uj, gpu, found, stretches, posting)
    for share in shares:
        share.at_limit = at_limit
    if interval.clock_error_seconds:
        fall_watts = _watts_at(interval.start_ns, shares, gpu) - _watts_at(interval.end_ns, shares, gpu)
        for share in shares:
            share.fall_watts = fall_watts
    _learn(interval, gpu, stretches, posting, shares)
    return posting, shares


def _is_at_limit(interval: EnergyInterval, stretches: Stretches, info: GpuInfo) -> bool:
    """Whether this GPU's power limit held it back all the time; the card holds its own reading to it."""
    total_ns = interval.end_ns - interval.start_ns
    if info.power_limit_watts is None or stretches.busy_ns < _CLEAN * total_ns:
        return False
    limit_watts = info.power_limit_watts * info.calibration_factor
    return interval.energy_uj * 1e3 >= _AT_LIMIT * limit_watts * total_ns


def _take_turns(found: _Found, stretches: Stretches) -> None:
    """Where steps of several engines overlap, the GPU worked on one after the other, as outputs came."""
    if len(found) < 2:
        return
    told_ns = sum(int(segment.overlap_ns.sum()) for _, segments in found for segment in segments)
    if told_ns <= _OVERLAPPING * stretches.busy_ns:
        return
    ends = [[segment.ends_ns for segment in segments] for _, segments in found]
    for at, (_, segments) in enumerate(found):
        others = [each for other, of in enumerate(ends) if other != at for each in of]
        if others:
            others_ns = np.sort(np.concatenate(others))
            for segment in segments:
                segment.take_turns(others_ns)


def _classify(
    interval: EnergyInterval,
    gpu: GpuState,
    engines: Sequence[Engine],
    silent: Sequence[Engine],
    found: _Found,
    otherwise: str,
) -> Stretches:
    start_ns, end_ns = interval.start_ns, interval.end_ns
    result = Stretches()
    ran = (span for _, segments in found for segment in segments for span in segment.spans())
    taken = union(clip(ran, start_ns, end_ns))
    result.busy_ns = length_ns(taken)

    def claim(spans: list[Span], book: Counter[str], reason: str) -> None:
        nonlocal taken
        wanted = union(clip(spans, start_ns, end_ns))
        if wanted:
            before_ns = length_ns(taken)
            taken = union([*taken, *wanted])
            book[reason] += length_ns(taken) - before_ns

    for engine in engines:
        for begin, finish, reason in engine.overheads:
            claim([(begin, finish)], result.overhead_ns, reason)
        lost = [*engine.gaps, (start_ns, engine.steps.forgotten_ns)]
        claim(lost, result.unknown_ns, "records_lost")
    for engine in silent:
        claim([(max(engine.known_until_ns, start_ns), end_ns)], result.unknown_ns, "engine_silent")
    alive = union(clip((engine.alive_span() for engine in engines), start_ns, end_ns))
    free = complement(taken, start_ns, end_ns)
    result.idle_ns = _overlap_ns(free, alive)
    taken = union([*taken, *alive])
    claim(gpu.worker_spans(end_ns), result.overhead_ns, "startup")
    rest_ns = length_ns(complement(taken, start_ns, end_ns))
    if rest_ns:
        result.unknown_ns[otherwise] += rest_ns
    return result


def _overlap_ns(left: Sequence[Span], right: Sequence[Span]) -> int:
    return sum(length_ns(clip(left, start, end)) for start, end in right)


def _idle_uj(interval: EnergyInterval, gpu: GpuState, stretches: Stretches) -> int:
    """Idle time at idle power, but never above the interval's mean power; all of a wholly idle one."""
    total_ns = interval.end_ns - interval.start_ns
    if stretches.idle_ns >= total_ns:
        return interval.energy_uj
    at_idle_uj = round(gpu.idle.watts * stretches.idle_ns / 1e3)
    at_mean_uj = interval.energy_uj * stretches.idle_ns // total_ns
    return min(at_idle_uj, at_mean_uj)


def _divide_rest(
    rest_uj: int,
    gpu: GpuState,
    found: _Found,
    stretches: Stretches,
    posting: Posting,
) -> list[EngineShare]:
    """Among request-steps, overhead and unknown stretches, in proportion to their modelled joules."""
    books = [(posting.overhead_uj, reason, ns) for reason, ns in stretches.overhead_ns.items()]
    books += [(posting.unattributed_uj, reason, ns) for reason, ns in stretches.unknown_ns.items()]
    usages = [usage_of(segments, engine.requests.capacity, gpu.idle.watts) for engine, segments in found]
    columns = [usage.sums[WEIGHT] for usage in usages]
    columns.append(np.array([gpu.busy.watts * ns / 1e9 for _, _, ns in books]))
    weights = np.concatenate(columns)
    if not len(weights):
        posting.idle_uj += rest_uj
        return []
    parts = apportion(rest_uj, weights)
    modelled_joules = float(weights.sum())
    scale = rest_uj / 1e6 / modelled_joules if modelled_joules > 0.0 else 0.0
    shares: list[EngineShare] = []
    at = 0
    for (engine, segments), usage in zip(found, usages, strict=True):
        upto = at + len(usage.slots)
        shares.append(EngineShare(engine, segments, usage, parts[at:upto], scale))
        at = upto
    posting.attributed_uj = int(parts[:at].sum())
    for (book, reason, _), part_uj in zip(books, parts[at:].tolist(), strict=True):
        book[reason] += part_uj
    return [share for share in shares if share.segments]


def _watts_at(time_ns: int, shares: Sequence[EngineShare], gpu: GpuState) -> float:
    """What the GPU is modelled to have drawn at an edge of an interval, held to what was measured."""
    for share in shares:
        for segment in share.segments:
            watts = segment.watts_at(time_ns)
            if watts is not None:
                return share.scale * watts
    return gpu.idle.watts


def _learn(
    interval: EnergyInterval, gpu: GpuState, stretches: Stretches, posting: Posting, shares: list[EngineShare]
) -> None:
    """Clean intervals teach the levels that divide the mixed ones."""
    total_ns = interval.end_ns - interval.start_ns
    if stretches.idle_ns == total_ns:
        gpu.idle.learn(interval.energy_uj * 1e3 / total_ns)
        return
    if stretches.unknown_ns or stretches.overhead_ns or stretches.busy_ns < _BUSY * total_ns:
        return
    for share in shares:
        share.is_clean = True
    busy_joules = posting.attributed_uj / 1e6
    if stretches.busy_ns >= _CLEAN * total_ns:
        gpu.busy.learn(busy_joules * 1e9 / stretches.busy_ns)
    modelled_joules = sum(float(share.usage.sums[WEIGHT].sum()) for share in shares)
    for group in _by_fit(shares):
        segments = [segment for share in group for segment in share.segments]
        modelled = sum(float(share.usage.sums[WEIGHT].sum()) for share in group)
        part_joules = busy_joules * modelled / max(modelled_joules, 1e-9)
        waited_seconds = sum(float(segment.waited_seconds.sum()) for segment in segments)
        waited_joules = min(gpu.idle.watts * waited_seconds, part_joules)
        off_joules = posting.idle_uj / 1e6 + waited_joules
        figures = np.sum([segment.figures() for segment in segments], axis=0)
        if figures[SECONDS] <= 0.0:
            continue  # the GPU only waited
        group[0].engine.model.learn_energy(
            figures,
            part_joules - waited_joules,
            off_joules,
            busy_joules,
            clock_std_seconds(interval.clock_error_seconds),
        )


def _by_fit(shares: list[EngineShare]) -> list[list[EngineShare]]:
    """Engines on the same GPUs have one fit of the joules, and teach it together: only their sum is known."""
    groups: dict[int, list[EngineShare]] = {}
    for share in shares:
        groups.setdefault(id(share.engine.model.energy), []).append(share)
    return list(groups.values())
