"""Linear coefficients learned from a stream, starting from a prior and never straying from reason.

Bayesian linear regression in information form, with forgetting towards the prior: old data fades at a
given rate, the prior does not. So coefficients that the data cannot tell apart (in steady decode the
bytes read and the duration rise together) stay at the prior's proportions. A change of regime is noticed by
residuals that lie to one side (:mod:`joulescope.attribution.regime`). What was learned since they began is
then dropped, for it mixes two regimes, and what has changed is learned anew. Memory and time do not grow with
the stream.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.regime import Flags, RegimeWatch

Floats = NDArray[np.float64]

_FLOOR = 0.02
"""Least value of a coefficient, as a part of its prior: none of these physical costs is negative."""

_OUTLIER = 2.5
"""Beyond so many standard deviations an observation counts less (Huber 1964)."""

_RATIO_MEMORY = 0.8
"""How long the latest ratio of seen to expected values is remembered (by batch)."""

_FAR, _SEEN_MEMORY = 3.0, 0.98
"""A prior that is off by more than this factor, over so long a memory, is of another kind of machine."""

_ABSURD = 10.0
"""A value counts for no more than so many times what was expected when the prior is moved."""

_JUMP = 0.3
"""How far a change of regime may carry each coefficient, as a part of its prior (standard deviation)."""

_FORGOTTEN = 1.0
"""The same for a coefficient of which it is seen that it has changed: as little is known as at the start."""


class PriorRegression:
    """Estimates ``c`` in ``y ≈ x·c`` with ``c`` near ``prior``.

    Args:
        prior: expected coefficients, all positive; their scale also sets the units of the fit.
        relative_covariance: how far each may be from its prior, as a part of it, and which go together.
        keep: part of the data's weight that stays after one more observation (0..1).
        wander: how far each coefficient drifts from one call of :meth:`learn` to the next, as a part of its
            prior (standard deviation).
        outlier_power: how fast an outlier's weight falls with its distance. 1: it moves the fit by its sign
            only (Huber); 2: the further off, the less. What wanders must not follow one absurd value.
        alone: which coefficients may change while others stay; all, if not said.
    """

    def __init__(
        self,
        prior: Floats,
        relative_covariance: Floats,
        keep: float,
        wander: Floats | None = None,
        outlier_power: float = 1.0,
        alone: Flags | None = None,
    ) -> None:
        self.prior = prior
        self.coefficients: Floats = prior.copy()
        self.keep = keep
        self._outlier_power = outlier_power
        self._wander = np.zeros(len(prior)) if wander is None else wander
        self._prior_information = np.asarray(np.linalg.inv(relative_covariance), dtype=np.float64)
        self._information = np.zeros_like(self._prior_information)
        self._evidence = np.zeros(len(prior))
        self._pressed: Floats = np.zeros(len(prior))
        """By how much the data would have each coefficient elsewhere, were none held at the floor, in parts
        of its prior."""
        self.observations = 0
        self._seen: Floats = np.zeros(2)
        """Latest values, and what the prior expected of them, summed."""
        self._covariance: Floats | None = None
        self._watch = RegimeWatch(np.ones(len(prior), dtype=np.bool_) if alone is None else alone)
        self._ratio = 1.0
        self._mark()
        self.changes = 0
        """Changes of regime noticed."""
        self.misfit = 1.0
        """Mean square of the latest residuals, in stated variances."""

    def learn(self, rows: Floats, values: Floats, std: Floats, *, is_settled: bool = True) -> None:
        """Takes observations: ``rows`` (n × coefficients), ``values`` and their standard deviations (n).

        Robust: an observation far from what is expected counts less, but a lasting change (other clocks,
        another limit) makes the old data be forgotten at once.

        Args:
            is_settled: nothing else says that a change may be under way.
        """
        if not len(values):
            return
        self._rescale(rows, values)
        brought = rows * self.coefficients
        expected = brought.sum(axis=1)
        deviations = (values - expected) / std
        ratio = float(values.sum() / max(expected.sum(), 1e-300))
        self._ratio = _RATIO_MEMORY * self._ratio + (1.0 - _RATIO_MEMORY) * min(max(ratio, 0.2), 5.0)
        has_all, changed = self._watch.changed(brought / std[:, None], deviations, self.relative_covariance())
        if has_all or changed.any():
            self.jump() if has_all else self._learn_anew(changed)
            deviations = (values - rows @ self.coefficients) / std
        elif (is_settled and self.is_quiet) or self._mark_kept < 0.5:
            self._mark()
        residuals = np.abs(deviations)
        self._note_misfit(residuals)
        weights = np.minimum(1.0, _OUTLIER / np.maximum(residuals, 1e-9)) ** self._outlier_power / std**2
        scaled = rows * self.prior
        kept = self.keep ** len(values)
        weighted = scaled * weights[:, None]
        self._let_wander()
        self._information = kept * self._information + weighted.T @ scaled
        self._evidence = kept * self._evidence + weighted.T @ values
        self._mark_kept *= kept
        self.observations += len(values)
        self._solve()

    @property
    def is_quiet(self) -> bool:
        """Whether the latest observations say nothing of a change."""
        return self._watch.is_quiet

    def _mark(self) -> None:
        """Remembers what is known now as what was known before a change that may come."""
        self._marked = self._information, self._evidence
        self._mark_kept = 1.0

    def _let_wander(self) -> None:
        """Blurs what the data tell of the coefficients that drift: (A⁻¹ + Q)⁻¹ for each in turn."""
        for at in np.flatnonzero(self._wander).tolist():
            column = self._information[:, at].copy()
            gain = self._wander[at] ** 2 / (1.0 + self._wander[at] ** 2 * column[at])
            self._evidence = self._evidence - column * (gain * self._evidence[at])
            self._information = self._information - gain * np.outer(column, column)

    def _rescale(self, rows: Floats, values: Floats) -> None:
        """Moves the whole prior where what is seen lies far from all that it expects: another kind of GPU, or
        facts that are wrong. Its proportions stay."""
        expected = float((rows @ self.prior).sum())
        seen = min(float(values.sum()), _ABSURD * expected)  # one absurd value must not do it alone
        self._seen = _SEEN_MEMORY * self._seen + (seen, expected)
        ratio = float(self._seen[0] / max(self._seen[1], 1e-300))
        if ratio <= 0.0 or 1.0 / _FAR <= ratio <= _FAR:
            return
        self.prior = self.prior * ratio
        self._information = self._information * ratio**2
        self._evidence = self._evidence * ratio
        self._mark()  # the one before is in units of the prior that was
        self._seen[1] *= ratio
        self._solve()

    def _learn_anew(self, changed: Flags) -> None:
        """These coefficients have changed, and the others have not."""
        self._information, self._evidence = self._marked
        self._blur(np.where(changed, _FORGOTTEN, 0.0))

    def jump(self) -> None:
        """All coefficients change by the ratio that was seen, and each by a further jump of unknown size."""
        information, evidence = self._marked
        self._information, self._evidence = information / self._ratio**2, evidence / self._ratio
        self._ratio = 1.0
        self._blur(np.full(len(self.prior), _JUMP))

    def _blur(self, std: Floats) -> None:
        """Each coefficient moves by an unknown amount, of this standard deviation in parts of its prior.

        With information A, evidence b and D of the squares that is (A⁻¹ + D)⁻¹ and its product with A⁻¹b,
        written without A⁻¹: what the data never told stays untold.
        """
        blur = np.linalg.inv(np.eye(len(self.prior)) + self._information * std**2)
        self._information = blur @ self._information
        self._evidence = blur @ self._evidence
        self._mark()
        self.changes += 1
        self._solve()

    def _note_misfit(self, residuals: Floats) -> None:
        kept = max(
            self.keep ** len(residuals), 1.0 - len(residuals) / (self.observations + len(residuals) + 1)
        )
        clipped = np.minimum(residuals, 2.0 * _OUTLIER)
        self.misfit += (1.0 - kept) * (float((clipped**2).mean()) - self.misfit)

    def _solve(self) -> None:
        """Posterior mean, in units of the prior; too small ones are set to the floor and the rest refit."""
        information = self._information + self._prior_information
        evidence = self._evidence + self._prior_information.sum(axis=1)
        unbounded = np.linalg.solve(information, evidence)
        solution = unbounded.copy()
        free = solution >= _FLOOR
        for _ in evidence:
            if free.all():
                break
            solution[~free] = _FLOOR
            fixed = information[np.ix_(free, ~free)] @ solution[~free]
            solution[free] = np.linalg.solve(information[np.ix_(free, free)], evidence[free] - fixed)
            low = free & (solution < _FLOOR)
            if not low.any():
                break
            free &= ~low
        self.coefficients = solution * self.prior
        self._covariance = None
        self._pressed = unbounded - solution

    def relative_covariance(self) -> Floats:
        """Covariance of the coefficients by the posterior, each as a part of its own value.

        Where the data scatter more than their stated standard deviations, so much wider. Where they ask for
        less than the floor, no coefficients of this form are right, and what the others were moved to make up
        for it is doubt of all of them.
        """
        if self._covariance is None:
            information = self._information + self._prior_information
            self._covariance = self._relative(np.asarray(np.linalg.inv(information)) * max(self.misfit, 1.0))
        return self._covariance

    def covariance_where(self, noise_ratio: float, prior_ratio: float) -> Floats:
        """The same where the noise is this part of what was stated, and the prior as much nearer the truth.

        Unlike the other times a square this leaves the prior's width to what the data do not tell.
        """
        told = self._information / (noise_ratio**2 * max(self.misfit, 1.0))
        return self._relative(np.asarray(np.linalg.inv(told + self._prior_information / prior_ratio**2)))

    def _relative(self, covariance: Floats) -> Floats:
        """A covariance in parts of the prior as one in parts of the values, doubt for the floor's sake
        included."""
        ratio = self.prior / self.coefficients
        doubted = covariance + np.outer(self._pressed, self._pressed)
        return np.asarray(doubted * np.outer(ratio, ratio))
