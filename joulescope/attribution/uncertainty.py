"""How sure a request's joules are: what is not known of the cost of steps, carried to every request.

What a request was charged depends on the coefficients of the cost model only through proportions: a
coefficient that is wrong takes from some what it gives to others. So each request keeps, for each
coefficient, how its figure changes with the coefficient's relative error (joules), net of the change of its
share in the whole. With the coefficients' relative covariance that gives a variance, to which comes that
of the intervals' edges: the counter ticks, and joules near an edge may belong to the neighbour.

What is *not* in it: the gain error of the card's meter, which is the same for all requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.cost import CACHE, FLOPS, OWN_TIME, SAVED, TIME, WEIGHT, CostModel
from joulescope.attribution.laws import StepJoules
from joulescope.attribution.usage import STEPS, Usage

Floats = NDArray[np.float64]

NORMAL_90 = 1.6449
"""Half the width of the 90 % interval of a normal distribution, in standard deviations."""

EDGE_SECONDS = 0.003
"""How unsure the instant is that an edge of an interval stands for (standard deviation)."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How far what is not known reaches.

    Set on simulated worlds (``benchmarks/accuracy.py``) such that 90 % intervals hold 90 % of the truths,
    and judged there on seeds that were not used for it.
    """

    coefficients: float
    """Part of the fit's standard deviations that figures really show: the fit is told more noise than there
    is, so that it leans on its prior."""
    form: float
    """How far the best coefficients of this form are from the truth for one kind of step against another."""
    own_time: float
    """How unsure the split of a step's duration into what is shared and what requests bring is, relative.

    This and ``form`` are where observed durations scatter about the fitted ones as much as the fit is told;
    they grow with that scatter, which is what is seen of a form that is wrong.
    """


ATTRIBUTED = Scale(coefficients=0.285, form=0.047, own_time=0.04)
MARGINAL = Scale(coefficients=0.55, form=0.024, own_time=0.06)

_PARTS = 6
"""Weights, KV cache, FLOPs, sequences, time (as the energy coefficients), and the split of the time."""


class Doubt:
    """What is not known of the figures of one engine's open requests, by slot."""

    def __init__(self, capacity: int) -> None:
        self._sums: Floats = np.zeros((capacity, 2 * _PARTS))
        """Sensitivities of the attributed and of the marginal joules (J)."""
        self._edges: Floats = np.zeros(capacity)
        """The edges' variance so far (J²)."""
        self._latest: dict[str, Floats] = {}
        """By GPU: joules an edge may have moved from or to each slot, at the latest interval's end."""
        self._known: tuple[Floats, float] | None = None
        self._covariances = (np.zeros((_PARTS, _PARTS)), np.zeros((_PARTS, _PARTS)))

    def grow(self, capacity: int) -> None:
        more = capacity - len(self._sums)
        if more > 0:
            self._sums = np.pad(self._sums, ((0, more), (0, 0)))
            self._edges = np.pad(self._edges, (0, more))
            self._latest = {gpu: np.pad(latest, (0, more)) for gpu, latest in self._latest.items()}

    def reset(self, slot: int) -> None:
        """Begins anew for another request in the slot."""
        self._sums[slot] = 0.0
        self._edges[slot] = 0.0
        for latest in self._latest.values():
            latest[slot] = 0.0

    def add(
        self,
        gpu: str,
        usage: Usage,
        paid_joules: Floats,
        scale: float,
        interval: tuple[float, float],
        model: CostModel,
    ) -> None:
        """Takes what an interval charged.

        Args:
            gpu: whose interval.
            usage: of the engine's requests in it.
            paid_joules: what each of them was charged.
            scale: measured by modelled joules.
            interval: its joules and its seconds.
            model: what the steps were priced by, or nearly.
        """
        energy_joules, seconds = interval
        slots, used = usage.slots, usage.sums.copy()
        used[WEIGHT] = paid_joules
        whole = used.sum(axis=1)
        turned = _sensitivities(model.step_joules(), scale, whole)
        share = whole @ turned[:, :_PARTS] / max(energy_joules, 1e-9)
        turned[WEIGHT, :_PARTS] -= share
        turned[SAVED, _PARTS:] -= scale * share
        self._sums[slots] += used.T @ turned
        moved = np.zeros(len(self._sums))
        moved[slots] = paid_joules * (EDGE_SECONDS / max(seconds, 1e-9))
        before = self._latest.get(gpu)
        self._edges += (moved if before is None else moved - before) ** 2
        self._latest[gpu] = moved

    def std_joules(self, slots: list[int], model: CostModel) -> tuple[Floats, Floats]:
        """Standard deviations of the attributed and of the marginal joules of the requests in the slots."""
        edges = self._edges[slots]
        for latest in self._latest.values():
            edges += latest[slots] ** 2
        sums = self._sums[slots]
        attributed, marginal = (
            np.sqrt(((part @ covariance) * part).sum(axis=1) + edges)
            for part, covariance in zip(
                (sums[:, :_PARTS], sums[:, _PARTS:]), self._covariances_of(model), strict=True
            )
        )
        return attributed, marginal

    def _covariances_of(self, model: CostModel) -> tuple[Floats, Floats]:
        """Relative covariances of the coefficients, what their form cannot express included."""
        known = (model.energy.relative_covariance(), model.time.misfit)
        if self._known is None or known[0] is not self._known[0] or known[1] != self._known[1]:
            self._known = known
            self._covariances = (_covariance(*known, ATTRIBUTED), _covariance(*known, MARGINAL))
        return self._covariances


def _covariance(coefficients: Floats, misfit: float, scale: Scale) -> Floats:
    covariance = np.zeros((_PARTS, _PARTS))
    covariance[:-1, :-1] = scale.coefficients**2 * coefficients
    covariance[:-1, :-1] += np.eye(_PARTS - 1) * (scale.form**2 * misfit)
    covariance[-1, -1] = scale.own_time**2 * misfit
    return covariance


def _sensitivities(joules: StepJoules, scale: float, whole: Floats) -> Floats:
    """How the attributed and the marginal joules change with each part, from what was used.

    Args:
        joules: the coefficients.
        scale: measured by modelled joules.
        whole: of all requests together, in the rows of :class:`joulescope.attribution.usage.Usage`.

    Returns:
        Rows of usage (that of the weight: joules paid) × parts of both figures. What is not one of the
        others is the weights' part.
    """
    turned = np.zeros((len(whole), 2 * _PARTS))
    turned[WEIGHT, 0] = 1.0
    turned[SAVED, _PARTS] = scale
    brought = ((CACHE, joules.per_kv_byte), (FLOPS, joules.per_flop), (STEPS, joules.sequence))
    for part, (row, price) in enumerate(brought, start=1):
        for first in (0, _PARTS):
            turned[row, first] = -scale * price
            turned[row, first + part] = scale * price
    watts = scale * joules.active_watts
    own_part = float(whole[OWN_TIME] / whole[TIME]) if whole[TIME] > 0.0 else 0.0
    turned[TIME, [0, 4, 5]] = -watts, watts, -own_part * watts
    turned[OWN_TIME, 5] = watts
    turned[OWN_TIME, _PARTS + np.array([0, 4, 5])] = -watts, watts, watts * (1.0 - own_part)
    return turned
