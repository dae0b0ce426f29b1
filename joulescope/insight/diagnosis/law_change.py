"""What changed of the cost of the same steps between two windows, and what is only scatter of two fits.

Both windows have a cost model fitted to them. Their coefficients differ even where nothing changed, most in
directions that the steps of a window tell little of; taken as they are, each is good in its own window and
poor in the other's. So both are pooled, each coefficient weighted by what its window knows, and a difference
is kept only where it is beyond doubt:

- time: of launches, of sequences, and of all work (bytes and FLOPs alike), each by a factor, from the
  coefficients and their covariances by generalised least squares, if each window's law says of the other's
  steps that they take another time;
- joules: of the same steps, by one factor, from the measured joules of both windows against the pooled model,
  whose covariance says how much the different steps of the windows alone may put them apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from joulescope.insight.capacity.observed import joules_of_steps, work_of_steps
from joulescope.insight.diagnosis.pooling import Floats, pair
from joulescope.insight.diagnosis.window import Window
from joulescope.minute_model import Laws

_DOUBT = 2.5
"""So many standard errors a difference must be from none,"""

_LEAST_TIME, _LEAST_JOULES, _LEAST_EVIDENCE = 0.03, 0.025, 0.015
"""and so large, relative: smaller ones are as likely the form of the model."""

_LEAST_RATIO, _FITS = 0.05, 0.06

_LAUNCH, _BYTES = 0, 2
"""Coefficients of time that the steps of a dense model do not tell apart."""

_STATIC = 4
"""That of joules which most of the others can be taken for."""

_FLOOR = 0.003
"""Relative standard error of measured joules of steps, at least."""


@dataclass(frozen=True, slots=True)
class LawChange:
    """Factors of the second window's laws against the first's; 1 where nothing is beyond doubt."""

    before: Laws
    """Pooled, as they were in the first window."""
    launch: float
    sequence: float
    work: float
    """Time of bytes and FLOPs."""
    joules: float
    """Of the same steps."""
    time_error: float
    """Relative standard error of ``work``; the next of ``joules``."""
    joules_error: float
    fits: bool = True
    """Whether the pooled laws, with these factors, say of both windows' steps how long they took. Else the
    two fits have too little in common, and what differs cannot be told apart."""


def compare_laws(first: Window, second: Window) -> LawChange:
    """What changed. Both are to be of one model on GPUs of one kind, laid out alike."""
    old, new = first.laws, second.laws
    times = pair(
        old.time_coefficients,
        old.time_covariance,
        new.time_coefficients,
        new.time_covariance,
        (_time_sums(first)[0], _time_sums(second)[0]),
        (_LAUNCH, _BYTES),
    )
    groups = _groups(len(times.scale))
    found, errors = times.factors(groups)
    doubtful = (np.abs(found) <= _DOUBT * errors) | (np.abs(found) <= _LEAST_TIME)
    if _evidence(first, second) < _LEAST_EVIDENCE:
        doubtful[:] = True
    kept = np.where(doubtful, 1.0, np.maximum(1.0 + found, _LEAST_RATIO))
    joules = _compare_joules(first, second)
    pooled = times.pooled(_each(groups, kept))
    ends = ((first, pooled), (second, pooled * _each(groups, kept)))
    return LawChange(
        before=replace(
            old,
            time_coefficients=tuple(pooled.tolist()),
            energy_coefficients=joules.coefficients,
            unevenness=0.5 * (old.unevenness + new.unevenness),
            wait_seconds=_pooled_waits(first, second) or old.wait_seconds,
            idle_watts=old.idle_watts if joules.ratio != 1.0 else _idle(first, second),
        ),
        launch=float(kept[0]),
        sequence=float(kept[1]),
        work=float(kept[2]),
        joules=joules.ratio,
        time_error=float(errors[2]),
        joules_error=joules.error,
        fits=all(_agrees(window, law) for window, law in ends),
    )


def _agrees(window: Window, times: Floats) -> bool:
    """Whether decode steps took as long as a law of time says; true where power held them back."""
    return abs(_misfit(window, times)) < _FITS


def _misfit(window: Window, times: Floats) -> float:
    """By how much decode steps took longer or shorter than a law of time says, relative; 0 where nothing is
    known of it."""
    row, seconds = _time_sums(window)
    steps = window.whole.decode_steps
    if seconds <= 0.0 or steps.power_bound_seconds > 0.1 * steps.seconds:
        return 0.0
    return float(row @ times) / seconds - 1.0


def own_misfit(window: Window) -> float:
    """How far a window's own law is from its own steps, relative: much, where they changed within it."""
    return abs(_misfit(window, np.array(window.laws.time_coefficients)))


@dataclass(frozen=True, slots=True)
class _JoulesChange:
    coefficients: tuple[float, ...]
    """At the level of the first window, or of both where they do not differ."""
    ratio: float
    error: float


