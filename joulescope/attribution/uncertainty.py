"""How sure a request's joules are: what is not known of the cost of steps, carried to every request.

What a request was charged depends on the coefficients of the cost model only through proportions: a
coefficient that is wrong takes from some what it gives to others. So each request keeps, for each
coefficient, how its figure changes with the coefficient's relative error (joules), net of the change of its
share in the whole. With the coefficients' relative covariance that gives a variance, to which comes that
of the intervals' edges: the counter ticks, and joules near an edge may belong to the neighbour.

**A model that learns.** A step is priced once, by what was known then, and what is learned later does not
make its price better. So the covariance is that of the moment of pricing, and changes over a request's life.
With its Cholesky factors *L_i*, the relative error of the coefficients in interval *i* is taken to be
*L_i ξ*, with one standard normal *ξ* for the whole life: what was wrong stays wrong to the same side, and
shrinks as the fit learns. So each request keeps *v = Σ_i L_iᵀ s_i* of its sensitivities *s_i*, and its
variance is |v|². Where nothing is learned any more, that is *SᵀCS* of their sum *S*.

**Another node's clock.** Where a GPU of another node was read, the edges of its intervals are off by an error
ε of which only a bound δ is known; it may lie anywhere within, so its standard deviation is δ/√3. With *p(t)*
the GPU's power, *p_q(t)* the part of it that a request causes, and an interval from *a* to *b* with energy
*E* and the request's share *s* of it, the steps are laid against *a + ε* to *b + ε*. To first order in ε

    the request's part becomes  E · (s·E + ε·(p_q(b) − p_q(a))) / (E + ε·(p(b) − p(a)))
    so that it is off by        ε·(p_q(b) − p_q(a)) − ε·s·(p(b) − p(a))

Over the intervals of the request's life the first term cancels: each ends where the next begins, and the
request causes nothing before and after. What remains, for an ε that lasts (a delay that is longer one way
than the other), is

    ε · Σ_i s_i·(p(a_i) − p(b_i))

and where each edge has an ε of its own (clocks are compared anew, delays jitter) the same sum, taken edge by
edge, with mean powers for those at the edge:

    Σ_i ε_i · (s_i·E_i/T_i − s_{i+1}·E_{i+1}/T_{i+1})

which is how an edge's own few milliseconds are counted. Nobody says which of the two an error is, and both
are counted with all of δ. The first is summed over all GPUs of other nodes before it is squared, for the GPUs
of one node share its clock. Both are nothing where δ is 0. Power at an edge is what the step there is priced
at.

What is *not* in it: the gain error of the card's meter, which is the same for all requests.
"""

from __future__ import annotations

import math
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
    """Part of the noise that the fit is told which there really is: it is told more, so that it leans on its
    prior."""
    form: float
    """How far the best coefficients of this form are from the truth for one kind of step against another."""
    own_time: float
    """How unsure the split of a step's duration into what is shared and what requests bring is, relative.

    This and ``form`` are where observed durations scatter about the fitted ones as much as the fit is told;
    they grow with that scatter, which is what is seen of a form that is wrong.
    """


ATTRIBUTED = Scale(coefficients=0.285, form=0.047, own_time=0.04)
MARGINAL = Scale(coefficients=0.55, form=0.024, own_time=0.06)

PRIOR_RATIO = 0.7
"""Part of the prior's standard deviations by which coefficients really miss it, before data tell of them."""

_PARTS = 6
"""Weights, KV cache, FLOPs, sequences, time (as the energy coefficients), and the split of the time."""


@dataclass(frozen=True, slots=True, eq=False)
class Priced:
    """What steps were priced by, and how sure it was."""

    joules: StepJoules
    factor: Floats
    """Of the sensitivities of both figures (2·parts × 2·parts): right of them, it makes their errors
    independent and of one size."""


def priced_by(model: CostModel) -> Priced:
    """What a model knows now."""
    factor = np.zeros((2 * _PARTS, 2 * _PARTS))
    factor[:_PARTS, :_PARTS] = np.linalg.cholesky(_covariance(model, ATTRIBUTED))
    factor[_PARTS:, _PARTS:] = np.linalg.cholesky(_covariance(model, MARGINAL))
    return Priced(model.step_joules(), factor)


