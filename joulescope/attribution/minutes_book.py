"""Fills the minutes of engines from what the accountant settles.

A joule belongs to the minute in which it was drawn. An interval that crosses a minute's edge is cut there:
joules of steps go by the modelled joules of the steps on each side, the rest by the time outside of steps.
Whole microjoules are divided, so that the minutes of the engines of a GPU sum to its account exactly. Where
several engines drive a GPU, what is no engine's own (idle, start-up, unattributed) is divided equally; where
none does, it is in minutes of the engine ``""``.

A minute is closed when everything up to its end is accounted. What comes later, which takes a reading that
was on its way for more than twice the longest wait, is in one more minute of the same kind and time, and is
counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from joulescope.attribution.apportion import apportion
from joulescope.attribution.charge import Charged
from joulescope.attribution.division import EngineShare
from joulescope.attribution.engine import Engine
from joulescope.attribution.gpu import GpuState
from joulescope.attribution.laws import SEQUENCES
from joulescope.attribution.ledger import Posting
from joulescope.attribution.minutes_gpu import GpuWatch
from joulescope.attribution.minutes_load import Told, note_load
from joulescope.attribution.minutes_open import OpenMinute, Place, minute_span
from joulescope.attribution.minutes_place import Filed, Places
from joulescope.attribution.minutes_sums import STEPS, WAITED, clipped, modelled_joules, step_sums
from joulescope.attribution.minutes_time import MinuteClock
from joulescope.attribution.steps import Segment, StepBlock
from joulescope.minute_model import EngineMinute, Laws
from joulescope.model import FinishedRequest, GpuStatus
from joulescope.units import NANOSECONDS_PER_SECOND

GRACE_NS = 2 * NANOSECONDS_PER_SECOND
"""So much longer a minute is open for requests that ended in it while a step that computed them ran on."""

_MOST_EMPTY = 60
"""So many minutes in which nothing happened at all are made one after the other; a longer leap is none that
was lived through."""

_OWN = ("decode", "overhead_rejected_draft", "wasted_rejected_draft")
_OF_PROMPTS = ("prefill", "overhead_preemption", "wasted_preemption")
_COMMON = ("idle", "overhead_startup", "overhead_dummy_batch", "unattributed")

_BY_SHARE = {
    "prefill": "prefill_uj",
    "decode": "decode_uj",
    "overhead_preemption": "preemption_overhead_uj",
    "overhead_rejected_draft": "rejected_overhead_uj",
    "wasted_preemption": "recomputed_uj",
    "wasted_rejected_draft": "rejected_uj",
}
_NOTHING = Charged()


class MinuteBook:
    """The open minutes of all engines. Not thread-safe: it belongs to the accountant.

    Args:
        gpus_of: the GPUs that an engine drives.
    """

    def __init__(self, gpus_of: Callable[[Engine], list[GpuState]]) -> None:
        self.clock = MinuteClock(0)
        self.late = 0
        """Minutes that something came to after they were closed."""
        self._places = Places(gpus_of, self._moved)
        self._gpus = GpuWatch()
        self._open: dict[tuple[int, int], OpenMinute] = {}
        self._closed: list[EngineMinute] = []
        self._done: int | None = None
        """The last minute that is closed."""
        self._counted: dict[str, dict[str, int]] = {}
        """What each engine label had counted when it was asked last."""
        self._told: dict[str, Told | None] = {}
        """The gauges that each engine label told last."""

    def set_wall_offset(self, wall_offset_ns: int) -> None:
        """Wall time less monotonic time; to be told before anything comes in."""
        self.clock = MinuteClock(wall_offset_ns)

    def renew(self) -> None:
        """Engines or GPUs are described anew."""
        self._places.renew()

    # ------------------------------------------------------------------------------------------ what comes in

    def status(self, status: GpuStatus) -> None:
        """What was read of a GPU; it counts for the engines that drive the GPU then."""
        self._gpus.status(status)

    def lost(self, engine: Engine, start_ns: int, end_ns: int) -> None:
        """What the engine did in this stretch is not known whole, and neither are its queues.

        A hook that connects tells what it could not send before: of that time nothing is known anyway.
        """
        start_ns = max(start_ns, engine.alive_span()[0])
        if end_ns <= start_ns:
            return
        for minute, begin_ns, stop_ns in self.clock.pieces(start_ns, end_ns):
            found = self._of(engine, minute)
            found.untold_ns += stop_ns - begin_ns
            found.no_kv_ns += stop_ns - begin_ns

    def started(self, engine: Engine, time_ns: int) -> None:
        """A request came."""
        self._of(engine, self.clock.of(time_ns + 1)).load["requests_started"] += 1

    def counted(self, engine: Engine, block: StepBlock) -> None:
        """Steps were counted, all of one minute: what the tally has more than before is theirs."""
        minute = self.clock.of(int(block.end_ns[-1, -1]))
        found = self._of(engine, minute)
        tally = engine.tally
        before = self._counted.setdefault(engine.info.engine, {})
        for kind, count in (*tally.tokens.items(), *tally.counts()):
            had = before.get(kind, 0)
            if count != had:
                (found.load if kind == "preemptions" else found.tokens)[kind] += count - had
                before[kind] = count
        label, told = engine.info.engine, self._told
        told[label] = note_load(
            block, self.clock, lambda at: found if at == minute else self._of(engine, at), told.get(label)
        )

    def finished(self, engine: Engine, requests: Iterable[FinishedRequest]) -> None:
        """Requests whose accounts are closed; each counts for the minute in which it ended."""
        for request in requests:
            self._of(engine, self.clock.of(request.end_ns)).finished(request, request.task)

    def take(
        self,
        gpu: GpuState,
        posting: Posting,
        shares: Sequence[tuple[EngineShare, Charged]],
        drivers: Sequence[Engine],
        avoided_uj: Sequence[int],
    ) -> None:
        """An interval that was divided and charged.

        Args:
            drivers: the engines that may have used the GPU.
            avoided_uj: by driver, what cache hits in its steps saved.
        """
        interval = posting.interval
        pieces = list(self.clock.pieces(interval.start_ns, interval.end_ns))
        by_engine = {id(share.engine): (share, charged) for share, charged in shares}
        common = _common_uj(posting, [charged for _, charged in shares])
        count = max(len(drivers), 1)
        places: list[Engine | None] = list(drivers) or [None]
        for at, engine in enumerate(places):
            share, charged = by_engine.get(id(engine), (None, _NOTHING))
            uj = {name: part for name, total in common.items() if (part := _part(total, at, count))}
            uj.update({name: part for name, of in _BY_SHARE.items() if (part := getattr(charged, of))})
            found = [self._of(engine, minute) for minute, _, _ in pieces]
            if avoided_uj and engine is not None and avoided_uj[at]:
                found[-1].uj["avoided"] += avoided_uj[at]
            segments = [] if share is None else share.segments
            if len(pieces) == 1:
                self._put(found[0], uj, charged.marginal_uj, share, segments)
            else:
                self._put_pieces(found, pieces, uj, charged.marginal_uj, share)
            for each, (_, _, end_ns) in zip(found, pieces, strict=True):
                each.reached_ns = max(each.reached_ns, end_ns)
        self._gpus.take(gpu, interval, self.clock, [(engine, 1.0 / count) for engine in places], self._of)

    def _put(
        self,
        minute: OpenMinute,
        uj: dict[str, int],
        marginal_uj: float,
        share: EngineShare | None,
        segments: Sequence[Segment],
    ) -> None:
        minute.uj.update(uj)
        minute.marginal_uj += marginal_uj
        if share is None or not segments:
            return
        sums = step_sums(segments, share.engine.model, share.at_limit)
        minute.steps += sums
        both = sums.sum(axis=0).tolist()
        minute.place.waits.take(both[STEPS], both[SEQUENCES], both[WAITED])

    def _put_pieces(
        self,
        minutes: Sequence[OpenMinute],
        pieces: Sequence[tuple[int, int, int]],
        uj: dict[str, int],
        marginal_uj: float,
        share: EngineShare | None,
    ) -> None:
        """The same of an interval that lies in several minutes."""
        segments: list[list[Segment]] = []
        prompts, steps, outside = np.zeros((3, len(pieces)))
        for at, (_, begin_ns, end_ns) in enumerate(pieces):
            whole = () if share is None else share.segments
            parts = [part for each in whole if (part := clipped(each, begin_ns, end_ns)) is not None]
            segments.append(parts)
            prompts[at], steps[at] = modelled_joules(parts)
            busy_ns = sum(int(part.overlap_ns.sum()) for part in parts)
            outside[at] = max(end_ns - begin_ns - busy_ns, 0)
        if not outside.any():
            outside = np.array([end_ns - begin_ns for _, begin_ns, end_ns in pieces], dtype=np.float64)
        if not steps.any():
            steps = outside
        if not prompts.any():
            prompts = steps
        weights = {**dict.fromkeys(_OWN, steps), **dict.fromkeys(_OF_PROMPTS, prompts)}
        divided = {name: apportion(total, weights.get(name, outside)).tolist() for name, total in uj.items()}
        for at, minute in enumerate(minutes):
            own = {name: parts[at] for name, parts in divided.items() if parts[at]}
            marginal = marginal_uj * float(steps[at] / steps.sum())
            self._put(minute, own, marginal, share, segments[at])

    def _of(self, engine: Engine | None, minute: int) -> OpenMinute:
        """The open minute of an engine; ``None``: of GPUs that no engine has."""
        filed = self._places.of(engine)
        place = filed.place
        found = self._open.get((minute, place.number))
        if found is None:
            if self._done is not None and minute <= self._done:
                self.late += 1
            found = self._open[minute, place.number] = OpenMinute(place, minute)
        return found if engine is None else found.of(engine, filed.since_ns, filed.gpu_count)

    def _moved(self, engine: Engine, before: Place, filed: Filed) -> None:
        """An engine is another kind than before, or more is known of what it is."""
        for minute, number in [key for key in self._open if key[1] == before.number]:
            found = self._open[minute, number]
            others = any(stay.engine is not engine for stay in found.stays)
            is_free = not others and (minute, filed.place.number) not in self._open
            if before.is_as_good_as(filed.place) and is_free:
                del self._open[minute, number]
                found.place = filed.place
                self._open[minute, filed.place.number] = found
            else:
                found.left(engine, filed.since_ns)

    # ----------------------------------------------------------------------------------------- what goes out

    def close(self, settled_ns: int, engines: Sequence[Engine]) -> None:
        """Closes the minutes up to this instant, of the engines and of those that are gone.

        Args:
            settled_ns: everything up to here is accounted, or never will be.
        """
        done = self.clock.of(settled_ns - GRACE_NS + 1) - 1
        if self._done is not None and done <= self._done:
            return  # what comes late waits for the next minute's end: it may be more than one piece
        self._visit(done, engines)
        self._done = done
        self._hand_out([key for key in self._open if key[0] <= done], None)

    def close_all(self, now_ns: int, engines: Sequence[Engine]) -> None:
        """Closes everything, at the end of a run."""
        self._visit(self.clock.of(now_ns), engines)
        self._hand_out(list(self._open), now_ns)

    def _visit(self, last: int, engines: Sequence[Engine]) -> None:
        """Opens the minutes of engines to which nothing happened: they were idle, and that is known."""
        before = min((minute for minute, _ in self._open), default=last) - 1
        before = before if self._done is None else self._done
        for minute in range(max(before, last - _MOST_EMPTY) + 1, last + 1):
            begin_ns, end_ns = minute_span(minute, self.clock.wall_offset_ns)
            for engine in engines:
                up_ns, down_ns = engine.alive_span()
                if up_ns < end_ns and down_ns > begin_ns:
                    self._of(engine, minute)

    def _hand_out(self, keys: Iterable[tuple[int, int]], now_ns: int | None) -> None:
        for key in sorted(keys):
            found = self._open.pop(key)
            self._closed.append(self._value(found, now_ns))

    def _value(self, found: OpenMinute, now_ns: int | None) -> EngineMinute:
        begin_ns, end_ns = minute_span(found.minute, self.clock.wall_offset_ns)
        if found.stays:
            came_ns, went_ns = found.span()
            begin_ns = min(max(begin_ns, came_ns), end_ns)
            end_ns = max(min(end_ns, went_ns), begin_ns)
        if now_ns is not None:
            end_ns = max(min(end_ns, max(now_ns, found.reached_ns)), begin_ns)
        return found.value(begin_ns, end_ns, self.clock.wall_offset_ns, self._laws(found))

    def _laws(self, found: OpenMinute) -> Laws | None:
        return self._places.laws(found.place, found.stays[-1].engine) if found.stays else None

    def peek(self, now_ns: int) -> list[EngineMinute]:
        """The minutes that are open, as they would be if they were closed now; they stay open."""
        return [self._value(self._open[key], now_ns) for key in sorted(self._open)]

    def drain(self) -> list[EngineMinute]:
        """The minutes that were closed since the last call."""
        closed, self._closed = self._closed, []
        return closed


def _common_uj(posting: Posting, charged: Sequence[Charged]) -> dict[str, int]:
    """What of an interval is no engine's own, by :data:`_COMMON`."""
    overhead = posting.overhead_uj
    own = {
        "preemption": sum(each.preemption_overhead_uj for each in charged),
        "rejected_draft": sum(each.rejected_overhead_uj for each in charged),
    }
    startup = sum(uj - own.get(reason, 0) for reason, uj in overhead.items() if reason != "dummy_batch")
    values = (posting.idle_uj, startup, overhead["dummy_batch"], posting.unattributed_uj.total())
    return dict(zip(_COMMON, values, strict=True))


def _part(total: int, at: int, count: int) -> int:
    """One of ``count`` parts that are as equal as whole numbers can be."""
    whole, rest = divmod(total, count)
    return whole + (at < rest)
