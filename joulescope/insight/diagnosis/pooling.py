"""Two fits of the same coefficients as one, and by what factors of groups of them they differ.

Coefficients are scaled by the larger of both. One that a fit has pressed to nothing has given its part to
another that the data cannot tell from it (each step of a dense model is launched, and reads the same
weights), and then the fit is surer of both than it should be: how they divide is taken to be unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_FLOOR = 0.003
"""Relative standard error of a coefficient at least: covariances know nothing of the form of the model."""

_NOTHING = 0.05
"""A coefficient that is a smaller part of the other fit's is as good as zero."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two fits, scaled."""

    scale: Floats
    values: tuple[Floats, Floats]
    covariances: tuple[Floats, Floats]

    def pooled(self, factors: Floats) -> Floats:
        """One fit for both, the second taken back by factors: each weighted by what it knows. Unscaled."""
        old, new = self.values[0], self.values[1] / factors
        first, second = (np.linalg.inv(each) for each in self.covariances)
        mean = np.linalg.solve(first + second, first @ old + second @ new)
        return np.asarray(np.maximum(mean, 0.0) * self.scale)

    def covariance(self) -> Floats:
        """Of the pooled fit, relative to the scale."""
        first, second = (np.linalg.inv(each) for each in self.covariances)
        return np.asarray(np.linalg.inv(first + second))

    def held_to(self, coefficients: Floats, rows: Sequence[Floats], error: float) -> Floats:
        """Coefficients, moved as far as the pooled covariance lets them for each row to come to 1.

        Args:
            coefficients: unscaled, and so are those that are returned.
            rows: what the coefficients are multiplied by, in sum.
            error: standard error of each sum.
        """
        told = np.stack(rows) * self.scale
        values, covariance = coefficients / self.scale, self.covariance()
        spread = told @ covariance @ told.T + error**2 * np.eye(len(rows))
        moved = values + covariance @ told.T @ np.linalg.solve(spread, 1.0 - told @ values)
        return np.asarray(np.maximum(moved, 0.0) * self.scale)

    def factors(self, groups: Floats) -> tuple[Floats, Floats]:
        """Factors of groups of coefficients (coefficients × groups, 0 or 1) by which the fits differ, less
        one, by generalised least squares; and their standard errors."""
        rows = groups * self.values[0][:, None]
        usable = rows.any(axis=0)
        precision = np.linalg.inv(self.covariances[0] + self.covariances[1])
        inverse = np.linalg.pinv(rows.T @ precision @ rows)
        found = inverse @ rows.T @ precision @ (self.values[1] - self.values[0])
        errors = np.sqrt(np.maximum(np.diag(inverse), 1e-12))
        return np.where(usable, found, 0.0), errors


def pair(
    old: tuple[float, ...],
    old_covariance: tuple[tuple[float, ...], ...],
    new: tuple[float, ...],
    new_covariance: tuple[tuple[float, ...], ...],
    rows: tuple[Floats, Floats],
    partners: tuple[int, int],
) -> Pair:
    """Two fits with their relative covariances.

    Args:
        rows: what the coefficients were multiplied by, in sum, in each window.
        partners: which coefficient another, pressed to nothing, has given its part to; the second is for the
            first itself.
    """
    raw = [np.maximum(np.array(each, dtype=np.float64), 0.0) for each in (old, new)]
    scale = np.maximum(np.maximum(*raw), 1e-300)
    values = (raw[0] / scale, raw[1] / scale)
    covariances = (
        _scaled(values[0], old_covariance, scale * rows[0], partners),
        _scaled(values[1], new_covariance, scale * rows[1], partners),
    )
    return Pair(scale, values, covariances)


def _scaled(
    values: Floats, relative: tuple[tuple[float, ...], ...], weights: Floats, partners: tuple[int, int]
) -> Floats:
    """Covariance of one fit; ``weights``: what a unit of each scaled coefficient is in the window's sum."""
    count = len(values)
    told = np.array(relative, dtype=np.float64) if relative else 0.05**2 * np.eye(count)
    told = np.where(np.isfinite(told), told, 0.0)
    covariance = told * np.outer(values, values) + _FLOOR**2 * np.eye(count)
    for at in np.flatnonzero(values < _NOTHING):
        partner = partners[1] if at == partners[0] else partners[0]
        way = np.zeros(count)
        way[at] = 1.0
        if weights[partner] > 0.0 and partner != at:
            way[partner] = -weights[at] / weights[partner]
        covariance += np.outer(way, way)
    return np.asarray(covariance)
