"""One GPU as attribution sees it: intervals that wait, the account, and what was learned of its power."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from joulescope.attribution.ledger import GpuAccount
from joulescope.model import EnergyInterval, GpuInfo

_LEARNING_RATE = 0.2
_IDLE_PART_OF_LIMIT = 0.14  # H100: ~69 W + 26..66 W with a CUDA context, of a limit of 700 W
_BUSY_PART_OF_LIMIT = 0.7
_UNKNOWN_LIMIT_WATTS = 500.0


def idle_prior_watts(info: GpuInfo) -> float:
    """Idle power of a GPU of which nothing was seen yet."""
    return _IDLE_PART_OF_LIMIT * _limit_watts(info)


def _limit_watts(info: GpuInfo) -> float:
    return info.power_limit_watts or _UNKNOWN_LIMIT_WATTS * info.size_ratio


class PowerLevel:
    """A slowly learned level of power, watts, that starts from a prior."""

    def __init__(self, prior_watts: float) -> None:
        self.watts = prior_watts
        self.learned = False

    def learn(self, observed_watts: float) -> None:
        """Moves toward an observation; the first one replaces the prior."""
        step = _LEARNING_RATE if self.learned else 1.0
        self.watts += step * (observed_watts - self.watts)
        self.learned = True


@dataclass
class GpuState:
    """Intervals of one GPU that wait to be divided, and its running account."""

    info: GpuInfo
    pending: deque[EnergyInterval] = field(default_factory=deque)
    account: GpuAccount = field(default_factory=GpuAccount)
    settled_ns: int = 0
    workers: dict[int, int | None] = field(default_factory=dict)
    """Start of each stretch during which a worker held the GPU, to its end or ``None``."""

    def __post_init__(self) -> None:
        self.idle = PowerLevel(idle_prior_watts(self.info))
        self.busy = PowerLevel(_BUSY_PART_OF_LIMIT * _limit_watts(self.info))

    def worker_up(self, time_ns: int) -> None:
        self.workers[time_ns] = None

    def worker_down(self, time_ns: int) -> None:
        for start_ns, end_ns in self.workers.items():
            if end_ns is None:
                self.workers[start_ns] = time_ns
                return

    def worker_spans(self, until_ns: int) -> list[tuple[int, int]]:
        return [(start, until_ns if end is None else end) for start, end in self.workers.items()]

    def forget(self, before_ns: int) -> None:
        """Drops worker stretches that no later interval can reach."""
        ended = [start for start, end in self.workers.items() if end is not None and end < before_ns]
        for start in ended:
            del self.workers[start]
