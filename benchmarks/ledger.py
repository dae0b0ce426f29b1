"""How long a ledger of 10⁷ requests takes to answer, and how much of it is read for an answer.

Writes a ledger of made numbers in the sidecar's layout (30 days, four files a day), then puts each question
that ``joulescope ledger`` can ask, in a process of its own: from nothing to all rows in Python. Bytes are
those that the process asked the kernel for (``rchar`` of /proc/self/io), so that reading fewer columns, row
groups and days shows, whatever is in the page cache. The page cache is warm: the ledger was just written.

    python benchmarks/ledger.py [--requests 10000000] [--keep FOLDER] [--runs 3]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.report import machine, save
from joulescope.insight.queries import (
    Span,
    Tables,
    balance,
    chargeback,
    coverage,
    dearest,
    distribution,
    usage,
)
from joulescope.insight.queries.focus import Focus
from joulescope.insight.queries.ledger import open_root
from joulescope.insight.queries.money import Prices
from tests.made_ledger import BEGIN_NS, DAY_NS, Recipe, write

DAYS, ENGINES, TENANTS, FILES_A_DAY = 30, 8, 50, 4
GOAL_SECONDS = 10.0
WHOLE = "every column of every request"
ALWAYS = Span()
ONE_DAY = Span(BEGIN_NS + 10 * DAY_NS, BEGIN_NS + 11 * DAY_NS)
ONE_HOUR = Span(BEGIN_NS + 10 * DAY_NS, BEGIN_NS + 10 * DAY_NS + DAY_NS // 24)
PRICES = Prices(0.2, "EUR", 1.2, 380.0)


def _asked(question: Callable[[Tables], Any]) -> Callable[[Tables], int]:
    return lambda tables: len(tables.rows(question(tables)))


def _focus(form: str) -> Callable[[Tables], int]:
    def ask(tables: Tables) -> int:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"focus.{form}")
            dataset = Focus(tables, PRICES)
            return dataset.write_csv(path) if form == "csv" else dataset.write_parquet(path)

    return ask


def _everything(tables: Tables) -> int:
    """All columns of all rows, for comparison: what a question would cost that reads whole files."""
    request = tables.backend.table("requests")
    return len(tables.rows(request.agg(**{name: request[name].max() for name in request.columns})))


QUESTIONS: dict[str, tuple[Span, Callable[[Tables], int]]] = {
    "usage by tenant": (ALWAYS, _asked(lambda tables: usage(tables, ("tenant",)))),
    "usage by tenant, model, LoRA, task and day": (
        ALWAYS,
        _asked(lambda tables: usage(tables, ("tenant", "model", "lora", "task", "day"))),
    ),
    "usage by hour": (ALWAYS, _asked(lambda tables: usage(tables, ("hour",)))),
    "usage by month": (ALWAYS, _asked(lambda tables: usage(tables, ("month",)))),
    "balance of engines by day": (ALWAYS, _asked(lambda tables: balance(tables, period="day"))),
    "coverage": (ALWAYS, lambda tables: len(coverage(tables))),
    "quantiles of joules, all requests": (ALWAYS, _asked(distribution)),
    "quantiles of joules by tenant": (ALWAYS, _asked(lambda tables: distribution(tables, ("tenant",)))),
    "the 20 dearest requests": (ALWAYS, _asked(lambda tables: dearest(tables, 20))),
    "chargeback by tenant, idle spread": (
        ALWAYS,
        _asked(lambda tables: chargeback(tables, ("tenant",), "attributed")),
    ),
    "chargeback by tenant and hour, idle spread": (
        ALWAYS,
        _asked(lambda tables: chargeback(tables, ("tenant", "hour"), "attributed")),
    ),
    "FOCUS by day, as CSV": (ALWAYS, _focus("csv")),
    "FOCUS by day, as Parquet": (ALWAYS, _focus("parquet")),
    "usage by tenant, one day": (ONE_DAY, _asked(lambda tables: usage(tables, ("tenant",)))),
    "usage by tenant, one hour": (ONE_HOUR, _asked(lambda tables: usage(tables, ("tenant",)))),
    WHOLE: (ALWAYS, _everything),
}


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def ask(root: str, name: str) -> None:
    """One question in this process; prints what it took as JSON."""
    span, question = QUESTIONS[name]
    import duckdb  # noqa: F401
    import ibis

    ibis.duckdb.connect()
    read, begin, cpu = bytes_read(), time.perf_counter(), time.process_time()
    with open_root(root, span) as opened:
        at_open = time.perf_counter()
        rows = question(opened.tables)
        end = time.perf_counter()
    print(
        json.dumps(
            {
                "seconds": end - begin,
                "open_seconds": at_open - begin,
                "cpu_seconds": time.process_time() - cpu,
                "rows": rows,
                "mib_read": (bytes_read() - read) / 2**20,
                "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


def asked(root: Path, name: str, runs: int) -> dict[str, Any]:
    """The median of some runs, each in a process of its own."""
    command = [sys.executable, __file__, "--ask", name, "--keep", str(root)]
    found = [json.loads(subprocess.check_output(command)) for _ in range(runs)]
    return {
        "question": name,
        **{figure: statistics.median_low([run[figure] for run in found]) for figure in found[0]},
        "runs": [round(run["seconds"], 3) for run in found],
    }


def made(root: Path, requests: int) -> dict[str, Any]:
    """Writes the ledger, unless it is there."""
    note = root / "made.json"
    if note.exists():
        return json.loads(note.read_text())
    begin = time.perf_counter()
    recipe = Recipe(requests, DAYS, ENGINES, TENANTS, files_a_day=FILES_A_DAY)
    for _ in write(root, recipe):
        pass
    files = list(root.rglob("*.parquet"))
    sizes = {
        table: sum(path.stat().st_size for path in files if table in path.parts) / 2**20
        for table in ("requests", "minutes")
    }
    report = {"requests": requests, "files": len(files), "mib": sizes, "seconds": time.perf_counter() - begin}
    note.write_text(json.dumps(report))
    return report


def text_of(report: dict[str, Any]) -> str:
    ledger = report["ledger"]
    lines = [
        "# Questions to a ledger of many requests",
        "",
        f"`python benchmarks/ledger.py`, {report['machine']}",
        "",
        f"{ledger['requests']:,} requests of {ENGINES} engines and {TENANTS} tenants in {DAYS} days: "
        f"{ledger['mib']['requests']:.0f} MiB of requests and {ledger['mib']['minutes']:.0f} MiB of minutes "
        f"in {ledger['files']} files, zstd, row groups of {Recipe.row_group:,}; made and written in "
        f"{ledger['seconds']:.0f} s.",
        "Each question in a fresh process, the page cache warm, the median of the runs: opening the ledger, "
        "asking, and all rows as Python dictionaries, or in a file. The time to import the libraries is not "
        "in it.",
        "",
        "| question | rows | seconds | of it opening | CPU seconds | MiB read | RSS, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['question']} | {row['rows']:,} | {row['seconds']:.2f} | {row['open_seconds']:.2f} | "
        f"{row['cpu_seconds']:.2f} | {row['mib_read']:.1f} | {row['rss_mib']:.0f} |"
        for row in report["questions"]
    ]
    lines += [
        "",
        f"The slowest question took {slowest(report, 'cpu_seconds'):.1f} s of CPU, the goal was "
        f"{GOAL_SECONDS:.0f} s, and {slowest(report, 'seconds'):.1f} s in all: where the load above is "
        "higher than the number of cores, that is waiting for others. FOCUS writes a file of all rows. The "
        "last row is no question of joulescope's: it shows what reading whole files would cost.",
        "",
    ]
    return "\n".join(lines)


def slowest(report: dict[str, Any], figure: str) -> float:
    rows = [row for row in report["questions"] if row["question"] != WHOLE]
    return float(max(row[figure] for row in rows))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--keep", type=Path, help="write the ledger here and leave it; one that is there is used"
    )
    parser.add_argument("--ask", choices=list(QUESTIONS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ask:
        ask(str(arguments.keep), arguments.ask)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.keep or Path(scratch)
        root.mkdir(parents=True, exist_ok=True)
        ledger = made(root, arguments.requests)
        report = {
            "machine": machine("joulescope-inference", "duckdb", "ibis-framework", "pyarrow"),
            "ledger": ledger,
            "questions": [asked(root, name, arguments.runs) for name in QUESTIONS],
        }
    save("ledger", report, text_of(report))
    return 0 if slowest(report, "cpu_seconds") <= GOAL_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
