"""Two meters of the same thing: the energy counter beside the integral of the power readings.

On most cards they agree within a few percent; where they do not, one of them is wrong, and no other figure
tells. Nothing is decided from the comparison: joules are those of the counter.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from joulescope.model import MeterComparison
from joulescope.sampling.counter import HOLE_SECONDS, POWER_CAP_WATTS
from joulescope.sampling.power import FEMTOJOULES_PER_MICROJOULE, HOLD_SECONDS, MICROWATTS_PER_WATT
from joulescope.units import joules_from_uj, ns_from_seconds, uj_from_joules

RATIO_SECONDS = 60.0
"""Length of the stretch whose ratio is shown. Power is a mean over the last second on Ada and later
(NVML reference, ``nvmlDeviceGetPowerUsage``) and so comes half a second late: a change of load at one end
of the stretch moves the ratio by at most half a second's worth of that change."""

LEAST_SECONDS = 20.0
"""There is no ratio until this much of the stretch could be compared: the counter's ticks, seen up to a poll
late, make 0.05 s of 20 s uncertain."""

STILL_SECONDS = HOLE_SECONDS
"""A counter that stands still for longer is compared as it stands: a stuck one must show."""

_BUCKET_NS = ns_from_seconds(5.0)
_BUCKETS = int(RATIO_SECONDS / 5.0)


@dataclass(slots=True)
class _Bucket:
    """What was compared in one slice of five seconds."""

    number: int
    counter_uj: int = 0
    power_fj: int = 0
    span_ns: int = 0


class Comparison:
    """Integrates power beside a counter, from one change of the counter to a later one.

    Each power reading holds until the next, at most :data:`~joulescope.sampling.power.HOLD_SECONDS`. Where
    power is not known for longer, or the counter fell or leapt, that piece is left out of both sums. Memory
    is constant: two sums and a dozen slices of the last minute.
    """

    def __init__(self) -> None:
        self.counter_uj = 0
        """Microjoules by the counter, over all that was compared."""
        self.power_fj = 0
        """Femtojoules by power, over the same stretches."""
        self.met = False
        """Whether both meters have been seen at once."""
        self._recent: deque[_Bucket] = deque()
        self._hold_ns = ns_from_seconds(HOLD_SECONDS)
        self._still_ns = ns_from_seconds(STILL_SECONDS)
        self._microwatts: int | None = None
        self._power_ns = self._seen_ns = 0
        self._joules = self._origin_joules = 0.0
        self._mark: tuple[int, int] | None = None
        """Where the open piece began: instant, and microjoules since the origin, so that roundings do not add
        up. ``None`` while no change has been seen."""
        self._open_fj = 0

    def add(self, time_ns: int, joules: float, power_watts: float | None, *, broken: bool) -> None:
        """Takes one poll, later than the one before.

        Args:
            joules: the counter.
            power_watts: ``None`` if it could not be read.
            broken: the counter fell or leapt since the last poll.
        """
        if broken or self._microwatts is None or time_ns - self._power_ns > self._hold_ns:
            self._mark = None
        else:
            self._open_fj += self._microwatts * (time_ns - self._seen_ns)
            self._advance(time_ns, joules)
        self._seen_ns, self._joules = time_ns, joules
        if power_watts is not None and power_watts <= POWER_CAP_WATTS:
            self._microwatts, self._power_ns = round(power_watts * MICROWATTS_PER_WATT), time_ns
            self.met = True

    def totals(self) -> MeterComparison | None:
        """Both sums, and the ratio in the minute before the latest poll; ``None`` until both were seen."""
        if not self.met:
            return None
        return MeterComparison(
            counter_joules=joules_from_uj(self.counter_uj),
            power_joules=joules_from_uj(self.power_fj // FEMTOJOULES_PER_MICROJOULE),
            ratio=self._ratio(),
        )

    def _advance(self, time_ns: int, joules: float) -> None:
        """Books the open piece where the counter changed, and begins the next one there."""
        changed = joules != self._joules
        if self._mark is None:
            if changed:
                self._origin_joules = joules
                self._mark, self._open_fj = (time_ns, 0), 0
            return
        mark_ns, mark_uj = self._mark
        if changed or time_ns - mark_ns >= self._still_ns:
            total_uj = uj_from_joules(joules - self._origin_joules)
            self._book(time_ns, total_uj - mark_uj, time_ns - mark_ns)
            self._mark, self._open_fj = (time_ns, total_uj), 0

    def _book(self, time_ns: int, counter_uj: int, span_ns: int) -> None:
        self.counter_uj += counter_uj
        self.power_fj += self._open_fj
        number = time_ns // _BUCKET_NS
        if not self._recent or self._recent[-1].number != number:
            self._recent.append(_Bucket(number))
        bucket = self._recent[-1]
        bucket.counter_uj += counter_uj
        bucket.power_fj += self._open_fj
        bucket.span_ns += span_ns
        while self._recent[0].number <= number - _BUCKETS:
            self._recent.popleft()

    def _ratio(self) -> float | None:
        oldest = self._seen_ns // _BUCKET_NS - _BUCKETS
        recent = [bucket for bucket in self._recent if bucket.number > oldest]
        power_fj = sum(bucket.power_fj for bucket in recent)
        if not power_fj or sum(bucket.span_ns for bucket in recent) < ns_from_seconds(LEAST_SECONDS):
            return None
        return sum(bucket.counter_uj for bucket in recent) * FEMTOJOULES_PER_MICROJOULE / power_fj
