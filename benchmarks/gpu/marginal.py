"""What a request really adds, by the GPU's own meter, against what joulescope says.

A steady background keeps the GPU busy. Blocks in which requests of one kind are injected at known instants
alternate with blocks in which none is, in random order. The difference of the energy counter at equal
background work, divided by the number of requests, is what a request added; it is compared with joulescope's
marginal figure for the same requests. ``benchmarks/gpu/comparison.py`` says exactly what is compared,
``docs/validation.md`` what it proves and how large its own error is.

    python benchmarks/gpu/marginal.py                                   # simulation, with the truth beside it
    python benchmarks/gpu/marginal.py --server http://127.0.0.1:8000 --socket /run/joulescope/joulescope.sock
    python benchmarks/gpu/marginal.py --model MODEL --record run.jsonl.gz # starts vLLM itself, random weights
    python benchmarks/gpu/marginal.py --replay run.jsonl.gz             # a run that was kept, once more

``--quick`` takes about six minutes on a server: three kinds of request, ten rounds of short blocks.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.gpu import results as pages  # noqa: E402
from benchmarks.gpu.bench import Bench  # noqa: E402
from benchmarks.gpu.characterise import slug  # noqa: E402
from benchmarks.gpu.comparison import ArmResult, compare, swaps  # noqa: E402
from benchmarks.gpu.counterfactual import Counterfactual, counterfactual  # noqa: E402
from benchmarks.gpu.plan import (  # noqa: E402
    DECODE,
    EXPERIMENTS,
    PREFILL,
    Background,
    Experiment,
    Kind,
    Pace,
    make_plan,
    pace_for,
)
from benchmarks.gpu.recording import Recording  # noqa: E402
from benchmarks.gpu.sensor_page import text_of as sensor_page  # noqa: E402
from benchmarks.gpu.server import SENSOR_SECONDS, ServerBench, load_kept  # noqa: E402
from benchmarks.gpu.simulated import SimulatedBench  # noqa: E402
from benchmarks.gpu.vllm_process import running_vllm  # noqa: E402
from benchmarks.report import RESULTS, machine, save  # noqa: E402
from joulescope.model import METHOD, METHOD_VERSION  # noqa: E402
from joulescope.simulation.parts import World  # noqa: E402
from joulescope.simulation.worlds import H100_LLAMA_8B, WORLDS  # noqa: E402

QUICK = Pace(rounds=10, block_seconds=7.0)
FULL = Pace(rounds=10, block_seconds=10.0)
SEEDS = (1,)
COUNTERFACTUAL_SEEDS, COUNTERFACTUAL_COUNT = range(5), 40
COUNTERFACTUAL_LOADS = {0.5: 240.0, 8.0: 60.0, 16.0: 60.0, 22.0: 60.0}
"""Arrivals a second of the others, and for how many seconds: longer where the injected would else meet."""


OTHERS = ("low-cap", "cuda-graphs", "moe", "host-bound")
"""Worlds beside the calibrated one in which the comparison itself is tried: a power cap that holds, batches
padded to captured sizes, experts, and a host that keeps the GPU waiting."""

LEGEND = (
    "Joules are per injected request. *Added*: from the energy counter at equal background work, Student's "
    "95 % over the pairs. *Plain ΔE*: from the same blocks at equal time. *Steps lost*: background steps for "
    "which the injected requests left no time. *True, one by one*: what each request's steps would have cost "
    "less without it; *together*: without all that were injected at the time. Their difference is the *group "
    "effect*; no comparison with single figures can be free of it. What all of it means: "
    "[docs/validation.md](../../docs/validation.md)."
)

OTHERS_EXPERIMENTS = ("classes", "density")


def worlds(setup: Setup) -> Iterator[tuple[str, World, Setup]]:
    """The calibrated world with all experiments, and others with some, in short blocks."""
    yield "calibrated: H100, Llama-3.1-8B", H100_LLAMA_8B, setup
    few = tuple(each for each in setup.experiments if each.name in OTHERS_EXPERIMENTS)
    for name in OTHERS:
        if few:
            yield (
                name,
                WORLDS[name],
                replace(setup, experiments=few, pace=replace(QUICK, rounds=setup.pace.rounds)),
            )


@dataclass(frozen=True, slots=True)
class Setup:
    """What is to be measured, on whatever bench."""

    experiments: tuple[Experiment, ...]
    pace: Pace
    background: Background = field(default_factory=Background)

    @property
    def kinds(self) -> list[Kind]:
        return [kind for experiment in self.experiments for kind in experiment.kinds]


def measure(bench: Bench, setup: Setup, seed: int) -> tuple[dict[str, Any], list[ArmResult]]:
    """Characterises the meter, finds out how long requests take, and runs the experiments."""
    sensor = bench.characterise()
    latencies = bench.latencies_seconds(setup.kinds, setup.background)
    pace = pace_for(setup.pace, latencies)
    plan = make_plan(setup.experiments, latencies, pace, setup.background, seed)
    print(f"{len(plan.blocks)} blocks of {pace.block_seconds:g} s, {plan.length_seconds / 60:.1f} minutes")
    return judge(bench.run(plan), sensor)


def judge(recording: Recording, sensor: dict[str, Any]) -> tuple[dict[str, Any], list[ArmResult]]:
    """What a recording shows, and the facts that belong to it."""
    plan = recording.plan
    blocks = recording.blocks()
    seconds = sum(window.seconds for figures in blocks for window in figures.windows)
    idle_seconds = sum(window.idle_seconds for figures in blocks for window in figures.windows)
    facts = {
        "seed": plan.seed,
        "engine": recording.engine,
        "background": asdict(plan.background),
        "kinds": [asdict(kind) for kind in plan.kinds],
        "block_seconds": plan.blocks[0].length_seconds,
        "gap_seconds": plan.gap_seconds,
        "poll_seconds": recording.poll_seconds,
        "idle_ratio": idle_seconds / seconds if seconds else None,
        "residual_joules": recording.residual_joules,
        "method": f"{METHOD}/{METHOD_VERSION}",
        "sensor": sensor,
    }
    return facts, compare(plan, blocks, sensor["idle_watts"] or 0.0)


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


def run_simulated(setup: Setup, seeds: Sequence[int], folder: Path, with_counterfactual: bool) -> None:
    """All worlds; the page says how good the comparison itself is."""
    report: dict[str, Any] = {"machine": machine("joulescope-inference", "numpy"), "worlds": []}
    lines = ["# What a request adds: measured against marginal, in simulation\n", f"{report['machine']}\n"]
    lines += [f"`python benchmarks/gpu/marginal.py`, {METHOD}/{METHOD_VERSION}. {LEGEND}"]
    for title, world, its_setup in worlds(setup):
        runs = [measure(SimulatedBench(world, seed), its_setup, seed) for seed in seeds]
        found = pooled([results for _, results in runs])
        facts = [facts for facts, _ in runs]
        results = pages.results_json(found, facts[0]["poll_seconds"])
        report["worlds"].append({"world": title, "runs": facts, **results})
        lines += [f"\n## {title}\n", *pages.table_of(found), pages.sameness_of(found)]
        lines += [
            "\nHow good the comparison itself is:\n",
            *pages.truth_table_of(found),
            "\nOne kind in the place of another:\n",
        ]
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
    save("gpu_marginal_simulated", report, "\n".join(lines) + "\n", folder)


def counterfactuals() -> Iterator[Counterfactual]:
    for kind in (PREFILL, DECODE):
        for rate, seconds in COUNTERFACTUAL_LOADS.items():
            yield counterfactual(
                H100_LLAMA_8B, kind, rate, COUNTERFACTUAL_SEEDS, COUNTERFACTUAL_COUNT, seconds
            )


# --------------------------------------------------------------------------------------- hardware


def run_server(setup: Setup, options: argparse.Namespace) -> None:
    """A server that is up, or one started here; the trace is kept where ``--record`` says."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="joulescope-")))
        socket_path = options.socket or str(folder / "js.sock")
        url = options.server
        if options.model is not None:
            extra = (options.vllm_arguments or "").split()
            server = running_vllm(options.vllm_python, options.model, socket_path, folder, extra)
            url = stack.enter_context(server)
        trace = options.record or folder / "trace.jsonl.gz"
        bench = ServerBench(url, socket_path, trace, setup.background, options.gpu, options.sensor_seconds)
        with bench:
            facts, found = measure(bench, setup, options.seeds[0])
        save_hardware(facts, found, options.results, dict(bench.load.failures))


