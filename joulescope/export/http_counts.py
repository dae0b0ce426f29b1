"""Counts of the HTTP server: written by its thread, read by any."""

from __future__ import annotations

from joulescope.label_model import OTHER
from joulescope.serving_model import HTTP_CODES, REFUSED_CONNECTIONS


class HttpCounts:
    """Every key is there from the start, so that a copy can be taken while another thread counts."""

    def __init__(self) -> None:
        self.responses = dict.fromkeys((*HTTP_CODES, OTHER), 0)
        self.refused_connections = dict.fromkeys(REFUSED_CONNECTIONS, 0)

    def answered(self, status: int) -> None:
        """An answer began."""
        code = str(status)
        self.responses[code if code in self.responses else OTHER] += 1

    def refused(self, reason: str) -> None:
        """A connection was ended for one of :data:`~joulescope.serving_model.REFUSED_CONNECTIONS`."""
        self.refused_connections[reason] += 1
