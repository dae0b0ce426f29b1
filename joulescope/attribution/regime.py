"""Whether what is observed still follows what was learned: residuals, watched coefficient by coefficient.

A change of regime (other clocks, another limit) shows as residuals that lie to one side. Seldom in all of
them: lower clocks of the multiprocessors make arithmetic dearer, and reading memory costs what it did. Of
sixty steps of a batch two may have a prompt, and the mean over all hardly moves. So beside the mean of all
observations there is one for each coefficient, in which each counts by the square of the part that the
coefficient has in it. Those means are remembered for a few batches, and an alarm is raised where one is
further from zero than chance, what is not known of the coefficients, and the usual scatter of a form that is
not quite right explain.

A host that stalls makes all steps long for a while, and what it takes time for above all: those coefficients
are left to the mean of all, of which bursts soon become the usual scatter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_MEMORY = 0.8
_ALARM = 2.0
"""Mean of the latest deviations that chance alone does not bring about, in standard deviations of a batch's
mean: with this memory it scatters by a third of one, by more where batches resemble those before them."""

_USUAL_MEMORY, _LEAST_SCATTER = 0.97, 0.16
"""How long the scatter of batches is remembered that an alarm is held against, and the least that it is taken
to be (in stated variances)."""

_MOST = 3.5
"""A deviation counts for no more than this: one alone must not raise an alarm."""

_MOST_SCATTER = 4.0
"""A batch counts in a coefficient's usual scatter for at most so many times what is usual: those of a change
are not."""

_QUIET = 0.25
"""Below this part of what raises an alarm no change is under way."""


class RegimeWatch:
    """Watches the deviations of one regression.

    Args:
        alone: which coefficients are watched each by itself, beside all together.
    """

    def __init__(self, alone: Flags) -> None:
        self._alone = alone
        groups = 1 + np.count_nonzero(alone)
        self._drift: Floats = np.zeros(groups)
        """Mean of the latest deviations: of all, and by coefficient."""
        self._usual: Floats = np.ones(groups)
        self._most_scatter: Floats = np.full(groups, _MOST_SCATTER)
        self._most_scatter[0] = np.inf

    def changed(self, brought: Floats, deviations: Floats, covariance: Floats) -> tuple[bool, Flags]:
        """Takes a batch of observations.

        Args:
            brought: what each coefficient brings to each expected value, in standard deviations of the
                observation (n × coefficients).
            deviations: observed less expected values, in the same (n).
            covariance: of the coefficients, relative.

        Returns:
            Whether all has changed, and which coefficients have.
        """
        weights = np.ones((len(brought), len(self._drift)))
        weights[:, 1:] = brought[:, self._alone] / np.maximum(brought.sum(axis=1, keepdims=True), 1e-300)
        weights *= weights
        heard = weights.sum(axis=0)
        weights /= np.maximum(heard, 1e-300)
        unknown = weights.T @ brought
        known_std = np.sqrt(1.0 + (unknown @ covariance * unknown).sum(axis=1))
        self._note(np.clip(deviations, -_MOST, _MOST) @ weights / known_std, np.minimum(heard, 1.0))
        over = np.abs(self._drift) >= self._limits()
        if over.any():
            self._drift[:] = 0.0  # whatever they told of is being heeded
        changed = np.zeros(len(self._alone), dtype=np.bool_)
        changed[self._alone] = over[1:]
        return bool(over[0]), changed

    def _note(self, latest: Floats, heard: Floats) -> None:
        """Remembers the means of a batch, each as far as the batch had to do with it."""
        scatter = np.minimum((latest - self._drift) ** 2, self._most_scatter * self._limits(1.0) ** 2)
        self._usual += heard * (1.0 - _USUAL_MEMORY) * (scatter - self._usual)
        self._drift += heard * (1.0 - _MEMORY) * (latest - self._drift)

    @property
    def is_quiet(self) -> bool:
        """Whether no deviations lie to one side."""
        return bool((np.abs(self._drift) < _QUIET * self._limits()).all())

    def _limits(self, alarm: float = _ALARM) -> Floats:
        return np.asarray(alarm * np.sqrt(np.maximum(_LEAST_SCATTER, self._usual)))
