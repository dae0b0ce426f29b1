"""Splits the joules of whole GPUs among their MIG instances, where the operator chose that.

No meter knows an instance, so this is an estimate, and every figure made of it says so. The rule, for each
measured interval of a GPU:

- what the GPU draws when idle divides by slices, those that are in no instance included;
- what is above that divides by slices times SM activity, the mean of the interval;
- slices in no instance, and what is above idle while no instance was active, stay with the GPU.

Where the activity of any instance is not known for most of the interval, all of it stays with the GPU: the
others would pay for it. ``docs/mig.md`` says what the rule is worth.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from joulescope.attribution.apportion import apportion
from joulescope.attribution.gpu import PowerLevel, idle_prior_watts
from joulescope.errors import ConservationError
from joulescope.model import MIG_GPM, MIG_REST, EnergyInterval, GpuInfo, GpuStatus
from joulescope.units import NANOSECONDS_PER_SECOND

PATIENCE_NS = 5 * NANOSECONDS_PER_SECOND
"""An interval waits so long for the activity in it, which is read about once a second."""

_LEAST_KNOWN = 0.5
"""Part of an interval for which each instance's activity must be known."""

_QUIET = 0.005
"""Mean activity of all instances below which an interval teaches the GPU's idle power."""

_MAX_SPANS = 256
"""Means that are kept of one instance: four minutes of them, and intervals are a minute at most."""

MAX_INSTANCES = 64
"""Instances of one GPU, past and present, that get accounts: one cut anew for ever must not fill memory."""


def split_joules(
    energy_uj: int, idle_uj: int, slices: Sequence[int], slices_total: int, active: Sequence[float]
) -> list[int]:
    """Microjoules of each instance and, last, of the rest; they sum to ``energy_uj`` exactly.

    Args:
        energy_uj: what the whole GPU drew.
        idle_uj: what it would have drawn idle; at most ``energy_uj`` of it counts.
        slices: of each instance.
        slices_total: of the GPU, in instances or not.
        active: SM activity of each instance, 0..1.
    """
    idle_uj = min(idle_uj, energy_uj)
    free = max(slices_total - sum(slices), 0)
    busy = np.multiply(slices, active)
    weights = np.append(busy, 0.0 if busy.sum() > 0.0 else 1.0)
    parts = apportion(idle_uj, np.array([*slices, free], dtype=np.float64))
    parts = parts + apportion(energy_uj - idle_uj, weights)
    return [int(part) for part in parts]


class Activity:
    """How busy one instance was, from means that follow each other in time. Bounded."""

    def __init__(self) -> None:
        self.until_ns: int | None = None
        """Up to here it was asked, whether or not there was an answer."""
        self._spans: deque[tuple[int, int, float]] = deque(maxlen=_MAX_SPANS)

    def add(self, status: GpuStatus) -> None:
        """Takes the mean since the status before; one without a figure, or with nonsense, leaves a hole."""
        before_ns, ratio = self.until_ns, status.sm_active_ratio
        if before_ns is not None and status.time_ns <= before_ns:
            return
        self.until_ns = status.time_ns
        if before_ns is not None and ratio is not None and 0.0 <= ratio <= 1.0:
            self._spans.append((before_ns, status.time_ns, ratio))

    def mean(self, start_ns: int, end_ns: int) -> float | None:
        """Mean over the known part of a stretch, ``None`` where too little of it is known."""
        known_ns, active_ns = 0, 0.0
        for begin_ns, finish_ns, ratio in self._spans:
            overlap_ns = min(finish_ns, end_ns) - max(begin_ns, start_ns)
            if overlap_ns > 0:
                known_ns += overlap_ns
                active_ns += ratio * overlap_ns
        return active_ns / known_ns if known_ns and known_ns >= _LEAST_KNOWN * (end_ns - start_ns) else None

    def forget(self, before_ns: int) -> None:
        """Drops what no later stretch can reach."""
        while self._spans and self._spans[0][1] <= before_ns:
            self._spans.popleft()


