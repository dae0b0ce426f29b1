"""Opening a ledger for questions: by DuckDB in this process, or by a Spark session that is already there."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from joulescope.errors import MissingExtra, QueryError
from joulescope.insight.extra import ANALYSIS_LINE
from joulescope.insight.queries.kinds import Table
from joulescope.insight.queries.span import ALWAYS, Span
from joulescope.insight.queries.tables import FITS, MINUTE_COLUMNS, REQUEST_COLUMNS, Tables, tables

_WILD = re.compile(r"[*?\[]")
"""What DuckDB takes for a pattern in a path: a folder that is named so would bring its neighbours' files."""

_KINDS: Mapping[str, Mapping[str, str]] = {"requests": REQUEST_COLUMNS, "minutes": MINUTE_COLUMNS}


def need_packages(find: Callable[[str], object] = importlib.util.find_spec) -> None:
    """Raises MissingExtra, with the line that installs them, without the packages that a question needs."""
    if any(find(name) is None for name in ("duckdb", "fsspec", "ibis", "pyarrow")):
        raise MissingExtra(ANALYSIS_LINE)


def open_duckdb(requests: Sequence[str], minutes: Sequence[str], span: Span = ALWAYS) -> Tables:
    """The tables of these Parquet files, read by DuckDB in this process; ``span`` cuts them.

    Raises:
        MissingExtra: without DuckDB or Ibis.
        QueryError: if a file cannot be read.
    """
    need_packages()
    import duckdb
    import ibis

    backend = ibis.duckdb.connect()
    backend.raw_sql("SET TimeZone = 'UTC'")
    _register_stores(backend, [*requests, *minutes])
    read = {kind: _duckdb_table(backend, kind, files) for kind, files in _files(requests, minutes)}
    where = partial(_misfit, dict(_files(requests, minutes)))
    return tables(read["requests"], read["minutes"], backend, span, (duckdb.Error,), where)


def _misfit(files: Mapping[str, Sequence[str]], kind: str, column: str) -> str:
    """The first file in which a column is not of the type that it should be of."""
    import fsspec
    import pyarrow.parquet as pq
    from ibis.formats.pyarrow import PyArrowSchema

    fits = FITS[_KINDS[kind][column]]
    for path in files[kind]:
        with fsspec.open(path) as file:
            there = PyArrowSchema.to_ibis(pq.read_schema(file))
        if column in there and not fits(there[column]):
            return path
    return "some file"


def _files(requests: Sequence[str], minutes: Sequence[str]) -> list[tuple[str, list[str]]]:
    return [("requests", list(requests)), ("minutes", list(minutes))]


def _duckdb_table(backend: Any, kind: str, files: list[str]) -> Table:
    import duckdb

    if not files:
        return _empty(kind)
    literal = [_WILD.sub(r"[\g<0>]", file) for file in files]
    try:
        return backend.read_parquet(literal, table_name=kind, union_by_name=True, hive_partitioning=False)
    except duckdb.Error as problem:
        raise QueryError(f"the {kind} of this ledger cannot be read: {_first_line(problem)}") from problem


def _register_stores(backend: Any, files: Sequence[str]) -> None:
    """DuckDB reads an object store through fsspec, as the ledger does: with the same credentials."""
    protocols = {path.partition("://")[0] for path in files if "://" in path}
    for protocol in sorted(protocols):
        import fsspec

        backend.con.register_filesystem(fsspec.filesystem(protocol))


def open_spark(session: Any, requests: Sequence[str], minutes: Sequence[str], span: Span = ALWAYS) -> Tables:
    """The same by Spark. ``session`` is a SparkSession whose time zone is UTC; paths are as Spark reads them.

    Raises:
        QueryError: if the session has another time zone.
    """
    import ibis

    zone = session.conf.get("spark.sql.session.timeZone")
    if zone not in ("UTC", "Etc/UTC", "Z", "GMT"):
        raise QueryError(
            f"the Spark session keeps the time of {zone}, and months of a ledger are those of UTC: set "
            "spark.sql.session.timeZone to UTC"
        )
    backend = ibis.pyspark.connect(session)
    read = {kind: _spark_table(backend, session, kind, files) for kind, files in _files(requests, minutes)}
    return tables(read["requests"], read["minutes"], backend, span)


def _spark_table(backend: Any, session: Any, kind: str, files: list[str]) -> Table:
    if not files:
        return _empty(kind)
    view = f"joulescope_{kind}"
    session.read.option("mergeSchema", "true").parquet(*files).createOrReplaceTempView(view)
    return backend.table(view)


def _empty(kind: str) -> Table:
    import ibis

    schema = ibis.schema(dict(_KINDS[kind]))
    return ibis.memtable(schema.to_pyarrow().empty_table(), schema=schema)


def _first_line(problem: Exception) -> str:
    return str(problem).partition("\n")[0]