def save_hardware(
    facts: dict[str, Any], found: list[ArmResult], folder: Path, failures: dict[str, int] | None = None
) -> None:
    """Two pages: the meter's, and the comparison's."""
    sensor, origin = facts["sensor"], machine("joulescope-inference", "vllm", "torch", "nvidia-ml-py")
    name = str(sensor["gpu"]["name"])
    save(
        f"gpu_sensor_{slug(name)}",
        {"machine": origin, **sensor},
        sensor_page({"machine": origin, **sensor}),
        folder,
    )
    report = {
        "machine": origin,
        **facts,
        "failures": failures or {},
        **pages.results_json(found, facts["poll_seconds"]),
        "pairs": pages.pairs_json(found),
    }
    lines = [f"# What a request adds: measured against marginal, on {name}\n", f"{origin}\n"]
    lines += [f"{facts['engine']}, {facts['method']}, polls every {1e3 * facts['poll_seconds']:.0f} ms\n"]
    lines += [*pages.table_of(found), pages.sameness_of(found)]
    idle = "not known" if facts["idle_ratio"] is None else f"{facts['idle_ratio']:.2%}"
    lines += [f"\nIdle in the blocks: {idle}. While they ran: {sensor.get('during')}\n"]
    lines += ["\nOne kind in the place of another:\n", *pages.swap_table_of(swaps(found))]
    save(f"gpu_marginal_{slug(name)}", report, "\n".join(lines) + "\n", folder)


