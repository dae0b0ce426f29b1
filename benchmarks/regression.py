"""How soon the regression alert fires, by kind and size of regression, and how often for nothing.

A baseline is learned on a simulated server. Then the same server is run with a regression in the middle, and
for the false alarms through the hours of a day, each with its load and mix. All of it goes through the
sidecar's own pipeline. Simulating days would take days, so the 30-second rises of the two counters that a run
gives are drawn again and again to fill them; their order is kept where something changes. What fires then,
the real ``promtool`` decides by the rules as they are shipped.

    python benchmarks/regression.py [--part detection] [--worlds dvfs] [--learn 900] [--hour 120]

A part or a world that is run alone takes its place in the result that is there.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.report import RESULTS, machine, save
from joulescope.attribution.baseline import Baseline
from joulescope.attribution.efficiencies import Efficiencies
from joulescope.hook.wire import AnyRecord, Step
from joulescope.replay import Replay
from joulescope.simulation.changes import PlannedChange, with_long_prompts
from joulescope.simulation.parts import World
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.workload import MIXED, RequestClass
from joulescope.simulation.worlds import H100_LLAMA_8B, WORLDS
from tests.promtool import json_labels
from tests.requirements import need_program
from tools.rules import load

SAMPLE_SECONDS = 30
BEFORE_SECONDS = 60.0
"""Of a run, before its change: the watch over the cache has to see some requests first."""

HEALTHY_HOURS, BROKEN_HOURS = 8, 12
MARK = 60
"""Rules are evaluated once so many seconds."""

CHANGES = {
    "more power": [f"power={1 + size:g}" for size in (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)],
    "slower kernels": [f"kernels={1 + size:g}" for size in (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)],
    "lower clocks": [f"clocks={size:g}" for size in (0.9, 0.8, 0.7, 0.6, 0.5)],
    "lost prefix cache": [f"cache={size:g}" for size in (0.25, 0.5, 1.0)],
    "slower host": [f"host={size:g}" for size in (1.5, 2, 3, 5)],
}
OTHER_WORK = ("load=0.5", "load=2", "mix=0.4")
"""Changes of what is asked for: nothing may fire."""

WEEK_WORLDS = ["calibrated", "dvfs", "thermal", "blended-roofline", "moe", "low-cap"]
"""Worlds in which a week is simulated: that of the baseline's own form, and such as have others."""

ALERT = "JoulescopeEnergyRegression"
ENGINE = {"job": "joulescope", "instance": "node", "engine": "e"}


@dataclass(frozen=True, slots=True)
class Rise:
    """By how much the counters rose in 30 seconds, and what the error was at their end."""

    begin_seconds: float
    """Since the start of the run."""
    actual_joules: float
    expected_joules: float
    steps: float
    tokens: float
    error_ratio: float


class Observer:
    """Takes the counters of one engine every 30 seconds of a simulated run."""

    def __init__(self, run: SimulatedRun, efficiencies: Efficiencies) -> None:
        self._run, self._efficiencies = run, efficiencies
        self._steps = self._tokens = 0
        self._next_ns = run.start_ns
        self._last: tuple[float, float, float, int, int] | None = None
        self.engine = ""
        """The label by which the engine is known, once a request has told it."""
        self.rises: list[Rise] = []

    def records(self) -> Iterator[AnyRecord]:
        for record in self._run.records():
            if isinstance(record, Step):
                self._steps += 1
                self._tokens += sum(record.sampled) if record.sampled else len(record.request)
            yield record

    def look(self, _count: int) -> None:
        """Called as the pipeline settles."""
        if self._run.time_ns < self._next_ns:
            return
        self._next_ns += SAMPLE_SECONDS * 10**9
        totals = self._efficiencies.totals(self.engine)
        if totals is None or totals.actual_joules is None or totals.expected_joules is None:
            return
        seconds = (self._run.time_ns - self._run.start_ns) / 1e9
        now = (seconds, totals.actual_joules, totals.expected_joules, self._steps, self._tokens)
        if self._last is not None:
            rises = (float(new - old) for new, old in zip(now[1:], self._last[1:], strict=True))
            self.rises.append(Rise(self._last[0], *rises, error_ratio=totals.error_ratio or 0.0))
        self._last = now


def observe(run: SimulatedRun, efficiencies: Efficiencies) -> list[Rise]:
    """A run through the pipeline; the last, incomplete sample is left out."""
    observer = Observer(run, efficiencies)
    for request in Replay(observer.records(), efficiencies=efficiencies, on_progress=observer.look):
        observer.engine = request.engine
    return observer.rises


