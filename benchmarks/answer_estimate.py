"""How far off the estimate in an answer is from the final figure: simulated worlds, and traces of real vLLM.

The records of a run reach the pipeline as they reach a sidecar: 20 ms late, taken in four times a
second, published twice a second, by the clock of the simulation. When a request ends, its answer is estimated
by what was published last, and by the token counts that the answer itself tells. The final
figure is the one that stands in the request log half a second to a second later: what is measured here is the
estimate against that, not against the truth (which ``accuracy.py`` measures).

The traces (``benchmarks/results/real_traces``) have vLLM's own scheduling under a made-up GPU, as in
``real_traces.py``.

    python benchmarks/answer_estimate.py [--seconds 45] [--worlds calibrated moe]
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.hidden_gpu import HiddenGpu
from benchmarks.hidden_laws import LAWS
from benchmarks.real_traces import NAMES, recorded
from benchmarks.report import machine, save
from joulescope.attribution.open_requests import OpenRequests
from joulescope.clock import WallAnchor
from joulescope.export.estimate import Estimator, Work
from joulescope.hook import wire
from joulescope.pipeline import Pipeline, Scope
from joulescope.replay import Replay
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.worlds import WORLDS
from joulescope.units import NANOSECONDS_PER_SECOND

MS = NANOSECONDS_PER_SECOND // 1000
TURN_NS, PUBLISH_NS = 250 * MS, 500 * MS
"""As in ``joulescope/daemon/daemon.py``."""
RECORD_DELAY_NS = 20 * MS
"""The hook sends what it has fifty times a second."""
ANSWER_DELAY_NS = 3 * MS
"""From the scheduler to the API server, which writes the answer."""
WARM_UP_NS = 10 * NANOSECONDS_PER_SECOND
"""Requests that end earlier are left out: no price is known yet, or the fit is still cold."""

USUAL_WORLDS = (
    "calibrated",
    "moe",
    "tensor-parallel-2",
    "prefix-heavy",
    "preemption-heavy",
    "speculative",
    "clock-change",
)
RATES = (0.3, 4.0, 16.0)
"""Arrivals a second: mostly one request at a time, some, and a batch that is often full."""
SEEDS = (21, 22)
SHORT_SECONDS = 1.0
TRACE_LAW = "uneven"


@dataclass
class Estimates:
    """Estimates beside final figures."""

    final_joules: list[float] = field(default_factory=list)
    relative: list[float] = field(default_factory=list)
    """(estimate − final) / final."""
    seconds: list[float] = field(default_factory=list)
    """How long each request took."""
    lacking: int = 0
    """Answers without a figure."""

    def add(self, estimate: float | None, final_joules: float, seconds: float) -> None:
        if estimate is None:
            self.lacking += 1
            return
        self.final_joules.append(final_joules)
        self.relative.append((estimate - final_joules) / final_joules)
        self.seconds.append(seconds)

    def merge(self, other: Estimates) -> None:
        self.final_joules += other.final_joules
        self.relative += other.relative
        self.seconds += other.seconds
        self.lacking += other.lacking

    def summary(self) -> dict[str, Any]:
        relative, seconds = np.array(self.relative), np.array(self.seconds)
        short = seconds < SHORT_SECONDS
        joules = np.array(self.final_joules)
        return {
            "requests": len(relative),
            "without_figure": self.lacking,
            **_errors(relative),
            "short": {"requests": int(short.sum()), **_errors(relative[short])},
            "long": {"requests": int((~short).sum()), **_errors(relative[~short])},
            "sum_ratio": float((joules * (1 + relative)).sum() / joules.sum()) if len(joules) else None,
        }


def _errors(relative: Any) -> dict[str, float | None]:
    if not len(relative):
        return {"median": None, "p95": None, "bias": None}
    errors = np.abs(relative)
    return {
        "median": float(np.median(errors)),
        "p95": float(np.quantile(errors, 0.95)),
        "bias": float(np.median(relative)),
    }


class Sidecar:
    """A pipeline whose turns and snapshots come by the clock of the simulation."""

    def __init__(self) -> None:
        self.pipeline = Pipeline(scope=Scope(all_gpus=True), wall=WallAnchor(0, 0))
        self.estimator = Estimator()
        self.view = OpenRequests()
        self._feeder = Replay(())
        self._waiting: deque[tuple[int, wire.AnyRecord]] = deque()
        self._turn_ns = self._published_ns = 0

    def hand(self, time_ns: int, record: wire.AnyRecord) -> None:
        """A record that was made at this instant is on its way."""
        self._waiting.append((time_ns + RECORD_DELAY_NS, record))

    def until(self, time_ns: int) -> Iterator[Any]:
        """Takes all turns that are due by then; gives what finished."""
        while self._turn_ns + TURN_NS <= time_ns:
            self._turn_ns += TURN_NS
            while self._waiting and self._waiting[0][0] <= self._turn_ns:
                self._feeder.feed(self.pipeline, self._waiting.popleft()[1])
            self.pipeline.settle(self._turn_ns)
            finished = self.pipeline.drain_finished()
            self.estimator.finished(finished)
            yield from finished
            if self._turn_ns - self._published_ns >= PUBLISH_NS:
                self._published_ns = self._turn_ns
                self.estimator.observe(self.pipeline.snapshot(self._turn_ns))
                self.view = self.pipeline.open_requests()


@dataclass(frozen=True)
class _Asked:
    estimate: float | None
    tokens_only: float | None
    seconds: float


def estimate_run(records: Iterator[wire.AnyRecord], start_ns: int) -> dict[str, Estimates]:
    """Runs a trace, estimates each request at its end, and compares when it is final."""
    sidecar, starts, asked = Sidecar(), {}, {}
    result = {"estimate": Estimates(), "by tokens alone": Estimates()}
    now_ns = start_ns

    def compare(finished: Sequence[Any]) -> None:
        for request in finished:
            joules, at_end = request.attributed_joules, asked.pop(request.request_id, None)
            if at_end is None or not joules or not request.complete:
                continue
            result["estimate"].add(at_end.estimate, joules, at_end.seconds)
            result["by tokens alone"].add(at_end.tokens_only, joules, at_end.seconds)

    for record in records:
        now_ns = max(now_ns, _instant(record))
        compare(list(sidecar.until(now_ns + ANSWER_DELAY_NS)))
        if isinstance(record, wire.RequestStart):
            starts[record.session, record.request] = record
        if isinstance(record, wire.RequestEnd) and now_ns - start_ns > WARM_UP_NS:
            start = starts.pop((record.session, record.request), None)
            if start is not None and record.reason in ("stop", "length"):
                asked[start.request_id] = _ask(sidecar, start, record)
        sidecar.hand(now_ns, record)
    compare(list(sidecar.until(now_ns + 20 * NANOSECONDS_PER_SECOND)))
    return result


def _ask(sidecar: Sidecar, start: wire.RequestStart, end: wire.RequestEnd) -> _Asked:
    work = Work(
        prompt_tokens=start.prompt_tokens,
        output_tokens=end.output_tokens,
        end_ns=end.time_ns + ANSWER_DELAY_NS,
    )
    known = sidecar.view.of(start.request_id)
    return _Asked(
        estimate=sidecar.estimator.estimate(work, known),
        tokens_only=sidecar.estimator.estimate(work, ()),
        seconds=(end.time_ns - start.time_ns) / NANOSECONDS_PER_SECOND,
    )


def _instant(record: wire.AnyRecord) -> int:
    if isinstance(record, wire.Step):
        return record.output_end_ns
    if isinstance(record, (wire.Gap, wire.Overhead)):
        return record.end_ns
    return int(getattr(record, "time_ns", 0))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _row(name: str, rate: str, rule: str, figures: dict[str, Any]) -> str:
    short, long = figures["short"], figures["long"]
    cells = [name, rate, rule, str(figures["requests"]), str(figures["without_figure"])]
    cells += [_percent(figures[key]) for key in ("median", "p95", "bias")]
    cells += [f"{_percent(part['median'])} / {_percent(part['p95'])}" for part in (short, long)]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| world | load (requests/s) | rule | requests | no figure | median error | p95 | bias (median) "
    f"| under {SHORT_SECONDS:g} s: median / p95 | longer: median / p95 |\n"
    "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|"
)


def simulated(world: str, rate: float, seconds: float, seeds: Sequence[int]) -> dict[str, Estimates]:
    """Several runs of one world together."""
    merged: dict[str, Estimates] = {}
    for seed in seeds:
        run = SimulatedRun(seconds, seed=seed, rate_per_second=rate, world=WORLDS[world], truth=False)
        for rule, found in estimate_run(run.records(), run.start_ns).items():
            merged.setdefault(rule, Estimates()).merge(found)
    return merged


def traced(name: str) -> dict[str, Estimates]:
    """A recorded trace under the law that most resembles no model."""
    records = list(HiddenGpu(recorded(name), LAWS[TRACE_LAW], scaled=True).trace())
    return estimate_run(iter(records), min(filter(None, map(_instant, records))))


def cases(arguments: argparse.Namespace) -> Iterator[tuple[str, str, dict[str, Estimates]]]:
    """Name, load, and estimates by rule."""
    for world in arguments.worlds:
        for rate in arguments.rates:
            yield world, f"{rate:g}", simulated(world, rate, arguments.seconds, arguments.seeds)
    for name in NAMES:
        yield "real vLLM", name, traced(name)


PAGE = """\
# Estimates in answers against final figures

