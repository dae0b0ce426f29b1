"""What the estimator gets right: published figures of the paper, and simulated runs that were measured.

First every figure that arXiv 2509.20241 publishes and public parameters can make, by version, with v1 also
under the one assumption that closes its gap. Then simulated worlds at full load under several mixes of
lengths, each mix estimated with a law of throughput and a power that were fitted to the others; and at lower
loads, with the law of full load, which is what benchmarks give. Nothing was measured on hardware.

    python benchmarks/estimate.py [--worlds calibrated moe] [--processes 2]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.baselines import classes_of
from benchmarks.report import machine, save
from joulescope.insight.estimate.distributions import Fixed, parse_distribution
from joulescope.insight.estimate.estimate import estimate
from joulescope.insight.estimate.measured import Measured, measure, measured_mixtures
from joulescope.insight.estimate.mixture_fit import fit_mixtures
from joulescope.insight.estimate.parameters import Model, Parameters, Query
from joulescope.insight.estimate.presets import PRESETS
from joulescope.insight.estimate.sensitivity import sensitivity
from joulescope.insight.estimate.told import beside_published
from joulescope.insight.estimate.versus import versus
from joulescope.minute_model import EngineMinute
from joulescope.minutes import merge
from joulescope.replay import Replay
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.worlds import WORLDS

SAMPLES = 400_000
RUN_SECONDS, SEED = 30.0, 501
LOADS = (2.0, 6.0, 16.0)
FULL_LOAD = 48.0
"""Arrivals a second that no world here keeps up with: its batch is as large as it can be."""
MIXES = {"usual": (1.0,), "first": (4.0, 0.25), "last": (0.25, 4.0), "middle": (0.5, 2.0, 2.0, 0.5)}
DEFAULT_WORLDS = ("calibrated", "moe", "host-bound", "tensor-parallel-2", "long-context")
WIDE_PUE = "lognormal(p5=1.05, p95=1.60)"


# -------------------------------------------------------------------------------------- published figures


def with_long(parameters: Parameters, share: float) -> Parameters:
    typical, long = parameters.queries
    return replace(parameters, queries=(replace(typical, weight=1.0 - share), replace(long, weight=share)))


def published() -> list[dict[str, Any]]:
    wide = replace(PRESETS["v1"].parameters, pue=parse_distribution(WIDE_PUE, "benchmark"))
    cases = (
        ("v1", PRESETS["v1"].parameters),
        ("v1, PUE to 1.60", wide),
        ("v2", PRESETS["v2"].parameters),
    )
    rows = []
    for name, parameters in cases:
        for share in (0.0, 0.1):
            found = estimate(replace(with_long(parameters, share), samples=SAMPLES))
            for each, unit, ours, quartiles in beside_published(found):
                if share and not each.name.startswith("fleet"):
                    continue
                row = {"preset": name, "figure": each.name, "unit": unit, "published": each.value}
                row |= {
                    "published_quartiles": each.quartiles,
                    "estimated": ours,
                    "estimated_quartiles": quartiles,
                }
                rows.append(row)
    return rows


def speed() -> dict[str, float]:
    """Seconds of the processor for a million draws: all of ``estimate``, and drawing alone."""
    from joulescope.insight.estimate.draws import draw

    parameters = replace(PRESETS["v2"].parameters, samples=100_000)
    millions = 0.1 * len(parameters.models) * len(parameters.queries)
    found = {}
    for name, run in (("estimate", estimate), ("draw", draw), ("sensitivity", sensitivity)):
        start = time.process_time()
        run(parameters)
        found[f"{name}_seconds_per_million"] = (time.process_time() - start) / millions
    return found


# --------------------------------------------------------------------------------------- simulated runs


def minutes_of(world: str, load: float, mix: str) -> list[EngineMinute]:
    """What the engine did in a run, as one stretch of time: of a short run, minutes have ends of queries that
    began in others."""
    place = WORLDS[world]
    run = SimulatedRun(
        RUN_SECONDS,
        world=place,
        rate_per_second=load,
        classes=classes_of(place, MIXES[mix]),
        seed=SEED + list(MIXES).index(mix),
        truth=False,
    )
    found: list[EngineMinute] = []
    for _ in Replay(run.records(), on_minute=found.append):
        pass
    return list(merge(found))


def estimated(seen: Sequence[EngineMinute], own: Measured) -> tuple[Parameters, float]:
    """Parameters from other runs, with a run's own lengths; joules of a query while serving."""
    law = fit_mixtures(measured_mixtures(seen, 1, "seen")).law
    power = measure(seen, "seen").gpu_watts
    made = Parameters(
        models=(Model("fitted", 1.0, Fixed(power), law, 1),),
        queries=(Query("own", 1.0, own.input_lengths, own.output_lengths, paired=True),),
        samples=50_000,
    )
    return made, estimate(made).queries[0].joules.mean


