"""What a second node costs the joules of a request: its clock is known within bounds, samples come late.

An engine over two GPUs, tensor parallel or in two pipeline stages. The same run is accounted for twice: both
GPUs in one node, and the second behind a link. First in simulated time, where the error of the clock is set:
it lasts, or is drawn anew each second, and the link says how large it may be. Then, as the part ``real``,
through real sockets: ``joulescope serve`` and ``joulescope relay`` in two network namespaces, with clocks of
their own and a proxy that delays between them (as root). Parts that are not chosen keep their results.

    python benchmarks/two_nodes.py [--parts simulated real] [--seconds 60] [--processes 2]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.accuracy import Errors
from benchmarks.report import RESULTS, machine, save
from joulescope.hook.wire import AnyRecord
from joulescope.model import FinishedRequest
from joulescope.replay import Replay
from joulescope.simulation.far_node import FarLink, over_a_link
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.worlds import WORLDS
from tests.real import two_nodes

SOME_WORLDS = ("tensor-parallel-2", "pipeline-parallel-2")
RATES, SEEDS = (1.0, 4.0, 12.0), (401, 402, 403)
ERRORS_MS = (1, 5, 20, 50)


@dataclass(frozen=True)
class Case:
    """One link, by the name of its row."""

    name: str
    link: FarLink | None = None
    """``None``: both GPUs in one node."""


def cases() -> list[Case]:
    """From no link at all to one that breaks."""
    found = [Case("one node"), Case("another node, clocks alike", FarLink())]
    for error_ms in ERRORS_MS:
        error = error_ms / 1e3
        found += [
            Case(f"{error_ms} ms late", FarLink(error_seconds=error, told_seconds=error)),
            Case(f"{error_ms} ms early", FarLink(error_seconds=-error, told_seconds=error)),
            Case(
                f"within {error_ms} ms, drawn each second", FarLink(jitter_seconds=error, told_seconds=error)
            ),
        ]
    asymmetric = FarLink(error_seconds=0.09, told_seconds=0.11, delay_seconds=0.2)
    return [
        *found,
        Case("50 ms late, and not told", FarLink(error_seconds=0.05)),
        Case("delay 20 ms", FarLink(delay_seconds=0.02, told_seconds=0.001)),
        Case(
            "delay 200 ms, uneven", FarLink(delay_seconds=0.2, delay_jitter_seconds=0.1, told_seconds=0.001)
        ),
        Case("200 ms there, 20 ms back: 90 ms late", asymmetric),
        Case("no link for 10 s, samples kept", FarLink(broken=((20.0, 30.0),), keeps=True)),
        Case("no link for 10 s, samples lost", FarLink(broken=((20.0, 30.0),))),
        Case("drift of 50 ppm, told", FarLink(drift_ratio=5e-5, told_seconds=0.003)),
    ]


@dataclass
class Row:
    """What came of a case, over some runs."""

    errors: Errors = field(default_factory=Errors)
    against_one_node: list[float] = field(default_factory=list)
    """|attributed − attributed in one node| / the latter, by request."""
    incomplete: int = 0
    residual_joules: float = 0.0
    measured_ratio: float = 1.0
    """Joules measured of the far GPU, of what is measured of it in one node."""

    def merge(self, other: Row) -> None:
        for rule, relative in other.errors.relative.items():
            self.errors.relative.setdefault(rule, []).extend(relative)
        for rule, covered in other.errors.covered.items():
            self.errors.covered.setdefault(rule, []).extend(covered)
        self.errors.width += other.errors.width
        self.against_one_node += other.against_one_node
        self.incomplete += other.incomplete
        self.residual_joules = max(self.residual_joules, other.residual_joules)
        self.measured_ratio = min(self.measured_ratio, other.measured_ratio)

    def summary(self) -> dict[str, Any]:
        ours, beside = np.abs(self.errors.relative["ours"]), np.array(self.against_one_node)
        return {
            "requests": len(ours),
            "mean": float(ours.mean()),
            "p95": float(np.quantile(ours, 0.95)),
            "bias": float(np.mean(self.errors.relative["ours"])),
            "coverage": float(np.mean(self.errors.covered["ours"])),
            "width": float(np.median(self.errors.width)),
            "marginal_coverage": float(np.mean(self.errors.covered["marginal"])),
            "beside_mean": float(beside.mean()),
            "beside_p95": float(np.quantile(beside, 0.95)),
            "incomplete": self.incomplete,
            "measured_ratio": self.measured_ratio,
            "residual_joules": self.residual_joules,
        }


@dataclass(frozen=True)
class Run:
    """One simulated run, accounted for in every case."""

    world: str
    rate: float
    seed: int
    seconds: float

    def measure(self) -> list[Row]:
        run = SimulatedRun(self.seconds, seed=self.seed, rate_per_second=self.rate, world=WORLDS[self.world])
        records = list(run.records())
        near: dict[str, FinishedRequest] = {}
        near_joules = 0.0
        rows = []
        for case in cases():
            row, requests, joules = _account(run, records, case, self.seed)
            if case.link is None:
                near, near_joules = requests, joules
            row.measured_ratio = joules / near_joules
            for name, request in requests.items():
                joules, alone = request.attributed_joules, near[name].attributed_joules
                if request.complete and joules is not None and alone:
                    row.against_one_node.append(abs(joules / alone - 1.0))
            rows.append(row)
        return rows


def _account(
    run: SimulatedRun, records: Sequence[AnyRecord], case: Case, seed: int
) -> tuple[Row, dict[str, FinishedRequest], float]:
    far, row = run.gpus[1].uuid, Row()
    told = records if case.link is None else over_a_link(records, {far}, case.link, seed)
    replay = Replay(told)
    requests = {}
    for request in replay:
        requests[request.request_id] = request
        row.incomplete += not request.complete
        row.errors.note(request, run.truth, run.start_ns)
    assert replay.snapshot is not None
    row.residual_joules = max(abs(gpu.residual_joules) for gpu in replay.snapshot.gpus)
    (measured,) = [gpu.measured_joules for gpu in replay.snapshot.gpus if gpu.info.gpu == far]
    return row, requests, measured


def measure_all(seconds: float, processes: int) -> list[dict[str, Any]]:
    """Rows of every world and case, all rates and seeds together."""
    keys = [(world, rate, seed) for world in SOME_WORLDS for rate in RATES for seed in SEEDS]
    with ProcessPoolExecutor(processes) as pool:
        found = list(pool.map(Run.measure, [Run(*key, seconds) for key in keys]))
    rows = []
    for world in SOME_WORLDS:
        for at, case in enumerate(cases()):
            together = Row()
            for key, told in zip(keys, found, strict=True):
                if key[0] == world:
                    together.merge(told[at])
            rows.append({"world": world, "case": case.name, **together.summary()})
    return rows


def line_of(row: dict[str, Any]) -> str:
    cells = [
        row["world"], row["case"], str(row["requests"]),
        f"{100 * row['mean']:.2f}", f"{100 * row['p95']:.2f}", f"{100 * row['bias']:+.2f}",
        f"{100 * row['beside_mean']:.2f}", f"{100 * row['beside_p95']:.2f}",
        f"{100 * row['coverage']:.0f}", f"{100 * row['width']:.2f}", f"{100 * row['marginal_coverage']:.0f}",
        str(row["incomplete"]), f"{100 * row['measured_ratio']:.2f}", f"{row['residual_joules']:g}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def text_of(report: dict[str, Any]) -> str:
    lines = [
        "# A request's joules where the engine stands on two nodes\n",
        f"`python benchmarks/two_nodes.py`, {report['machine']}\n",
        f"Two GPUs, {', '.join(f'{rate:g}' for rate in RATES)} requests/s, {len(SEEDS)} seeds each, "
        f"{report['seconds']:g} s, from a cold start. The second GPU is read by another node's clock. "
        "*Error*: |figure − true| / true of whole requests, percent. *Beside one node*: |figure − figure "
        "where both GPUs stand in one node| / the latter, percent. *Interval*: part of the truths that the "
        "stated 90 % interval holds, and half its width (median). *Measured*: joules of the far GPU, of what "
        "is measured of it in one node; the least of the runs. *Incomplete*: requests that say of themselves "
        "that they are not told whole, of which one node has some too.\n",
        "| world | link | requests | error: mean | p95 | bias | beside one node: mean | p95 | interval | ± "
        "| marginal: interval | incomplete | measured % | residual J |",
        "|" + "---|" * 14,
        *map(line_of, report["rows"]),
    ]
    if report["real"]:
        lines += ["", *real_lines(report)]
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------ through real sockets


def measure_real(seconds: float, processes: int) -> list[dict[str, Any]]:
    """The same through two network namespaces, in real time."""
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(_real_row, ((case, seconds) for case in two_nodes.CASES)))


def _real_row(chosen: tuple[two_nodes.Case, float]) -> dict[str, Any]:
    case, seconds = chosen
    with tempfile.TemporaryDirectory(prefix="two-nodes-") as folder:
        row = two_nodes.summary(two_nodes.run(two_nodes.lasting(case, seconds), Path(folder)))
    print(real_line(row), file=sys.stderr)
    return row


def real_line(row: dict[str, Any]) -> str:
    def milli(name: str) -> str:
        value = row[name]
        return "–" if value is None else f"{1e3 * value:.2f}"

    cells = [
        row["world"], row["case"], str(row["requests"]),
        f"{100 * row['mean']:.2f}", f"{100 * row['p95']:.2f}",
        f"{100 * row['coverage']:.0f}", f"{100 * row['width']:.2f}",
        milli("round_trip_seconds"), milli("clock_error_seconds"), milli("offset_wrong_seconds"),
        str(row["incomplete"]),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def real_lines(report: dict[str, Any]) -> list[str]:
    return [
        "## Through real sockets\n",
        f"`--parts real`, {report['real_machine']}, {report['real_seconds']:g} s each\n",
        "`joulescope serve` and `joulescope relay` in two network namespaces, TLS between them through a "
        "proxy that delays each way and breaks; the far node's clock is 1000 s ahead (a time namespace). "
        "4 requests/s. *Clock*: what the head says at the end that it may be off, and how far off it was. "
        "Times in milliseconds. With a drift (no kernel has such a clock) the ends of the link run without "
        "the daemons around them.\n",
        "| world | link | requests | error: mean | p95 | interval | ± | round trip | clock: may be off "
        "| was off | incomplete |",
        "|" + "---|" * 11,
        *map(real_line, report["real"]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("simulated", "real"), default=["simulated"])
    parser.add_argument("--seconds", type=float, default=60.0, help="time of one simulated run")
    parser.add_argument("--real-seconds", type=float, default=25.0, help="time of one run in real time")
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    stored = RESULTS / "two_nodes.json"
    report = json.loads(stored.read_text()) if stored.exists() else {"rows": [], "real": []}
    if "simulated" in chosen.parts:
        rows = measure_all(chosen.seconds, chosen.processes)
        report.update(machine=machine("joulescope-inference", "numpy"), seconds=chosen.seconds, rows=rows)
    if "real" in chosen.parts:
        rows = measure_real(chosen.real_seconds, chosen.processes)
        packages = ("joulescope-inference", "numpy", "msgspec")
        report.update(real_machine=machine(*packages), real_seconds=chosen.real_seconds, real=rows)
    save("two_nodes", report, text_of(report))


if __name__ == "__main__":
    main()
