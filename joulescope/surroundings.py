"""What stands beside the accounts: figures of the place and the grid, as the settings ask for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace

from joulescope.clock import Clock, WallAnchor
from joulescope.config import Settings
from joulescope.errors import ConfigError
from joulescope.factors.carbon import CarbonRefresher
from joulescope.factors.sources import FileSource, Source, UrlSource, clean_token, token_of_file
from joulescope.model import Snapshot
from joulescope.model_surroundings import FETCH_FAILURES, Multipliers
from joulescope.units import JOULES_PER_KWH


class Surroundings:
    """Puts into each snapshot what is known beside the joules, and keeps it fresh in the background."""

    def __init__(self, constants: Multipliers | None = None, carbon: CarbonRefresher | None = None) -> None:
        self._constants = constants or Multipliers()
        self._carbon = carbon

    @classmethod
    def build(
        cls, settings: Settings, clock: Clock, wall: WallAnchor, environ: Mapping[str, str] = os.environ
    ) -> Surroundings:
        """What the settings ask for; nothing is fetched before :meth:`start`.

        Raises:
            ConfigError: if a variable that should hold a token does not.
        """
        price, intensity = settings.electricity_price, settings.carbon_intensity
        constants = Multipliers(
            pue_ratio=settings.pue,
            carbon_grams_per_joule=intensity / JOULES_PER_KWH if isinstance(intensity, float) else None,
            price_per_joule=None if price is None else price / JOULES_PER_KWH,
            currency=settings.currency or "",
        )
        if not isinstance(intensity, str):
            return cls(constants, None)
        refresher = CarbonRefresher(
            _source(intensity, settings, clock, wall, environ),
            clock,
            refresh_seconds=settings.carbon_refresh_seconds,
            max_age_seconds=settings.carbon_max_age_seconds,
        )
        return cls(constants, refresher)

    def start(self) -> None:
        """Starts to fetch; nothing is waited for."""
        if self._carbon is not None:
            self._carbon.start()

    def stop(self, timeout_seconds: float) -> None:
        """Stops fetching."""
        if self._carbon is not None:
            self._carbon.stop(timeout_seconds)

    def beside(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot, with what is known at its instant."""
        return replace(snapshot, multipliers=self._multipliers(snapshot.time_ns))

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
        token=_token(settings.carbon_token, environ),
    )


def _token(place: str | None, environ: Mapping[str, str]) -> Callable[[], str] | None:
    """How to come by the token. A variable cannot change any more: a bad one is refused now."""
    if place is None:
        return None
    kind, _, where = place.partition(":")
    if kind == "file":
        return token_of_file(where)
    try:
        token = clean_token(environ.get(where, ""))
    except ValueError as problem:
        raise ConfigError(
            f"carbon_token names the variable {where}: {problem}; set it, or unset both"
        ) from None
    return lambda: token