class Split:
    """One GPU and the instances that it is cut into now; another cut is another split."""

    def __init__(self, whole: GpuInfo, parts: Sequence[GpuInfo], idle: PowerLevel) -> None:
        self.whole = whole
        self.parts = tuple(parts)
        self.idle = idle
        self._slices = [info.slices or 0 for info in parts]
        self._total = max((info.slices_total or 0 for info in parts), default=0)
        self._activity = {info.gpu: Activity() for info in parts}
        self._pending: deque[EnergyInterval] = deque()

    def status(self, status: GpuStatus) -> list[EnergyInterval]:
        """Takes what was read of an instance; gives the intervals that it completes."""
        self._activity[status.gpu].add(status)
        return self._ripe(status.time_ns)

    def take(self, now_ns: int, intervals: Sequence[EnergyInterval]) -> list[EnergyInterval]:
        """Takes intervals of the whole GPU, in order; gives those that need not wait any longer."""
        self._pending.extend(intervals)
        return self._ripe(now_ns)

    def flush(self) -> list[EnergyInterval]:
        """Divides all that waits, by what is known."""
        divided = [part for interval in self._pending for part in self._divide(interval)]
        self._pending.clear()
        return divided

    def _ripe(self, now_ns: int) -> list[EnergyInterval]:
        divided: list[EnergyInterval] = []
        while self._pending and self._is_ripe(self._pending[0].end_ns, now_ns):
            interval = self._pending.popleft()
            divided += self._divide(interval)
            for activity in self._activity.values():
                activity.forget(interval.end_ns)
        return divided

    def _is_ripe(self, end_ns: int, now_ns: int) -> bool:
        asked = (activity.until_ns or 0 for activity in self._activity.values())
        return now_ns - end_ns > PATIENCE_NS or min(asked) >= end_ns

    def _divide(self, interval: EnergyInterval) -> list[EnergyInterval]:
        active = []
        for activity in self._activity.values():
            mean = activity.mean(interval.start_ns, interval.end_ns)
            if mean is None:
                return [interval]
            active.append(mean)
        span_ns = interval.end_ns - interval.start_ns
        idle_uj = round(self.idle.watts * span_ns / 1e3)
        found = split_joules(interval.energy_uj, idle_uj, self._slices, self._total, active)
        self._learn(interval.energy_uj * 1e3 / span_ns, active)
        gpus = [(info.gpu, MIG_GPM) for info in self.parts] + [(self.whole.gpu, MIG_REST)]
        divided = [
            replace(interval, gpu=gpu, energy_uj=part_uj, source=source)
            for (gpu, source), part_uj in zip(gpus, found, strict=True)
        ]
        if sum(found) != interval.energy_uj or min(found) < 0:
            raise ConservationError(
                f"interval {interval} was split into {divided}: the parts do not add up; please report this "
                "with a trace (joulescope record)"
            )
        return divided

    def _learn(self, watts: float, active: Sequence[float]) -> None:
        if float(np.dot(self._slices, active)) < _QUIET * sum(self._slices):
            self.idle.learn(watts)


class Instances:
    """All GPUs whose joules are split, as they are cut now. Pure; use from one thread at a time.

    Whoever feeds it says what GPUs there are (:meth:`found`), and gives it every interval of every GPU
    (:meth:`take`) and every status of an instance (:meth:`status`). What comes back is to be accounted, in
    that order; intervals of GPUs that are not split come back as they are, at once.
    """

    def __init__(self) -> None:
        self._infos: dict[str, GpuInfo] = {}
        self._known: dict[str, dict[str, None]] = {}
        self._idle: dict[str, PowerLevel] = {}
        self._splits: dict[str, Split] = {}

    def found(self, info: GpuInfo) -> list[EnergyInterval]:
        """A GPU or an instance is there, or is described anew; a cut that is no more is finished.

        A split begins once the GPU and all the instances that it names are known.
        """
        self._infos[info.gpu] = info
        whole = self._infos.get(info.parent or info.gpu)
        if whole is None:
            return []
        parts = self._parts(whole)
        split = self._splits.get(whole.gpu)
        if split is not None and split.parts == parts:
            split.whole = whole
            return []
        finished = self._end(whole.gpu)
        if parts:
            idle = self._idle.setdefault(whole.gpu, PowerLevel(idle_prior_watts(whole)))
            self._splits[whole.gpu] = Split(whole, parts, idle)
        return finished

    def may_join(self, info: GpuInfo) -> bool:
        """Whether there is room for an account of this instance; see :data:`MAX_INSTANCES`."""
        known = self._known.setdefault(info.parent, {})
        if info.gpu not in known and len(known) >= MAX_INSTANCES:
            return False
        known[info.gpu] = None
        return True

    def of(self, gpu: str) -> list[str]:
        """All instances of a GPU that ever got a share, the present ones and others."""
        return list(self._known.get(gpu, ()))

    def take(self, gpu: str, now_ns: int, intervals: Sequence[EnergyInterval]) -> Sequence[EnergyInterval]:
        """Intervals of one GPU; ``now_ns`` is the instant of its latest reading."""
        split = self._splits.get(gpu)
        return intervals if split is None else split.take(now_ns, intervals)

    def status(self, status: GpuStatus) -> list[EnergyInterval]:
        """What was read of a GPU; only that of instances which get a share counts."""
        info = self._infos.get(status.gpu)
        split = None if info is None else self._splits.get(info.parent)
        return split.status(status) if split is not None and info in split.parts else []

    def restart(self, gpu: str) -> list[EnergyInterval]:
        """The GPU is not read for a while: what waits is divided, and what was known of activity ends."""
        finished = self._end(gpu)
        return finished + (self.found(self._infos[gpu]) if gpu in self._infos else [])

    def flush(self) -> list[EnergyInterval]:
        """Divides all that waits, at the end of a run."""
        return [part for split in self._splits.values() for part in split.flush()]

    def _parts(self, whole: GpuInfo) -> tuple[GpuInfo, ...]:
        if not whole.energy_split:
            return ()
        found = [self._infos.get(uuid) for uuid in whole.instances]
        parts = tuple(info for info in found if info is not None and info.parent == whole.gpu)
        return parts if len(parts) == len(whole.instances) else ()

    def _end(self, gpu: str) -> list[EnergyInterval]:
        split = self._splits.pop(gpu, None)
        return [] if split is None else split.flush()
