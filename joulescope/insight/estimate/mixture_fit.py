"""A law of throughput from the time that mixtures of queries took together.

A minute of an engine tells one time for many queries of many lengths. A law that was fitted to their mean
lengths would be off when it is asked for single ones: the mean of times is not the time of the mean. So the
law is fitted to the sum over the lengths that were there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from joulescope.insight.estimate.throughput import Fit, Law, hinges

Floats = np.ndarray[Any, np.dtype[np.float64]]

_SLOPE_SIGMA = 1.0
"""Before anything is seen slopes are within about one of zero: what queries do not tell stays near it."""
_SCATTER = 0.2
"""Of the logarithm of a minute's time about the law, against which that is weighed: a query counts where it
ends, though it began before."""
_STEPS, _HALVINGS, _ENOUGH = 60, 30, 1e-10


@dataclass(frozen=True, slots=True)
class Mixture:
    """Queries that took so long together; arrays of one length, a value for each kind of length."""

    queries: Floats
    input_tokens: Floats
    output_tokens: Floats
    """All above 0."""
    node_seconds: float
    """Time of a whole node for all of them."""


def fit_mixtures(
    mixtures: Sequence[Mixture],
    *,
    input_knots: Sequence[float] = (),
    output_knots: Sequence[float] = (),
    source: str = "",
) -> Fit:
    """Least squares of the logarithm of each mixture's time, weighted by that time.

    Raises:
        ValueError: there is no mixture.
    """
    if not mixtures:
        raise ValueError("there is no mixture to fit")
    problem = _Problem(mixtures, input_knots, output_knots)
    found = problem.solve()
    split = len(input_knots) + 2
    law = Law(
        intercept=float(found[0]),
        input_slopes=tuple(map(float, np.cumsum(found[1:split]))),
        input_knots=tuple(input_knots),
        output_slopes=tuple(map(float, np.cumsum(found[split:]))),
        output_knots=tuple(output_knots),
        scatter=problem.scatter(found),
        input_range=_range([each.input_tokens for each in mixtures]),
        output_range=_range([each.output_tokens for each in mixtures]),
        source=source,
    )
    notes = []
    if problem.told(found) < len(found) - 1:
        notes.append(
            f"the minutes tell {problem.told(found)} of {len(found) - 1} slopes apart: lengths vary too "
            "little, or together; the law holds near the mixes that were seen"
        )
    return Fit(law, len(mixtures), tuple(notes))


def _range(tokens: Sequence[Floats]) -> tuple[float, float]:
    return float(min(each.min() for each in tokens)), float(max(each.max() for each in tokens))


class _Problem:
    """Residuals: ln(time by the law) - ln(time), for each mixture; and a slope's distance from zero."""

    def __init__(
        self, mixtures: Sequence[Mixture], input_knots: Sequence[float], output_knots: Sequence[float]
    ) -> None:
        self._designs = [
            np.column_stack(
                [
                    np.ones_like(each.input_tokens),
                    *hinges(each.input_tokens, input_knots),
                    *hinges(each.output_tokens, output_knots),
                ]
            )
            for each in mixtures
        ]
        self._logs = [np.log(each.queries * each.output_tokens) for each in mixtures]
        seconds = np.array([each.node_seconds for each in mixtures])
        self._seconds = np.log(seconds)
        self._weights = np.sqrt(seconds / seconds.sum() * len(mixtures))
        self._pull = np.full(self._designs[0].shape[1], _SCATTER / _SLOPE_SIGMA)
        self._pull[0] = 0.0

    def _at(self, law: Floats) -> tuple[Floats, Floats]:
        """Residuals of the mixtures and their derivatives, unweighted."""
        residuals, rows = [], []
        for design, logs, seconds in zip(self._designs, self._logs, self._seconds, strict=True):
            times = logs - design @ law
            top = times.max()
            shares = np.exp(times - top)
            total = shares.sum()
            residuals.append(top + math.log(total) - seconds)
            rows.append(-(shares / total) @ design)
        return np.array(residuals), np.array(rows)

    def _loss(self, law: Floats) -> float:
        residuals, _ = self._at(law)
        return float(np.sum((self._weights * residuals) ** 2) + np.sum((self._pull * law) ** 2))

    def solve(self) -> Floats:
        """Gauss and Newton's steps, halved until they help; the loss never rises."""
        law: Floats = np.zeros(self._designs[0].shape[1])
        law[0] = float(np.average(self._at(law)[0], weights=self._weights**2))
        loss = self._loss(law)
        for _ in range(_STEPS):
            residuals, rows = self._at(law)
            left = np.vstack([rows * self._weights[:, None], np.diag(self._pull)])
            right = -np.concatenate([residuals * self._weights, self._pull * law])
            step = np.linalg.lstsq(left, right, rcond=None)[0]
            for _ in range(_HALVINGS):
                tried = self._loss(law + step)
                if tried <= loss:
                    break
                step = 0.5 * step
            else:
                return law
            law, gained, loss = law + step, loss - tried, tried
            if gained <= _ENOUGH * max(loss, _ENOUGH):
                return law
        return law

    def scatter(self, law: Floats) -> float:
        """Standard deviation of ln time about the law; 0 where as many slopes as mixtures leave none."""
        residuals, _ = self._at(law)
        free = residuals.size - self.told(law) - 1
        return math.sqrt(float(np.sum((self._weights * residuals) ** 2)) / free) if free > 0 else 0.0

    def told(self, law: Floats) -> int:
        """Directions of slopes that the mixtures say more of than was believed before."""
        _, rows = self._at(law)
        weighted = rows * self._weights[:, None]
        level = np.sum(weighted * self._weights[:, None], axis=0) / np.sum(self._weights**2)
        centred = (weighted - self._weights[:, None] * level)[:, 1:]
        sizes = np.linalg.svd(centred / self._pull[1:], compute_uv=False)
        return int(np.count_nonzero(sizes > 1.0))
