"""What a baseline expects of the work that an engine did: joules, and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.baseline import Baseline, matrix_of, thaw
from joulescope.attribution.laws import (
    KV_BYTES,
    LINEAR_FLOPS,
    OTHER_FLOPS,
    READ_BYTES,
    SECONDS,
    SEQUENCES,
    TOKENS,
)
from joulescope.attribution.steps import Segment

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """The steps of one engine in one measured interval of one of its GPUs, and what was measured of them."""

    figures: Floats
    """Steps × :data:`joulescope.attribution.laws.STEP_FIGURES`."""
    parts: Floats
    """Of each step's work, the part that lies in the interval."""
    waited_seconds: float
    joules: float
    idle_watts: float

    @property
    def busy_seconds(self) -> float:
        return float(self.parts @ self.figures[:, SECONDS])

    @property
    def counts(self) -> Floats:
        """Steps, and sequences in them."""
        return np.array([self.parts.sum(), self.parts @ self.figures[:, SEQUENCES]])


def work_of(segments: Sequence[Segment], joules: float, idle_watts: float) -> Work:
    """What an engine did in an interval, from the segments of its steps."""
    return Work(
        figures=np.concatenate([segment.block.figures[segment.steps] for segment in segments]),
        parts=np.concatenate([segment.parts for segment in segments]),
        waited_seconds=sum(float(segment.waited_seconds.sum()) for segment in segments),
        joules=joules,
        idle_watts=idle_watts,
    )


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What work should have taken, on one GPU."""

    joules: float
    busy_seconds: float


class Foresight:
    """What a baseline expects of work."""

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline
        self._fit = thaw(baseline)
        self._energy_covariance = matrix_of(baseline.energy_covariance)
        self._time_covariance = matrix_of(baseline.time_covariance)

    def of(self, work: Work) -> Foreseen:
        """What the steps, and the waiting for them, should have taken on one GPU."""
        joules, seconds = self._fit.foresee(work.figures[:, : TOKENS + 1])
        waited_seconds = float(work.counts @ self.baseline.wait_seconds)
        idle_joules = self.baseline.idle_watts * waited_seconds
        return Foreseen(
            joules=self.baseline.scale * (float(work.parts @ joules) + idle_joules),
            busy_seconds=float(work.parts @ seconds),
        )

    def prefill_joules(self, tokens: float) -> float:
        """What computing so many tokens of a prompt should draw, on all GPUs."""
        return self.baseline.scale * self._fit.avoided_joules(round(tokens))

    def variance_ratio(self, work: Work, busy_seconds: float) -> float:
        """Variance of the expected joules by that of the coefficients, relative to their square.

        ``busy_seconds``: what the steps should have taken.
        """
        sums = work.parts @ work.figures
        n, kv, read, linear = sums[[SEQUENCES, KV_BYTES, READ_BYTES, LINEAR_FLOPS]]
        joules = (
            np.array([read, kv, linear + sums[OTHER_FLOPS], n, busy_seconds]) * self._fit.energy.coefficients
        )
        shares = joules / max(float(joules.sum()), 1e-12)
        static = float(shares[-1])
        times = work.parts @ self._fit.time_rows(work.figures) * self._fit.time.coefficients
        time_shares = times / max(float(times.sum()), 1e-12)
        by_energy = float(shares @ self._energy_covariance @ shares)
        return by_energy + static**2 * float(time_shares @ self._time_covariance @ time_shares)