@dataclass(frozen=True, slots=True)
class Measured:
    """What an interval's meter and clock say of it."""

    joules: float
    seconds: float
    clock_std_seconds: float = 0.0
    """How unsure both edges are for the clock's sake; see :func:`clock_std_seconds`."""
    fall_watts: float = 0.0
    """Modelled power at its begin, less that at its end; 0 where the clock is sure."""


def clock_std_seconds(error_seconds: float) -> float:
    """Standard deviation of an error that may lie anywhere within ``±error_seconds``."""
    return error_seconds / math.sqrt(3.0)


class Doubt:
    """What is not known of the figures of one engine's open requests, by slot."""

    def __init__(self, capacity: int) -> None:
        self._sums: Floats = np.zeros((capacity, 2 * _PARTS))
        """How far independent errors of the coefficients move the attributed and the marginal joules (J)."""
        self._edges: Floats = np.zeros(capacity)
        """The edges' variance so far (J²)."""
        self._latest: dict[str, Floats] = {}
        """By GPU: joules an edge may have moved from or to each slot, at the latest interval's end."""
        self._lasting: Floats = np.zeros(capacity)
        """Joules by which a lasting error of other nodes' clocks, of one standard deviation, moves each."""

    def grow(self, capacity: int) -> None:
        more = capacity - len(self._sums)
        if more > 0:
            self._sums = np.pad(self._sums, ((0, more), (0, 0)))
            self._edges = np.pad(self._edges, (0, more))
            self._lasting = np.pad(self._lasting, (0, more))
            self._latest = {gpu: np.pad(latest, (0, more)) for gpu, latest in self._latest.items()}

    def reset(self, slot: int) -> None:
        """Begins anew for another request in the slot."""
        self._sums[slot] = 0.0
        self._edges[slot] = self._lasting[slot] = 0.0
        for latest in self._latest.values():
            latest[slot] = 0.0

    def add(
        self,
        gpu: str,
        usage: Usage,
        paid_joules: Floats,
        scale: float,
        interval: Measured,
        priced: Priced,
    ) -> None:
        """Takes what an interval charged.

        Args:
            gpu: whose interval.
            usage: of the engine's requests in it.
            paid_joules: what each of them was charged.
            scale: measured by modelled joules.
            interval: what was measured.
            priced: what the latest of the steps were priced by.
        """
        energy_joules, seconds = max(interval.joules, 1e-9), max(interval.seconds, 1e-9)
        slots, used = usage.slots, usage.sums.copy()
        used[WEIGHT] = paid_joules
        whole = used.sum(axis=1)
        turned = _sensitivities(priced.joules, scale, whole)
        share = whole @ turned[:, :_PARTS] / energy_joules
        turned[WEIGHT, :_PARTS] -= share
        turned[SAVED, _PARTS:] -= scale * share
        self._sums[slots] += used.T @ (turned @ priced.factor)
        moved = np.zeros(len(self._sums))
        edge_seconds = math.hypot(EDGE_SECONDS, min(interval.clock_std_seconds, seconds))
        moved[slots] = paid_joules * (edge_seconds / seconds)
        before = self._latest.get(gpu)
        self._edges += (moved if before is None else moved - before) ** 2
        self._latest[gpu] = moved
        if interval.clock_std_seconds:
            moved_ratio = interval.clock_std_seconds * interval.fall_watts / energy_joules
            self._lasting[slots] += paid_joules * min(max(moved_ratio, -1.0), 1.0)

    def std_joules(self, slots: list[int]) -> tuple[Floats, Floats]:
        """Standard deviations of the attributed and of the marginal joules of the requests in the slots."""
        edges = self._edges[slots] + self._lasting[slots] ** 2
        for latest in self._latest.values():
            edges += latest[slots] ** 2
        squares = self._sums[slots] ** 2
        return (
            np.sqrt(squares[:, :_PARTS].sum(axis=1) + edges),
            np.sqrt(squares[:, _PARTS:].sum(axis=1) + edges),
        )


def _covariance(model: CostModel, scale: Scale) -> Floats:
    """Relative covariance of the coefficients, what their form cannot express included."""
    misfit = model.time.misfit
    covariance = np.zeros((_PARTS, _PARTS))
    covariance[:-1, :-1] = model.energy.covariance_where(scale.coefficients, PRIOR_RATIO)
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
