"""How near the joules of a request come to the truth, in simulated worlds whose truth is known.

Each world is the simulated H100 with some of its figures moved away from what the estimator expects.
The estimator sees what NVML would show: a counter in millijoules that ticks every 0.1 s, polled at 20 Hz.
The truth is the Shapley value of the world's own step cost (exact to 10 requests a step, by sampled orders
above). Seeds that were looked at while the estimator was tuned are reported apart from fresh ones.

The worlds' cost has the same *terms* as the estimator's model, with other figures; worlds of another form
(experts, speculation, parallel GPUs) are still to come, and so is hardware.

    python benchmarks/accuracy.py [--seconds 90]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.report import machine, save
from joulescope.replay import Replay
from joulescope.simulation.comparison import compare
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.worlds import H100_LLAMA_8B, World

RATES = (2.0, 8.0, 16.0, 24.0)
"""Arrivals a second: from nearly idle to a full batch."""

SEEDS = {"tuned": (11,), "fresh": (101, 102)}
GOAL_MEAN, GOAL_P95 = 0.02, 0.06


def worlds() -> Iterator[tuple[str, World]]:
    """The calibrated world, and others whose figures the prior has wrong."""
    base = H100_LLAMA_8B
    gpu, runtime = base.hardware, base.runtime
    yield "calibrated", base
    yield (
        "half the joules per FLOP, 30 % more static power",
        replace(
            base,
            hardware=replace(
                gpu, joules_per_flop=0.5 * gpu.joules_per_flop, active_watts=1.3 * gpu.active_watts
            ),
        ),
    )
    slow_memory = replace(
        gpu, joules_per_byte=1.8 * gpu.joules_per_byte, bytes_per_second=0.7 * gpu.bytes_per_second
    )
    yield "1.8 × the joules per byte, 30 % less bandwidth", replace(base, hardware=slow_memory)
    heavy = replace(
        runtime,
        sequence_joules=2 * runtime.sequence_joules,
        sequence_seconds=2 * runtime.sequence_seconds,
    )
    yield "2 × the cost per sequence", replace(base, runtime=heavy)
    yield "power cap of 520 W", replace(base, hardware=replace(gpu, power_limit_watts=520.0))


def measure(world: World, rate: float, seed: int, seconds: float) -> dict[str, Any]:
    """One run: errors of our figure, its distribution, and those of two simpler rules."""
    run = SimulatedRun(seconds, seed=seed, rate_per_second=rate, world=world)
    replay = Replay(list(run.records()))
    finished = list(replay)
    comparison = compare(finished, run.truth)[-1]
    true = run.truth.true_joules()
    errors = [
        abs(request.attributed_joules - true[request.request_id]) / true[request.request_id]
        for request in finished
        if request.attributed_joules and request.complete and not request.preemptions
        and true.get(request.request_id) and request.finish_reason in ("stop", "length")
    ]  # fmt: skip
    assert replay.snapshot is not None
    return {
        "rate": rate,
        "seed": seed,
        "requests": len(errors),
        "mean": float(np.mean(errors)),
        "median": float(np.median(errors)),
        "p95": float(np.quantile(errors, 0.95)),
        "by_tokens": comparison.error("by_tokens"),
        "by_output": comparison.error("by_output"),
        "residual_joules": max(abs(gpu.residual_joules) for gpu in replay.snapshot.gpus),
    }


def text_of(report: dict[str, Any]) -> str:
    lines = [
        "# Error of a request's joules, in simulated worlds\n",
        f"`python benchmarks/accuracy.py`, {report['machine']}\n",
        "| world | seeds | requests/s | mean | median | p95 | by tokens | by output | residual |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        percent = [f"{100 * row[key]:.1f} %" for key in ("mean", "median", "p95", "by_tokens", "by_output")]
        lines.append(
            f"| {row['world']} | {row['seeds']} | {row['rate']:g} | {' | '.join(percent)} "
            f"| {row['residual_joules']:g} J |"
        )
    lines.append(
        f"\nGoal: mean ≤ {GOAL_MEAN:.0%}, p95 ≤ {GOAL_P95:.0%}. The simpler rules divide each step's true "
        "joules by tokens computed, or by tokens that came out; they are given the step's energy, we are not."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90.0, help="simulated time of one run")
    seconds = parser.parse_args().seconds
    rows = []
    for name, world in worlds():
        for kind, seeds in SEEDS.items():
            for rate in RATES:
                runs = [measure(world, rate, seed, seconds) for seed in seeds]
                means = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
                rows.append({**means, "world": name, "seeds": kind})
    report = {"machine": machine("joulescope-inference", "numpy"), "seconds": seconds, "rows": rows}
    save("accuracy", report, text_of(report))


if __name__ == "__main__":
    main()
