"""How sure a request's joules are: what is not known of the cost of steps, carried to every request.

What a request was charged depends on the coefficients of the cost model only through proportions: a
coefficient that is wrong takes from some what it gives to others. So each request keeps, for each
coefficient, how its figure changes with the coefficient's relative error (joules), net of the change of its
share in the whole. With the coefficients' relative covariance that gives a variance, to which comes that
of the intervals' edges: the counter ticks, and joules near an edge may belong to the neighbour.

What is *not* in it: the gain error of the card's meter, which is the same for all requests.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.cost import FLOPS, OWN_TIME, SAVED, TIME, CostModel
from joulescope.attribution.steps import Segment

Floats = NDArray[np.float64]

NORMAL_90 = 1.6449
"""Half the width of the 90 % interval of a normal distribution, in standard deviations."""

EDGE_SECONDS = 0.02
"""How unsure the instant is that an edge of an interval stands for (standard deviation)."""

OWN_TIME_STD = 0.05
"""How unsure the split of a step's duration into what is shared and what requests bring is, relative."""

COEFFICIENT_PART, MARGINAL_COEFFICIENT_PART = 0.35, 0.45
"""Part of the fit's standard deviations that figures really show: the fit is told more noise than there is,
so that it leans on its prior. These and the next were set on simulated worlds (``benchmarks/accuracy.py``)
such that 90 % intervals hold 90 % of the truths, and are judged there on seeds that were not used for it."""

FORM_STD, MARGINAL_FORM_STD = 0.02, 0.03
"""How far the best coefficients of this form may be from the truth for one kind of step against another."""

_PARTS = 5
"""Bytes, FLOPs, sequences, time (as the energy coefficients), and the split of the time."""


class Doubt:
    """What is not known of the figures of one engine's open requests, by slot."""

    def __init__(self, capacity: int) -> None:
        self._sums: Floats = np.zeros((2 * _PARTS + 1, capacity))
        """Sensitivities of the attributed and of the marginal joules, and the edges' variance so far (J²)."""
        self._latest: dict[str, Floats] = {}
        """By GPU: joules an edge may have moved from or to each slot, at the latest interval's end."""
        self._known: Floats | None = None
        self._covariances = (np.zeros((_PARTS, _PARTS)), np.zeros((_PARTS, _PARTS)))

    def grow(self, capacity: int) -> None:
        more = capacity - self._sums.shape[1]
        if more > 0:
            self._sums = np.pad(self._sums, ((0, 0), (0, more)))
            self._latest = {gpu: np.pad(latest, (0, more)) for gpu, latest in self._latest.items()}

    def reset(self, slot: int) -> None:
        """Begins anew for another request in the slot."""
        self._sums[:, slot] = 0.0
        for latest in self._latest.values():
            latest[slot] = 0.0

    def add(
        self,
        gpu: str,
        segments: list[Segment],
        paid_joules: Floats,
        scale: float,
        interval: tuple[float, float],
        model: CostModel,
    ) -> None:
        """Takes what an interval charged.

        Args:
            gpu: whose interval.
            segments: the engine's steps in it.
            paid_joules: what each of their requests and steps was charged.
            scale: measured by modelled joules.
            interval: its joules and its seconds.
            model: what the steps were priced by, or nearly.
        """
        energy_joules, seconds = interval
        capacity = self._sums.shape[1]
        slots = np.concatenate([segment.slots for segment in segments])

        def by_slot(values: Floats) -> Floats:
            return np.bincount(slots, values, capacity).astype(np.float64)

        def row(which: int) -> Floats:
            return by_slot(np.concatenate([segment.row(which) for segment in segments])) * scale

        _, joules_per_flop, sequence_joules, active_watts = model.energy.coefficients
        paid, saved = by_slot(paid_joules), row(SAVED)
        flops, time = row(FLOPS) * joules_per_flop, row(TIME) * active_watts
        own = row(OWN_TIME) * active_watts
        shares = [segment.part_of_requests() for segment in segments]
        counted = by_slot(np.concatenate(shares)) * (scale * sequence_joules)
        time_sum = float(time.sum())
        own_part = float(own.sum()) / time_sum if time_sum > 0.0 else 0.0
        attributed = np.stack([paid - flops - counted - time, flops, counted, time, own - own_part * time])
        marginal = np.stack([saved - flops - counted - own, flops, counted, own, own * (1.0 - own_part)])
        whole = attributed.sum(axis=1) / max(energy_joules, 1e-9)
        self._sums[:_PARTS] += attributed - whole[:, None] * paid
        self._sums[_PARTS:-1] += marginal - whole[:, None] * saved
        moved = paid * (EDGE_SECONDS / max(seconds, 1e-9))
        before = self._latest.get(gpu)
        self._sums[-1] += (moved if before is None else moved - before) ** 2
        self._latest[gpu] = moved

    def std_joules(self, slot: int, model: CostModel) -> tuple[float, float]:
        """Standard deviations of the attributed and the marginal joules of the request in the slot."""
        attributed_covariance, marginal_covariance = self._covariances_of(model)
        *sums, edges = self._sums[:, slot]
        edges += sum(float(latest[slot]) ** 2 for latest in self._latest.values())
        attributed, marginal = np.array(sums[:_PARTS]), np.array(sums[_PARTS:])
        return (
            math.sqrt(float(attributed @ attributed_covariance @ attributed) + edges),
            math.sqrt(float(marginal @ marginal_covariance @ marginal) + edges),
        )

    def _covariances_of(self, model: CostModel) -> tuple[Floats, Floats]:
        """Relative covariances of the coefficients, what their form cannot express included."""
        known = model.energy.relative_covariance()
        if known is not self._known:
            self._known = known
            self._covariances = (
                _covariance(COEFFICIENT_PART**2 * known, FORM_STD),
                _covariance(MARGINAL_COEFFICIENT_PART**2 * known, MARGINAL_FORM_STD),
            )
        return self._covariances


def _covariance(coefficients: Floats, form_std: float) -> Floats:
    covariance = np.zeros((_PARTS, _PARTS))
    covariance[:4, :4] = coefficients + np.eye(4) * form_std**2
    covariance[4, 4] = OWN_TIME_STD**2
    return covariance
