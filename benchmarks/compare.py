"""How near a comparison comes to the truth at loads that it never saw.

Simulated worlds serve more clients than their batch limit takes. Each is run at some limits, whose minutes
the comparison gets, and at others, which are kept back: at those, by batch and by inter-token time, its
figures are held against what the simulated GPUs drew. Nothing here was measured on hardware.

    python benchmarks/compare.py [--picture docs/pictures/compare.png]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.report import machine, save
from joulescope.hook.wire import AnyRecord, Step
from joulescope.insight.compare.compare import compare
from joulescope.insight.compare.from_minutes import sources_of
from joulescope.insight.compare.match import Wish
from joulescope.insight.compare.picture import draw
from joulescope.insight.compare.sides import sides_of
from joulescope.insight.compare.values import At, Comparison, Source
from joulescope.minute_model import EngineMinute
from joulescope.replay import Replay
from joulescope.simulation.calibration import CHAT_TASK
from joulescope.simulation.parts import World
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.worlds import H100, H100_LLAMA_8B, WORLDS
from tests.insight.compare.worlds import A100_LIKE, BF16, FP8, ON_TWO

SEEN = (8, 32, 128)
KEPT_BACK = (16, 64)
STEADY = (61.0, 121.0)
"""The second minute of a run, on the simulation's clock."""
MOST_REQUESTS_PER_SECOND = 0.6
"""For each place in the batch: more than any of these worlds can serve."""
FIGURES = ("joules_per_unit", "watts", "units_per_second", "itl")

NAMED: Mapping[str, World] = {
    "8B BF16 1×H100": H100_LLAMA_8B,
    "70B FP8 1×H100": FP8,
    "70B FP8 2×H100": replace(FP8, parallel=ON_TWO),
    "70B BF16 2×H100": replace(FP8, hardware=H100, model=BF16, parallel=ON_TWO),
    "70B FP8 1×A100": replace(FP8, hardware=A100_LIKE),
    "30B MoE 1×H100": WORLDS["moe"],
    "8B clocks fall": WORLDS["dvfs"],
    "8B host-bound": WORLDS["host-bound"],
}
DRAWN = tuple(NAMED)[1:5]


@dataclass(frozen=True)
class Truth:
    """The steady minute of one run."""

    joules: float
    tokens: int
    steps: int
    seconds: float

    def figures(self) -> dict[str, float]:
        return {
            "joules_per_unit": self.joules / self.tokens,
            "watts": self.joules / self.seconds,
            "units_per_second": self.tokens / self.seconds,
            "itl": self.seconds / self.steps,
        }


def simulate(world: World, batch: int) -> tuple[list[AnyRecord], Truth]:
    """The records of a run, and what its GPUs drew in its steady minute."""
    run = SimulatedRun(
        STEADY[1] + 5.0,
        seed=batch,
        rate_per_second=MOST_REQUESTS_PER_SECOND * batch,
        world=world,
        classes=(CHAT_TASK,),
        limits=replace(world.limits, max_num_seqs=batch),
        truth=False,
    )
    records: list[AnyRecord] = []
    marks: list[tuple[float, float]] = []
    tokens = steps = 0
    for record in run.records():
        now = run.time_ns / 1e9
        if now > STEADY[1] + 1.0:
            break
        records.append(record)
        if len(marks) < 2 and now >= STEADY[len(marks)]:
            marks.append((now, sum(each.drawn_joules for each in run.balances())))
        if isinstance(record, Step) and len(marks) == 1:
            tokens += sum(record.sampled) if record.sampled else len(record.request)
            steps += 1
    (begin, before), (end, after) = marks
    return records, Truth(after - before, tokens, steps, end - begin)


def source_of(world: World) -> Source:
    """What the comparison gets of a world: the minutes of all its runs but those kept back."""
    found: list[Source] = []
    for batch in SEEN:
        minutes: list[EngineMinute] = []
        for _ in Replay(simulate(world, batch)[0], on_minute=minutes.append):
            pass
        found += sources_of(minutes, f"limit {batch}")
    return replace(found[0], parts=tuple(part for each in found for part in each.parts))


def errors(comparison: Comparison, truths: Mapping[str, Mapping[int, Truth]]) -> list[dict[str, Any]]:
    """Of every world at every load kept back, matched by batch and by inter-token time."""
    rows = []
    for name, by_batch in truths.items():
        side = next(side for side in comparison.sides if side.name == name)
        for batch, truth in by_batch.items():
            expected = truth.figures()
            for figure, value in (("batch", truth.tokens / truth.steps), ("itl", expected["itl"])):
                (match,) = compare([side, side], [Wish(figure, (value,))]).matches
                at = match.sides[name]
                told = at.figures if isinstance(at, At) else {}
                rows.append(
                    {
                        "world": name,
                        "batch": batch,
                        "matched_on": figure,
                        **{
                            each: told[each].value / expected[each] - 1 if each in told else None
                            for each in FIGURES
                        },
                        "form_error": at.form.get("joules_per_unit", 0.0) if isinstance(at, At) else None,
                    }
                )
    return rows


def text_of(report: dict[str, Any]) -> str:
    heads = ("J/token", "W", "token/s", "ITL", "told for J/token")
    lines = [
        "# Comparison against simulated truth",
        "",
        f"{report['machine']['date']}, Python {report['machine']['python']}. Each world was run at batch "
        f"limits {', '.join(map(str, SEEN))}; the comparison interpolates at "
        f"{' and '.join(map(str, KEPT_BACK))}, which it never saw; points are a factor of four apart. "
        "Relative errors against what the simulated GPUs drew, and the error of the form that is told "
        "beside its J/token. **Simulated: nothing here was measured on hardware.**",
        "",
        "| world | batch | matched on | " + " | ".join(heads) + " |",
        "|---|---:|---|" + "---:|" * len(heads),
    ]
    for row in report["errors"]:
        cells = ("–" if row[each] is None else f"{100 * row[each]:+.1f} %" for each in FIGURES)
        cells = (*cells, "–" if row["form_error"] is None else f"±{100 * row['form_error']:.1f} %")
        lines.append(f"| {row['world']} | {row['batch']} | {row['matched_on']} | " + " | ".join(cells) + " |")
    found = sorted(
        abs(row["joules_per_unit"]) for row in report["errors"] if row["joules_per_unit"] is not None
    )
    lines += [
        "",
        f"J/token: median error {100 * found[len(found) // 2]:.1f} %, largest {100 * found[-1]:.1f} %; "
        f"{len(report['errors']) - len(found)} of {len(report['errors'])} were outside of what was observed.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Runs, saves the table, and draws the picture if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path)
    picture = parser.parse_args().picture
    sides = sides_of([(name, source_of(world)) for name, world in NAMED.items()])
    sides = tuple(replace(side, name=name) for side, name in zip(sides, NAMED, strict=True))
    truths = {
        name: {batch: simulate(world, batch)[1] for batch in KEPT_BACK} for name, world in NAMED.items()
    }
    report = {
        "machine": machine("joulescope-inference", "numpy"),
        "seen": SEEN,
        "kept_back": KEPT_BACK,
        "errors": errors(compare(sides), truths),
    }
    save("compare", report, text_of(report))
    if picture is not None:
        drawn = [side for side in sides if side.name in DRAWN]
        draw(compare(drawn, [Wish("batch", (16.0, 32.0, 64.0))]), picture)


if __name__ == "__main__":
    main()
