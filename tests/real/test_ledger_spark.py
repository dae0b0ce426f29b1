"""The same questions, put to a real Spark: answers are DuckDB's, to the microjoule.

One JVM, started once: Spark's own local mode, which plans and runs as a cluster does, with one worker thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from joulescope.errors import QueryError
from joulescope.insight.queries import (
    SPREADS,
    Span,
    Tables,
    balance,
    chargeback,
    coverage,
    dearest,
    distribution,
    open_duckdb,
    open_spark,
    usage,
)
from joulescope.insight.queries.distribution import SORTS
from joulescope.insight.queries.focus import Focus
from joulescope.insight.queries.money import Prices
from tests.insight.queries.few import minute, request, save
from tests.made_ledger import BEGIN_NS, DAY_NS, MINUTE_NS, Recipe, files_of, write
from tests.requirements import need_package, need_program

pytestmark = pytest.mark.real

HALF_DAY = Span(BEGIN_NS + DAY_NS // 2, BEGIN_NS + DAY_NS + DAY_NS // 2)

QUESTIONS: dict[str, Callable[[Tables], Any]] = {
    "usage": lambda tables: usage(tables, ("tenant", "model", "lora", "task", "hour")),
    "usage by month": lambda tables: usage(tables, ("month", "engine", "finish_reason", "kind")),
    "usage of all": usage,
    "balance": balance,
    "balance by day": lambda tables: balance(tables, period="day"),
    "distribution": lambda tables: distribution(tables, ("task", "day")),
    **{f"dearest by {sort}": lambda tables, sort=sort: dearest(tables, 25, sort) for sort in SORTS},
    **{
        f"chargeback {spread}": lambda tables, spread=spread: chargeback(
            tables, ("tenant", "lora", "task", "day"), spread, engine=True
        )
        for spread in SPREADS
    },
    "chargeback by month": lambda tables: chargeback(tables, ("task", "month"), "attributed"),
}
"""Each question of ``joulescope ledger``; by name or by chance, what all of its flags can ask for."""


def odd_rows(folder: Path) -> None:
    """What a ledger of years holds beside what is usual: files of a release that knew no tasks, no tenants;
    names and figures that are null, units of images, requests at the very edges of a day, minutes of GPUs
    that no engine had, of an engine without a model, and of an engine that no request is known of."""
    midnight = BEGIN_NS + DAY_NS
    names = {"engine": "engine-1", "model": "model-1", "unit": "token", "complete": True}
    old = [
        request(midnight - 1, 7_000_001, **names, output_tokens=3),
        request(midnight, 5_000_003, 5_000_003, **names, finish_reason="abort"),
    ]
    save(folder, "requests", "old", old, without=("task", "tenant", "kind", "avoided_joules", "work_unit"))
    nulls = [
        request(midnight - 1, None, engine="engine-0", task="code"),
        request(midnight + 1, 1, engine=None, tenant="tenant-0"),
        request(
            midnight, 9_000_009, 3, engine="image", unit="image", task="draw", output_tokens=0, complete=True
        ),
        request(
            midnight, 9_000_009, 3, engine="image", unit="image", task="draw", output_tokens=4, complete=False
        ),
    ]
    save(folder, "requests", "nulls", nulls)
    minutes = [
        minute(midnight - MINUTE_NS, None, {"unattributed": 13}),
        minute(midnight, "image", {"decode": 20_000_000, "idle": 7, "overhead_dummy_batch": 11}),
        minute(midnight, "alone", {"prefill": 17, "idle": 19}, served_model="model-9"),
        minute(midnight, "engine-1", {"decode": 12_000_000}, served_model=None),
    ]
    save(folder, "minutes", "old", minutes, without=("avoided_joules", "gpu_seconds", "tasks", "laws"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledger")
    list(write(folder, Recipe(requests=2000, files_a_day=2)))
    odd_rows(folder)
    return folder


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A session of one thread on the loopback, and an end of its JVM. For a few rows, compiling a plan takes
    longer than running it: it is interpreted."""
    need_program("java")
    need_package("pyspark")
    from pyspark.sql import SparkSession

    scratch = str(tmp_path_factory.mktemp("spark"))
    builder = SparkSession.builder.master("local[1]").appName("joulescope")
    for name, value in {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "1g",
        "spark.local.dir": scratch,
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.warehouse.dir": f"{scratch}/warehouse",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    gateway = session.sparkContext._gateway
    yield session
    session.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(timeout=20)


def opened(root: Path, span: Span, session: Any = None) -> Tables:
    files = files_of(root, "requests"), files_of(root, "minutes")
    return open_duckdb(*files, span) if session is None else open_spark(session, *files, span)


def test_spark_answers_as_duckdb_does(root: Path, spark: Any, tmp_path: Path) -> None:
    """Every question, over a span that cuts both days: the same rows in the same order. Counts, tokens and
    microjoules are equal; quantiles agree to the last digits of a float; FOCUS files to the last byte."""
    here, there = opened(root, HALF_DAY), opened(root, HALF_DAY, spark)
    for name, question in QUESTIONS.items():
        ours, theirs = here.rows(question(here)), there.rows(question(there))
        assert len(ours) == len(theirs) > 0, name
        for own, other in zip(ours, theirs, strict=True):
            assert plain(own) == plain(other), name
            assert floats(own) == pytest.approx(floats(other), rel=1e-12), name
    assert coverage(here) == coverage(there)
    files = tmp_path / "here.csv", tmp_path / "there.csv"
    for tables, path in zip((here, there), files, strict=True):
        Focus(tables, Prices(0.2, "EUR", 1.2, 380.0), "hour").write_csv(path)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_is_odd_is_in_the_answers(root: Path) -> None:
    """So that the comparison above is one of them too."""
    tables = opened(root, HALF_DAY)
    used = {
        (row["engine"], row["task"], row["unit"]): row
        for row in tables.rows(usage(tables, ("engine", "task")))
    }
    assert {("engine-1", "", "token"), ("", "", ""), ("image", "draw", "image")} <= used.keys()
    assert used["image", "draw", "image"]["joules_uj"] == 2 * 9_000_009
    lines = tables.rows(chargeback(tables, ("task",), "attributed", engine=True))
    parts = {(row["engine"], row["part"], row["owned"]): row["joules_uj"] for row in lines}
    assert parts["alone", "idle", False] == 19
    assert parts["image", "overhead", True] == 11
    assert any(row["joules_uj"] < 0 for row in lines if row["part"] == "open")


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not isinstance(value, float)}


def floats(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if isinstance(value, float)}


def test_a_session_of_another_time_zone_is_refused(root: Path, spark: Any) -> None:
    """Its months would be others than those of the ledger: the error says what to set."""
    spark.conf.set("spark.sql.session.timeZone", "Europe/Berlin")
    try:
        with pytest.raises(
            QueryError, match=r"keeps the time of Europe/Berlin.*set spark\.sql\.session\.timeZone"
        ):
            opened(root, HALF_DAY, spark)
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")


def test_months_are_those_of_utc(root: Path, spark: Any) -> None:
    """Days and months begin at midnight UTC, wherever the machine is. Whole folders are read."""
    tables = open_spark(spark, [str(root / "requests")], [str(root / "minutes")])
    begins = {row["period_ns"] for row in tables.rows(usage(tables, ("month",)))}
    firsts = [datetime(2026, month, 1, tzinfo=timezone.utc) for month in (1, 2)]
    assert begins == {int(first.timestamp()) * 10**9 for first in firsts}
