"""What a diagnosis costs the machine on which a sidecar makes it: a process, its CPU time and its memory.

The sidecar's own way: minutes of a simulated service in its ring, and the real process. Windows of ten
minutes are made of one simulated minute, said again with other times: for the cost only their number and size
matter. Cases differ in how many causes there are to tell apart, since the
states between two windows are two to the power of that.

    python benchmarks/live_diagnosis.py [--repeat 5]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.planted import Case, Plant, run
from benchmarks.report import machine, save
from joulescope.clock import SystemClock
from joulescope.config import Settings
from joulescope.daemon.diagnoses import Diagnoses
from joulescope.daemon.diagnosis_process import DiagnosisProcess
from joulescope.export.minute_ring import MinuteRing
from joulescope.minute_model import EngineMinute

MINUTES = 10
CASES: tuple[tuple[str, tuple[Plant, ...]], ...] = (
    ("less load", (Plant("load", 0.5),)),
    ("FP8 on two GPUs", (Plant("precision", 0.55), Plant("layout", 2))),
    (
        "all at once",
        (
            Plant("mix", 0.6),
            Plant("load", 0.5),
            Plant("batch", 12),
            Plant("kv", 0.1),
            Plant("cache", 1.0),
            Plant("host", 3.0),
            Plant("cap", 0.6),
            Plant("kernels", 1.2),
        ),
    ),
)
ENGINES = (1, 8)

_MEASURED = """
import atexit, json, os, resource, runpy
def note():
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open(os.environ["USED"], "w") as file:
        json.dump([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024], file)
atexit.register(note)
runpy.run_module("joulescope.insight.diagnosis.worker", run_name="__main__")
"""


def ten_minutes(plants: Sequence[Plant]) -> list[EngineMinute]:
    """Full minutes of a run with these changes, ten of them."""
    ran = run(Case("cost", ()), plants, 1, 90.0, account=True, warm_up=30.0).minutes
    (whole,) = [each for each in ran if each.end_wall_seconds - each.start_wall_seconds > 59.0][:1]
    return [
        replace(whole, start_wall_seconds=60.0 * at, end_wall_seconds=60.0 * (at + 1))
        for at in range(MINUTES)
    ]


def ring_of(before: Sequence[EngineMinute], now: Sequence[EngineMinute], engines: int) -> MinuteRing:
    """Both windows, an hour apart, of so many engines."""
    ring = MinuteRing()
    for later, window in ((0.0, before), (3600.0, now)):
        for number in range(engines):
            ring.take(
                [
                    replace(
                        each,
                        kind=replace(each.kind, engine=f"engine-{number}"),
                        start_wall_seconds=each.start_wall_seconds + later,
                        end_wall_seconds=each.end_wall_seconds + later,
                    )
                    for each in window
                ]
            )
    return ring


def measure(ring: MinuteRing, repeat: int) -> dict[str, Any]:
    """CPU seconds and MiB of the process, and how long the sidecar waited for it."""
    cpu, memory, waited = [], [], []
    causes = 0
    with tempfile.NamedTemporaryFile() as used:
        os.environ["USED"] = used.name
        for _ in range(repeat):
            process = DiagnosisProcess((sys.executable, "-c", _MEASURED), timeout_seconds=600.0)
            diagnoses = Diagnoses(ring, SystemClock(), Settings(), process)
            diagnoses.step()
            totals = diagnoses.totals()
            assert totals.outcomes["made"] == len(totals.engines) > 0, totals.outcomes
            causes = sum(error > 0.0 for error in totals.engines[0].errors.values())
            seconds, mebibytes = json.loads(Path(used.name).read_text())
            cpu.append(seconds)
            memory.append(mebibytes)
            waited.append(totals.seconds)
    return {
        "causes": causes,
        "kilobytes": sum(each.size for each in ring.kept()) // 1000,
        "cpu_seconds": min(cpu),
        "most_mebibytes": max(memory),
        "waited_seconds": median(waited),
    }


def _line(row: dict[str, Any], pause: float) -> str:
    cells = (
        row["case"],
        row["causes"],
        row["engines"],
        row["kilobytes"],
        f"{row['cpu_seconds']:.2f}",
        f"{row['most_mebibytes']:.0f}",
        f"{100 * row['cpu_seconds'] / pause:.2f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Measures, and writes ``results/live_diagnosis``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    rows = []
    before = ten_minutes(())
    for name, plants in CASES:
        now = ten_minutes(plants)
        for engines in ENGINES:
            row = measure(ring_of(before, now, engines), given.repeat)
            rows.append({"case": name, "engines": engines, **row})
            print(rows[-1], file=sys.stderr)
    pause = Settings().diagnosis_seconds
    lines = [
        "| what changed | causes to tell apart | engines | minutes, kB | CPU, s | most memory, MiB | "
        f"CPU, % of a core at one in {pause:.0f} s |",
        "|---|---|---|---|---|---|---|",
        *(_line(row, pause) for row in rows),
    ]
    host = machine("joulescope-inference", "numpy")
    text = (
        f"# What a diagnosis in the sidecar costs\n\n`python benchmarks/live_diagnosis.py`, {host}\n\n"
        f"One process for all engines, two windows of {MINUTES} minutes; the least CPU time of "
        f"{given.repeat} runs. It begins with importing. Simulated minutes: nothing was measured on hardware."
        "\n\n" + "\n".join(lines) + "\n"
    )
    save("live_diagnosis", {"machine": host, "rows": rows}, text)


if __name__ == "__main__":
    main()
