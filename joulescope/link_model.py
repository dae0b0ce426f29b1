"""Frozen values that tell how the links to other nodes fare.

The rules of :mod:`joulescope.model` hold here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

REFUSED_LINKS = (
    "plaintext",  # whoever connected does not speak TLS
    "certificate",  # none, or not signed by the authority, or expired
    "handshake",  # no common version or suite, or hung up in the middle
    "slow",  # no handshake, or no hello, in time
    "crowded",  # more than may wait, or more links than there may be
    "newer_protocol",
    "not_this_protocol",  # after the handshake something else than frames of records
    "replaced",  # a newer link of the same node took its place
    "silent",  # no answer any more
)
"""Why a connection of another node was ended from this side."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """One node that has, or lately had, a link to this one."""

    node: str
    up: bool
    offset_seconds: float | None = None
    """What is added to its CLOCK_MONOTONIC to have ours; ``None`` while the link is down."""
    error_seconds: float | None = None
    """How far that may be off to either side, now."""
    round_trip_seconds: float | None = None
    drift_ratio: float | None = None
    """By how much our clock is the faster one."""
    clock_jumps: int = 0


@dataclass(frozen=True, slots=True)
class LinkTotals:
    """All links of a head."""

    listening: bool = False
    links: tuple[LinkState, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)
    """By reason, most of :data:`REFUSED_LINKS`."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Records of links that were not taken, by reason."""
    files_error: str = ""
    """Why the certificates cannot be used as they lie there now; empty if they can."""
