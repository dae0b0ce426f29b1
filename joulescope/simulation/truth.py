"""Who truly caused the joules: for each request its share by several rules, one of which is right.

``joules`` is the Shapley value of the true cost of every step that the request was in, and an equal part of
what the GPU drew while it waited for these steps (:mod:`joulescope.simulation.book`). ``marginal_joules``
is what would have been saved without the request. The other rules divide the same true joules in a simpler
way: they know the energy of every step, which no meter tells, and still miss.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from joulescope.simulation.physics import Floats
from joulescope.simulation.shapley import Shares

SIMPLE_RULES = ("equal", "by_tokens", "by_output", "by_flops", "leave_one_out")
"""Rules that a cost model is better than; each has its column in :class:`TrueAccount`."""


@dataclass(frozen=True, slots=True)
class TrueAccount:
    """What a request cost so far."""

    joules: float = 0.0
    """Its Shapley shares of all steps that it was in, and its parts of the gaps before them."""
    marginal_joules: float = 0.0
    """What these steps would have cost less without it; a gap is saved only where it was alone."""
    recompute_joules: float = 0.0
    """Of ``joules``, for tokens that were computed before and lost to a preemption."""
    error_joules: float = 0.0
    """One draw of the sampling error of ``joules``; see :class:`joulescope.simulation.shapley.Shares`."""
    equal_joules: float = 0.0
    """Each step divided equally. This and what follows are wrong on purpose, for comparison."""
    by_tokens_joules: float = 0.0
    """Each step divided by tokens computed."""
    by_output_joules: float = 0.0
    """Each step divided by tokens that came out."""
    by_flops_joules: float = 0.0
    """Each step divided by arithmetic."""
    leave_one_out_joules: float = 0.0
    """Each step divided by what it would have cost less without the request."""


@dataclass(frozen=True, slots=True, eq=False)
class StepWork:
    """What the rules look at in one step; columns by request."""

    scheduled: Floats
    sampled: Floats
    recomputed: Floats
    """Of the scheduled tokens, those that were computed before."""
    flops: Floats


def charges_of(shares: Shares, work: StepWork, gap_joules: float = 0.0) -> Floats:
    """What one step adds to the accounts: array [fields of :class:`TrueAccount`, requests].

    Every rule divides the step's joules and those of the gap before it.
    """
    count = len(shares.shapley_joules)
    joules = shares.shapley_joules + gap_joules / count
    total = joules.sum()
    equal = np.full(count, total / count)
    by_tokens = total * work.scheduled / work.scheduled.sum()
    return np.array(
        [
            joules,
            shares.marginal_joules + (gap_joules if count == 1 else 0.0),
            joules * work.recomputed / work.scheduled,
            shares.error_joules,
            equal,
            by_tokens,
            # A step of which nothing came out has to be charged somehow.
            _in_proportion(total, work.sampled, by_tokens),
            _in_proportion(total, work.flops, by_tokens),
            _in_proportion(total, np.maximum(shares.marginal_joules, 0.0), equal),
        ]
    )


def _in_proportion(total: float, weights: Floats, otherwise: Floats) -> Floats:
    whole = weights.sum()
    return np.asarray(total * weights / whole) if whole > 0 else otherwise


@dataclass(frozen=True, slots=True)
class StepEnergy:
    """What one step truly drew on one GPU, for those who want to know how much that knowledge is worth."""

    session: int
    step: int
    gpu: str
    start_ns: int
    end_ns: int
    joules: float
    gap_joules: float
    """Drawn before it while the GPU waited for it."""


class TrueLedger:
    """True accounts by request id; the oldest are forgotten beyond ``limit``.

    Args:
        limit: requests remembered.
        keep_steps: whether :attr:`steps` is filled.
    """

    def __init__(self, limit: int = 200_000, *, keep_steps: bool = False) -> None:
        self._limit = limit
        self._slots: OrderedDict[str, int] = OrderedDict()
        self._table: Floats = np.zeros((len(fields(TrueAccount)), 256))
        self.steps: list[StepEnergy] | None = [] if keep_steps else None

    def open(self, request_id: str) -> None:
        if len(self._slots) >= self._limit:
            slot = self._slots.popitem(last=False)[1]
            self._table[:, slot] = 0.0
        else:
            slot = len(self._slots)
        if slot >= self._table.shape[1]:
            self._table = np.concatenate([self._table, np.zeros_like(self._table)], axis=1)
        self._slots[request_id] = slot

    def charge(self, request_ids: Sequence[str], charges: Floats) -> None:
        """Adds one step by :func:`charges_of`; its columns are parallel to the ids."""
        slots = [self._slots.get(request_id, -1) for request_id in request_ids]
        if min(slots) < 0:
            known = [at for at, slot in enumerate(slots) if slot >= 0]
            slots, charges = [slots[at] for at in known], charges[:, known]
        # No request is twice in a step, so this adds to each exactly once.
        self._table[:, slots] += charges

    def charge_gap(self, request_ids: Sequence[str], gap_joules: float) -> None:
        """Adds time in which the GPU waited after the last step of these requests."""
        count = len(request_ids)
        equal = np.full(count, gap_joules / count)
        columns = {field.name: np.zeros(count) for field in fields(TrueAccount)}
        for name in ("joules", *(f"{rule}_joules" for rule in SIMPLE_RULES)):
            columns[name] = equal
        columns["marginal_joules"] = equal if count == 1 else columns["marginal_joules"]
        self.charge(request_ids, np.array(list(columns.values())))

    def note(self, step: StepEnergy) -> None:
        if self.steps is not None:
            self.steps.append(step)

    def true_joules(self) -> dict[str, float]:
        """What each request truly cost so far, by request id, oldest first."""
        return dict(zip(self._slots, self._table[0, list(self._slots.values())].tolist(), strict=True))

    def get(self, request_id: str) -> TrueAccount | None:
        slot = self._slots.get(request_id)
        return None if slot is None else TrueAccount(*self._table[:, slot].tolist())

    def sampling_error_ratio(self) -> float:
        """Standard error of the truth itself, relative, root mean square over the requests.

        It comes of averaging over sampled orders of arrival instead of all; 0 where no step was so large.
        """
        joules, errors = self._table[[0, 3]][:, list(self._slots.values())]
        used = joules > 0
        return float(np.sqrt(np.mean((errors[used] / joules[used]) ** 2))) if used.any() else 0.0