def _compare_joules(first: Window, second: Window) -> _JoulesChange:
    """The joules of the same steps in both windows."""
    old, new = first.laws, second.laws
    sums = [_energy_sums(each) for each in (first, second)]
    both = pair(
        old.energy_coefficients,
        old.energy_covariance,
        new.energy_coefficients,
        new.energy_covariance,
        (sums[0][0], sums[1][0]),
        (_STATIC, 0),
    )
    # By what factor the fits differ, with what they do not tell apart left out of it: ratios of single
    # coefficients are mostly how each fit divided the same joules.
    found, _ = both.factors(np.ones((len(both.scale), 1)))
    coefficients = both.pooled(np.full(len(both.scale), max(1.0 + float(found[0]), _LEAST_RATIO)))
    off = [measured / float(row @ coefficients) for row, measured in sums]
    shares = [row * both.scale / float(row @ coefficients) for row, _ in sums]
    apart = shares[1] - shares[0]
    ratio = off[1] / off[0]
    error = math.sqrt(float(apart @ both.covariance() @ apart) + 2.0 * _FLOOR**2)
    beyond = abs(math.log(ratio)) > max(_DOUBT * error, _LEAST_JOULES)
    if beyond:
        return _JoulesChange(tuple((off[0] * coefficients).tolist()), ratio, error)
    # Unchanged, one law for both: what was measured of different steps says which coefficients are off.
    level = math.sqrt(off[0] * off[1])
    told = both.held_to(level * coefficients, [row / measured for row, measured in sums], _FLOOR)
    return _JoulesChange(tuple(told.tolist()), 1.0, error)


def _groups(count: int) -> Floats:
    """Coefficients of time × what may change: launch, sequence, all work."""
    columns = np.zeros((count, 3))
    columns[0, 0] = columns[1, 1] = 1.0
    columns[2:, 2] = 1.0
    return columns


def _each(groups: Floats, factors: Floats) -> Floats:
    """The factor of each coefficient."""
    return np.asarray(groups @ factors)


def _evidence(first: Window, second: Window) -> float:
    """How surely decode steps take another time, relative.

    Each window's law is held against the steps of the other. Where the same steps take longer, both say so. A
    law that is only of another form than the steps is off in one direction for larger batches than its own,
    and in the other for smaller.
    """
    rows = [_time_sums(each) for each in (first, second)]
    if any(seconds <= 0.0 for _, seconds in rows):
        return math.inf
    laws = [np.array(each.laws.time_coefficients) for each in (first, second)]
    if len(laws[0]) != len(laws[1]):
        return math.inf
    foreseen = [[float(row @ law) for row, _ in rows] for law in laws]
    own = [foreseen[at][at] / rows[at][1] for at in (0, 1)]
    forward = math.log(rows[1][1] / max(foreseen[0][1] / own[0], 1e-12))
    backward = math.log(max(foreseen[1][0] / own[1], 1e-12) / rows[0][1])
    return min(abs(forward), abs(backward)) if forward * backward > 0.0 else 0.0


def _time_sums(window: Window) -> tuple[Floats, float]:
    """What the seconds of decode steps are linear in, on one GPU, where memory sets the pace; and them."""
    steps, cost = window.whole.decode_steps, window.laws.cost
    gpus = window.observed.service.gpu_count
    dense = steps.steps * (cost.weight_bytes - cost.expert_weight_bytes)
    experts = max(steps.weight_bytes - dense, 0.0) if cost.expert_weight_bytes else 0.0
    if not experts:
        dense = steps.weight_bytes
    other = max(steps.flops - steps.tokens * cost.flops_per_token, 0.0)
    count = len(window.laws.time_coefficients)
    row = [steps.steps, steps.sequences, dense / gpus, steps.kv_bytes / gpus, other / gpus]
    row += [experts / gpus] * (count - len(row))
    return np.array(row), steps.seconds / gpus


def levelled(window: Window) -> Laws:
    """The laws of a window by themselves, with the joules that were measured of its steps."""
    laws = window.laws
    row, measured = _energy_sums(window)
    level = measured / float(row @ _vector(laws.energy_coefficients))
    return replace(laws, energy_coefficients=tuple(level * each for each in laws.energy_coefficients))


def waits_changed(first: Window, second: Window) -> bool:
    """Whether the GPUs waited for the host otherwise, in a way that matters beside the steps."""
    return _pooled_waits(first, second) is None


def _pooled_waits(first: Window, second: Window) -> tuple[float, float] | None:
    """One law of waiting for both windows; ``None`` if each needs its own."""
    old, new = (each.laws.wait_seconds for each in (first, second))
    for window in (first, second):
        batch, step = window.observed.fared.batch, window.observed.fared.step_seconds
        one, other = old[0] + old[1] * batch, new[0] + new[1] * batch
        if abs(one - other) > 0.02 * step and abs(one - other) > 0.2 * max(one, other):
            return None
    return 0.5 * (old[0] + new[0]), 0.5 * (old[1] + new[1])


def _idle(first: Window, second: Window) -> float:
    """Idle watts of both windows, by the time in which each was seen idle; one that never was knows less."""
    weighted = [(each.whole.joules.idle + 1e-6, each.laws.idle_watts) for each in (first, second)]
    return sum(weight * watts for weight, watts in weighted) / sum(weight for weight, _ in weighted)


def _vector(values: tuple[float, ...]) -> Floats:
    return np.maximum(np.array(values, dtype=np.float64), 1e-300)


def _energy_sums(window: Window) -> tuple[Floats, float]:
    """What the joules of all steps are linear in, on the mean GPU; and what was measured of them."""
    gpus = window.observed.service.gpu_count
    row = np.array(work_of_steps(window.whole, gpus)) / gpus
    return row, joules_of_steps(window.whole, window.laws.idle_watts) / gpus
