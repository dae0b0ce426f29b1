"""What the pipeline keeps about one GPU beside its account, and what both come to for exporters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from joulescope.attribution.gpu import GpuState
from joulescope.model import GpuInfo, GpuReading, GpuStatus, GpuTotals
from joulescope.sampling.meter import Meter, calibrated
from joulescope.units import NANOSECONDS_PER_SECOND, joules_from_uj

FRESH_NS = 2 * NANOSECONDS_PER_SECOND
"""A reading older than this is not shown any more: stale is not fresh."""


@dataclass
class Watched:
    """One GPU that is measured."""

    info: GpuInfo
    meter: Meter
    told: GpuInfo | None = None
    """``info`` as its source told it."""
    reading: GpuReading | None = None
    status: GpuStatus | None = None
    past: Counter[str] = field(default_factory=Counter)
    """Resets and rejections of meters that were given up."""

    @property
    def breaks(self) -> tuple[int, int]:
        """Resets and rejections of all its meters."""
        return self.meter.resets + self.past["resets"], self.meter.rejected + self.past["rejected"]

    def totals(self, state: GpuState, now_ns: int, *, readable: bool) -> GpuTotals:
        """Its account, and what was read of it lately.

        Args:
            state: the account.
            readable: whether some sensor reads it now.
        """
        account, reading = state.account, self.reading
        fresh = reading is not None and now_ns - reading.time_ns <= FRESH_NS
        return GpuTotals(
            info=replace(self.info, energy_source=self.meter.source),
            measured_joules=joules_from_uj(account.measured_uj),
            attributed_joules=joules_from_uj(account.attributed_uj),
            idle_joules=joules_from_uj(account.idle_uj),
            overhead_joules={key: joules_from_uj(uj) for key, uj in account.overhead_uj.items()},
            unattributed_joules={key: joules_from_uj(uj) for key, uj in account.unattributed_uj.items()},
            residual_joules=joules_from_uj(account.residual_uj),
            intervals=account.intervals,
            counter_resets=self.breaks[0],
            rejected_intervals=self.breaks[1],
            up=fresh and readable,
            reading=calibrated(reading, self.info.calibration_factor) if fresh and reading else None,
            accounted_until_ns=state.settled_ns or None,
            comparison=self.meter.comparison.totals(),
            counter_tick_seconds=self.meter.tick_seconds,
        )


def measures(info: GpuInfo) -> tuple[object, ...]:
    """What, if it changes, begins another measurement of the same GPU."""
    return info.energy_source, info.calibration_factor


def cut(info: GpuInfo) -> tuple[object, ...]:
    """What, if it changes, begins another split."""
    return info.instances, info.energy_split, info.slices, info.slices_total
