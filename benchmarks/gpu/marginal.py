"""What a request really adds, by the GPU's own meter, against what joulescope says.

A steady background keeps the GPU busy. Blocks in which requests of one kind are injected at known instants
alternate with blocks in which none is, in random order. The difference of the energy counter at equal
background work, divided by the number of requests, is what a request added; it is compared with joulescope's
marginal figure for the same requests. ``benchmarks/gpu/comparison.py`` says exactly what is compared,
``docs/validation.md`` what it proves and how large its own error is.

    python benchmarks/gpu/marginal.py                                   # simulation, with the truth beside it
    python benchmarks/gpu/marginal.py --server http://127.0.0.1:8000 --socket /run/joulescope/joulescope.sock
    python benchmarks/gpu/marginal.py --replay run.jsonl.gz             # a run that was kept, once more

``--quick`` takes about six minutes on a server: three kinds of request, ten rounds of short blocks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.gpu import results as pages  # noqa: E402
from benchmarks.gpu.bench import Bench  # noqa: E402
from benchmarks.gpu.comparison import ArmResult, compare, swaps  # noqa: E402
from benchmarks.gpu.counterfactual import Counterfactual, counterfactual  # noqa: E402
from benchmarks.gpu.plan import DECODE, EXPERIMENTS, PREFILL, Background, Pace, make_plan  # noqa: E402
from benchmarks.gpu.simulated import SimulatedBench  # noqa: E402
from benchmarks.report import machine, save  # noqa: E402
from joulescope.simulation.worlds import H100_LLAMA_8B, World  # noqa: E402

QUICK = Pace(rounds=10, block_seconds=7.0)
FULL = Pace(rounds=10, block_seconds=12.0)
SEEDS = (1, 2)
RATES = (0.5, 8.0, 16.0, 22.0)
COUNTERFACTUAL_SEEDS, COUNTERFACTUAL_COUNT, COUNTERFACTUAL_SECONDS = range(5), 40, 60.0


def worlds() -> Iterator[tuple[str, World]]:
    """Worlds for the simulated bench: one in which costs nearly add up, and one in which they do not."""
    yield "H100, Llama-3.1-8B", H100_LLAMA_8B
    capped = replace(H100_LLAMA_8B.hardware, power_limit_watts=520.0)
    yield "the same, power cap of 520 W", replace(H100_LLAMA_8B, hardware=capped)


def measure(
    bench: Bench, names: Sequence[str], pace: Pace, seed: int
) -> tuple[dict[str, Any], list[ArmResult]]:
    """Characterises the meter, finds out how long requests take, and runs the experiments."""
    sensor = bench.characterise()
    experiments = [EXPERIMENTS[name] for name in names]
    background = Background()
    kinds = [kind for experiment in experiments for kind in experiment.kinds]
    latencies = bench.latencies_seconds(kinds, background)
    plan = make_plan(experiments, latencies, pace, background, seed)
    recording = bench.run(plan)
    found = compare(plan, recording.blocks(), sensor["idle_watts"] or 0.0)
    facts = {
        "seed": seed,
        "background": asdict(background),
        "pace": asdict(pace),
        "latencies_seconds": latencies,
        "residual_joules": recording.residual_joules,
        "poll_seconds": recording.poll_seconds,
        "sensor": sensor,
    }
    return facts, found


def pooled(runs: Sequence[list[ArmResult]]) -> list[ArmResult]:
    """The pairs of several runs of the same experiments, together."""
    together = []
    for same in zip(*runs, strict=True):
        dropped: dict[str, int] = {}
        for result in same:
            for reason, count in result.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + count
        pairs = tuple(
            replace(pair, round=pair.round + 1000 * run)
            for run, each in enumerate(same)
            for pair in each.pairs
        )
        together.append(replace(same[0], pairs=pairs, dropped=dropped))
    return together


# ------------------------------------------------------------------------------------- simulation


def run_simulated(names: Sequence[str], pace: Pace, seeds: Sequence[int], with_counterfactual: bool) -> None:
    """All worlds; the page says how good the comparison itself is."""
    report: dict[str, Any] = {"machine": machine("joulescope-inference", "numpy"), "worlds": []}
    lines = ["# What a request adds: measured against marginal, in simulation\n", f"{report['machine']}\n"]
    for title, world in worlds():
        runs = [measure(SimulatedBench(world, seed), names, pace, seed) for seed in seeds]
        found = pooled([results for _, results in runs])
        facts = [facts for facts, _ in runs]
        report["worlds"].append(
            {"world": title, "runs": facts, **pages.results_json(found, facts[0]["poll_seconds"])}
        )
        lines += [f"\n## {title}\n", *pages.table_of(found), "\nHow good the comparison itself is:\n"]
        lines += [*pages.truth_table_of(found), "\nOne kind in the place of another:\n"]
        lines += pages.swap_table_of(swaps(found))
    if with_counterfactual:
        rows = list(counterfactuals())
        report["counterfactual"] = [asdict(row) for row in rows]
        lines += ["\n## The same service with and without, arrivals kept\n"]
        lines += pages.counterfactual_table_of(rows)
    lines += [
        "\n## On hardware\n",
        "| GPU | |",
        "|---|---|",
        "| NVIDIA H200 | not yet measured on hardware |",
    ]
    save("gpu_marginal_simulated", report, "\n".join(lines) + "\n")


def counterfactuals() -> Iterator[Counterfactual]:
    for kind in (PREFILL, DECODE):
        for rate in RATES:
            yield counterfactual(
                H100_LLAMA_8B, kind, rate, COUNTERFACTUAL_SEEDS, COUNTERFACTUAL_COUNT, COUNTERFACTUAL_SECONDS
            )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="kinds of request only, short blocks")
    parser.add_argument("--experiments", nargs="+", choices=list(EXPERIMENTS), help="default: all of them")
    parser.add_argument("--rounds", type=int, help="of each experiment; even, at least 10 to prove anything")
    parser.add_argument("--block-seconds", type=float)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of the simulation")
    return parser.parse_args(arguments)


def pace_of(options: argparse.Namespace) -> Pace:
    pace = QUICK if options.quick else FULL
    if options.rounds:
        pace = replace(pace, rounds=options.rounds)
    return replace(pace, block_seconds=options.block_seconds) if options.block_seconds else pace


def main() -> None:
    options = parse()
    names = options.experiments or (["classes"] if options.quick else list(EXPERIMENTS))
    run_simulated(names, pace_of(options), options.seeds, with_counterfactual=not options.quick)


if __name__ == "__main__":
    main()
