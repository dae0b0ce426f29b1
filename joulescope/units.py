"""Conversions between units. Inside joulescope everything is SI, with two named exceptions.

* Instants and durations that are compared exactly are integer nanoseconds (``_ns``).
* The ledger counts whole microjoules (``_uj``), so that its identity holds exactly and not only up
  to floating-point rounding; see ``docs/decisions/0002-integer-microjoules.md``.
"""

from __future__ import annotations

import re

NANOSECONDS_PER_SECOND = 1_000_000_000
MICROJOULES_PER_JOULE = 1_000_000
JOULES_PER_KWH = 3_600_000
SECONDS_BY_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
"""Of the letters in which people write ages and stretches of time, such as ``10m``."""

_STRETCH = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def seconds_of_stretch(text: str) -> float:
    """Seconds of a stretch of time as people write it, such as ``10m``.

    Raises:
        ValueError: if it is none, or no time at all.
    """
    found = _STRETCH.fullmatch(text.strip())
    seconds = float(found[1]) * SECONDS_BY_UNIT[found[2]] if found is not None else 0.0
    if seconds <= 0.0:
        raise ValueError(f"{text[:40]!r} is no stretch of time such as 10m, 1h or 1d")
    return seconds


def seconds_from_ns(duration_ns: int) -> float:
    return duration_ns / NANOSECONDS_PER_SECOND


def ns_from_seconds(duration_seconds: float) -> int:
    return round(duration_seconds * NANOSECONDS_PER_SECOND)


def joules_from_uj(energy_uj: int) -> float:
    return energy_uj / MICROJOULES_PER_JOULE


def uj_from_joules(energy_joules: float) -> int:
    return round(energy_joules * MICROJOULES_PER_JOULE)
