"""What each part of the estimator is worth: its error in simulated worlds without that part.

The parts: the prior, the KV cache's bytes, the model of time, the uncertainty of not knowing the steps'
energies, and the counter's tick. The same runs, worlds and judgement as ``benchmarks/accuracy.py``.

    python benchmarks/ablations.py [--seconds 45] [--processes 2]
"""

from __future__ import annotations

import argparse
import heapq
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.accuracy import Errors, judge, merged
from benchmarks.report import machine, save
from joulescope.attribution.cost import CostModel, Floats, ModelMaker, Prices, StepColumns
from joulescope.attribution.learn import PriorRegression
from joulescope.attribution.prior import Expectation
from joulescope.hook.wire import AnyRecord, Sample, Step
from joulescope.model import CostFacts
from joulescope.sampling.meter import WINDOW_NS
from joulescope.sensors.simulated import PROFILES
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.worlds import WORLDS

RATES = (4.0, 16.0)
SEEDS = (301,)

SOME_WORLDS = (
    "calibrated", "blended-roofline", "moe-uneven", "speculative", "host-bound", "long-context", "dvfs",
)  # fmt: skip

_NO_PRIOR_STD = 100.0
"""A prior so wide that it only sets the units."""

_NEGLIGIBLE = 1e-9
_THE_SAME = 1.0 - 1e-6
"""Correlation of two coefficients that are one."""


class WithoutPrior(CostModel):
    """Starts from the prior's figures, but gives them no weight against data."""

    def expect(self, expectation: Expectation) -> None:
        super().expect(expectation)
        for name in ("time", "energy"):
            fit: PriorRegression = getattr(self, name)
            covariance = np.eye(len(fit.prior)) * _NO_PRIOR_STD**2
            setattr(self, name, PriorRegression(fit.prior, covariance, fit.keep))


class WithoutLearning(CostModel):
    """The prior alone."""

    def learn_times(self, steps: Floats) -> None:
        pass

    def learn_energy(
        self,
        figures: Floats,
        energy_joules: float,
        idle_joules: float,
        whole_joules: float | None = None,
        clock_std_seconds: float = 0.0,
    ) -> None:
        pass


class WithoutTime(CostModel):
    """Every request of a step takes the same part of its duration."""

    def expect(self, expectation: Expectation) -> None:
        flat = replace(
            expectation,
            sequence_seconds=_NEGLIGIBLE * expectation.sequence_seconds,
            seconds_per_byte=_NEGLIGIBLE * expectation.seconds_per_byte,
            seconds_per_flop=_NEGLIGIBLE * expectation.seconds_per_flop,
        )
        super().expect(flat)

    def learn_times(self, steps: Floats) -> None:
        pass


class OnePriceOfBytes(CostModel):
    """A byte of KV cache takes and costs what a byte of weights does."""

    def expect(self, expectation: Expectation) -> None:
        super().expect(expectation)
        for name, (weights, cache) in (("time", (2, 3)), ("energy", (0, 1))):
            fit: PriorRegression = getattr(self, name)
            covariance = np.eye(len(fit.prior))
            covariance[weights, cache] = covariance[cache, weights] = _THE_SAME
            setattr(self, name, PriorRegression(fit.prior, covariance, fit.keep))


class EvenExperts(CostModel):
    """Tokens are taken to choose all experts alike."""

    def learn_times(self, steps: Floats) -> None:
        super().learn_times(steps)
        self._weights = replace(self._weights, unevenness=0.0)


class WithoutLimit(CostModel):
    """Nothing is known of the power limit's having been reached."""

    def price(self, columns: StepColumns, rows: Floats | None = None, at_limit: bool = False) -> Prices:
        return super().price(columns, rows)


def without_kv(facts: CostFacts, gpu_count: int, expectation: Expectation) -> CostModel:
    """The estimator is not told that contexts are read."""
    return CostModel(replace(facts, kv_bytes_per_token=0.0), gpu_count, expectation)


def with_exact_steps(run: SimulatedRun, records: Sequence[AnyRecord]) -> list[AnyRecord]:
    """The records with a reading of the true energy at every step's end instead of the counter's.

    Also at its begin where the GPU was idle before; where it waited for the step, that is the step's.
    """
    total: dict[str, float] = {}
    readings: list[tuple[int, AnyRecord]] = []
    for step in run.truth.steps or ():
        before = total.get(step.gpu, 0.0) + step.gap_joules
        total[step.gpu] = before + step.joules
        edges = [(step.end_ns, total[step.gpu])]
        if not step.gap_joules:
            edges.insert(0, (step.start_ns, before))
        for time_ns, joules in edges:
            readings.append((time_ns, Sample(gpu=step.gpu, time_ns=time_ns, energy_joules=joules)))
    timed: list[tuple[int, AnyRecord]] = []
    now_ns = 0
    for record in records:
        if not isinstance(record, Sample):
            now_ns = max(now_ns, record.output_end_ns if isinstance(record, Step) else _instant(record))
            timed.append((now_ns, record))
    readings.sort(key=lambda each: each[0])
    return [record for _, record in heapq.merge(timed, readings, key=lambda each: each[0])]


