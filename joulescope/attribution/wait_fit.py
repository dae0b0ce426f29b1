"""What makes a GPU wait for the host between steps: so long for a step, so long for each sequence in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SINGULAR = 1e12


class WaitFit:
    """Least squares of the seconds waited, by steps and sequences.

    Args:
        keep: part of the past's weight that stays after one more observation (0..1).
    """

    def __init__(self, keep: float = 1.0) -> None:
        self._keep = keep
        self._gram, self._moment = np.zeros((2, 2)), np.zeros(2)

    def take(self, counts: NDArray[np.float64], waited_seconds: float) -> None:
        """Takes steps and the sequences in them (2), and how long the GPU waited for them."""
        self._gram = self._keep * self._gram + np.outer(counts, counts)
        self._moment = self._keep * self._moment + counts * waited_seconds

    @property
    def seconds(self) -> tuple[float, float]:
        """By step and by sequence, neither below zero; steps alone where the two cannot be told apart."""
        by_step = float(self._moment[0] / max(self._gram[0, 0], 1e-300))
        if np.linalg.cond(self._gram) > _SINGULAR:
            return by_step, 0.0
        step, sequence = np.linalg.solve(self._gram, self._moment).tolist()
        if step < 0.0:
            return 0.0, float(self._moment[1] / self._gram[1, 1])
        return (step, sequence) if sequence > 0.0 else (by_step, 0.0)
