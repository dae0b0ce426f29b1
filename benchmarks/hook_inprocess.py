"""What the hook costs the engine's thread, in microseconds a step, in a real engine in this process.

Runs in an environment with vLLM; ``hook_overhead.py`` starts it. Two probes enclose the hook's wrapper: the
time between the outer and the inner one is the wrapper's. Three arms take turns in shuffled blocks of steps
of one and the same engine: ``bare`` (the probes alone), ``empty`` (a wrapper that only passes the call on)
and ``hook``. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

ARMS = ("bare", "empty", "hook")
BLOCK_STEPS = 16
WARM_STEPS = 2
"""Steps at the begin of a block that are not counted."""

Call = Callable[..., Any]


class Probe:
    """Adds up the time spent in the calls it encloses, nanoseconds."""

    def __init__(self) -> None:
        self.total_ns = 0

    def around(self, call: Call) -> Call:
        def probed(*args: Any, **kwargs: Any) -> Any:
            start_ns = time.perf_counter_ns()
            try:
                return call(*args, **kwargs)
            finally:
                self.total_ns += time.perf_counter_ns() - start_ns

        return probed


def empty(call: Call) -> Call:
    """A wrapper that does nothing."""

    def passed_on(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)

    return passed_on


class Bench:
    """An engine whose scheduler can be switched from arm to arm between steps."""

    def __init__(self, model: str, streams: int) -> None:
        from vllm import LLM

        from joulescope.hook.tap import TAP_ATTRIBUTE, wrap_schedule, wrap_update

        llm = LLM(
            model,
            max_model_len=2048,
            max_num_seqs=streams,
            max_num_batched_tokens=max(2048, 16 * streams),
            enforce_eager=True,
            disable_log_stats=True,
        )
        self.engine = llm.llm_engine
        self.scheduler = self.engine.engine_core.engine_core.scheduler
        self.tap = getattr(self.scheduler, TAP_ATTRIBUTE)
        self.outer, self.inner = Probe(), Probe()
        inlet = self.tap.emitter.inlet
        own = {name: vars(self.scheduler)[name].__wrapped__ for name in ("schedule", "update_from_output")}
        hooks: dict[str, Call] = {
            "schedule": lambda call: wrap_schedule(call, inlet),
            "update_from_output": lambda call: wrap_update(call, inlet),
        }
        self._calls = {
            arm: {
                name: self.outer.around(self._middle(arm, hooks[name])(self.inner.around(own[name])))
                for name in own
            }
            for arm in ARMS
        }

    def _middle(self, arm: str, hook: Call) -> Call:
        return {"bare": lambda call: call, "empty": empty, "hook": hook}[arm]

    def switch(self, arm: str) -> None:
        for name, call in self._calls[arm].items():
            setattr(self.scheduler, name, call)

    def fill(self, streams: int, tokens: int) -> None:
        """Queues ``streams`` requests that all run for ``tokens`` tokens, and prefills them."""
        from vllm import SamplingParams

        parameters = SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=0, detokenize=False)
        for number in range(streams):
            prompt = {"prompt_token_ids": [3 + (number + i) % 200 for i in range(8)]}
            self.engine.add_request(str(number), prompt, parameters)
        while len(self.scheduler.running) < streams:
            self.engine.step()

    def step_ns(self) -> int:
        """One step; the time that lies between the two probes."""
        self.outer.total_ns = self.inner.total_ns = 0
        self.engine.step()
        return self.outer.total_ns - self.inner.total_ns


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def quartiles_of_change(values: list[float], base: list[float]) -> list[float]:
    """Lower quartile, median and upper quartile of the paired differences, percent."""
    changes = [100 * (value / each - 1) for value, each in zip(values, base, strict=True)]
    return [round(change, 2) for change in statistics.quantiles(changes, n=4)]


def measure(bench: Bench, blocks: int, seed: int) -> dict[str, Any]:
    """Lets the arms take turns and gathers microseconds a step for each."""
    order = random.Random(seed)
    costs: dict[str, list[float]] = {arm: [] for arm in ARMS}
    busy_ns = 0
    step_seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    block_seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for _ in range(blocks):
        for arm in order.sample(ARMS, len(ARMS)):
            bench.switch(arm)
            before_ns = bench.tap.emitter.thread_cpu_ns
            for number in range(BLOCK_STEPS):
                start = time.perf_counter()
                cost_ns = bench.step_ns()
                if number >= WARM_STEPS:
                    step_seconds[arm].append(time.perf_counter() - start)
                    costs[arm].append(cost_ns / 1000)
            block_seconds[arm].append(statistics.median(step_seconds[arm][WARM_STEPS - BLOCK_STEPS :]))
            if arm == "hook":
                busy_ns += bench.tap.emitter.thread_cpu_ns - before_ns
    return {
        "arms": {
            arm: {"p50_us": round(statistics.median(each), 2), "p99_us": round(percentile(each, 0.99), 2)}
            for arm, each in costs.items()
        },
        "hook_net_p50_us": round(statistics.median(costs["hook"]) - statistics.median(costs["bare"]), 2),
        "thread_us_per_step": round(busy_ns / 1000 / (blocks * BLOCK_STEPS), 1),
        "step_ms": round(1000 * statistics.median(step_seconds["bare"]), 3),
        "step_change_percent": {
            arm: quartiles_of_change(block_seconds[arm], block_seconds["bare"]) for arm in ("empty", "hook")
        },
        "steps_per_arm": len(costs["hook"]),
        "dropped": bench.tap.emitter.dropped,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--blocks", type=int, default=12)
    options = parser.parse_args()
    bench = Bench(options.model, options.streams)
    bench.fill(options.streams, options.blocks * len(ARMS) * BLOCK_STEPS + 16)
    print(json.dumps({"streams": options.streams, **measure(bench, options.blocks, seed=1)}))


if __name__ == "__main__":
    main()
