"""Questions to a ledger, written once as Ibis expressions: DuckDB answers them here, Spark on a cluster.

Nothing of this package imports Ibis, DuckDB or pyarrow before a ledger is opened.
"""

from joulescope.insight.queries.balance import balance, coverage
from joulescope.insight.queries.chargeback import SPREADS, chargeback
from joulescope.insight.queries.distribution import dearest, distribution
from joulescope.insight.queries.source import open_duckdb, open_spark
from joulescope.insight.queries.span import ALWAYS, Span
from joulescope.insight.queries.tables import DIMENSIONS, PERIODS, Tables
from joulescope.insight.queries.usage import usage

__all__ = [
    "ALWAYS",
    "DIMENSIONS",
    "PERIODS",
    "SPREADS",
    "Span",
    "Tables",
    "balance",
    "chargeback",
    "coverage",
    "dearest",
    "distribution",
    "open_duckdb",
    "open_spark",
    "usage",
]
