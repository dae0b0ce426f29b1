"""Linear coefficients learned from a stream, starting from a prior and never straying from reason.

Bayesian linear regression in information form, with forgetting towards the prior: old data fades at a
given rate, the prior does not. So coefficients that the data cannot tell apart (in steady decode the
bytes read and the duration rise together) stay at the prior's proportions, and a change of regime is
followed once the old data has faded. Memory and time do not grow with the stream.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_FLOOR = 0.02
"""Least value of a coefficient, as a part of its prior: none of these physical costs is negative."""

_OUTLIER = 2.5
"""Beyond so many standard deviations an observation counts less (Huber 1964)."""


class PriorRegression:
    """Estimates ``c`` in ``y ≈ x·c`` with ``c`` near ``prior``.

    Args:
        prior: expected coefficients, all positive; their scale also sets the units of the fit.
        relative_std: how far each may be from its prior, as a part of it.
        keep: part of the data's weight that stays after one more observation (0..1).
    """

    def __init__(self, prior: Floats, relative_std: float, keep: float) -> None:
        self.prior = prior
        self.coefficients: Floats = prior.copy()
        self._keep = keep
        self._prior_information = np.eye(len(prior)) / relative_std**2
        self._information = np.zeros_like(self._prior_information)
        self._evidence = np.zeros(len(prior))
        self.observations = 0

    def learn(self, rows: Floats, values: Floats, std: Floats) -> None:
        """Takes observations: ``rows`` (n × coefficients), ``values`` and their standard deviations (n).

        Robust: an observation far from what is expected counts less, but a lasting change wins.
        """
        if not len(values):
            return
        residuals = np.abs(values - rows @ self.coefficients) / std
        weights = np.minimum(1.0, _OUTLIER / np.maximum(residuals, 1e-9)) / std**2
        scaled = rows * self.prior
        kept = self._keep ** len(values)
        weighted = scaled * weights[:, None]
        self._information = kept * self._information + weighted.T @ scaled
        self._evidence = kept * self._evidence + weighted.T @ values
        self.observations += len(values)
        self._solve()

    def _solve(self) -> None:
        """Posterior mean, in units of the prior; too small ones are set to the floor and the rest refit."""
        information = self._information + self._prior_information
        evidence = self._evidence + self._prior_information.sum(axis=1)
        free = np.ones(len(evidence), dtype=bool)
        solution = np.full(len(evidence), _FLOOR)
        for _ in evidence:
            fixed = information[np.ix_(free, ~free)] @ solution[~free]
            solution[free] = np.linalg.solve(information[np.ix_(free, free)], evidence[free] - fixed)
            low = free & (solution < _FLOOR)
            if not low.any():
                break
            solution[low] = _FLOOR
            free &= ~low
        self.coefficients = solution * self.prior

    def relative_std(self, row: Floats) -> float:
        """Standard deviation of ``row·c`` by the posterior, as a part of its value."""
        scaled = row * self.prior
        information = self._information + self._prior_information
        value = float(row @ self.coefficients)
        variance = float(scaled @ np.linalg.solve(information, scaled))
        return variance**0.5 / value if value > 0 else 0.0
