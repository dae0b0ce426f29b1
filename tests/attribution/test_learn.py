"""Learning: from a prior to the truth, no further than the data carry, and on when the truth changes."""

from __future__ import annotations

import numpy as np
import pytest

from joulescope.attribution.learn import PriorRegression

PRIOR = np.array([1.0, 10.0, 100.0])
TRUTH = np.array([1.7, 6.0, 140.0])


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 1.5, (count, 3)) / PRIOR


def regression(relative_std: float, keep: float) -> PriorRegression:
    return PriorRegression(PRIOR, np.eye(3) * relative_std**2, keep)


def feed(fit: PriorRegression, truth: np.ndarray, count: int, seed: int = 0) -> None:
    for row in rows(count, seed):
        fit.learn(row[None, :], np.array([row @ truth]), np.array([0.02]))


def test_it_begins_with_the_prior() -> None:
    """Before any observation the prior is the answer, with the prior's uncertainty."""
    fit = regression(0.5, 0.99)
    assert fit.coefficients == pytest.approx(PRIOR)
    assert fit.relative_covariance() == pytest.approx(np.eye(3) * 0.25)


def test_it_finds_the_truth() -> None:
    """Varied observations carry it from the prior to the true coefficients."""
    fit = regression(1.0, 0.999)
    feed(fit, TRUTH, 500)
    assert fit.coefficients == pytest.approx(TRUTH, rel=0.02)
    assert np.sqrt(fit.relative_covariance()[0, 0]) < 0.05


def test_what_the_data_cannot_tell_apart_keeps_the_priors_proportions() -> None:
    """Two features that always rise together: their sum is learned, their ratio stays."""
    fit = regression(0.5, 0.99)
    row = np.array([1.0, 0.1, 0.0])
    for _ in range(300):
        fit.learn(row[None, :], np.array([3.0]), np.array([0.02]))
    assert fit.coefficients[0] == pytest.approx(fit.coefficients[1] / 10.0, rel=1e-6)
    assert row @ fit.coefficients == pytest.approx(3.0, rel=0.01)


def test_a_change_is_followed() -> None:
    """After a change of regime the old data fades and the new truth is found."""
    fit = regression(1.0, 0.98)
    feed(fit, PRIOR, 300)
    feed(fit, TRUTH, 600, seed=1)
    assert fit.coefficients == pytest.approx(TRUTH, rel=0.05)


def test_an_outlier_moves_little() -> None:
    """One absurd observation among good ones is nearly ignored."""
    fit = regression(1.0, 0.999)
    feed(fit, TRUTH, 300)
    before = fit.coefficients.copy()
    fit.learn(rows(1, 9), np.array([500.0]), np.array([0.02]))
    assert fit.coefficients == pytest.approx(before, rel=0.05)


def test_no_coefficient_becomes_negative() -> None:
    """Physical costs are not negative, whatever the noise says."""
    fit = regression(1.0, 0.999)
    feed(fit, np.array([2.0, -5.0, 120.0]), 300)
    assert (fit.coefficients > 0).all()


def test_what_is_held_at_the_floor_makes_the_others_unsure() -> None:
    """Data of another form ask for a negative cost. What the others are moved by to make up for it is not
    known of them, however many the data."""
    impossible, least = np.array([-0.5, 10.0, 100.0]), np.array([0.02, 10.0, 100.0])
    unsure, sure = regression(1.0, 0.999), regression(1.0, 0.999)
    feed(unsure, impossible, 2000)
    feed(sure, least, 2000)
    missed = np.abs(unsure.coefficients - impossible)[1:] / unsure.coefficients[1:]
    assert (missed > 0.1).all()
    for ratios in ((1.0, 1.0), (0.3, 0.7)):
        stated = np.sqrt(np.diag(unsure.covariance_where(*ratios)))[1:]
        assert stated == pytest.approx(missed, rel=0.15)
        assert (stated > 5.0 * np.sqrt(np.diag(sure.covariance_where(*ratios)))[1:]).all()


def test_a_prior_of_another_kind_of_machine_is_left_behind() -> None:
    """Where everything is a thousand times what was expected, the expectation moves as a whole."""
    fit = regression(1.0, 0.999)
    for row in rows(300):
        fit.learn(row[None, :], np.array([1000.0 * (row @ TRUTH)]), np.array([20.0]))
    assert fit.coefficients == pytest.approx(1000.0 * TRUTH, rel=0.05)


def test_a_change_of_proportions_is_noticed_at_once() -> None:
    """A lasting shift makes the old data count little, long before it would have faded."""
    fit = regression(1.0, 0.9999)
    feed(fit, PRIOR, 2000)
    feed(fit, TRUTH, 60, seed=1)
    assert fit.changes >= 1
    assert fit.coefficients == pytest.approx(TRUTH, rel=0.1)


def test_a_coefficient_that_drifts_is_followed() -> None:
    """What is said to wander follows a slow drift closely, and the others stay where they are."""
    errors = []
    for wander in (np.zeros(3), np.array([0.0, 0.0, 0.02])):
        fit = PriorRegression(PRIOR, np.eye(3), 0.999, wander)
        truth = TRUTH.copy()
        for row in rows(600, 3):
            truth[2] += 0.2
            fit.learn(row[None, :], np.array([row @ truth]), np.array([0.02]))
        errors.append(np.abs(fit.coefficients / truth - 1.0))
    assert errors[1][2] < 0.3 * errors[0][2]
    assert errors[1][:2].max() < 0.03


def test_coefficients_that_go_together_move_together() -> None:
    """What is seen of one tells of another that is expected to be like it, and of no third one."""
    covariance = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    fit = PriorRegression(PRIOR, covariance, 0.99)
    for _ in range(300):
        fit.learn(np.array([[1.0, 0.0, 0.0]]), np.array([2.0]), np.array([0.02]))
    assert fit.coefficients / PRIOR == pytest.approx([2.0, 1.9, 1.0], rel=0.01)


def test_what_wanders_does_not_follow_one_absurd_value() -> None:
    """With outliers that count the less the further off they are, a glitch of the meter moves nothing."""
    moved = []
    for power in (1.0, 2.0):
        fit = PriorRegression(PRIOR, np.eye(3), 0.999, np.array([0.0, 0.0, 0.02]), power)
        feed(fit, TRUTH, 300)
        before = fit.coefficients[2]
        fit.learn(rows(1, 9), np.array([6.0 * float(rows(1, 9)[0] @ TRUTH)]), np.array([0.02]))
        moved.append(abs(float(fit.coefficients[2]) / before - 1.0))
    assert moved[1] < 0.01 < moved[0]
