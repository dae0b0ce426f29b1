"""How near plans come to the truth, in simulated worlds whose truth is known, and to published measurements.

Four questions, each with its table:

* the model of the engine alone: a world's true cost of steps is given, and what is foreseen is how the engine
  fares under a load and limits;
* batches that were not seen: an engine is observed under one load, and foreseen with other batch limits and
  other rates, with intervals that should hold nine of ten truths;
* what-ifs: foreseen on other GPUs in number, another precision, another power limit, against such worlds;
* published rows: foreseen from other rows, or from nothing but the data sheet.

Lengths of the requests are those that came in the window that is compared, so that it is not the luck of the
draw that is measured. Nothing here was measured on hardware.

    python benchmarks/capacity.py [--part structure] [--processes 1] [--kept FOLDER]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


from benchmarks.capacity_page import page_of
from benchmarks.capacity_published import published
from benchmarks.capacity_truth import KEPT, Truth, learn, run
from benchmarks.capacity_truth import PERCENTILES as TRUE_PERCENTILES
from benchmarks.report import RESULTS, machine, save
from joulescope.insight.capacity.forecast import PERCENTILES, Forecaster, Setting
from joulescope.insight.capacity.observed import Observed
from joulescope.insight.capacity.what_if import WhatIf, as_it_is, setting_of
from joulescope.insight.steady import Operation, Workload, steady_state
from joulescope.simulation.parts import Dvfs, Parallel, World
from joulescope.simulation.worlds import H100_FP8, LLAMA_3_1_8B, WORLDS
from tests.insight.steady.services import service_of

LEARN_SEED, TRUE_SEED = 41, 42
FRESH_SEEDS = (61, 62)
"""To learn from and to be held against, of the worlds that no width was set on."""

LEARN_SECONDS = 180.0

FIGURES = ("joules_per_token", "inter_token_seconds", "tokens_per_second", "first_token_seconds")


_PIPELINE = WORLDS["pipeline-parallel-2"]
ALL_WORLDS: dict[str, World] = WORLDS | {
    "pipeline-parallel-4": replace(
        _PIPELINE,
        parallel=Parallel(pipeline=4, slowness=(1.0, 1.06, 1.0, 1.03)),
        limits=replace(_PIPELINE.limits, kv_cache_tokens=700_000),
    ),
    "pipeline-8b": replace(
        WORLDS["calibrated"],
        parallel=Parallel(pipeline=2),
        limits=replace(WORLDS["calibrated"].limits, async_scheduling=False, max_num_batched_tokens=2048),
    ),
}
"""Those of the simulation, and pipelines of another length, another model and another budget of tokens."""


@dataclass(frozen=True)
class Load:
    """A world under a load and limits."""

    world: str
    rate: float
    limits: tuple[tuple[str, int], ...] = ()
    settle: float = 50.0
    seconds: float = 120.0
    seed: int = TRUE_SEED

    @property
    def place(self) -> World:
        world = ALL_WORLDS[self.world]
        return replace(world, limits=replace(world.limits, **dict(self.limits)))

    @property
    def name(self) -> str:
        limits = ", ".join(f"{name} {value}" for name, value in self.limits)
        return f"{self.rate:g}/s" + (f", {limits}" if limits else "")

    def truth(self) -> Truth:
        return run(self.place, self.rate, settle=self.settle, seconds=self.seconds, seed=self.seed)


STRUCTURE = (
    *(Load("calibrated", rate, seconds=240.0) for rate in (1.0, 2.0, 4.0, 8.0, 16.0)),
    Load("calibrated", 30.0),
    *(Load("calibrated", 30.0, (("max_num_seqs", batch),)) for batch in (8, 32, 128)),
    *(Load("calibrated", 30.0, (("kv_cache_tokens", tokens),)) for tokens in (60_000, 120_000)),
    Load("calibrated", 10.0, (("kv_cache_tokens", 120_000),)),
    Load("low-cap", 8.0),
    *(Load("preemption-heavy", rate) for rate in (4.0, 6.0, 16.0)),
    *(Load("prefix-heavy", rate, settle=100.0) for rate in (4.0, 12.0, 30.0)),
    Load("long-context", 1.0, settle=200.0, seconds=300.0),
    Load("long-context", 8.0, settle=250.0, seconds=200.0),
    *(Load("moe", rate) for rate in (2.0, 8.0, 24.0)),
    *(Load("host-bound", rate) for rate in (2.0, 8.0)),
)
"""Worlds whose cost of steps has the form of the laws."""

UNSEEN_WORLDS = (
    "calibrated",
    "cheap-arithmetic",
    "slow-memory",
    "costly-sequences",
    "blended-roofline",
    "dvfs",
    "moe",
    "speculative",
    "cuda-graphs",
    "host-bound",
    "thermal",
    "tensor-parallel-2",
    "moe-tensor-parallel-2",
    "pipeline-parallel-2",
    "prefix-heavy",
    "long-context",
)
UNSEEN_BATCHES = (4, 32, 256)
LEARN_RATE = {
    "tensor-parallel-2": 3.0,
    "pipeline-parallel-2": 3.0,
    "long-context": 1.0,
    "moe-tensor-parallel-2": 3.0,
}
USUAL_LEARN_RATE = 6.0


def structure(load: Load) -> dict[str, Any]:
    """One row of the first table."""
    truth = load.truth()
    world = load.place
    service = replace(
        service_of(world), tokens_per_pass=truth.tokens_per_pass, drafted_per_pass=truth.drafted_per_pass
    )
    workload = Workload(truth.classes, arrivals_per_second=truth.requests_per_second)
    workload = replace(workload, shared_tokens=_shared(truth, workload, world))
    operation = steady_state(workload, service)
    return {"world": load.world, "load": load.name, **_compared(operation, truth)}


def _shared(truth: Truth, workload: Workload, world: World) -> float:
    """As plans infer it: what is in use of the KV cache beyond what the running requests hold."""
    from joulescope.insight.steady.requests import mean_of

    if not any(each.cached_tokens for each in workload.classes):
        return 0.0
    held = mean_of(workload.classes, truth.tokens_per_pass, 1.0).held
    return max(truth.kv_usage_ratio * world.limits.kv_cache_tokens - truth.running * held, 0.0)


def _compared(operation: Operation, truth: Truth) -> dict[str, Any]:
    parts = operation.joules_per_token
    assert parts is not None
    waited = operation.saturated or operation.first_token_seconds is None
    return {
        "batch": truth.batch,
        "kv_usage": truth.kv_usage_ratio,
        "preemptions": truth.preemptions_per_second,
        "true_joules_per_token": truth.joules_per_token,
        "true_inter_token_seconds": truth.inter_token_seconds,
        "saturated": operation.saturated,
        "joules_per_token": parts.total / truth.joules_per_token - 1.0,
        "inter_token_seconds": operation.inter_token_seconds / truth.inter_token_seconds - 1.0,
        "tokens_per_second": operation.tokens_per_second / truth.tokens_per_second - 1.0,
        "first_token_seconds": None
        if waited
        else ((operation.first_token_seconds or 0.0) - operation.intake_seconds) / truth.first_token_seconds
        - 1.0,
        "foreseen_batch": operation.batch,
        "foreseen_kv_usage": operation.kv_usage_ratio,
        "foreseen_preemptions": operation.preemptions_per_second,
    }


SETTLE = {"tensor-parallel-2": 200.0, "pipeline-parallel-2": 200.0, "long-context": 200.0}
SETTLE["pipeline-parallel-4"] = 200.0
"""Where requests take long, the first that end are the short ones."""

FRESH = (
    ("calibrated", 4.0),
    ("slow-memory", 8.0),
    ("blended-roofline", 9.0),
    ("dvfs", 5.0),
    ("moe", 5.0),
    ("host-bound", 7.0),
    ("tensor-parallel-2", 2.0),
    ("pipeline-parallel-2", 2.0),
    ("pipeline-parallel-4", 3.0),
    ("pipeline-8b", 6.0),
    ("prefix-heavy", 4.0),
    ("low-cap", 6.0),
)
"""Worlds and rates at which they are learned, with other seeds: nothing was set on these."""


def unseen(world: str) -> list[dict[str, Any]]:
    """Rows of the second table: one world, observed under one load, foreseen at others."""
    return _learned_and_foreseen(world, LEARN_RATE.get(world, USUAL_LEARN_RATE), (LEARN_SEED, TRUE_SEED))


def fresh(case: tuple[str, float]) -> list[dict[str, Any]]:
    """The same with other seeds and rates, and with worlds that the second table does not have."""
    return _learned_and_foreseen(*case, FRESH_SEEDS)


def _learned_and_foreseen(world: str, rate: float, seeds: tuple[int, int]) -> list[dict[str, Any]]:
    observed = learn(ALL_WORLDS[world], rate, seconds=LEARN_SECONDS, seed=seeds[0])
    settle, most = SETTLE.get(world, 50.0), 4.0 if world == "long-context" else 40.0
    loads = [
        Load(world, most, (("max_num_seqs", batch),), settle, 60.0, seeds[1]) for batch in UNSEEN_BATCHES
    ]
    loads += [Load(world, factor * rate, (), settle, 120.0, seeds[1]) for factor in (0.25, 2.0)]
    return [row for load in loads if (row := _foreseen(observed, load)) is not None]


def _foreseen(observed: Observed, load: Load) -> dict[str, Any] | None:
    truth, closed = load.truth(), bool(load.limits)
    setting = as_it_is(observed)
    limits = dict(load.limits)
    service = replace(setting.service, limits=replace(setting.service.limits, **limits))
    workload = replace(observed.workload, classes=truth.classes)
    if closed:
        workload = replace(workload, arrivals_per_second=None, concurrency=math.inf)
    else:
        workload = replace(workload, arrivals_per_second=truth.requests_per_second)
    return _judged(observed, replace(setting, service=service), workload, truth) | {
        "world": load.world,
        "learned_batch": observed.fared.batch,
        "load": load.name,
    }


def _judged(observed: Observed, setting: Setting, workload: Workload, truth: Truth) -> dict[str, Any]:
    """Errors and whether the intervals hold the truth."""
    forecast = Forecaster(observed).of(workload, setting)
    row = {
        **_compared(forecast.operation, truth),
        "support": forecast.support.verdict,
        "octaves": forecast.support.octaves,
        "notes": list(forecast.support.notes),
    }
    for name in FIGURES[:3]:
        figure = forecast.figures.get(name)
        if figure is not None:
            true = getattr(truth, name)
            row[f"{name}_held"] = bool(figure.low <= true <= figure.high)
            row[f"{name}_width"] = 0.5 * (figure.high - figure.low) / figure.value
    return row | _percentiles(Forecaster(observed), setting, workload, truth)


def _percentiles(
    forecaster: Forecaster, setting: Setting, workload: Workload, truth: Truth
) -> dict[str, Any]:
    """Errors of percentiles of latencies, and whether their intervals hold the truth."""
    found = forecaster.percentiles(workload, setting)
    true = {
        "inter_token_seconds": truth.inter_token_percentiles,
        "first_token_seconds": truth.arrival_percentiles,
    }
    rows = {}
    for each in PERCENTILES:
        figure = found.get(each.name)
        value = true[each.figure][TRUE_PERCENTILES.index(each.percent)]
        if figure is not None and math.isfinite(value):
            rows[each.name] = figure.value / value - 1.0
            rows[f"{each.name}_held"] = bool(figure.low <= value <= figure.high)
    return rows


def _fp8(world: World) -> World:
    """The same model and GPU in 8 bits, without the costs of small batches, which no simulated world has."""
    model = replace(LLAMA_3_1_8B, weight_bytes=0.5 * LLAMA_3_1_8B.weight_bytes)
    more = int(model.weight_bytes / model.kv_bytes_per_token)
    limits = replace(world.limits, kv_cache_tokens=world.limits.kv_cache_tokens + more)
    return replace(world, hardware=H100_FP8, model=model, limits=limits)


def _limit(world: World, watts: float) -> World:
    return replace(world, hardware=replace(world.hardware, power_limit_watts=watts))


def _two(world: World) -> World:
    more = int(world.model.weight_bytes / world.model.kv_bytes_per_token) + 2 * world.limits.kv_cache_tokens
    limits = replace(world.limits, kv_cache_tokens=more)
    return replace(world, parallel=Parallel(tensor=2), limits=limits)


WHAT_IFS = (
    ("calibrated", WhatIf(gpus=2), _two),
    ("slow-memory", WhatIf(gpus=2), _two),
    ("calibrated", WhatIf(precision="fp8"), _fp8),
    ("calibrated", WhatIf(power_limit_watts=500.0), lambda world: _limit(world, 500.0)),
    ("dvfs-uncapped", WhatIf(power_limit_watts=480.0), lambda world: _limit(world, 480.0)),
    ("dvfs-stiff", WhatIf(power_limit_watts=420.0), lambda world: _limit(world, 420.0)),
)

UNCAPPED = {
    "dvfs-uncapped": _limit(WORLDS["dvfs"], 900.0),
    "dvfs-stiff": replace(
        WORLDS["calibrated"],
        hardware=replace(WORLDS["calibrated"].hardware, dvfs=Dvfs(voltage_floor=0.75)),
    ),
}
"""Worlds whose clocks and voltage fall at a lower limit; in the second, the voltage less than is assumed."""


def what_ifs(index: int) -> list[dict[str, Any]]:
    """Rows of the third table."""
    name, what_if, other = WHAT_IFS[index]
    world = UNCAPPED.get(name) or WORLDS[name]
    observed = learn(world, USUAL_LEARN_RATE, seconds=LEARN_SECONDS, seed=LEARN_SEED)
    setting, rows = setting_of(what_if, observed), []
    for batch in (8, 64, 256):
        limited = other(replace(world, limits=replace(world.limits, max_num_seqs=batch)))
        truth = run(limited, 60.0, settle=50.0, seconds=60.0, seed=TRUE_SEED)
        service = replace(setting.service, limits=replace(setting.service.limits, max_num_seqs=batch))
        variants = tuple(
            replace(each, limits=replace(each.limits, max_num_seqs=batch)) for each in setting.variants
        )
        workload = replace(
            observed.workload, classes=truth.classes, arrivals_per_second=None, concurrency=math.inf
        )
        here = replace(setting, service=service, variants=variants)
        rows.append({"world": name, "what_if": what_if.name, "load": f"batch {batch}"})
        rows[-1] |= _judged(observed, here, workload, truth)
    return rows


# ----------------------------------------------------------------------------------------------------- report


PARTS: dict[str, tuple[Callable[[Any], Any], Sequence[Any]]] = {
    "structure": (structure, STRUCTURE),
    "unseen": (unseen, UNSEEN_WORLDS),
    "fresh": (fresh, FRESH),
    "what_ifs": (what_ifs, range(len(WHAT_IFS))),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--part", choices=PARTS, help="measure this anew, and keep the rest of the last result"
    )
    parser.add_argument("--kept", type=Path, help="keep here what was simulated, and take it from here")
    arguments = parser.parse_args()
    if arguments.kept:
        arguments.kept.mkdir(parents=True, exist_ok=True)
        KEPT.append(arguments.kept)
    report: dict[str, Any] = {}
    if arguments.part:
        report = json.loads((RESULTS / "capacity.json").read_text())
    with ProcessPoolExecutor(arguments.processes) as pool:
        for name, (measure, cases) in PARTS.items():
            if arguments.part in (None, name):
                found = list(pool.map(measure, cases))
                report[name] = found if name == "structure" else [row for rows in found for row in rows]
    report |= {"machine": machine("numpy"), "published": published()}
    save("capacity", report, page_of(report, FIGURES, LEARN_SECONDS))


if __name__ == "__main__":
    main()
