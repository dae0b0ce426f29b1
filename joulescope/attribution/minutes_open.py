"""One engine's minute while it is being filled, in whole microjoules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.engine import FOREVER_NS, Engine
from joulescope.attribution.minutes_sums import COLUMNS, DECODE, PREFILL, as_steps
from joulescope.attribution.minutes_time import MINUTE_NS
from joulescope.attribution.wait_fit import WaitFit
from joulescope.minute_model import (
    EngineMinute,
    GpuSums,
    Joules,
    Kind,
    Laws,
    Limits,
    Load,
    TaskSums,
    Tokens,
)
from joulescope.minutes import length_bin
from joulescope.model import FinishedRequest
from joulescope.units import joules_from_uj

MAX_CELLS = 1024
"""Cells of one minute; requests beyond them are in a cell of their task for all lengths, both bins −1."""

PARTS = (
    "prefill",
    "decode",
    "idle",
    "overhead_startup",
    "overhead_dummy_batch",
    "overhead_preemption",
    "overhead_rejected_draft",
    "unattributed",
)
"""What is measured is the sum of these."""

_NAMES_OF_GPU = tuple(each.name for each in fields(GpuSums))
_CELL = tuple(each.name for each in fields(TaskSums))[3:]
_JOULES_OF_CELL = _CELL.index("joules")


@dataclass(frozen=True, slots=True)
class Place:
    """What the minutes of an engine are filed under, as it is now."""

    number: int
    """Of the kind and the limits; small, so that it is looked up fast."""
    kind: Kind
    limits: Limits
    waits: WaitFit

    def is_as_good_as(self, later: Place) -> bool:
        """Whether the later place is this one, only that more is known of it: the name of the GPUs."""
        known = replace(self.kind, gpu_name=self.kind.gpu_name or later.kind.gpu_name)
        return (known, self.limits) == (later.kind, later.limits)


@dataclass(slots=True, eq=False)
class Stay:
    """How long an engine was of the kind of a minute."""

    engine: Engine
    begin_ns: int
    end_ns: int = FOREVER_NS

    def span(self) -> tuple[int, int]:
        """Within its life."""
        up_ns, down_ns = self.engine.alive_span()
        return max(up_ns, self.begin_ns), min(down_ns, self.end_ns)


@dataclass(slots=True, eq=False)
class OpenMinute:
    """Sums of one kind in one minute."""

    place: Place
    minute: int
    """Since the epoch."""
    uj: Counter[str] = field(default_factory=Counter)
    """Whole microjoules by the fields of :class:`joulescope.minute_model.Joules`."""
    marginal_uj: float = 0.0
    tokens: Counter[str] = field(default_factory=Counter)
    steps: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, COLUMNS)))
    load: Counter[str] = field(default_factory=Counter)
    """Whole nanoseconds and counts, by the fields of :class:`joulescope.minute_model.Load`."""
    held: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    """Σ of running and waiting requests and of the usage of the KV cache, times seconds."""
    untold_ns: int = 0
    """In which the engine ran and did not tell its gauges; the next: not the usage of its KV cache."""
    no_kv_ns: int = 0
    tells: bool = False
    """Whether its engines told their gauges in it; the next: the usage of the KV cache."""
    tells_kv: bool = False
    gpu: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(_NAMES_OF_GPU)))
    cells: dict[tuple[str, int, int], list[float]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    stays: list[Stay] = field(default_factory=list)
    """Whose it is: one engine's, or of more where it restarted and is the same as before."""
    gpu_count: int = 1
    reached_ns: int = 0
    """How far what is in it reaches."""

    def of(self, engine: Engine, since_ns: int, gpu_count: int) -> OpenMinute:
        """Notes whose it is, and since when the engine is of this kind."""
        if not self.stays or self.stays[-1].engine is not engine:
            known = next((stay for stay in self.stays if stay.engine is engine), None)
            if known is None:
                self.stays.append(Stay(engine, since_ns))
        self.gpu_count = gpu_count
        return self

    def left(self, engine: Engine, at_ns: int) -> None:
        """The engine is of another kind from now on."""
        for stay in self.stays:
            if stay.engine is engine:
                stay.end_ns = at_ns

    def span(self) -> tuple[int, int]:
        """From the first to the last instant at which any of its engines was of this kind."""
        spans = [stay.span() for stay in self.stays]
        return min(begin_ns for begin_ns, _ in spans), max(end_ns for _, end_ns in spans)

    def finished(self, request: FinishedRequest, task: str) -> None:
        """Puts a finished request into its cell."""
        self.reasons[request.finish_reason] += 1
        key = (task, length_bin(request.prompt_tokens), length_bin(request.output_tokens))
        if key not in self.cells and len(self.cells) >= MAX_CELLS:
            key = (task, -1, -1)
        cell = self.cells.setdefault(key, [0] * len(_CELL))
        joules, first_ns = request.attributed_joules, request.first_token_ns
        aborted = request.finish_reason == "abort"
        values = (
            1,
            aborted,
            request.prompt_tokens,
            request.cached_tokens,
            request.output_tokens,
            0 if joules is None else round(joules * 1e6),
            joules is not None,
            (request.end_ns - request.start_ns) / 1e9,
            0.0 if first_ns is None else (first_ns - request.start_ns) / 1e9,
            first_ns is not None,
        )
        for at, value in enumerate(values):
            cell[at] += value
        if aborted and joules is not None:
            self.uj["wasted_abort"] += round(joules * 1e6)

    # --------------------------------------------------------------------------------------- as a value

    def value(self, begin_ns: int, end_ns: int, wall_offset_ns: int, laws: Laws | None) -> EngineMinute:
        """The minute as it is to be kept, of a stretch on the monotonic clock."""
        return EngineMinute(
            kind=self.place.kind,
            start_wall_seconds=_whole_microseconds(begin_ns + wall_offset_ns),
            end_wall_seconds=_whole_microseconds(end_ns + wall_offset_ns),
            limits=self.place.limits,
            joules=self._joules(),
            tokens=Tokens(**self.tokens),
            decode_steps=as_steps(self.steps[DECODE], self.gpu_count),
            prefill_steps=as_steps(self.steps[PREFILL], self.gpu_count),
            load=self._load(begin_ns, end_ns),
            gpu=GpuSums(*self.gpu.tolist()),
            tasks=tuple(_cells(self.cells.items())),
            finish_reasons=tuple(sorted(self.reasons.items())),
            laws=laws,
        )

    def _joules(self) -> Joules:
        joules = {name: joules_from_uj(uj) for name, uj in self.uj.items()}
        measured_uj = sum(self.uj[name] for name in PARTS)
        return Joules(measured=joules_from_uj(measured_uj), marginal=self.marginal_uj / 1e6, **joules)

    def _load(self, begin_ns: int, end_ns: int) -> Load:
        told_ns = kv_ns = 0
        for stay in self.stays:
            engine, (up_ns, down_ns) = stay.engine, stay.span()
            if engine.sends_progress:  # of others silence says that they are idle
                down_ns = min(down_ns, engine.known_until_ns)
            lived_ns = min(down_ns, end_ns) - max(up_ns, begin_ns)
            step = engine.last_step
            if lived_ns > 0 and (self.tells or step is None or step.running is not None):
                told_ns += lived_ns
                kv_told = self.tells_kv or step is None or step.kv_usage_ratio is not None
                kv_ns += lived_ns if kv_told else 0
        told_ns = max(told_ns - self.untold_ns, self.load["busy_seconds"])
        running, waiting, usage = self.held.tolist()
        counts = {name: self.load[name] for name in ("requests_started", "preemptions")}
        return Load(
            seconds=told_ns / 1e9,
            busy_seconds=self.load["busy_seconds"] / 1e9,
            running_seconds=running,
            waiting_seconds=waiting,
            queued_seconds=self.load["queued_seconds"] / 1e9,
            kv_usage_seconds=usage,
            kv_known_seconds=min(max(kv_ns - self.no_kv_ns, 0), told_ns) / 1e9,
            kv_full_seconds=self.load["kv_full_seconds"] / 1e9,
            **counts,
        )


def _cells(items: Iterable[tuple[tuple[str, int, int], list[float]]]) -> Iterable[TaskSums]:
    for key, values in sorted(items):
        told = dict(zip(_CELL, values, strict=True))
        told["joules"] /= 1e6
        yield TaskSums(*key, **told)  # type: ignore[arg-type]


def _whole_microseconds(wall_ns: int) -> float:
    return (wall_ns + 500) // 1000 / 1e6


def minute_span(minute: int, wall_offset_ns: int) -> tuple[int, int]:
    """Begin and end of a minute on the monotonic clock."""
    begin_ns = minute * MINUTE_NS - wall_offset_ns
    return begin_ns, begin_ns + MINUTE_NS
