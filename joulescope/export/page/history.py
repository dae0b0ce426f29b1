"""The last minutes as points, so that a page that is opened now has a past.

A point holds differences between two snapshots. Watts are joules over the time that was *accounted*, not
over the time between the looks: energy is settled in pieces of half a second, and a look finds three or five.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from joulescope.label_model import clean
from joulescope.model import PHASES, EngineTotals, GpuTotals, Snapshot

STEP_SECONDS = 2.0
KEPT_SECONDS = 600.0
MAX_ENGINES = 32
"""Engines with figures of their own in a point; the watts are always of all."""

_LEAST_NS = 1_000_000
"""An account that went on by less says nothing yet: no interval of joules is shorter."""

PARTS = (*PHASES, "idle", "overhead", "unattributed")


@dataclass(frozen=True, slots=True)
class _GpuMark:
    """The ledger of a GPU at a look; joules in the order of ``PARTS``."""

    until_ns: int
    joules: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _EngineMark:
    joules: float
    output: int
    actual_joules: float | None
    expected_joules: float | None


class History:
    """A ring of points, each encoded once. One thread notes, any thread reads."""

    def __init__(self, step_seconds: float = STEP_SECONDS, kept_seconds: float = KEPT_SECONDS) -> None:
        self._step_ns = round(step_seconds * 1e9)
        self._step_seconds = step_seconds
        self._points: deque[tuple[float, bytes]] = deque(maxlen=round(kept_seconds / step_seconds))
        self._lock = threading.Lock()
        self._noted_ns: int | None = None
        self._start_wall_seconds = 0.0
        self._gpus: dict[str, _GpuMark] = {}
        self._engines: dict[str, _EngineMark] = {}

    def note(self, snapshot: Snapshot) -> None:
        """Takes in a snapshot; a step after the last point, another point is made."""
        if self._noted_ns is not None and snapshot.time_ns - self._noted_ns < self._step_ns:
            return
        self._start_wall_seconds = snapshot.sidecar.start_wall_seconds
        point = self._point(snapshot)
        first, self._noted_ns = self._noted_ns is None, snapshot.time_ns
        if first:  # nothing to take a difference from
            return
        encoded = msgspec.json.encode(point)
        with self._lock:
            self._points.append((point["t"], encoded))

    def encode(self, since_wall_seconds: float = 0.0) -> bytes:
        """JSON of the points after an instant: ``{"start", "step_seconds", "parts", "points"}``.

        A point is ``{"t", "s", "gpus", "w", "e"}``: wall time; seconds accounted; GPUs whose joules are in
        it; watts by part, ``null`` where no GPU was accounted; by engine joules and output, and where there
        is a baseline actual and expected joules of the work that was compared.
        """
        with self._lock:
            points = [encoded for time, encoded in self._points if time > since_wall_seconds]
        head = {"start": self._start_wall_seconds, "step_seconds": self._step_seconds, "parts": PARTS}
        return msgspec.json.encode(head)[:-1] + b',"points":[' + b",".join(points) + b"]}"

    def _point(self, snapshot: Snapshot) -> dict[str, Any]:
        watts, seconds = self._watts(snapshot)
        noted_ns = snapshot.time_ns if self._noted_ns is None else self._noted_ns
        return {
            "t": round(snapshot.wall_seconds, 3),
            "s": round(sum(seconds) / len(seconds) if seconds else (snapshot.time_ns - noted_ns) / 1e9, 3),
            "gpus": len(seconds),
            "w": [round(each, 3) for each in watts] if seconds else None,
            "e": self._engine_figures(snapshot.engines),
        }

    def _watts(self, snapshot: Snapshot) -> tuple[list[float], list[float]]:
        """By part, summed over the GPUs whose accounts went on, and how many seconds each went on."""
        watts, seconds = [0.0] * len(PARTS), []
        marks: dict[str, _GpuMark] = {}
        phases = _phases_by_gpu(snapshot.engines)
        for totals in snapshot.gpus:
            gpu, until_ns = totals.info.gpu, totals.accounted_until_ns
            before = self._gpus.get(gpu)
            if until_ns is None:
                continue
            now = _GpuMark(until_ns, _joules(totals, phases.get(gpu, {})))
            if before is not None and until_ns - before.until_ns < _LEAST_NS:
                marks[gpu] = before  # the next point takes the difference from there
                continue
            marks[gpu] = now
            if before is None:
                continue
            gone_seconds = (until_ns - before.until_ns) / 1e9
            for part, (new, old) in enumerate(zip(now.joules, before.joules, strict=True)):
                watts[part] += max(new - old, 0.0) / gone_seconds
            seconds.append(gone_seconds)
        self._gpus = marks
        return watts, seconds

    def _engine_figures(self, engines: tuple[EngineTotals, ...]) -> dict[str, list[float | None]]:
        """What each engine took and made since the last point; nothing of one whose counters fell."""
        figures: dict[str, list[float | None]] = {}
        marks: dict[str, _EngineMark] = {}
        for totals in engines[:MAX_ENGINES]:
            now = _engine_mark(totals)
            before = self._engines.get(totals.info.engine, _EngineMark(0.0, 0, None, None))
            marks[totals.info.engine] = now
            if now.joules < before.joules or now.output < before.output:
                continue
            figures[clean(totals.info.engine)] = [
                round(now.joules - before.joules, 6),
                now.output - before.output,
                _risen(now.actual_joules, before.actual_joules),
                _risen(now.expected_joules, before.expected_joules),
            ]
        self._engines = marks
        return figures


def _joules(totals: GpuTotals, phases: Mapping[str, float]) -> tuple[float, ...]:
    return (
        *(phases.get(phase, 0.0) for phase in PHASES),
        totals.idle_joules,
        sum(totals.overhead_joules.values()),
        sum(totals.unattributed_joules.values()),
    )


def _phases_by_gpu(engines: tuple[EngineTotals, ...]) -> dict[str, dict[str, float]]:
    """Attributed joules by GPU and phase, summed over engines."""
    found: dict[str, dict[str, float]] = {}
    for totals in engines:
        for (gpu, phase), joules in totals.attributed_joules.items():
            phases = found.setdefault(gpu, {})
            phases[phase] = phases.get(phase, 0.0) + joules
    return found


def _engine_mark(totals: EngineTotals) -> _EngineMark:
    baseline = totals.baseline
    return _EngineMark(
        sum(totals.attributed_joules.values()),
        totals.tokens.get("generated", 0),
        None if baseline is None else baseline.actual_joules,
        None if baseline is None else baseline.expected_joules,
    )


def _risen(now: float | None, before: float | None) -> float | None:
    """``None`` unless both are known and the counter did not fall."""
    return None if now is None or before is None or now < before else round(now - before, 6)
