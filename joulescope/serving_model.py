"""Frozen values that tell how the sidecar's own HTTP server fares.

The rules of :mod:`joulescope.model` hold here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HTTP_CODES = ("200", "400", "401", "403", "404", "405", "429", "500", "503")
"""Statuses that the sidecar's pages answer with; any other, such as 431, is counted as ``other``."""

REFUSED_CONNECTIONS = (
    "handshake",  # no TLS, no common version or suite, or no certificate that was asked for
    "client_certificate",  # verified, and its names are not on the list
    "configuration",  # the web configuration file cannot be used
    "crowded",  # made room for a newer one
    "slow",  # neither asked nor read in time
)
"""Why a connection was ended before its client had what it came for."""


@dataclass(frozen=True, slots=True)
class ServingTotals:
    """Answers and refusals since the start."""

    responses: Mapping[str, int] = field(default_factory=dict)
    """By status, as text; ``other`` for those not in :data:`HTTP_CODES`."""
    refused_connections: Mapping[str, int] = field(default_factory=dict)
    """By reason, one of :data:`REFUSED_CONNECTIONS`."""
    config_usable: bool | None = None
    """Whether the web configuration file could be used when it was last looked at; ``None`` without one."""
    config_failures: int = 0
    """Times that the file became unusable, or unusable in another way."""
    certificate_not_after_seconds: float | None = None
    """Wall time at which the certificate expires; ``None`` without TLS, or if it cannot be told."""