def _instant(record: AnyRecord) -> int:
    return int(getattr(record, "end_ns", 0) or getattr(record, "time_ns", 0))


@dataclass(frozen=True)
class Ablation:
    """A way to do without something, or to have something better."""

    name: str
    make_model: ModelMaker = CostModel
    sensor: str = "h100"
    """Which meter the GPU shows."""
    exact_steps: bool = False
    window_ns: int = WINDOW_NS
    """Length of the intervals that are divided."""


ABLATIONS = (
    Ablation("as it is"),
    Ablation("without the prior", WithoutPrior),
    Ablation("without learning", WithoutLearning),
    Ablation("without the KV cache", without_kv),
    Ablation("without a model of time", WithoutTime),
    Ablation("one price for all bytes", OnePriceOfBytes),
    Ablation("experts chosen alike", EvenExperts),
    Ablation("without the power limit", WithoutLimit),
    Ablation("with every step's true energy", exact_steps=True),
    Ablation("with a counter that ticks every 10 ms", sensor="tick-10ms"),
    Ablation("with a counter that ticks every 1 s", sensor="tick-1s"),
    Ablation("with intervals of 2 s", window_ns=2_000_000_000),
)


@dataclass(frozen=True)
class Run:
    """One simulated run without one of the parts."""

    ablation: Ablation
    world: str
    rate: float
    seed: int
    seconds: float

    def measure(self) -> tuple[Errors, dict[str, float]]:
        run = SimulatedRun(
            self.seconds,
            seed=self.seed,
            rate_per_second=self.rate,
            world=WORLDS[self.world],
            keep_steps=self.ablation.exact_steps,
            sensor=PROFILES[self.ablation.sensor],
        )
        records: Sequence[AnyRecord] = list(run.records())
        if self.ablation.exact_steps:
            return judge(run, with_exact_steps(run, records), self.ablation.make_model, window_ns=1)
        return judge(run, records, self.ablation.make_model, self.ablation.window_ns)


def measure_all(worlds: Sequence[str], seconds: float, processes: int) -> list[dict[str, Any]]:
    keys = [(ablation, world) for ablation in ABLATIONS for world in worlds]
    runs = [
        Run(ablation, world, rate, seed, seconds)
        for ablation, world in keys
        for rate in RATES
        for seed in SEEDS
    ]
    with ProcessPoolExecutor(processes) as pool:
        results = iter(pool.map(Run.measure, runs))
        return [
            {
                "ablation": ablation.name,
                "world": world,
                **merged([next(results) for _ in range(len(RATES) * len(SEEDS))]),
            }
            for ablation, world in keys
        ]


def text_of(report: dict[str, Any]) -> str:
    rows, worlds = report["rows"], report["worlds"]
    lines = [
        "# What each part of the estimator is worth\n",
        f"`python benchmarks/ablations.py`, {report['machine']}\n",
        "Mean error of a request's joules and its 95th percentile, percent, over loads of "
        f"{' and '.join(f'{rate:g}' for rate in RATES)} requests a second and seeds not used in tuning.\n",
        f"| the estimator | {' | '.join(worlds)} | mean |",
        "|" + "---|" * (len(worlds) + 2),
    ]
    for ablation in ABLATIONS:
        some = [row for row in rows if row["ablation"] == ablation.name]
        cells = [f"{100 * row['ours']['mean']:.1f} ({100 * row['ours']['p95']:.1f})" for row in some]
        mean = np.mean([row["ours"]["mean"] for row in some])
        lines.append(f"| {ablation.name} | {' | '.join(cells)} | {100 * mean:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=45.0, help="simulated time of one run")
    parser.add_argument("--worlds", nargs="+", default=list(SOME_WORLDS), choices=sorted(WORLDS))
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    report = {
        "machine": machine("joulescope-inference", "numpy"),
        "seconds": chosen.seconds,
        "worlds": chosen.worlds,
        "rows": measure_all(chosen.worlds, chosen.seconds, chosen.processes),
    }
    save("ablations", report, text_of(report))


if __name__ == "__main__":
    main()
