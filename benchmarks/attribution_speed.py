"""How fast joules are divided, and how that scales with the batch: request-steps a second of one core.

Feeds the accountant alone, with steps that are already in memory, as a replay has them once they are
parsed: a steady batch of decoding requests of which some end and others, with prefills, take their place in
every tenth step, on one GPU with an interval of joules every half second, and every two seconds. Steps take
and draw what those of Llama-3.1-8B on an H100 do (ML.ENERGY v3: 6.9 ms + 85 us and 3.3 J + 65 mJ for each
sequence); from about 200 sequences on that is the power limit, where pricing costs most. Everything that
attribution does is in it: tokens counted, steps priced, intervals divided, requests charged with their
uncertainty and finished, the cost model fitted. What comes before (reading JSON or the socket) is measured by
``benchmarks/sidecar.py``.

    python benchmarks/attribution_speed.py [--repeat 5]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.report import machine, save
from joulescope.attribution.accountant import Accountant
from joulescope.model import (
    CostFacts,
    EnergyInterval,
    EngineInfo,
    GpuInfo,
    RequestEnded,
    RequestStarted,
    StepDone,
)

BATCHES = (1, 8, 32, 64, 128, 256, 512, 1024)
REQUEST_STEPS = 400_000
WINDOWS_SECONDS = (0.5, 2.0)
"""Intervals of joules: those of a live sidecar, and longer ones, by which a replay of days is faster
(``joulescope replay --window-seconds 2``); ``benchmarks/ablations.py`` tells what they cost in accuracy."""
GOAL_PER_SECOND = 5e6
TURNOVER_STEPS = 10
PROMPT_TOKENS = 300

STEP_SECONDS, SEQUENCE_SECONDS, PREFILL_SECONDS = 6.9e-3, 85e-6, 2.4e-5
STEP_JOULES, SEQUENCE_JOULES, PREFILL_JOULES = 3.3, 0.065, 0.02
"""Of a step, of each sequence in it, and of each token of a prompt."""

COST = CostFacts(
    source="config",
    weight_bytes=15e9,
    kv_bytes_per_token=131072.0,
    flops_per_token=15e9,
    flops_per_token_context=5.2e5,
    flops_per_sample=1e9,
)

Event = RequestStarted | StepDone | RequestEnded | EnergyInterval


def events(batch: int, request_steps: int, window_seconds: float) -> Iterator[Event]:
    """The steps of a steady batch with some turnover, and the joules meanwhile."""
    rng = np.random.default_rng(batch)
    handles = list(range(batch))
    context = rng.integers(100, 2000, batch)
    yield from (_started(handle, 0) for handle in handles)
    now_ns = edge_ns = 0
    joules = 0.0
    leaving = max(batch // 50, 1)
    for number in range(max(request_steps // batch, 200)):
        scheduled = np.ones(batch, dtype=np.int64)
        if number % TURNOVER_STEPS == TURNOVER_STEPS - 1:
            for row in rng.choice(batch, leaving, replace=False).tolist():
                yield RequestEnded("e", handles[row], now_ns, "stop", final_step=number - 1)
                handles[row] = handles[row] + batch
                yield _started(handles[row], now_ns)
                context[row], scheduled[row] = 0, PROMPT_TOKENS
        prefilled = int(scheduled.sum()) - batch
        seconds = STEP_SECONDS + SEQUENCE_SECONDS * batch + PREFILL_SECONDS * prefilled
        joules += STEP_JOULES + SEQUENCE_JOULES * batch + PREFILL_JOULES * prefilled
        start_ns, now_ns = now_ns, now_ns + round(1e9 * seconds)
        yield StepDone(
            "e", number, start_ns, start_ns, now_ns, now_ns, list(handles), context.copy(), scheduled,
            np.ones(batch, dtype=np.int64),
        )  # fmt: skip
        context += scheduled
        if now_ns - edge_ns >= 1e9 * window_seconds:
            yield EnergyInterval("g", edge_ns, now_ns, round(1e6 * joules))
            edge_ns, joules = now_ns, 0.0


def _started(handle: int, time_ns: int) -> RequestStarted:
    return RequestStarted("e", handle, f"r{handle}", time_ns, prompt_tokens=PROMPT_TOKENS)


def feed(
    accountant: Accountant,
    told: list[Event],
    before: Callable[[EnergyInterval], None] = lambda interval: None,
) -> tuple[float, int]:
    """Processor seconds that the accountant takes, and the requests that it finished.

    ``before``: what else it is told before an interval.
    """
    accountant.gpu_found(GpuInfo("g", name="NVIDIA H100 80GB HBM3", power_limit_watts=700.0))
    accountant.engine_up(EngineInfo("e", gpus=("g",), cost=COST), 0)
    finished = 0
    begin = time.process_time()
    for event in told:
        if isinstance(event, StepDone):
            accountant.step_done(event)
        elif isinstance(event, RequestStarted):
            accountant.request_started(event)
        elif isinstance(event, RequestEnded):
            accountant.request_ended(event)
        else:
            before(event)
            accountant.interval(event)
            accountant.settle(event.end_ns)
            finished += len(accountant.drain_finished())
            accountant.drain_minutes()
    return time.process_time() - begin, finished


def served_seconds(told: list[Event]) -> float:
    """How long the GPU worked on the steps."""
    return max(event.output_end_ns for event in told if isinstance(event, StepDone)) / 1e9


def measure(batch: int, window_seconds: float, repeat: int) -> dict[str, Any]:
    told = list(events(batch, REQUEST_STEPS, window_seconds))
    steps = sum(isinstance(event, StepDone) for event in told)
    runs = [feed(Accountant(), told) for _ in range(repeat)]
    seconds = float(np.median([seconds for seconds, _ in runs]))
    return {
        "batch": batch,
        "window_seconds": window_seconds,
        "steps": steps,
        "finished": runs[0][1],
        "request_steps_per_second": steps * batch / seconds,
        "microseconds_per_step": 1e6 * seconds / steps,
        "gpus_per_core": served_seconds(told) / seconds,
        "spread": float(np.ptp([seconds for seconds, _ in runs])) / seconds,
    }


def scaling(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Least-squares fit of the time per step: microseconds of a step, nanoseconds of a request in it."""
    batch = np.array([row["batch"] for row in rows], dtype=np.float64)
    micros = np.array([row["microseconds_per_step"] for row in rows])
    weights = 1.0 / micros
    columns = np.stack([np.ones_like(batch), batch], axis=1) * weights[:, None]
    fixed, each = np.linalg.lstsq(columns, micros * weights, rcond=None)[0]
    return float(fixed), 1e3 * float(each)


