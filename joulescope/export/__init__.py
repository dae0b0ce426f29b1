"""Exporters: what leaves the sidecar. They read immutable values and change nothing.

``metrics`` is the one table of metrics; ``prometheus`` and ``otlp_metrics`` both speak from it.
``otlp_spans`` and ``records`` take finished requests one batch at a time, as :class:`RequestSink`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from joulescope.model import FinishedRequest


@runtime_checkable
class RequestSink(Protocol):
    """Takes accounts of finished requests and carries them out of the process."""

    name: str
    """Label value ``exporter``, such as ``otlp`` or ``jsonl``."""

    def export(self, requests: Sequence[FinishedRequest]) -> None:
        """Takes a batch. Never raises; what cannot be delivered is counted."""
        ...

    def counts(self) -> Mapping[str, int]:
        """Requests so far by outcome; a request is counted once, when its outcome is known."""
        ...

    def close(self, timeout_seconds: float) -> None:
        """Flushes, and returns after ``timeout_seconds`` at the latest; a second call does nothing."""
        ...
