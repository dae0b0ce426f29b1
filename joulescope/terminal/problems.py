"""What is wrong, in a line each, the worst first: what one would look for in ten figures otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from joulescope.model import EngineTotals, GpuTotals, Snapshot
from joulescope.terminal.glyphs import clean, count, duration

LAG_SECONDS = 5.0
"""The newest instant that is fully accounted for is usually half a second to two seconds old."""

METERS_AGREE = 0.05
"""Counter and integrated power may differ by this much without a word: as much as cards differ in gain."""

BAD_OUTCOMES = ("failed", "dropped", "rejected")
"""Requests that an exporter lost, as the live page and the alert have it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """``severe``: figures are missing or wrong now. Others tell of a loss or something odd."""

    text: str
    severe: bool = False
    past: bool = False
    """It does not go on: a loss that was counted once stays counted."""


def problems(snapshot: Snapshot, earlier: Snapshot | None, complaint: str = "") -> list[Problem]:
    """Everything that a snapshot says is wrong; what grew since ``earlier`` is severe.

    ``complaint``: why the sidecar is not ready, in its own words.
    """
    found = [
        *([Problem(f"not ready: {clean(complaint)}", severe=True)] if complaint else []),
        *_unmeasured(snapshot, complaint),
        *_of_sidecar(snapshot, earlier),
        *(problem for gpu in snapshot.gpus for problem in _of_gpu(gpu)),
        *(problem for engine in snapshot.engines for problem in _of_engine(engine, earlier)),
    ]
    return sorted(found, key=lambda problem: (not problem.severe, problem.past))


def _unmeasured(snapshot: Snapshot, complaint: str) -> Iterator[Problem]:
    """GPUs that engines use and nobody reads. Of MIG instances there may be no meter."""
    if not snapshot.gpus:
        if snapshot.engines and not complaint:
            yield Problem("no GPU is measured: requests are followed without joules", severe=True)
        return
    named = {gpu for engine in snapshot.engines if engine.up for gpu in engine.info.gpus}
    for gpu in sorted(named - {gpu.info.gpu for gpu in snapshot.gpus}):
        if not gpu.startswith("MIG-"):
            yield Problem(f"{clean(gpu)}: an engine uses it and nobody reads it", severe=True)


def _of_sidecar(snapshot: Snapshot, earlier: Snapshot | None) -> Iterator[Problem]:
    if not snapshot.engines:
        yield Problem("no engine has connected yet")
    lag_seconds = snapshot.sidecar.attribution_lag_seconds
    if lag_seconds is not None and lag_seconds > LAG_SECONDS:
        yield Problem(f"joules are divided {duration(lag_seconds)} late", severe=True)
    before = earlier.sidecar if earlier is not None else snapshot.sidecar
    for reason, number in snapshot.sidecar.rejected_records.items():
        more = number - before.rejected_records.get(reason, 0)
        yield from _counted(f"records refused ({clean(reason)})", number, more)
    for (exporter, outcome), number in snapshot.sidecar.exported.items():
        if outcome in BAD_OUTCOMES:
            more = number - before.exported.get((exporter, outcome), 0)
            yield from _counted(f"requests {clean(outcome)} by {clean(exporter)}", number, more)


def _counted(what: str, number: int, more: int) -> Iterator[Problem]:
    if number > 0:
        now = f", {count(more)} of them now" if more > 0 else " so far"
        yield Problem(f"{count(number)} {what}{now}", severe=more > 0, past=more <= 0)


def _of_gpu(gpu: GpuTotals) -> Iterator[Problem]:
    index = "" if gpu.info.index is None else f" {gpu.info.index}"
    name = f"GPU{index}" if index else clean(gpu.info.gpu)[:12]
    reading = gpu.reading if gpu.up else None
    if reading is None:
        yield Problem(f"{name}: the sensor gives no reading", severe=True)
    elif not gpu.info.parent and reading.power_watts is None and reading.energy_joules is None:
        yield Problem(f"{name}: neither power nor energy can be read", severe=True)
    if gpu.residual_joules:
        yield Problem(f"{name}: residual {gpu.residual_joules:.6g} J, a bug in joulescope", severe=True)
    status = None if reading is None else reading.status
    if status is not None and status.throttle_reasons:
        yield Problem(f"{name}: clocks held back by {', '.join(sorted(map(clean, status.throttle_reasons)))}")
    ratio = None if gpu.comparison is None else gpu.comparison.ratio
    if ratio is not None and abs(ratio - 1) > METERS_AGREE:
        yield Problem(f"{name}: counter/power {ratio:.2f}, its meters disagree")
    if gpu.info.parent:
        yield Problem(f"{name}: a split of its GPU's joules, an estimate")
    elif gpu.info.energy_source == "power":
        yield Problem(f"{name}: joules are integrated power, it has no counter")


def _of_engine(engine: EngineTotals, earlier: Snapshot | None) -> Iterator[Problem]:
    name = clean(engine.info.engine)
    if not engine.up:
        yield Problem(f"{name}: disconnected", severe=True)
    engines: Iterable[EngineTotals] = earlier.engines if earlier is not None else ()
    before = next((each for each in engines if each.info.engine == engine.info.engine), engine)
    more = engine.records_dropped - before.records_dropped
    yield from _counted(f"records dropped by {name}", engine.records_dropped, more)
    yield from _counted(f"gaps in what {name} told", engine.gaps, engine.gaps - before.gaps)