def learn(seconds: float, rate: float, world: World = H100_LLAMA_8B) -> Baseline:
    """A baseline from so much busy time of the usual service."""
    efficiencies = Efficiencies(learn_seconds=seconds)
    run = SimulatedRun(1.2 * seconds + 60, seed=1, rate_per_second=rate, world=world, truth=False)
    observe(run, efficiencies)
    learned = efficiencies.drain_learned()
    if not learned:
        raise SystemExit(f"no baseline was learned in {1.2 * seconds + 60:g} s at {rate:g} requests a second")
    return learned[0]


def changed(baseline: Baseline, change: str | None, after_seconds: float, rate: float) -> list[Rise]:
    """A run with a change after a minute: the rises before it and after it."""
    changes = [PlannedChange.parse(f"{change}@{BEFORE_SECONDS:g}")] if change else []
    run = SimulatedRun(
        BEFORE_SECONDS + after_seconds + 5, seed=2, rate_per_second=rate, truth=False, changes=changes
    )
    return observe(run, Efficiencies(lambda identity, version: baseline))


# ------------------------------------------------------------------------------------------- hours and days


def hour_of(hour: int) -> tuple[float, Sequence[RequestClass]]:
    """Load, relative to the usual, and mix of an hour: quiet nights with long summaries, busy afternoons."""
    load_ratio = 0.25 + 1.25 * float(np.sin(np.pi * ((hour - 4) % 24) / 24)) ** 2
    long_part = 0.5 if hour in (1, 2, 3, 4) else 0.15 if hour in (9, 10, 17) else 0.0
    return load_ratio, with_long_prompts(MIXED, long_part) if long_part else MIXED


def day(baseline: Baseline, hour_seconds: float, rate: float, world: World) -> dict[int, list[Rise]]:
    """Rises of every hour, one after the other under one comparison, so that changes of mix are in them."""
    efficiencies = Efficiencies(lambda identity, version: baseline)
    hours = {}
    for hour in range(24):
        load_ratio, classes = hour_of(hour)
        run = SimulatedRun(
            hour_seconds + 5,
            seed=100 + hour,
            rate_per_second=rate * load_ratio,
            classes=classes,
            world=world,
            truth=False,
        )
        hours[hour] = observe(run, efficiencies)
    return hours


