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


def batch(truth: np.ndarray, rng: np.random.Generator, prompts: int) -> tuple[np.ndarray, ...]:
    """Rows, values with noise, and their std of sixty steps. All are launched; most read memory, which alone
    is not told from the launch; a few compute prompts."""
    found = np.tile([0.2, 0.08, 0.0], (60, 1))
    found[:prompts, 1:] = [0.0, 0.04]
    values = found @ truth * (1.0 + 0.005 * rng.standard_normal(60))
    return found, values, 0.015 * values


def served(fit: PriorRegression, truth: np.ndarray, batches: int, prompts: int = 2, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(batches):
        fit.learn(*batch(truth, rng, prompts))


CHEAPER, DEARER = np.array([1.0, 10.0, 65.0]), np.array([1.0, 10.0, 150.0])


@pytest.mark.parametrize("after", [CHEAPER, DEARER])
def test_a_change_that_few_observations_show_is_noticed(after: np.ndarray) -> None:
    """Of sixty steps two have a prompt: the mean over all hardly moves, that of arithmetic does."""
    fit = regression(1.0, 0.9995)
    served(fit, PRIOR, 60)
    served(fit, after, 4, seed=1)
    assert fit.changes == 1
    assert fit.coefficients == pytest.approx(after, rel=0.03)


def test_what_others_see_holds_the_mark_back() -> None:
    """Joules may fit for a while where durations already say that something has changed: what is known of
    them is marked only as long as all is settled, and a jump begins there."""
    first = {}
    for is_settled in (True, False):
        fit, changed = regression(1.0, 0.998), PRIOR * [1.05, 0.95, 1.0]
        for turn, row in enumerate(rows(100)):
            after = turn >= 50
            value = row @ (changed if after else PRIOR)
            std = np.array([0.1])
            fit.learn(row[None, :], np.array([value]), std, is_settled=is_settled or not after)
        fit.jump()
        first[is_settled] = float(fit.coefficients[0])
    assert first[False] == pytest.approx(1.0, abs=0.005)
    assert first[True] > 1.015


def test_a_mark_does_not_grow_old() -> None:
    """Where the form is never quite right deviations lie to one side for ever, and short of an alarm. Half of
    what is known is forgotten at most until a new mark is made."""
    fit = regression(1.0, 0.99)
    feed(fit, PRIOR, 100)
    for row in rows(200, 1):
        fit.learn(row[None, :], np.array([row @ TRUTH]), np.array([0.02]), is_settled=False)
    changes = fit.changes
    fit.jump()
    assert fit.changes == changes + 1
    assert fit.coefficients == pytest.approx(TRUTH, rel=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_chance_raises_no_alarm(seed: int) -> None:
    """Noise alone, as large as is stated, is no change: none in an hour of half seconds."""
    fit, rng = regression(1.0, 0.9995), np.random.default_rng(seed)
    served(fit, TRUTH, 100, seed=seed)
    learned = fit.changes
    for turn in range(2000):
        found, values, std = batch(TRUTH, rng, prompts=turn % 3)
        fit.learn(found, values + std * rng.standard_normal(60), std)
    assert fit.changes == learned
