"""What stands beside the accounts, as the settings ask: the place, the grid, servers without a hook."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from joulescope.clock import Clock, WallAnchor
from joulescope.config import Settings
from joulescope.daemon.secrets import token_of
from joulescope.factors.carbon import CarbonRefresher
from joulescope.factors.sources import FileSource, Source, UrlSource
from joulescope.model import Snapshot
from joulescope.scraping.server import ScrapedServer
from joulescope.surroundings_model import FETCH_FAILURES, Multipliers
from joulescope.units import JOULES_PER_KWH

_logger = logging.getLogger(__name__)


class Surroundings:
    """Puts into each snapshot what is known beside the joules, and keeps it fresh in the background."""

    def __init__(
        self,
        constants: Multipliers | None = None,
        carbon: CarbonRefresher | None = None,
        servers: Sequence[ScrapedServer] = (),
    ) -> None:
        self._constants = constants or Multipliers()
        self._carbon = carbon
        self._servers = tuple(servers)
        self._threads: list[ScrapedServer | CarbonRefresher] = [*servers, *([carbon] if carbon else [])]

    @classmethod
    def build(
        cls, settings: Settings, clock: Clock, wall: WallAnchor, environ: Mapping[str, str] = os.environ
    ) -> Surroundings:
        """What the settings ask for; nothing is fetched before :meth:`start`.

        Raises:
            ConfigError: if a variable that should hold a token does not.
        """
        servers = [
            ScrapedServer(url, clock, wall, period_seconds=settings.scrape_seconds) for url in settings.scrape
        ]
        if servers and settings.gpus == "engine":
            _logger.warning(
                "scrape names servers and gpus is engine: GPUs that no hook names are not read; if these "
                "servers have no hook, set gpus to all or to the UUIDs of theirs"
            )
        return cls(_constants(settings), _carbon(settings, clock, wall, environ), servers)

    def start(self) -> None:
        """Starts to fetch; nothing is waited for."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Stops fetching; waits so long for each that is at it."""
        for thread in self._threads:
            thread.stop(timeout_seconds)

    def beside(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot, with what is known at its instant."""
        now_ns = snapshot.time_ns
        return replace(
            snapshot,
            multipliers=self._multipliers(now_ns),
            servers=tuple(server.totals(now_ns) for server in self._servers),
        )

    def _multipliers(self, now_ns: int) -> Multipliers:
        if self._carbon is None:
            return self._constants
        state = self._carbon.state(now_ns)
        return replace(
            self._constants,
            carbon_grams_per_joule=state.grams_per_joule,
            carbon_age_seconds=state.age_seconds,
            carbon_failures={**dict.fromkeys(FETCH_FAILURES, 0), **state.failures},
        )


def _constants(settings: Settings) -> Multipliers:
    price, intensity = settings.electricity_price, settings.carbon_intensity
    return Multipliers(
        pue_ratio=settings.pue,
        carbon_grams_per_joule=intensity / JOULES_PER_KWH if isinstance(intensity, float) else None,
        price_per_joule=None if price is None else price / JOULES_PER_KWH,
        currency=settings.currency or "",
    )


def _carbon(
    settings: Settings, clock: Clock, wall: WallAnchor, environ: Mapping[str, str]
) -> CarbonRefresher | None:
    if not isinstance(settings.carbon_intensity, str):
        return None
    return CarbonRefresher(
        _source(settings.carbon_intensity, settings, clock, wall, environ),
        clock,
        refresh_seconds=settings.carbon_refresh_seconds,
        max_age_seconds=settings.carbon_max_age_seconds,
    )


def _source(
    place: str, settings: Settings, clock: Clock, wall: WallAnchor, environ: Mapping[str, str]
) -> Source:
    if "://" not in place:
        return FileSource(place, settings.carbon_field, clock, wall)
    return UrlSource(
        place,
        settings.carbon_field,
        clock,
        header=settings.carbon_header,
        token=token_of("carbon_token", settings.carbon_token, environ),
    )