def week(hours: Mapping[int, Sequence[Rise]], seed: int) -> list[Rise]:
    """Seven days of such hours; at the weekend those of the night come by day too."""
    luck = Random(seed)
    rises = []
    for at in range(7 * 24 * 3600 // SAMPLE_SECONDS):
        hour = at * SAMPLE_SECONDS // 3600 % 24
        weekend = at * SAMPLE_SECONDS // 86400 >= 5
        rises.append(luck.choice(hours[(hour + 12) % 24 if weekend and 8 <= hour < 20 else hour]))
    return rises


# ------------------------------------------------------------------------------------------- the real rules


def rules() -> dict[str, Any]:
    """The recording rules that the alert needs, and the alert, as they are shipped."""
    groups = []
    for group in load()["groups"]:
        needed = [
            rule
            for rule in group["rules"]
            if rule.get("alert") == ALERT
            or re.match(r"engine:joulescope_(efficiency_index|steps):", rule.get("record", ""))
        ]
        if needed:
            groups.append({**group, "rules": needed})
    return {"groups": groups}


def firing_seconds(rises: Sequence[Rise]) -> dict[str, list[int]]:
    """When the alert fires in a series, by severity: instants on the grid of the evaluations.

    promtool tells what it got where something else was expected; here nothing ever is.
    """
    query = f'ALERTS{{alertname="{ALERT}", alertstate="firing"}}'
    tests = [
        {"expr": query, "eval_time": f"{at}s", "exp_samples": []}
        for at in range(MARK, len(rises) * SAMPLE_SECONDS, MARK)
    ]
    document = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": f"{MARK}s",
        "tests": [
            {"interval": f"{SAMPLE_SECONDS}s", "input_series": _series(rises), "promql_expr_test": tests}
        ],
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rules.yaml").write_text(yaml.safe_dump(rules(), sort_keys=False))
        (Path(folder) / "tests.json").write_text(json.dumps(document))
        command = [need_program("promtool"), "test", "rules", "tests.json"]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    output = result.stdout + result.stderr
    answers = re.findall(r"time: (\w+),(.*?)(?=expr: |\Z)", output, flags=re.DOTALL)
    if bool(answers) != bool(result.returncode):
        raise SystemExit(f"promtool: {output[:2000]}")
    return {
        severity: [_seconds(at) for at, got in answers if f'severity="{severity}"' in got]
        for severity in ("critical", "warning")
    }


def _seconds(duration: str) -> int:
    units = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([wdhms])", duration))


def _series(rises: Sequence[Rise]) -> list[dict[str, str]]:
    labels = json_labels(ENGINE)
    counters = {
        "joulescope_baseline_actual_energy_joules_total": [rise.actual_joules for rise in rises],
        "joulescope_baseline_expected_energy_joules_total": [rise.expected_joules for rise in rises],
        "joulescope_steps_total": [rise.steps for rise in rises],
    }
    series = [
        {"series": name + labels, "values": " ".join(f"{value:.6g}" for value in np.cumsum(values))}
        for name, values in counters.items()
    ]
    errors = " ".join(f"{rise.error_ratio:.4g}" for rise in rises)
    return [*series, {"series": f"joulescope_baseline_error_ratio{labels}", "values": errors}]


# ---------------------------------------------------------------------------------------------------- tables


def detection(rises: Sequence[Rise], healthy: Sequence[Rise], seed: int) -> dict[str, Any]:
    """Hours without the change, then the run's own minutes after it, then hours drawn from its later half."""
    luck = Random(seed)
    after = [rise for rise in rises if rise.begin_seconds > BEFORE_SECONDS - 1]
    later = after[len(after) // 2 :]
    per_hour = 3600 // SAMPLE_SECONDS
    series = [luck.choice(healthy) for _ in range(HEALTHY_HOURS * per_hour)]
    series += after + [luck.choice(later) for _ in range(BROKEN_HOURS * per_hour - len(after))]
    fired = firing_seconds(series)
    start = HEALTHY_HOURS * 3600
    return {
        "index": sum(rise.actual_joules for rise in later) / sum(rise.expected_joules for rise in later),
        "error": float(np.mean([rise.error_ratio for rise in later])),
        "before": sum(at <= start for ats in fired.values() for at in ats),
        **{
            severity: min((at - start for at in ats if at > start), default=None)
            for severity, ats in fired.items()
        },
    }


def false_alarms(rises: Sequence[Rise]) -> dict[str, Any]:
    """Episodes in which the alert fires, and how far the index and joules per token went."""
    fired = firing_seconds(rises)
    window = 300 // SAMPLE_SECONDS
    blocks = [rises[at : at + window] for at in range(0, len(rises) - window + 1, window)]
    index = [sum(r.actual_joules for r in block) / sum(r.expected_joules for r in block) for block in blocks]
    per_token = [
        sum(r.actual_joules for r in block) / max(sum(r.tokens for r in block), 1) for block in blocks
    ]
    return {
        "hours": len(rises) * SAMPLE_SECONDS / 3600,
        "episodes": {
            severity: sum(1 for at in ats if at - MARK not in set(ats)) for severity, ats in fired.items()
        },
        "index_5m": [round(float(np.quantile(index, q)), 4) for q in (0, 0.05, 0.5, 0.95, 1)],
        "joules_per_token_5m": [round(float(np.quantile(per_token, q)), 4) for q in (0, 0.05, 0.5, 0.95, 1)],
    }


def detections(arguments: argparse.Namespace) -> dict[str, Any]:
    """Times until the alert fires, by kind and size; and what other work does."""
    baseline, after_seconds, rate = learn(arguments.learn, arguments.rate), arguments.after, arguments.rate
    healthy = changed(baseline, None, 2 * after_seconds, rate)
    result: dict[str, Any] = {"detection": {}, "other_work": {}}
    for kind, changes in CHANGES.items():
        result["detection"][kind] = {}
        for change in changes:
            rises = changed(baseline, change, after_seconds, rate)
            result["detection"][kind][change] = found = detection(rises, healthy, seed=len(change))
            print(kind, change, found, flush=True)
    for change in OTHER_WORK:
        found = detection(changed(baseline, change, after_seconds, rate), healthy, seed=9)
        result["other_work"][change] = found
        print(change, found, flush=True)
    return result


def weeks(arguments: argparse.Namespace) -> dict[str, Any]:
    """A week without a regression in each world."""
    found = {}
    for name in arguments.worlds:
        world, rate = WORLDS[name], arguments.rate
        baseline = learn(arguments.learn, rate, world)
        hours = day(baseline, arguments.hour, rate, world)
        rises = [rise for hour in hours.values() for rise in hour]
        found[name] = {
            **false_alarms(week(hours, seed=7)),
            "error": float(np.median([rise.error_ratio for rise in rises])),
        }
        print(name, found[name], flush=True)
    return found


def text_of(result: Mapping[str, Any], arguments: argparse.Namespace) -> str:
    """The page of results."""
    lines = [
        "# The regression alert: how soon, and how often for nothing",
        "",
        f"`python benchmarks/regression.py`, {machine('joulescope-inference', 'numpy')}",
        "",
        f"Simulated H100 with Llama-3.1-8B at {arguments.rate:g} requests a second; a baseline from"
        f" {arguments.learn:g} s of busy time; {BEFORE_SECONDS:g} s before each change and"
        f" {arguments.after:g} s after it, of which the rest of {HEALTHY_HOURS} healthy and {BROKEN_HOURS}"
        " other hours is drawn. Rules as shipped, evaluated by promtool once a minute. Times are from the"
        " change to the alert firing, its pause included; – : not within the time.",
        "",
        "| kind | change | index reached | critical (30 min and 5 min) | warning (6 h and 1 h) |",
        "|---|---|---|---|---|",
    ]
    for kind, changes in result["detection"].items():
        lines += [
            f"| {kind} | `{change}` | {found['index']:.3f} | {_time(found['critical'])} |"
            f" {_time(found['warning'])} |"
            for change, found in changes.items()
        ]
    lines += ["", "What must not fire, another load or mix:", ""]
    lines += ["| change | index reached | error | critical | warning |", "|---|---|---|---|---|"]
    lines += [
        f"| `{change}` | {found['index']:.3f} | {found['error']:.3f} | {_time(found['critical'])} |"
        f" {_time(found['warning'])} |"
        for change, found in result["other_work"].items()
    ]
    before = sum(found["before"] for changes in result["detection"].values() for found in changes.values())
    runs = sum(len(changes) for changes in result["detection"].values())
    lines += [
        "",
        f"In the {runs} × {HEALTHY_HOURS} healthy hours before the changes the alert fired {before} times.",
        "",
        "A week without a regression: load between 0.25 and 1.5 times the usual, up to half of the requests"
        " with long prompts. Worlds are those of `joulescope/simulation/worlds.py`; most cost by other laws"
        " than the baseline's. How often the alert fired; and of all five minutes of the week least, 5 %,"
        " median, 95 % and most:",
        "",
        "| world | critical | warning | index | median of the stated error | joules per output token |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {seen['episodes']['critical']} | {seen['episodes']['warning']} |"
        f" {_row(seen['index_5m'])} | {seen['error']:.3f} | {_row(seen['joules_per_token_5m'])} |"
        for name, seen in result["weeks"].items()
    ]
    lines += [
        "",
        f"Of each hour of the day {arguments.hour:g} s are simulated, and drawn again and again: there is no"
        " slow drift in it, and less scatter than in a real week. In `thermal` every simulated hour begins"
        " with a cold GPU, and so costs less than the baseline says. Nothing of this has been measured on"
        " hardware.",
        "",
    ]
    return "\n".join(lines)


def _row(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("detection", "weeks"), help="only this part")
    parser.add_argument("--worlds", nargs="+", choices=sorted(WORLDS), default=WEEK_WORLDS)
    parser.add_argument("--learn", type=float, default=900.0, help="busy seconds of the baseline")
    parser.add_argument("--after", type=float, default=150.0, help="seconds of each run after its change")
    parser.add_argument(
        "--hour", type=float, default=120.0, help="simulated seconds for each hour of the day"
    )
    parser.add_argument("--rate", type=float, default=6.0, help="requests a second")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    path = arguments.out / "regression.json"
    result = json.loads(path.read_text()) if path.is_file() else {}
    if arguments.part != "weeks":
        result.update(detections(arguments))
    if arguments.part != "detection":
        result["weeks"] = {**result.get("weeks", {}), **weeks(arguments)}
    result["machine"] = machine("joulescope-inference", "numpy")
    result["arguments"] = {name: getattr(arguments, name) for name in ("learn", "after", "hour", "rate")}
    save("regression", result, text_of(result, arguments), arguments.out)


if __name__ == "__main__":
    main()
