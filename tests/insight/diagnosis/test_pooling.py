"""Two fits as one: what neither tells alone, the measured sums of both windows do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from joulescope.insight.diagnosis.law_change import compare_laws
from joulescope.insight.diagnosis.pooling import pair
from joulescope.insight.diagnosis.window import window_of
from tests.insight.diagnosis.windows import minutes

TRUE = np.array([140.0, 160.0])
"""Joules of reading the weights once, and static watts."""

ROWS = (np.array([1.0, 1.0]), np.array([1.0, 1.4]))
"""Of two windows: the same reads, and steps that take longer in the second."""


def _fit(off: float) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
    """A fit of the first window that does not tell the two apart: what one has too much, the other lacks."""
    values = TRUE + off * np.array([1.0, -1.0])
    spread = 40.0 * np.array([1.0, -1.0]) / values
    return tuple(values.tolist()), tuple(map(tuple, np.outer(spread, spread).tolist()))


def test_sums_of_both_windows_tell_what_no_fit_does() -> None:
    """Both fits say too little of static power, which the longer steps of the second window then show."""
    (old, old_covariance), (new, new_covariance) = _fit(30.0), _fit(20.0)
    both = pair(old, old_covariance, new, new_covariance, ROWS, (1, 0))
    pooled = both.pooled(np.ones(2))
    assert pooled[1] < 145.0
    measured = [row / float(row @ TRUE) for row in ROWS]
    assert both.held_to(pooled, measured, 0.003) == pytest.approx(TRUE, rel=0.02)


def test_fits_that_divide_the_same_joules_otherwise_do_not_differ() -> None:
    """Half more of the one and half less of the other: by their covariances that is nothing."""
    (old, old_covariance), (new, new_covariance) = _fit(-35.0), _fit(35.0)
    both = pair(old, old_covariance, new, new_covariance, ROWS, (1, 0))
    found, _ = both.factors(np.ones((2, 1)))
    assert float(found[0]) == pytest.approx(0.0, abs=0.01)


def test_covariances_stay_those_of_the_fit_they_were_told_of() -> None:
    """In absolute terms, whatever the middle coefficients of the window are."""
    window = list(minutes())
    last = window[-1]
    assert last.laws is not None
    astray = tuple(2.0 * each for each in last.laws.energy_coefficients)
    later = [
        *window,
        replace(
            window[-1],
            start_wall_seconds=last.end_wall_seconds,
            end_wall_seconds=last.end_wall_seconds + 60.0,
        ),
        replace(
            last,
            laws=replace(last.laws, energy_coefficients=astray),
            start_wall_seconds=last.end_wall_seconds + 60.0,
            end_wall_seconds=last.end_wall_seconds + 120.0,
        ),
    ]
    laws = window_of(later, "A", None).laws
    assert laws.energy_coefficients[-1] < 0.9 * astray[-1]
    told, kept = (
        np.array(each.energy_covariance) * np.outer(values, values)
        for each, values in ((last.laws, np.array(astray)), (laws, np.array(laws.energy_coefficients)))
    )
    assert kept == pytest.approx(told, rel=1e-6)


def test_a_law_for_two_windows_says_what_was_measured_in_both() -> None:
    """Nothing of the cost of steps changed, only their number: one law, to a few thousandths."""
    first = window_of(minutes(), "A", None)
    change = compare_laws(first, first)
    assert (change.launch, change.sequence, change.work, change.joules) == (1.0, 1.0, 1.0, 1.0)
    assert change.before.energy_coefficients == pytest.approx(first.laws.energy_coefficients, rel=0.05)
