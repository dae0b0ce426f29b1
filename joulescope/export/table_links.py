"""Rows of the metric table that tell how the links to relays on other nodes fare."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from joulescope.export.metric import MAX_OPEN_LABEL_VALUES, Kind, Metric, Point, Read, per_label
from joulescope.label_model import clean
from joulescope.link_model import REFUSED_LINKS, LinkState
from joulescope.model import Snapshot


def _of_link(value: Callable[[LinkState], float | None]) -> Read:
    def read(snapshot: Snapshot) -> Iterator[Point]:
        for link in snapshot.links.links[:MAX_OPEN_LABEL_VALUES]:
            if (found := value(link)) is not None:
                yield Point((clean(link.node),), found)

    return read


def _refused(snapshot: Snapshot) -> Iterator[Point]:
    if snapshot.links.listening:
        yield from per_label((), snapshot.links.refused, REFUSED_LINKS)


LINKS = (
    Metric(
        "joulescope_link_up",
        Kind.GAUGE,
        "",
        ("node",),
        "1 while the relay of another node is connected and its clock is known, 0 after it was. Absent "
        "where no node has been connected.",
        _of_link(lambda link: int(link.up)),
    ),
    Metric(
        "joulescope_link_clock_offset_seconds",
        Kind.GAUGE,
        "seconds",
        ("node",),
        "What is added to the node's CLOCK_MONOTONIC to have that of the head. Absent while the link is "
        "down.",
        _of_link(lambda link: link.offset_seconds),
    ),
    Metric(
        "joulescope_link_clock_error_seconds",
        Kind.GAUGE,
        "seconds",
        ("node",),
        "How far that may be off to either side at most, now. It goes into the error of requests.",
        _of_link(lambda link: link.error_seconds),
    ),
    Metric(
        "joulescope_link_clock_drift_ratio",
        Kind.GAUGE,
        "ratio",
        ("node",),
        "By how much the head's clock was faster over the last minute. Absent in the first ten seconds.",
        _of_link(lambda link: link.drift_ratio),
    ),
    Metric(
        "joulescope_link_clock_jumps_total",
        Kind.COUNTER,
        "jumps",
        ("node",),
        "Times that the clocks of this link moved against each other as no two clocks drift: the "
        "measurement began anew.",
        _of_link(lambda link: link.clock_jumps),
    ),
    Metric(
        "joulescope_link_round_trip_seconds",
        Kind.GAUGE,
        "seconds",
        ("node",),
        "Time that the last question for the node's time took there and back.",
        _of_link(lambda link: link.round_trip_seconds),
    ),
    Metric(
        "joulescope_link_refused_total",
        Kind.COUNTER,
        "connections",
        ("reason",),
        "Connections of other nodes that were ended from this side: plaintext (no TLS), certificate (none, "
        "of another authority, or expired), handshake (no common version, or broken off), slow (no hello in "
        "time), crowded (too many), newer_protocol, not_this_protocol (no frames of records), replaced (by "
        "a newer one of the same node), silent (no answer). Absent where none are taken.",
        _refused,
    ),
)
"""One link for each other node of an engine; a head has few."""
