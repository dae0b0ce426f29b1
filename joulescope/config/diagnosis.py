"""Settings of the diagnosis that a running sidecar makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from joulescope.config.kinds import Number, setting
from joulescope.config.ledger import LedgerSettings
from joulescope.errors import ConfigError

if TYPE_CHECKING:
    from joulescope.config.table import Settings


@dataclass(frozen=True, slots=True)
class DiagnosisSettings(LedgerSettings):
    """Part of :class:`joulescope.config.table.Settings`, which inherits it."""

    diagnosis_seconds: float = setting(
        300.0,
        Number(0.0, 86_400.0, "seconds"),
        "How often the sidecar divides the change of joules per token of each engine among its causes, "
        "seconds; 0: only when it is asked to, at /api/v1/diagnosis. It takes a process of 80 to 100 MiB "
        "for a second or two.",
    )
    diagnosis_last_seconds: float = setting(
        600.0,
        Number(60.0, 3600.0, "seconds"),
        "Length of the two windows that are compared where nobody says otherwise, seconds. The later one "
        "ends now.",
    )
    diagnosis_before_seconds: float = setting(
        3600.0,
        Number(60.0, 82_800.0, "seconds"),
        "How long before now the window ended that is compared with, seconds: an hour, or a day less an hour "
        "at most, for the sidecar remembers a day. No shorter than diagnosis_last_seconds: windows do not "
        "overlap.",
    )


def check_diagnosis(settings: Settings, origins: Mapping[str, object]) -> None:
    """The two windows do not overlap.

    Raises:
        ConfigError: they would.
    """
    if settings.diagnosis_before_seconds < settings.diagnosis_last_seconds:
        raise ConfigError(
            f"diagnosis_before_seconds ({settings.diagnosis_before_seconds:g}, "
            f"{origins['diagnosis_before_seconds']}) is shorter than diagnosis_last_seconds "
            f"({settings.diagnosis_last_seconds:g}, {origins['diagnosis_last_seconds']}): the two windows "
            "would overlap; raise the first or lower the second"
        )