def table(rows: list[dict[str, Any]], window_seconds: float) -> list[str]:
    lines = [
        f"\n## Intervals of {window_seconds:g} s\n",
        "| batch | million request-steps/s | µs/step | busy GPUs a core keeps up with | spread of runs |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['batch']} | {row['request_steps_per_second'] / 1e6:.2f} "
        f"| {row['microseconds_per_step']:.1f} | {row['gpus_per_core']:.0f} | {row['spread']:.0%} |"
        for row in rows
    ]
    fixed, each = scaling(rows)
    lines.append(
        f"\nLinear in the batch: a step takes about {fixed:.1f} µs and {each:.0f} ns for each of its "
        "requests, with its part of what an interval costs whatever lies in it."
    )
    return lines


def text_of(report: dict[str, Any]) -> str:
    lines = [
        "# Speed of attribution, one core\n",
        f"`python benchmarks/attribution_speed.py`, {report['machine']}\n",
        f"Median processor time of {report['repeat']} runs. Goal: {GOAL_PER_SECOND / 1e6:g} million "
        "request-steps a second in a replay.",
    ]
    for window_seconds in WINDOWS_SECONDS:
        rows = [row for row in report["rows"] if row["window_seconds"] == window_seconds]
        lines += table(rows, window_seconds)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    rows = [measure(batch, window, repeat) for batch in BATCHES for window in WINDOWS_SECONDS]
    report = {"machine": machine("joulescope-inference", "numpy"), "repeat": repeat, "rows": rows}
    save("attribution_speed", report, text_of(report))


if __name__ == "__main__":
    main()
