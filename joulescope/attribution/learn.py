"""Linear coefficients learned from a stream, starting from a prior and never straying from reason.

Bayesian linear regression in information form, with forgetting towards the prior: old data fades at a
given rate, the prior does not. So coefficients that the data cannot tell apart (in steady decode the
bytes read and the duration rise together) stay at the prior's proportions. A change of regime is noticed by
residuals that lie to one side, and the old data then counts for little. Memory and time do not grow with
the stream.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_FLOOR = 0.02
"""Least value of a coefficient, as a part of its prior: none of these physical costs is negative."""

_OUTLIER = 2.5
"""Beyond so many standard deviations an observation counts less (Huber 1964)."""

_DRIFT_MEMORY = 0.8
_DRIFT_ALARM = 2.0
"""Mean of the latest residuals that chance alone does not bring about, in standard deviations of a batch's
mean: with this memory it scatters by a third of one, by more where batches resemble those before them."""

_USUAL_MEMORY, _LEAST_SCATTER = 0.97, 0.16
"""How long the scatter of batches is remembered that an alarm is held against, and the least that it is taken
to be (in stated variances)."""

_MOST = 3.5
"""A deviation counts for no more than this in an alarm: one alone must not raise it."""

_FAR, _SEEN_MEMORY = 3.0, 0.98
"""A prior that is off by more than this factor, over so long a memory, is of another kind of machine."""

_ABSURD = 10.0
"""A value counts for no more than so many times what was expected when the prior is moved."""

_SETTLED = 200
"""After so many observations what is not known of the coefficients is little beside the noise."""

_JUMP = 0.3
"""How far a change of regime may carry each coefficient, as a part of its prior (standard deviation)."""


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
    """

    def __init__(
        self,
        prior: Floats,
        relative_covariance: Floats,
        keep: float,
        wander: Floats | None = None,
        outlier_power: float = 1.0,
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
        self._drift, self._usual, self._ratio = 0.0, 1.0, 1.0
        self.changes = 0
        """Changes of regime noticed."""
        self.misfit = 1.0
        """Mean square of the latest residuals, in stated variances."""

    def learn(self, rows: Floats, values: Floats, std: Floats) -> None:
        """Takes observations: ``rows`` (n × coefficients), ``values`` and their standard deviations (n).

        Robust: an observation far from what is expected counts less, but a lasting change (other clocks,
        another limit) makes the old data be forgotten at once.
        """
        if not len(values):
            return
        self._rescale(rows, values)
        expected = rows @ self.coefficients
        deviations = (values - expected) / std
        ratio = float(values.sum() / max(expected.sum(), 1e-300))
        self._ratio = _DRIFT_MEMORY * self._ratio + (1.0 - _DRIFT_MEMORY) * min(max(ratio, 0.2), 5.0)
        if self._regime_changed(rows, deviations, std):
            self.jump()
            deviations = (values - rows @ self.coefficients) / std
        residuals = np.abs(deviations)
        self._note_misfit(residuals)
        weights = np.minimum(1.0, _OUTLIER / np.maximum(residuals, 1e-9)) ** self._outlier_power / std**2
        scaled = rows * self.prior
        kept = self.keep ** len(values)
        weighted = scaled * weights[:, None]
        self._let_wander()
        self._information = kept * self._information + weighted.T @ scaled
        self._evidence = kept * self._evidence + weighted.T @ values
        self.observations += len(values)
        self._covariance = None
        self._solve()

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
        self._information *= ratio**2
        self._evidence *= ratio
        self._seen[1] *= ratio
        self._covariance = None
        self._solve()

    def _regime_changed(self, rows: Floats, deviations: Floats, std: Floats) -> bool:
        """Whether the latest observations lie to one side, beyond what is not known of the coefficients."""
        known = 1.0
        if self.observations < _SETTLED:
            ratio = (rows / std[:, None]).mean(axis=0) * self.coefficients
            known += float(ratio @ self.relative_covariance() @ ratio)
        latest = float(np.clip(deviations, -_MOST, _MOST).mean()) / known**0.5
        usual = max(_LEAST_SCATTER, self._usual) ** 0.5
        self._usual = _USUAL_MEMORY * self._usual + (1.0 - _USUAL_MEMORY) * (latest - self._drift) ** 2
        self._drift = _DRIFT_MEMORY * self._drift + (1.0 - _DRIFT_MEMORY) * latest
        if abs(self._drift) < _DRIFT_ALARM * usual:
            return False
        self._drift = 0.0
        return True

    def jump(self) -> None:
        """All coefficients change by the ratio that was seen, and each by a further jump of unknown size.

        With information A and evidence b the second is (A⁻¹ + D)⁻¹ and its product with A⁻¹b, written
        without A⁻¹: what the data never told stays untold.
        """
        self._information /= self._ratio**2
        self._evidence /= self._ratio
        blur = np.linalg.inv(np.eye(len(self.prior)) + self._information * _JUMP**2)
        self._information = blur @ self._information
        self._evidence = blur @ self._evidence
        self._ratio = 1.0
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
