"""What the far end has to be told again or told at last, after something could not be delivered.

The manners are those of :mod:`joulescope.hook.arrears`, for records that are dicts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from joulescope.sdk.records import GAP, HELLO, PROGRESS, REQUEST_END, REQUEST_START, Record, gap, request_end

MAX_KEPT_ENDS = 4096

OVERLOAD = "overload"
DISCONNECTED = "disconnected"


class Arrears:
    """Knows the open requests, what of them the far end missed, and since when records are missing.

    Instants are CLOCK_MONOTONIC nanoseconds. Memory is bounded by the open requests, which the engine
    bounds, and by :data:`MAX_KEPT_ENDS`.
    """

    def __init__(self, born_ns: int) -> None:
        self.dropped = 0
        """Records that were lost, ever."""
        self.offered_ns = born_ns
        """Up to here everything was handed to the link, if not lost."""
        self.delivered_ns = born_ns
        """Up to here the kernel has taken everything."""
        self._open: dict[object, Record] = {}
        self._unannounced: dict[object, Record] = {}
        self._ends: deque[Record] = deque(maxlen=MAX_KEPT_ENDS)
        self._gap_start_ns: int | None = None
        self._gap_dropped = 0
        self._gap_reason = ""

    @property
    def pressing(self) -> bool:
        """True if there is something to tell that does not wait for the next record."""
        return self._gap_start_ns is not None or bool(self._ends) or bool(self._unannounced)

    def observe(self, records: Iterable[Record]) -> None:
        """Follows which requests are open, whether or not their records will be delivered."""
        for record in records:
            if record["type"] == REQUEST_START:
                self._open[record["request"]] = record
            elif record["type"] == REQUEST_END:
                self._open.pop(record["request"], None)

    def reconcile(self, truth: Mapping[int, Record], now_ns: int) -> list[Record]:
        """Makes up for starts and ends that never came here: ``truth`` are the requests that are open.

        Returns the ends to be sent after what has come; they say ``unknown``, since the reason is lost.
        """
        for handle, start in truth.items():
            if handle not in self._open:
                self._open[handle] = self._unannounced[handle] = start
        ends = []
        for gone in [handle for handle in self._open if handle not in truth]:
            if self._unannounced.pop(gone, None) is None:
                ends.append(request_end(_int(gone), now_ns, "unknown", None))
            else:
                del self._open[gone]
        return ends

    def new_session(self, *, first: bool) -> None:
        """A far end that knows nothing yet: it hears of the open requests, not of ends it cannot place."""
        self._ends.clear()
        self._unannounced = dict(self._open)
        if not first:
            self._extend_gap(self.delivered_ns, 0, DISCONNECTED)

    def lose(self, count: int, reason: str) -> None:
        """Counts ``count`` lost records; they are admitted in the next gap."""
        if count:
            self.dropped += count
            self._extend_gap(self.delivered_ns if reason == DISCONNECTED else self.offered_ns, count, reason)

    def lose_records(self, records: Iterable[Record], reason: str) -> None:
        """Like :meth:`lose`, but keeps back starts and ends, which the far end cannot do without."""
        lost = 0
        for record in records:
            kind, handle = record["type"], record.get("request")
            if kind == GAP:
                self._extend_gap(_int(record["start_ns"]), _int(record["dropped"]), str(record["reason"]))
            elif kind == REQUEST_START and handle in self._open:
                self._unannounced[handle] = record
            elif kind == REQUEST_END and self._unannounced.pop(handle, None) is None:
                self._ends.append(record)
            lost += kind not in (GAP, HELLO, PROGRESS)
        self.lose(lost, reason)

    def settle(self, now_ns: int) -> list[Record]:
        """The records that make up for what was missed, the gap first; they are owed no longer."""
        records: list[Record] = []
        if self._gap_start_ns is not None:
            records.append(gap(self._gap_start_ns, now_ns, self._gap_dropped, self._gap_reason))
        records += [{**start, "resumed": True} for start in self._unannounced.values()]
        records += self._ends
        self._gap_start_ns, self._gap_dropped = None, 0
        self._unannounced = {}
        self._ends.clear()
        return records

    def _extend_gap(self, start_ns: int, dropped: int, reason: str) -> None:
        if self._gap_start_ns is None:
            self._gap_start_ns, self._gap_reason = start_ns, reason
        self._gap_start_ns = min(self._gap_start_ns, start_ns)
        self._gap_dropped += dropped


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
