"""What the far end has to be told again or told at last, after something could not be delivered."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from joulescope.hook.wire import AnyRecord, Gap, Hello, Progress, RequestEnd, RequestStart

MAX_OPEN_REQUESTS = 65_536
MAX_KEPT_ENDS = 4096

OVERLOAD = "overload"
DISCONNECTED = "disconnected"
INTERNAL_ERROR = "internal_error"


class Arrears:
    """Knows the open requests, what of them the far end missed, and since when records are missing.

    Instants are CLOCK_MONOTONIC nanoseconds. Memory is bounded: beyond :data:`MAX_OPEN_REQUESTS` the
    oldest open request is forgotten, beyond :data:`MAX_KEPT_ENDS` the oldest undelivered end.
    """

    def __init__(self, born_ns: int) -> None:
        self.dropped = 0
        """Records that were lost, ever."""
        self.offered_ns = born_ns
        """Up to here everything was handed to the link, if not lost."""
        self.delivered_ns = born_ns
        """Up to here the kernel has taken everything."""
        self._open: dict[int, RequestStart] = {}
        self._unannounced: dict[int, RequestStart] = {}
        self._ends: deque[RequestEnd] = deque(maxlen=MAX_KEPT_ENDS)
        self._gap: Gap | None = None

    @property
    def open_requests(self) -> int:
        return len(self._open)

    @property
    def pressing(self) -> bool:
        """True if there is something to tell that does not wait for the next record."""
        return self._gap is not None or bool(self._ends) or bool(self._unannounced)

    def observe(self, records: Iterable[AnyRecord]) -> None:
        """Follows which requests are open, whether or not their records will be delivered."""
        for record in records:
            if type(record) is RequestStart:
                self._open[record.request] = record
                if len(self._open) > MAX_OPEN_REQUESTS:
                    del self._open[next(iter(self._open))]
            elif type(record) is RequestEnd:
                self._open.pop(record.request, None)

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
            start_ns = self.delivered_ns if reason == DISCONNECTED else self.offered_ns
            self._extend_gap(start_ns, count, reason)

    def lose_records(self, records: Iterable[AnyRecord], reason: str) -> None:
        """Like :meth:`lose`, but keeps back starts and ends, which the far end cannot do without."""
        lost = 0
        for record in records:
            if isinstance(record, Gap):
                self._extend_gap(record.start_ns, record.dropped, record.reason)
            elif isinstance(record, RequestStart):
                if record.request in self._open:
                    self._unannounced[record.request] = record
                lost += 1
            elif isinstance(record, RequestEnd):
                if self._unannounced.pop(record.request, None) is None:
                    self._ends.append(record)
                lost += 1
            elif not isinstance(record, (Hello, Progress)):
                lost += 1
        self.lose(lost, reason)

    def settle(self, now_ns: int) -> list[AnyRecord]:
        """The records that make up for what was missed, the gap first; they are owed no longer."""
        records: list[AnyRecord] = []
        if self._gap is not None:
            records.append(msgspec.structs.replace(self._gap, end_ns=now_ns))
        records += [msgspec.structs.replace(start, resumed=True) for start in self._unannounced.values()]
        records += self._ends
        self._gap = None
        self._unannounced = {}
        self._ends.clear()
        return records

    def _extend_gap(self, start_ns: int, dropped: int, reason: str) -> None:
        if self._gap is None:
            self._gap = Gap(start_ns=start_ns, end_ns=start_ns, dropped=dropped, reason=reason)
        else:
            self._gap.start_ns = min(self._gap.start_ns, start_ns)
            self._gap.dropped += dropped
