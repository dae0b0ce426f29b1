"""How long to leave a collector in peace that could not take what it was sent."""

from __future__ import annotations

from random import Random

FIRST_SECONDS = 1.0
MOST_SECONDS = 60.0
JITTER = 0.2


class Backoff:
    """Pauses that double, with jitter so that a fleet does not come back as one, up to a minute.

    A collector that says when (``Retry-After``) is not asked earlier.
    """

    def __init__(self, random: Random | None = None) -> None:
        self._random = random or Random()
        self._seconds = FIRST_SECONDS

    def after_failure(self, retry_after_seconds: float | None = None) -> float:
        """Seconds until the next attempt."""
        pause_seconds = self._seconds * self._random.uniform(1 - JITTER, 1 + JITTER)
        self._seconds = min(2 * self._seconds, MOST_SECONDS)
        return max(pause_seconds, retry_after_seconds or 0.0)

    def reset(self) -> None:
        """It answers again."""
        self._seconds = FIRST_SECONDS
