"""How far the efficiency index is from the truth, in simulated worlds: as usual, and when work gets dearer.

In each world a baseline is learned under the usual load and mix. Then the same world serves other loads and
mixes, by other seeds, and the index should be 1; the joules per output token beside it show what a threshold
on those would have had to bear. Then every operation draws a fifth more (static power, bytes and FLOPs), and
the index should say 1.2, or a little less where GPUs wait for hosts, which is not dearer. The stated error is
judged by how often the truth lies within two of it.

Most worlds cost by another law than the baseline's model has (``benchmarks/accuracy.py``).

    python benchmarks/baselines.py [--worlds dvfs moe] [--processes 2]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.report import machine, save
from joulescope.attribution.baseline import Baseline
from joulescope.attribution.efficiencies import Efficiencies
from joulescope.replay import Replay
from joulescope.simulation.parts import World
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.workload import RequestClass
from joulescope.simulation.worlds import WORLDS

LEARN_SECONDS, LEARN_RUN_SECONDS, LEARN_RATE, LEARN_SEED = 150.0, 400.0, 8.0, 401
CASE_SECONDS, CASE_SEED = 40.0, 402
DEARER = 1.2

LEFT_OUT = {
    "clock-change": "the GPU is changed in the middle of the run",
    "cap-change": "the GPU is changed in the middle of the run",
    "two-engines": "engines that share a GPU learn no baseline (docs/baselines.md)",
}
"""Worlds that say nothing here, and why."""


def classes_of(world: World, weights: Sequence[float]) -> tuple[RequestClass, ...]:
    """The world's classes by other weights, in their order; a weight for each, repeated as needed."""
    return tuple(
        replace(each, weight=each.weight * weights[at % len(weights)])
        for at, each in enumerate(world.classes)
    )


def dearer(world: World) -> World:
    """Every joule that its GPUs draw while they work costs a fifth more; clocks and durations stay."""
    hardware = world.hardware
    return replace(
        world,
        hardware=replace(
            hardware,
            joules_per_byte=DEARER * hardware.joules_per_byte,
            joules_per_flop=DEARER * hardware.joules_per_flop,
            active_watts=DEARER * hardware.active_watts,
            power_limit_watts=DEARER * hardware.power_limit_watts,
        ),
    )


def cases_of(world: World) -> dict[str, tuple[World, float, tuple[RequestClass, ...], float]]:
    """World, arrivals a second, classes, and the true index, by name."""
    usual = world.classes
    first, last = classes_of(world, (4.0, 0.25)), classes_of(world, (0.25, 4.0))
    return {
        "as usual": (world, LEARN_RATE, usual, 1.0),
        "a quarter of the load": (world, LEARN_RATE / 4, usual, 1.0),
        "half of the load": (world, LEARN_RATE / 2, usual, 1.0),
        "twice the load": (world, LEARN_RATE * 2, usual, 1.0),
        "another mix": (world, LEARN_RATE, first, 1.0),
        "the other mix": (world, LEARN_RATE, last, 1.0),
        "a fifth dearer": (dearer(world), LEARN_RATE, usual, DEARER),
    }


def learn(world: World) -> Baseline | None:
    """The first baseline that is learned; ``None`` if the engine was not busy enough."""
    efficiencies = Efficiencies(learn_seconds=LEARN_SECONDS)
    run = SimulatedRun(
        LEARN_RUN_SECONDS, world=world, rate_per_second=LEARN_RATE, seed=LEARN_SEED, truth=False
    )
    for _ in Replay(run.records(), efficiencies=efficiencies):
        if learned := efficiencies.drain_learned():
            return learned[0]
    return next(iter(efficiencies.drain_learned()), None)


def row_of(name: str) -> dict[str, Any]:
    """All cases of one world."""
    world = WORLDS[name]
    baseline = learn(world)
    if baseline is None:
        return {"world": name, "cases": {}}
    cases = {case: figures(baseline, *given) for case, given in cases_of(world).items()}
    return {"world": name, "scale": baseline.scale, "scatter": baseline.scatter, "cases": cases}


