"""Whether a diagnosis names what was changed, and how much of the change it says that was.

Simulated services with planted causes (:mod:`benchmarks.planted`) go the real way: simulated engine and GPU,
trace, accountant, minutes, diagnosis. The truth is by counterfactual runs of the simulator. Windows of the
same service with other clients, between which nothing changed, tell how often a cause is named for nothing.

    python benchmarks/diagnosis.py [--seconds 300] [--only kernels] [--keep FOLDER]

With ``--keep`` the runs are kept, so that it can be continued, or the same runs be diagnosed again.
Nothing here was measured on hardware.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.planted import (
    CAUSE_OF,
    LUCK,
    MIXED_CAUSES,
    OTHERS,
    SINGLE,
    UNSEEN,
    Case,
    Ran,
    Truth,
    run,
    truth_of,
    windows,
)
from benchmarks.report import machine, save
from joulescope.insight.diagnosis.causes import CAUSES, UNEXPLAINED
from joulescope.insight.diagnosis.diagnosis import Diagnosis, diagnose
from joulescope.simulation.worlds import WORLDS

EQUAL: Mapping[str, tuple[str, float, tuple[int, ...]]] = {
    "calibrated": ("calibrated", 8.0, (1, 2, 3, 4)),
    "calibrated, light": ("calibrated", 2.0, (1, 2)),
    "dvfs": ("dvfs", 8.0, (1, 2)),
    "thermal": ("thermal", 8.0, (1, 2)),
    "speculative": ("speculative", 8.0, (1, 2)),
    "moe": ("moe", 8.0, (1, 2)),
    "preemption-heavy": ("preemption-heavy", 8.0, (1, 2)),
    "host-bound": ("host-bound", 8.0, (1, 2)),
}
"""World, arrivals a second, and the seeds of windows that are compared two and two."""

WITHIN = 0.1
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Result:
    """What came out of one pair of windows. J/token; shares are of the planted cause's true part."""

    name: str
    planted: tuple[str, ...]
    before: float
    after: float
    truth: Mapping[str, float]
    parts: Mapping[str, float]
    errors: Mapping[str, float]
    significant: tuple[str, ...]
    named: str | None
    residual: float
    """Σ parts less the change: rounding."""
    seconds: float
    """That the diagnosis took."""

    @property
    def causes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(CAUSE_OF[kind] for kind in self.planted))

    @property
    def shares(self) -> dict[str, float]:
        """Diagnosed by true part, by planted cause."""
        return {cause: self.parts.get(cause, 0.0) / self.truth[cause] for cause in self.causes}

    @property
    def right(self) -> bool:
        """Whether the cause whose true part is the largest is named first."""
        return self.named == max(self.causes, key=lambda cause: abs(self.truth[cause]))


