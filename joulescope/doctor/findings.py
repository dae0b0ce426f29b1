"""What a check found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """How bad a finding is."""

    OK = 0
    NOTE = 1
    """Worth knowing, nothing to mend."""
    WARNING = 2
    """Joulescope works, and tells less or is less sure than it could."""
    ERROR = 3
    """Joulescope cannot do its work here."""


EXIT_CODES = {Severity.OK: 0, Severity.NOTE: 0, Severity.WARNING: 10, Severity.ERROR: 20}
"""With which code the command ends, by the worst finding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about one thing."""

    check: str
    """``python``, ``driver``, ``gpu``, ``socket``, ``hook``, …"""
    severity: Severity
    said: str
    mend: str = ""
    """The command, setting or manifest line that mends it; empty where there is nothing to mend."""


def worst(findings: Iterable[Finding]) -> Severity:
    """The severity of the worst finding."""
    return max((finding.severity for finding in findings), default=Severity.OK)