def figures(
    baseline: Baseline, world: World, rate: float, classes: tuple[RequestClass, ...], true_index: float
) -> dict[str, float]:
    """What the index said of one case, over all engines of the world."""
    run = SimulatedRun(
        CASE_SECONDS, world=world, rate_per_second=rate, classes=classes, seed=CASE_SEED, truth=False
    )
    replay = Replay(run.records(), efficiencies=Efficiencies(lambda identity, version: baseline))
    list(replay)
    engines = replay.snapshot.engines if replay.snapshot is not None else ()
    compared = [totals.baseline for totals in engines if totals.baseline is not None]
    actual = sum(totals.actual_joules or 0.0 for totals in compared)
    expected = sum(totals.expected_joules or 0.0 for totals in compared)
    tokens = sum(totals.tokens.get("generated", 0) for totals in engines)
    joules = sum(sum(totals.attributed_joules.values()) for totals in engines)
    return {
        "true_index": true_index,
        "index": actual / expected if expected else float("nan"),
        "error_ratio": max((totals.error_ratio or 0.0 for totals in compared), default=float("nan")),
        "joules_per_token": joules / max(tokens, 1),
    }


def text_of(report: dict[str, Any]) -> str:
    names = list(next(row["cases"] for row in report["rows"] if row["cases"]))
    flat = [case for row in report["rows"] for case in row["cases"].values()]
    off = np.array([case["index"] / case["true_index"] - 1.0 for case in flat])
    errors = np.array([case["error_ratio"] for case in flat])
    spread = [
        max(case["joules_per_token"] for case in usual) / min(case["joules_per_token"] for case in usual)
        for row in report["rows"]
        if (usual := [case for case in row["cases"].values() if case["true_index"] == 1.0])
    ]
    lines = [
        "# How far the efficiency index is from the truth\n",
        f"`python benchmarks/baselines.py`, {report['machine']}\n",
        f"A baseline learned in {LEARN_SECONDS:g} s of busy time, compared with runs of {CASE_SECONDS:g} s "
        "by another seed. The index that was found, and in brackets the stated relative standard error.\n",
        f"Over all {len(flat)} cases the index is off by {np.abs(off).mean():.1%} in the mean, "
        f"{np.percentile(np.abs(off), 95):.1%} at the 95th percentile, {np.abs(off).max():.1%} at most; "
        f"{np.mean(np.abs(off) <= 2 * errors):.0%} lie within two stated errors. Where nothing changed, "
        f"joules per output token differ by a factor of {np.median(spread):.1f} within a world (median; "
        f"{max(spread):.1f} at most).\n",
        f"| world | {' | '.join(names)} | J/token, least–most |",
        "|---" * (len(names) + 2) + "|",
    ]
    for row in report["rows"]:
        cells = [f"{case['index']:.3f} ({case['error_ratio']:.3f})" for case in row["cases"].values()] or [
            "not learned"
        ] * len(names)
        joules = [case["joules_per_token"] for case in row["cases"].values()] or [0.0]
        lines.append(f"| {row['world']} | {' | '.join(cells)} | {min(joules):.2f}–{max(joules):.2f} |")
    lines += ["", *(f"{name} is left out: {why}." for name, why in LEFT_OUT.items())]
    return "\n".join(lines) + "\n"


def main() -> None:
    names = [name for name in WORLDS if name not in LEFT_OUT]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--worlds", nargs="+", choices=names, default=names)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    with ProcessPoolExecutor(given.processes) as pool:
        rows = list(pool.map(row_of, given.worlds))
    report = {"machine": machine("joulescope-inference", "numpy"), "rows": rows}
    save("baselines", report, text_of(report))


if __name__ == "__main__":
    main()
