"""What makes a GPU wait for the host between steps: so long for a step, so long for each sequence in it."""

from __future__ import annotations

import numpy as np

_SINGULAR = 1e12


class WaitFit:
    """Least squares of the seconds waited, by steps and sequences.

    Args:
        keep: part of the past's weight that stays after one more observation (0..1).
    """

    def __init__(self, keep: float = 1.0) -> None:
        self._keep = keep
        self._sums = (0.0,) * 5
        """Of squares and products: steps², steps·sequences, sequences², steps·seconds, sequences·seconds."""

    def take(self, steps: float, sequences: float, waited_seconds: float) -> None:
        """Takes steps and the sequences in them, and how long the GPU waited for them."""
        keep, (nn, nq, qq, nw, qw) = self._keep, self._sums
        self._sums = (
            keep * nn + steps * steps,
            keep * nq + steps * sequences,
            keep * qq + sequences * sequences,
            keep * nw + steps * waited_seconds,
            keep * qw + sequences * waited_seconds,
        )

    @property
    def seconds(self) -> tuple[float, float]:
        """By step and by sequence, neither below zero; steps alone where the two cannot be told apart."""
        nn, nq, qq, nw, qw = self._sums
        by_step = nw / max(nn, 1e-300)
        gram = np.array([[nn, nq], [nq, qq]])
        if np.linalg.cond(gram) > _SINGULAR:
            return by_step, 0.0
        step, sequence = np.linalg.solve(gram, (nw, qw)).tolist()
        if step < 0.0:
            return 0.0, qw / qq
        return (step, sequence) if sequence > 0.0 else (by_step, 0.0)