Made by `benchmarks/answer_estimate.py` on {date} ({cpu}, Python {python}): {seconds:g} simulated seconds for
each world and rate, seeds {seeds}, and the recorded traces of real vLLM under the law `{law}`. An error is
|estimate − final| / final of one request; those that ended in the first {warm_up} s are left out. *By tokens
alone* is what an answer gets whose request the sidecar has not heard of yet.

{rows}
"""


def text_of(report: dict[str, Any], rows: Sequence[str]) -> str:
    where, asked = report["machine"], report["arguments"]
    return PAGE.format(
        **where,
        **asked,
        law=TRACE_LAW,
        warm_up=WARM_UP_NS // NANOSECONDS_PER_SECOND,
        rows="\n".join((HEAD, *rows)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--worlds", nargs="*", default=list(USUAL_WORLDS), choices=list(WORLDS))
    parser.add_argument("--rates", nargs="*", type=float, default=list(RATES))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--dry", action="store_true", help="print, write no result")
    arguments = parser.parse_args()
    asked = {name: value for name, value in vars(arguments).items() if name != "dry"}
    report: dict[str, Any] = {"machine": machine("numpy"), "arguments": asked, "cases": []}
    rows, totals = [], dict[str, Estimates]()
    for name, load, merged in cases(arguments):
        for rule, found in merged.items():
            totals.setdefault(rule, Estimates()).merge(found)
            report["cases"].append({"world": name, "load": load, "rule": rule, **found.summary()})
            rows.append(_row(name, load, rule, found.summary()))
            print(rows[-1], flush=True)
    for rule, found in totals.items():
        report["cases"].append({"world": "all", "load": "", "rule": rule, **found.summary()})
        rows.append(_row("all", "", rule, found.summary()))
    if arguments.dry:
        print("\n".join(rows[-len(totals) :]))
    else:
        save("answer_estimate", report, text_of(report, rows))


if __name__ == "__main__":
    main()
