"""Divides the joules of CPU packages and DRAM: idle, engines by their CPU time, the rest of the host.

The rule, for each interval of each domain:

1. What the domain draws anyway, its idle power times the interval, is ``idle``. Idle power is learned: the
   least mean power of any ten seconds of the last day. It counts as idle only if the CPUs were then busy for
   a tenth of their time at most; until the host was seen so quiet that part is unattributed, as
   ``idle_unknown``. It is an upper bound of the idle power either way, so that engines never pay for it.
2. The rest is divided by busy CPU time: each engine by what its processes spent, ``other`` by the remainder.
   If processes of an engine are not visible the remainder may be theirs, and is ``processes_unseen``.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from joulescope.attribution.apportion import apportion
from joulescope.errors import ConservationError
from joulescope.host_model import CpuShare, HostInterval
from joulescope.units import NANOSECONDS_PER_SECOND, joules_from_uj, seconds_from_ns, uj_from_joules

WINDOW_NS = 10 * NANOSECONDS_PER_SECOND
SPELL_NS = 3600 * NANOSECONDS_PER_SECOND
SPELLS = 24
QUIET_RATIO = 0.1

_LEAST_SECONDS = 1e-6
"""Less CPU time than the kernel can tell: nothing ran."""


@dataclass(slots=True)
class _Least:
    """The window of least power within an hour."""

    start_ns: int
    watts: float
    busy_ratio: float


class IdlePower:
    """The least power of any window of the last day: what a domain draws whatever runs."""

    def __init__(self) -> None:
        self._spells: deque[_Least] = deque(maxlen=SPELLS)
        self._uj = self._ns = 0
        self._busy_seconds = self._total_seconds = 0.0

    @property
    def least_watts(self) -> float | None:
        """An upper bound of the idle power; ``None`` before the first window is full."""
        return min((spell.watts for spell in self._spells), default=None)

    @property
    def quiet(self) -> bool:
        """Whether next to nothing ran when the least was drawn, so that it is the idle power itself."""
        least = min(self._spells, key=lambda spell: spell.watts, default=None)
        return least is not None and least.busy_ratio <= QUIET_RATIO

    def add(self, interval: HostInterval) -> None:
        """Takes one interval, later than those before."""
        cpu = interval.cpu or CpuShare(1.0, 1.0, {})  # unknown counts as busy: it may have been
        self._uj += interval.energy_uj
        self._ns += interval.end_ns - interval.start_ns
        self._busy_seconds += cpu.busy_seconds
        self._total_seconds += cpu.total_seconds
        if self._ns >= WINDOW_NS:
            watts = joules_from_uj(self._uj) / seconds_from_ns(self._ns)
            busy_ratio = self._busy_seconds / self._total_seconds if self._total_seconds > 0 else 1.0
            self._keep(_Least(interval.end_ns, watts, busy_ratio))
            self._uj = self._ns = 0
            self._busy_seconds = self._total_seconds = 0.0

    def _keep(self, window: _Least) -> None:
        while self._spells and window.start_ns - self._spells[0].start_ns >= SPELLS * SPELL_NS:
            self._spells.popleft()
        if not self._spells or window.start_ns - self._spells[-1].start_ns >= SPELL_NS:
            self._spells.append(window)
        elif window.watts < self._spells[-1].watts:
            self._spells[-1].watts, self._spells[-1].busy_ratio = window.watts, window.busy_ratio


@dataclass(slots=True)
class HostPosting:
    """How the joules of one interval were divided, all in microjoules."""

    interval: HostInterval
    attributed_uj: Counter[str] = field(default_factory=Counter)
    other_uj: int = 0
    idle_uj: int = 0
    unattributed_uj: Counter[str] = field(default_factory=Counter)

    def residual_uj(self) -> int:
        """Measured less divided: zero, or it is a bug."""
        divided = self.attributed_uj.total() + self.other_uj + self.idle_uj + self.unattributed_uj.total()
        return self.interval.energy_uj - divided

    def least_uj(self) -> int:
        """The smallest part, which may not be negative."""
        return min(self.other_uj, self.idle_uj, *self.attributed_uj.values(), *self.unattributed_uj.values())


def divide(interval: HostInterval, idle: IdlePower) -> HostPosting:
    """The account of one interval by the rule above."""
    posting = HostPosting(interval)
    base_uj = interval.energy_uj
    if idle.least_watts is not None:
        elapsed_seconds = seconds_from_ns(interval.end_ns - interval.start_ns)
        base_uj = min(base_uj, uj_from_joules(idle.least_watts * elapsed_seconds))
    if idle.quiet:
        posting.idle_uj = base_uj
    else:
        posting.unattributed_uj["idle_unknown"] = base_uj
    active_uj, cpu = interval.energy_uj - base_uj, interval.cpu
    if cpu is None:
        posting.unattributed_uj["cpu_time_unknown"] = active_uj
    elif cpu.busy_seconds + sum(cpu.engine_seconds.values()) < _LEAST_SECONDS:
        posting.idle_uj += active_uj
    else:
        _share(posting, active_uj, cpu)
    return posting


def _share(posting: HostPosting, active_uj: int, cpu: CpuShare) -> None:
    """By CPU time. The host's own is counted by ticks and may fall short of the sum of its processes."""
    engines = list(cpu.engine_seconds)
    spent = [cpu.engine_seconds[engine] for engine in engines]
    rest_seconds = max(cpu.busy_seconds - sum(spent), 0.0)
    *parts, rest_uj = map(int, apportion(active_uj, np.array([*spent, rest_seconds])))
    posting.attributed_uj.update(dict(zip(engines, parts, strict=True)))
    if cpu.engines_unseen:
        posting.unattributed_uj["processes_unseen"] += rest_uj
    else:
        posting.other_uj = rest_uj


@dataclass(slots=True)
class HostAccount:
    """Running sums of one domain, in whole microjoules."""

    measured_uj: int = 0
    attributed_uj: Counter[str] = field(default_factory=Counter)
    other_uj: int = 0
    idle_uj: int = 0
    unattributed_uj: Counter[str] = field(default_factory=Counter)
    intervals: int = 0
    idle: IdlePower = field(default_factory=IdlePower)

    def add(self, interval: HostInterval) -> None:
        """Divides an interval and adds its parts.

        Raises:
            ConservationError: if they do not sum to what was measured; nothing is added then.
        """
        self.idle.add(interval)
        posting = divide(interval, self.idle)
        if posting.residual_uj() or posting.least_uj() < 0:
            raise ConservationError(
                f"host interval {interval} was divided into {posting}: the parts do not add up; "
                "please report this with a trace (joulescope record)"
            )
        self.measured_uj += interval.energy_uj
        self.attributed_uj.update(posting.attributed_uj)
        self.other_uj += posting.other_uj
        self.idle_uj += posting.idle_uj
        self.unattributed_uj.update(posting.unattributed_uj)
        self.intervals += 1

    @property
    def residual_uj(self) -> int:
        divided = self.attributed_uj.total() + self.other_uj + self.idle_uj + self.unattributed_uj.total()
        return self.measured_uj - divided
