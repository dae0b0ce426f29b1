"""Minutes of engines on their way out of the accounting: remembered for a day, and handed on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from joulescope.clock import Clock, SystemClock
from joulescope.config import Settings
from joulescope.daemon.diagnoses import Diagnoses
from joulescope.daemon.latent_keeper import LatentKeeper
from joulescope.export.diagnosis_http import diagnosis_page
from joulescope.export.minute_ring import MinuteRing
from joulescope.ledger_model import MinuteTotals
from joulescope.minute_model import EngineMinute
from joulescope.model import Snapshot
from joulescope.pipeline import Pipeline

_logger = logging.getLogger(__name__)


class MinuteSink(Protocol):
    """Takes minutes of engines and carries them out of the process."""

    def take(self, minutes: Sequence[EngineMinute]) -> None:
        """Takes a batch, in the thread of the accounting. Never raises; what cannot be kept is counted."""
        ...


class MinuteKeeper:
    """Hands the minutes of a pipeline to the ring that the page shows, and to all sinks; and what follows
    from them alone: latent figures, and diagnoses of their changes.

    Args:
        sinks: what takes them besides.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        sinks: Sequence[MinuteSink] = (),
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        settings = settings or Settings()
        self.ring = MinuteRing()
        self.diagnoses = Diagnoses(self.ring, clock or SystemClock(), settings)
        self.page = diagnosis_page(
            self.diagnoses.answer, settings.diagnosis_last_seconds, settings.diagnosis_before_seconds
        )
        self._latents = LatentKeeper()
        self._pipeline = pipeline
        self._sinks: tuple[MinuteSink, ...] = (self.ring, self._latents, *sinks)
        self._told_late = self._told_crowded = False

    def turn(self) -> None:
        """Hands out what was closed since the last turn."""
        closed = self._pipeline.drain_minutes()
        if closed:
            for sink in self._sinks:
                sink.take(closed)
            self._notice()

    def beside(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot, with what befell minutes so far, latent figures, and the latest diagnoses, of the
        engines that it tells of."""
        known = {engine.info.engine for engine in snapshot.engines}
        latents = self._latents.look(snapshot.time_ns, self._pipeline.open_minutes)
        diagnosis = self.diagnoses.totals()
        return replace(
            snapshot,
            minutes=MinuteTotals(self._pipeline.late_minutes, self.ring.crowded_out),
            latents=tuple(each for each in latents if each.engine in known),
            diagnosis=replace(
                diagnosis, engines=tuple(each for each in diagnosis.engines if each.engine in known)
            ),
        )

    def _notice(self) -> None:
        """Says once what whoever reads the minutes should know."""
        if self._pipeline.late_minutes and not self._told_late:
            self._told_late = True
            _logger.warning(
                "readings or records came after their minute was closed; they are in one more line of that "
                "minute, and so will later ones be"
            )
        if self.ring.crowded_out and not self._told_crowded:
            self._told_crowded = True
            _logger.warning(
                "the minutes of a day are more than may be kept in memory; the oldest are forgotten earlier"
            )
