"""The watch over residuals: what it takes for a change, and what it does not."""

from __future__ import annotations

import numpy as np

from joulescope.attribution.regime import RegimeWatch

SURE = np.zeros((2, 2))
BOTH = np.ones(2, dtype=np.bool_)


def told(watch: RegimeWatch, brought: list[list[float]], deviations: list[float]) -> list[bool]:
    of_all, by_coefficient = watch.changed(np.array(brought), np.array(deviations), SURE)
    return [of_all, *by_coefficient.tolist()]


def settled(alone: list[bool] | None = None) -> RegimeWatch:
    """After many batches without deviations."""
    watch = RegimeWatch(BOTH if alone is None else np.array(alone))
    for _ in range(100):
        assert not any(told(watch, [[60.0, 0.0], [0.0, 60.0]], [0.0, 0.0]))
    return watch


def test_one_batch_alone_raises_no_alarm() -> None:
    """However far it is off; the second does, for both coefficients, and with it all is heeded."""
    watch = settled()
    assert told(watch, [[60.0, 0.0], [0.0, 60.0]], [50.0, 50.0]) == [False, False, False]
    assert not watch.is_quiet
    assert told(watch, [[60.0, 0.0], [0.0, 60.0]], [50.0, 50.0]) == [False, True, True]
    assert watch.is_quiet


def test_one_coefficient_is_told_from_the_other() -> None:
    """Nine in ten observations are of the first; only those of the second are off."""
    watch = settled()
    brought, deviations = [[60.0, 0.0]] * 9 + [[0.0, 60.0]], [0.0] * 9 + [3.0]
    assert told(watch, brought, deviations) == [False, False, False]
    assert told(watch, brought, deviations) == [False, False, True]


def test_batches_that_have_nothing_to_do_with_it_are_no_reprieve() -> None:
    """A coefficient's mean is not diluted by batches in which it plays no part."""
    watch = settled()
    told(watch, [[0.0, 60.0]], [3.0])
    for _ in range(20):
        assert not any(told(watch, [[60.0, 0.6]] * 60, [0.0] * 60))
    assert told(watch, [[0.0, 60.0]], [3.0])[2]


def test_what_is_not_known_of_a_coefficient_explains_deviations() -> None:
    """Five standard deviations of one that may be off by ten are no news."""
    watch, unsure = settled(), np.diag([0.0, (10.0 / 60.0) ** 2])
    for _ in range(10):
        of_all, by_coefficient = watch.changed(np.array([[0.0, 60.0]]), np.array([5.0]), unsure)
        assert not of_all
        assert not by_coefficient.any()


def test_a_usual_scatter_is_no_change() -> None:
    """Batches that are off to this side and that for ever raise the bar for all that follow."""
    watch = settled()
    for turn in range(200):
        watch.changed(np.array([[60.0, 0.0]]), np.array([1.5 if turn % 2 else -1.5]), SURE)
    told(watch, [[60.0, 0.0]], [3.0])
    assert not any(told(watch, [[60.0, 0.0]], [3.0]))


def test_what_is_not_watched_alone_changes_with_all() -> None:
    """A host's own coefficient: few observations that are off say nothing, and all of them do."""
    watch = settled(alone=[True, False])
    few = ([[60.0, 0.0]] * 9 + [[0.0, 60.0]], [0.0] * 9 + [3.0])
    for _ in range(20):
        assert not any(told(watch, *few))
    batches = [told(watch, [[0.0, 60.0], [0.0, 60.0]], [50.0, 50.0]) for _ in range(6)]
    assert [True, False, False] in batches
    assert not any(found[2] for found in batches)
