"""What is taken out of the covariance that minutes keep is what the fit would have said itself."""

from __future__ import annotations

import numpy as np
import pytest

from joulescope.attribution.learn import PriorRegression
from joulescope.attribution.uncertainty import ATTRIBUTED, PRIOR_RATIO
from joulescope.insight.capacity.doubt import coefficient_covariances, where
from joulescope.simulation.worlds import H100_LLAMA_8B
from tests.insight.capacity.observed_engines import observed_engine
from tests.insight.steady.services import laws_of


def taught(count: int) -> PriorRegression:
    """Two coefficients of which the data tell the first well and the second hardly."""
    rng = np.random.default_rng(3)
    fit = PriorRegression(np.array([2.0, 5.0]), np.diag([1.0, 0.5]), keep=0.9999)
    rows = np.column_stack([np.ones(count), 0.0005 * rng.random(count)])
    std = np.full(count, 0.1)
    fit.learn(rows, rows @ np.array([2.05, 4.9]) + 0.03 * rng.standard_normal(count), std)
    return fit


def test_it_is_what_the_fit_says_of_data_and_prior_apart() -> None:
    fit = taught(200)
    ratio = fit.prior / fit.coefficients
    prior = np.diag([1.0, 0.5]) * np.outer(ratio, ratio)
    assert fit.misfit <= 1.0
    found = where(fit.relative_covariance(), prior)
    own = fit.covariance_where(ATTRIBUTED.coefficients, PRIOR_RATIO)
    assert found == pytest.approx(own, rel=1e-6, abs=1e-12)
    # What the data do not tell is as unsure as the prior, and not a third of it.
    assert found[1, 1] > 3.0 * ATTRIBUTED.coefficients**2 * fit.relative_covariance()[1, 1]


def test_of_a_fit_that_learned_nothing_the_prior_is_left() -> None:
    prior = np.diag([0.4, 0.9])
    assert where(prior, prior) == pytest.approx(PRIOR_RATIO**2 * prior)


def test_it_is_never_wider_than_the_prior_however_much_is_stated() -> None:
    prior = np.diag([0.4, 0.9])
    assert where(100.0 * prior, prior) == pytest.approx(PRIOR_RATIO**2 * prior)


def test_laws_without_covariance_have_none() -> None:
    laws = laws_of(H100_LLAMA_8B, H100_LLAMA_8B.limits)
    assert coefficient_covariances(laws, "NVIDIA H100", 1) == (None, None)


def test_well_known_coefficients_are_known_as_a_part_of_what_is_stated() -> None:
    """Beside a hundredth of the prior's variance the prior no longer matters."""
    laws = observed_engine().service.laws
    times, _ = coefficient_covariances(laws, "NVIDIA H100 80GB HBM3", 1)
    assert times is not None
    stated = np.array(laws.time_covariance)
    assert np.diag(times) == pytest.approx(np.diag(stated) * ATTRIBUTED.coefficients**2, rel=0.05)
