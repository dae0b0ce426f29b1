"""What changed of the cost of the same steps between two windows, and what is only scatter of two fits.

Both windows have a cost model fitted to them. Their coefficients differ even where nothing changed, most in
directions that the steps of a window tell little of; taken as they are, each is good in its own window and
poor in the other's. So both are pooled, each coefficient weighted by what its window knows, and a difference
is kept only where it is beyond doubt:

- time: of launches, of sequences, and of all work (bytes and FLOPs alike), each by a factor, from the
  coefficients and their covariances by generalised least squares;
- joules: of the same steps, by one factor, from the measured joules of both windows against the pooled model,
  whose covariance says how much the different steps of the windows alone may put them apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from joulescope.insight.diagnosis.window import Window
from joulescope.minute_model import Laws, Steps

Floats = NDArray[np.float64]

_DOUBT = 2.5
"""So many standard errors a difference must be from none,"""

_LEAST_TIME, _LEAST_JOULES = 0.03, 0.015
"""and so large, relative: smaller ones are as likely the form of the model."""

_FLOOR = 0.003
"""Relative standard error of a coefficient at least: covariances know nothing of the form of the model."""


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

    @property
    def changed(self) -> bool:
        return (self.launch, self.sequence, self.work, self.joules) != (1.0, 1.0, 1.0, 1.0)


def compare_laws(first: Window, second: Window) -> LawChange:
    """What changed. Both are to be of one model on GPUs of one kind, laid out alike."""
    old, new = first.laws, second.laws
    time_old, time_new = _vector(old.time_coefficients), _vector(new.time_coefficients)
    covariances = [_covariance(each.time_covariance, len(time_old)) for each in (old, new)]
    difference = np.log(np.maximum(time_new, 1e-300) / np.maximum(time_old, 1e-300))
    factors, errors = _directions(difference, covariances[0] + covariances[1])
    kept = np.where((np.abs(factors) > _DOUBT * errors) & (np.abs(factors) > _LEAST_TIME), factors, 0.0)
    shift = _spread(len(time_old)) @ kept
    pooled_time = np.exp(
        _pooled(
            np.log(time_old), covariances[0], np.log(np.maximum(time_new, 1e-300)) - shift, covariances[1]
        )
    )
    joules_old, joules_new = _vector(old.energy_coefficients), _vector(new.energy_coefficients)
    energy = [_covariance(each.energy_covariance, len(joules_old)) for each in (old, new)]
    scale = float(np.exp(np.median(np.log(joules_new / joules_old))))
    pooled = _pooled(np.log(joules_old), energy[0], np.log(joules_new / scale), energy[1])
    sums = [_energy_sums(each) for each in (first, second)]
    coefficients = np.exp(pooled)
    both = np.linalg.inv(np.linalg.inv(energy[0]) + np.linalg.inv(energy[1]))
    off = [measured / float(row @ coefficients) for row, measured in sums]
    shares = [row * coefficients / float(row @ coefficients) for row, _ in sums]
    apart = shares[1] - shares[0]
    ratio = off[1] / off[0]
    error = math.sqrt(float(apart @ both @ apart) + 2.0 * _FLOOR**2)
    beyond = abs(math.log(ratio)) > max(_DOUBT * error, _LEAST_JOULES)
    # Unchanged, one level for both: the mean leaves to each window half of what is between them.
    level = off[0] if beyond else math.sqrt(off[0] * off[1])
    limit = old.limit_watts
    waits = _pooled_waits(first, second)
    return LawChange(
        before=replace(
            old,
            time_coefficients=tuple(pooled_time.tolist()),
            energy_coefficients=tuple((level * coefficients).tolist()),
            limit_watts=limit,
            unevenness=0.5 * (old.unevenness + new.unevenness),
            wait_seconds=waits or old.wait_seconds,
            idle_watts=old.idle_watts if beyond else _idle(first, second),
        ),
        launch=float(np.exp(kept[0])),
        sequence=float(np.exp(kept[1])),
        work=float(np.exp(kept[2])),
        joules=ratio if beyond else 1.0,
        time_error=float(errors[2]),
        joules_error=error,
    )


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


def _covariance(rows: tuple[tuple[float, ...], ...], count: int) -> Floats:
    """Relative covariance with a floor; wide where none is told."""
    matrix = np.array(rows, dtype=np.float64) if rows else 0.05**2 * np.eye(count)
    return np.asarray(matrix + _FLOOR**2 * np.eye(count))


def _spread(count: int) -> Floats:
    """Coefficients of time × what may change: launch, sequence, all work."""
    columns = np.zeros((count, 3))
    columns[0, 0] = columns[1, 1] = 1.0
    columns[2:, 2] = 1.0
    return columns


def _directions(difference: Floats, covariance: Floats) -> tuple[Floats, Floats]:
    """Logarithms of the factors that explain a difference best, and their standard errors."""
    spread = _spread(len(difference))
    usable = np.abs(difference) < 20.0  # a coefficient that is zero in one window says nothing
    precision = np.linalg.inv(covariance[np.ix_(usable, usable)])
    rows = spread[usable]
    inverse = np.linalg.pinv(rows.T @ precision @ rows)
    return inverse @ rows.T @ precision @ difference[usable], np.sqrt(np.maximum(np.diag(inverse), 1e-12))


def _pooled(one: Floats, one_covariance: Floats, other: Floats, other_covariance: Floats) -> Floats:
    """The mean of two fits, each weighted by what it knows."""
    first, second = np.linalg.inv(one_covariance), np.linalg.inv(other_covariance)
    return np.asarray(np.linalg.solve(first + second, first @ one + second @ other))


def _energy_sums(window: Window) -> tuple[Floats, float]:
    """What the joules of all steps are linear in, on the mean GPU; and what was measured of them."""
    kinds = window.steps()
    gpus = window.observed.service.gpu_count
    row = np.array(
        [
            sum(each.weight_bytes for each in kinds) / gpus,
            sum(each.kv_bytes for each in kinds) / gpus,
            sum(each.flops for each in kinds) / gpus,
            sum(each.sequences for each in kinds),
            sum(each.seconds for each in kinds) / gpus,
        ]
    )
    joules = window.whole.joules
    measured = joules.prefill + joules.decode + joules.overhead_preemption + joules.overhead_rejected_draft
    waited = sum(map(_waited, kinds)) * window.laws.idle_watts
    return row, (measured - waited) / gpus


def _waited(steps: Steps) -> float:
    return steps.waited_seconds
