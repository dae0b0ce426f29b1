"""A simulated engine over two nodes, as the head's sidecar sees it: some GPUs are read by another clock.

What a link between nodes does to a trace: the instants of the far GPUs' samples are off by what is left of
the difference of the two clocks, they come later, and while the link is broken they come not at all, or all
together afterwards. What the engine tells is not touched: it runs beside the sidecar.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import msgspec

from joulescope.hook.wire import AnyRecord, Sample
from joulescope.units import ns_from_seconds, seconds_from_ns


@dataclass(frozen=True, slots=True)
class FarLink:
    """How readings of another node come to the head, and what is left of the difference of the clocks."""

    error_seconds: float = 0.0
    """Of every instant, all the time: the offset was measured wrong by this, as by a delay that is longer one
    way than the other."""
    drift_ratio: float = 0.0
    """Seconds per second, from the first sample on, that nobody corrects."""
    jitter_seconds: float = 0.0
    """Half the range of what each measurement of the offset adds; one holds for :attr:`measured_seconds`."""
    measured_seconds: float = 1.0
    told_seconds: float = 0.0
    """``clock_error_seconds`` of the samples: how far off the link says that it may be."""
    delay_seconds: float = 0.0
    delay_jitter_seconds: float = 0.0
    """A sample takes up to so much longer, but overtakes none."""
    broken: tuple[tuple[float, float], ...] = ()
    """Stretches, seconds since the first sample, in which nothing comes through."""
    keeps: bool = False
    """Whether the far node keeps what it could not send, and sends it once the link is back."""


def over_a_link(
    records: Iterable[AnyRecord], gpus: Collection[str], link: FarLink, seed: int = 0
) -> Iterator[AnyRecord]:
    """The records of a run in the order in which the head gets them, with the far samples' instants off.

    Args:
        records: of a :class:`joulescope.simulation.traces.SimulatedRun`, in its order.
        gpus: those of the far node.
    """
    far = _FarNode(link, seed)
    waiting: list[tuple[int, int, Sample]] = []
    for number, record in enumerate(records):
        if not isinstance(record, Sample):
            yield record
            continue
        while waiting and waiting[0][0] <= record.time_ns:
            yield heapq.heappop(waiting)[2]
        if record.gpu not in gpus:
            yield record
            continue
        comes_ns = far.comes_ns(record.time_ns)
        if comes_ns is None:
            continue
        if comes_ns <= record.time_ns:
            yield far.seen(record)
        else:
            heapq.heappush(waiting, (comes_ns, number, far.seen(record)))
    while waiting:
        yield heapq.heappop(waiting)[2]


class _FarNode:
    def __init__(self, link: FarLink, seed: int) -> None:
        self._link, self._luck = link, random.Random(seed)
        self._first_ns: int | None = None
        self._last_ns = self._measured_ns = 0
        self._jitter_seconds = 0.0

    def _passed_seconds(self, time_ns: int) -> float:
        if self._first_ns is None:
            self._first_ns = time_ns
        return seconds_from_ns(time_ns - self._first_ns)

    def comes_ns(self, time_ns: int) -> int | None:
        """When what is sent now comes; ``None`` if never."""
        link, passed = self._link, self._passed_seconds(time_ns)
        for start, end in link.broken:
            if start <= passed < end:
                if not link.keeps:
                    return None
                time_ns += ns_from_seconds(end - passed)
        delay = link.delay_seconds + self._luck.random() * link.delay_jitter_seconds
        self._last_ns = max(self._last_ns, time_ns + ns_from_seconds(delay))
        return self._last_ns

    def seen(self, sample: Sample) -> Sample:
        """The sample as the head takes it."""
        link, passed = self._link, self._passed_seconds(sample.time_ns)
        if sample.time_ns - self._measured_ns >= ns_from_seconds(link.measured_seconds):
            self._measured_ns = sample.time_ns
            self._jitter_seconds = link.jitter_seconds * (2.0 * self._luck.random() - 1.0)
        off = link.error_seconds + link.drift_ratio * passed + self._jitter_seconds
        return msgspec.structs.replace(
            sample,
            time_ns=sample.time_ns + ns_from_seconds(off),
            clock_error_seconds=link.told_seconds,
        )