class Keeper:
    """Results of runs in a folder, or nowhere."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def load(self, name: str) -> Any:
        path = None if self._folder is None else self._folder / f"{name}.pkl"
        return pickle.loads(path.read_bytes()) if path is not None and path.exists() else None

    def save(self, name: str, value: _T) -> _T:
        if self._folder is not None:
            (self._folder / f"{name}.pkl").write_bytes(pickle.dumps(value))
        return value


def results_of(cases: Sequence[Case], seconds: float, keeper: Keeper) -> Iterator[Result]:
    """Every case, run if it is not kept."""
    for case in cases:
        kept: tuple[Case, Ran, Ran, Truth] | None = keeper.load(case.name)
        if kept is None:
            first, second = windows(case, seconds)
            kept = keeper.save(case.name, (case, first, second, truth_of(case, first, second, seconds)))
        _, first, second, truth = kept
        yield _result(case.name, tuple(plant.kind for plant in case.plants), first, second, truth)


def equal_results(seconds: float, keeper: Keeper, only: str) -> Iterator[Result]:
    """Windows between which nothing but the clients changed."""
    for name, (world, rate, seeds) in EQUAL.items():
        if only not in name:
            continue
        ran = []
        for seed in seeds:
            key = f"equal {name} {seed}"
            case = Case(key, (), WORLDS[world], rate)
            ran.append(keeper.load(key) or keeper.save(key, run(case, (), seed, seconds, account=True)))
        for at, (first, second) in enumerate(combinations(ran, 2)):
            change = second.joules_per_token - first.joules_per_token
            truth = Truth(first.joules_per_token, second.joules_per_token, {LUCK: change})
            yield _result(f"{name} {at + 1}", (), first, second, truth)


def _result(name: str, planted: tuple[str, ...], first: Ran, second: Ran, truth: Truth) -> Result:
    begin = time.perf_counter()
    found: Diagnosis = diagnose(first.minutes, second.minutes)
    took = time.perf_counter() - begin
    result = Result(
        name=name,
        planted=planted,
        before=truth.before,
        after=truth.after,
        truth=dict(truth.parts),
        parts={part.cause: part.joules_per_token for part in found.parts},
        errors={part.cause: part.error for part in found.parts},
        significant=tuple(part.cause for part in found.parts if part.significant),
        named=found.named.cause if found.named is not None else None,
        residual=sum(part.joules_per_token for part in found.parts) - found.change,
        seconds=took,
    )
    print(f"{name}: {result.named}, {result.parts}", file=sys.stderr, flush=True)
    return result


# ------------------------------------------------------------------------------------------- the report


def table_of(results: Sequence[Result]) -> list[str]:
    lines = [
        "| case | J/token | cause | truth | diagnosed | of the truth | named first | unexplained |",
        "|---|---|---|--:|--:|--:|---|--:|",
    ]
    for result in results:
        change = result.after - result.before
        for at, cause in enumerate(result.causes):
            first = at == 0
            share = result.shares[cause]
            mark = "" if abs(share - 1.0) <= WITHIN else " !"
            name = CAUSES[result.named].title if result.named else "nothing"
            lines.append(
                f"| {result.name if first else ''} "
                f"| {f'{result.before:.4f} to {result.after:.4f}' if first else ''} "
                f"| {CAUSES[cause].title} | {result.truth[cause]:+.4f} "
                f"| {result.parts.get(cause, 0.0):+.4f} ± {result.errors.get(cause, 0.0):.4f} "
                f"| {share:.0%}{mark} | {(name + ('' if result.right else ' !')) if first else ''} "
                f"| {f'{result.parts.get(UNEXPLAINED, 0.0) / change:+.0%}' if first and change else ''} |"
            )
    return lines


def confusion_of(results: Sequence[Result]) -> list[str]:
    """Planted causes by what was named first, of cases with one cause."""
    single = [result for result in results if len(result.causes) == 1]
    counts: dict[tuple[str, str], int] = {}
    for result in single:
        key = (result.causes[0], result.named or "nothing")
        counts[key] = counts.get(key, 0) + 1
    rows = [cause for cause in CAUSES if any(planted == cause for planted, _ in counts)]
    columns = [*rows, *sorted({named for _, named in counts} - set(rows))]
    titles = [CAUSES[each].title if each in CAUSES else each for each in columns]
    lines = [f"| planted | {' | '.join(titles)} |", f"|---|{'--:|' * len(columns)}"]
    for row in rows:
        cells = (str(counts.get((row, column), "")) for column in columns)
        lines.append(f"| {CAUSES[row].title} | {' | '.join(cells)} |")
    return lines


def summary_of(results: Sequence[Result], equal: Sequence[Result]) -> list[str]:
    shares = [share for result in results for share in result.shares.values()]
    near = sum(abs(share - 1.0) <= WITHIN for share in shares)
    false = [result for result in equal if result.named is not None]
    residual = max(abs(each.residual) for each in (*results, *equal))
    return [
        f"- Pairs with planted causes: {len(results)}; the right one is named first in "
        f"{sum(result.right for result in results)}.",
        f"- Parts within {WITHIN:.0%} of the truth: {near} of {len(shares)}.",
        f"- Largest |Σ parts − change|: {residual:.1e} J/token.",
        f"- Pairs of equal windows: {len(equal)}; a cause is named in {len(false)}"
        + (f" ({', '.join(f'{each.name}: {each.named}' for each in false)})." if false else "."),
        f"- A diagnosis took {max(result.seconds for result in (*results, *equal)):.1f} s at most.",
    ]


def page_of(
    facts: dict[str, Any], seconds: float, found: Mapping[str, Sequence[Result]], equal: Sequence[Result]
) -> str:
    """The page of results."""
    results = [result for of_group in found.values() for result in of_group]
    lines = [
        "# Diagnosis of planted causes",
        "",
        f"`python benchmarks/diagnosis.py`, {facts['date']}, {facts['cpu']}, Python {facts['python']}. "
        f"Windows of {seconds:g} s of simulated services, through the real path. "
        "**Nothing was measured on hardware.**",
        "",
        *summary_of(results, equal),
        "",
        "`!` marks a part that is more than 10 % from the truth, and a case in which another cause is named "
        "first. Unexplained is told as a part of the change.",
        "",
        "Rules and thresholds of the diagnosis were set while the cases of the first three tables, and the "
        "equal windows, were looked at, and some cases were made larger where the change was too small to "
        "divide. Those of the last table were not: they say what to expect.",
    ]
    for title, of_group in found.items():
        lines += ["", f"## {title}", "", *table_of(of_group)]
    lines += [
        "",
        "## Confusion",
        "",
        "Cases with one cause, by what is named first.",
        "",
        *confusion_of(results),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="of a window")
    parser.add_argument("--only", default="", help="cases with this in their names; nothing is saved then")
    parser.add_argument("--keep", type=Path, help="folder in which runs are kept")
    options = parser.parse_args()
    keeper = Keeper(options.keep)
    groups = {
        "One cause": SINGLE,
        "Several causes": MIXED_CAUSES,
        "Other clients in the second window, and worlds of another form": OTHERS,
        "Written down after the diagnosis was finished, and run once": UNSEEN,
    }
    found = {
        title: list(
            results_of(
                [case for name, case in cases.items() if options.only in name], options.seconds, keeper
            )
        )
        for title, cases in groups.items()
    }
    equal = list(equal_results(options.seconds, keeper, options.only))
    facts = machine("numpy", "joulescope-inference")
    text = page_of(facts, options.seconds, found, equal)
    if options.only:
        print(text)
        return
    report = {
        "machine": facts,
        "seconds": options.seconds,
        "cases": {title: [asdict(result) for result in of_group] for title, of_group in found.items()},
        "equal": [asdict(result) for result in equal],
    }
    save("diagnosis", report, text)


if __name__ == "__main__":
    main()
