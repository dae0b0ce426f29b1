"""The account of each GPU, which must add up to the microjoule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from joulescope.errors import ConservationError
from joulescope.model import EnergyInterval


@dataclass(slots=True)
class Posting:
    """How the joules of one interval were divided, all in microjoules."""

    interval: EnergyInterval
    attributed_uj: int = 0
    idle_uj: int = 0
    overhead_uj: Counter[str] = field(default_factory=Counter)
    unattributed_uj: Counter[str] = field(default_factory=Counter)

    def residual_uj(self) -> int:
        """Measured less divided: zero, or it is a bug."""
        divided = self.attributed_uj + self.idle_uj
        divided += self.overhead_uj.total() + self.unattributed_uj.total()
        return self.interval.energy_uj - divided


@dataclass(slots=True)
class GpuAccount:
    """Running sums of one GPU, in whole microjoules (Python integers, so they never overflow)."""

    measured_uj: int = 0
    attributed_uj: int = 0
    idle_uj: int = 0
    overhead_uj: Counter[str] = field(default_factory=Counter)
    unattributed_uj: Counter[str] = field(default_factory=Counter)
    intervals: int = 0

    def post(self, posting: Posting) -> None:
        """Adds an interval.

        Raises:
            ConservationError: if its parts do not sum to what was measured; nothing is added then.
        """
        if posting.residual_uj() or _negative(posting):
            raise ConservationError(
                f"interval {posting.interval} was divided into {posting}: the parts do not add up; "
                "please report this with a trace (joulescope record)"
            )
        self.measured_uj += posting.interval.energy_uj
        self.attributed_uj += posting.attributed_uj
        self.idle_uj += posting.idle_uj
        self.overhead_uj.update(posting.overhead_uj)
        self.unattributed_uj.update(posting.unattributed_uj)
        self.intervals += 1

    @property
    def residual_uj(self) -> int:
        divided = self.attributed_uj + self.idle_uj
        divided += self.overhead_uj.total() + self.unattributed_uj.total()
        return self.measured_uj - divided


def _negative(posting: Posting) -> bool:
    parts: list[Mapping[str, int]] = [posting.overhead_uj, posting.unattributed_uj]
    smallest = min((min(part.values()) for part in parts if part), default=0)
    return min(posting.attributed_uj, posting.idle_uj, smallest) < 0