def replay(trace: Path, folder: Path) -> None:
    """A run that was kept, accounted for by today's estimator."""
    kept, recording = load_kept(trace)
    save_hardware(*judge(recording, kept.sensor), folder)


# ----------------------------------------------------------------------------------- command line


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--server", metavar="URL", help="a vLLM server that is up, with joulescope's hook")
    where.add_argument("--model", type=Path, help="a model's folder: start vLLM here, with random weights")
    where.add_argument("--replay", type=Path, metavar="TRACE", help="a trace that --record kept")
    parser.add_argument("--socket", help="the server's JOULESCOPE_SOCKET; needed with --server")
    parser.add_argument("--record", type=Path, metavar="TRACE", help="keep the trace, .jsonl or .jsonl.gz")
    parser.add_argument("--gpu", help="UUID, if there are several")
    parser.add_argument(
        "--vllm-python", default=sys.executable, help="interpreter that has vLLM, for --model"
    )
    parser.add_argument("--vllm-arguments", help="more arguments of the server, for --model")
    parser.add_argument("--quick", action="store_true", help="three kinds of request, short blocks")
    parser.add_argument("--experiments", nargs="+", choices=list(EXPERIMENTS), help="default: all of them")
    parser.add_argument("--rounds", type=int, help="of each experiment; even, at least 10 to prove anything")
    parser.add_argument("--block-seconds", type=float)
    parser.add_argument("--sensor-seconds", type=float, default=SENSOR_SECONDS, help="for each state")
    parser.add_argument("--streams", type=int, default=Background().streams, help="of the background")
    parser.add_argument("--scale", type=float, default=1.0, help="of all lengths, for a short context")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="a server takes the first")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder")
    options = parser.parse_args(arguments)
    if options.server and not options.socket:
        parser.error("--server needs --socket: the path that the server's JOULESCOPE_SOCKET names")
    return options


def setup_of(options: argparse.Namespace) -> Setup:
    """What the command line asks for."""
    pace = QUICK if options.quick else FULL
    if options.rounds:
        pace = replace(pace, rounds=options.rounds)
    if options.block_seconds:
        pace = replace(pace, block_seconds=options.block_seconds)
    names = options.experiments or (["classes"] if options.quick else list(EXPERIMENTS))
    output_tokens = max(round(Background().output_tokens * options.scale), options.streams)
    background = Background(streams=options.streams, output_tokens=output_tokens)
    return Setup(tuple(EXPERIMENTS[name].scaled(options.scale) for name in names), pace, background)


def main() -> None:
    options = parse()
    setup = setup_of(options)
    if options.replay is not None:
        replay(options.replay, options.results)
    elif options.server or options.model:
        run_server(setup, options)
    else:
        run_simulated(setup, options.seeds, options.results, with_counterfactual=not options.quick)


if __name__ == "__main__":
    main()