def row_of(world: str) -> list[dict[str, Any]]:
    """Every run of a world, estimated by its others."""
    full = {mix: minutes_of(world, FULL_LOAD, mix) for mix in MIXES}
    rows = []
    for mix, minutes in full.items():
        seen = [minute for other, each in full.items() if other != mix for minute in each]
        rows.append(_row(world, FULL_LOAD, mix, "other mixes", seen, minutes))
    every = [minute for each in full.values() for minute in each]
    rows += [
        _row(world, load, "usual", "full load", every, minutes_of(world, load, "usual")) for load in LOADS
    ]
    return rows


def _row(
    world: str,
    load: float,
    mix: str,
    kind: str,
    seen: Sequence[EngineMinute],
    minutes: Sequence[EngineMinute],
) -> dict[str, Any]:
    own = measure(minutes, world)
    parameters, joules = estimated(seen, own)
    truth = own.serving_joules / own.output_tokens * own.output_tokens_mean
    preset = versus(_quick_preset(), own, query="typical")
    return {
        "world": world,
        "load": load,
        "mix": mix,
        "kind": kind,
        "measured_joules": truth,
        "estimated_joules": joules,
        "error": joules / truth - 1.0,
        "factors": {each.name: each.factor for each in versus(estimate(parameters), own).factors},
        "preset_v2_factor": preset.factor,
        "preset_v2_factors": {each.name: each.factor for each in preset.factors},
    }


def _quick_preset() -> Any:
    return estimate(replace(PRESETS["v2"].parameters, samples=5000, scenarios=()))


# -------------------------------------------------------------------------------------------------- text


def text_of(report: dict[str, Any]) -> str:
    lines = [
        "# What the estimator gets right\n",
        f"`python benchmarks/estimate.py`, {report['machine']}\n",
        "## Figures that arXiv 2509.20241 publishes\n",
        f"{SAMPLES} draws for each model and kind of query. Published figures have one or two digits.\n",
        "| preset | figure | unit | published | here | factor |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["published"]:
        quartiles = [_between(row[key]) for key in ("published_quartiles", "estimated_quartiles")]
        quartiles[1] = quartiles[1] if quartiles[0] else ""
        lines.append(
            f"| {row['preset']} | {row['figure']} | {row['unit']} | {row['published']:g}{quartiles[0]} | "
            f"{row['estimated']:.3f}{quartiles[1]} | {row['estimated'] / row['published']:.3f} |"
        )
    lines += [
        "",
        "Processor seconds for a million draws: "
        + ", ".join(f"{name.split('_')[0]} {value:.2f}" for name, value in report["speed"].items())
        + ".\n",
        "## Simulated runs, estimated from others of their world\n",
        f"Clients come for {RUN_SECONDS:g} s. The law of throughput and the power are fitted to other runs, "
        "lengths are the run's own; laid beside joules of serving (without idle time). Power, length and "
        "throughput are the factors by which each lifts the estimate: together they are about 1 + error. "
        "Nothing was measured on hardware.\n",
    ]
    for kind in ("other mixes", "full load"):
        lines += _from_lines(kind, [row for row in report["rows"] if row["kind"] == kind])
    lines += [
        "## The preset v2 beside the same runs\n",
        "Typical queries of models above 200 billion parameters on nodes of eight GPUs, with PUE and fleet "
        "factor, beside models of 8 billion (or what the world has) on their GPUs alone, usual mix.\n",
        "| world | arrivals/s | factor | pue | idle and overhead | power | length | throughput |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        if row["mix"] == "usual":
            parts = row["preset_v2_factors"]
            throughput = parts["throughput"] * parts["throughput-by-length"]
            lines.append(
                f"| {row['world']} | {row['load']:g} | {row['preset_v2_factor']:.1f} | {parts['pue']:.2f} | "
                f"{parts['idle-and-overhead']:.2f} | {parts['power']:.2f} | {parts['output-length']:.2f} | "
                f"{throughput:.2f} |"
            )
    return "\n".join(lines) + "\n"


def _from_lines(kind: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    off = np.abs([row["error"] for row in rows])
    lines = [
        f"### From {kind}\n",
        f"{len(rows)} runs: off by {off.mean():.0%} in the mean, {off.max():.0%} at most.\n",
        "| world | arrivals/s | mix | measured J/query | estimated | error | power | length | throughput |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        parts = row["factors"]
        throughput = parts["throughput"] * parts["throughput-by-length"]
        lines.append(
            f"| {row['world']} | {row['load']:g} | {row['mix']} | {row['measured_joules']:.1f} | "
            f"{row['estimated_joules']:.1f} | {row['error']:+.0%} | {parts['power']:.2f} | "
            f"{parts['output-length']:.2f} | {throughput:.2f} |"
        )
    return [*lines, ""]


def _between(quartiles: Sequence[float] | None) -> str:
    return "" if quartiles is None else f" ({quartiles[0]:.2f}–{quartiles[1]:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=DEFAULT_WORLDS)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    with ProcessPoolExecutor(given.processes) as pool:
        rows = [row for found in pool.map(row_of, given.worlds) for row in found]
    report = {
        "machine": machine("joulescope-inference", "numpy"),
        "published": published(),
        "speed": speed(),
        "rows": rows,
    }
    save("estimate", report, text_of(report))


if __name__ == "__main__":
    main()
