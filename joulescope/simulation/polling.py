"""How punctual whoever polls a sensor is."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Polling:
    """When a sensor is polled, and how soon after the driver's answer the host looks at its clock."""

    jitter_ratio: float = 0.2
    """Part of a period over which polls are spread: that of the sampler's own timer."""
    delay_mean_seconds: float = 30e-6
    """The stamp of a reading is late by so much, exponentially distributed."""
    stall_ratio: float = 0.01
    """Part of the readings after which the thread waits for its turn before it takes the stamp."""
    stall_seconds: float = 0.005
    """The longest such wait; all shorter ones are as likely."""

    def delay_seconds(self, luck: random.Random) -> float:
        """How late the stamp of one reading is."""
        delay = luck.expovariate(1.0 / self.delay_mean_seconds) if self.delay_mean_seconds else 0.0
        return delay + (luck.uniform(0, self.stall_seconds) if luck.random() < self.stall_ratio else 0.0)


USUAL_POLLING = Polling()
EXACT_POLLING = Polling(jitter_ratio=0.0, delay_mean_seconds=0.0, stall_ratio=0.0)
