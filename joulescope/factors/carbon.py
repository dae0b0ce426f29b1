"""The grid's carbon intensity, kept fresh in the background and forgotten when it is too old."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from joulescope.clock import Clock
from joulescope.errors import FetchError
from joulescope.factors.sources import Found, Source
from joulescope.periodic import Periodic
from joulescope.units import JOULES_PER_KWH, ns_from_seconds, seconds_from_ns

_logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 10.0
"""Pause after the first failure. It doubles with each further one, up to the usual pause."""


@dataclass(frozen=True, slots=True)
class CarbonState:
    """What is known of the intensity at one instant."""

    grams_per_joule: float | None
    """``None`` before it was first found, and when it is too old."""
    age_seconds: float | None
    """Of the latest figure found, shown or not; ``None`` before the first."""
    failures: dict[str, int]
    """Refreshes that failed, by reason."""


class CarbonRefresher:
    """Asks a source again and again, in a thread of its own.

    Args:
        refresh_seconds: pause between two refreshes.
        max_age_seconds: an older figure is not told any more.
    """

    def __init__(
        self, source: Source, clock: Clock, *, refresh_seconds: float, max_age_seconds: float
    ) -> None:
        self._source = source
        self._clock = clock
        self._refresh_seconds = refresh_seconds
        self._max_age_ns = ns_from_seconds(max_age_seconds)
        self._found: Found | None = None
        self._failures: dict[str, int] = {}
        self._failed_in_a_row = 0
        self._complaint = ""
        self._thread = Periodic(
            "carbon", self.step, failed=lambda: self._count("internal_error"), pause_seconds=refresh_seconds
        )

    def start(self) -> None:
        """Starts the thread; nothing is waited for."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Ends the thread, or leaves it behind if somebody's answer holds it."""
        self._thread.stop(timeout_seconds)

    def step(self) -> float:
        """One refresh; returns the pause until the next, seconds."""
        try:
            self._found = self._source.find()
        except FetchError as error:
            return self._failed(error)
        if self._failed_in_a_row:
            _logger.info("the carbon intensity is there again: %g gCO2e/kWh", self._found.grams_per_kwh)
        self._failed_in_a_row, self._complaint = 0, ""
        return self._refresh_seconds

    def state(self, now_ns: int) -> CarbonState:
        """What is known now; may be called from any thread."""
        found = self._found
        if found is None:
            return CarbonState(None, None, dict(self._failures))
        age_ns = max(now_ns - found.time_ns, 0)
        fresh = age_ns <= self._max_age_ns
        return CarbonState(
            grams_per_joule=found.grams_per_kwh / JOULES_PER_KWH if fresh else None,
            age_seconds=seconds_from_ns(age_ns),
            failures=dict(self._failures),
        )

    def _failed(self, error: FetchError) -> float:
        self._count(error.reason)
        pause_seconds = min(
            FIRST_RETRY_SECONDS * 2.0 ** min(self._failed_in_a_row, 16), self._refresh_seconds
        )
        pause_seconds = max(pause_seconds, error.retry_seconds or 0.0)
        self._failed_in_a_row += 1
        if str(error) != self._complaint:  # once for each trouble, not once for each try
            self._complaint = str(error)
            _logger.warning("no carbon intensity: %s (trying again in %.0f s)", error, pause_seconds)
        return pause_seconds

    def _count(self, reason: str) -> None:
        """Replaces the mapping, so that a reader in another thread never sees one that is changing."""
        self._failures = {**self._failures, reason: self._failures.get(reason, 0) + 1}
