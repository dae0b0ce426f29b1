"""Every measured joule on somebody's bill, or on a line that says why it is on nobody's.

The joules of a request are booked when it ends. Idle GPUs and overhead are nobody's by themselves: they stand
apart, or are spread over those who used the engine. Either way the lines add up to what was measured, to the
microjoule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from joulescope.insight.queries.balance import balance
from joulescope.insight.queries.kinds import Column, Table
from joulescope.insight.queries.tables import DIMENSIONS, PERIOD, Tables, keys_of, wide_sum
from joulescope.insight.queries.usage import usage

SPREADS = ("apart", "attributed")
"""``apart``: idle and overhead have lines of their own; ``attributed``: they are spread over the requests'
keys in proportion to attributed joules, engine by engine and period by period."""

REQUESTS, WASTED, IDLE, OVERHEAD, OPEN, UNATTRIBUTED, RESIDUAL = (
    "requests",
    "wasted",
    "idle",
    "overhead",
    "open",
    "unattributed",
    "residual",
)
POOLS = (IDLE, OVERHEAD)
"""Parts that can be spread."""

PARTS = (REQUESTS, WASTED, IDLE, OVERHEAD, OPEN, UNATTRIBUTED, RESIDUAL)
"""What a line is made of. ``wasted`` is what finished requests drew for nothing: those that were aborted, and
the rejected drafts and recomputed tokens of others where the sidecar charges them to requests. ``requests``
is the rest of what they drew. ``open`` is what was attributed in the span less what its finished requests
cost: the joules of requests that were still running at the end, less those that requests running at the begin
had drawn before. Over spans that adjoin it cancels out."""

OF_REQUESTS = (REQUESTS, WASTED)
"""Parts that finished requests drew."""

COUNTS = ("requests", "prompt_tokens", "cached_tokens", "output_tokens")
OWNED = "owned"


def chargeback(
    tables: Tables, by: Sequence[str] = ("tenant",), spread: str = "apart", engine: bool = False
) -> Table:
    """One line for each combination of ``by`` and part: its microjoules, and what ``requests`` brought.

    Columns: ``period_ns`` if ``by`` names a period, its dimensions, ``owned`` (whether the line is on
    somebody's bill; keys of other lines are empty), ``unit``, ``part`` (of :data:`PARTS`), ``joules_uj``, and
    counts of finished requests, which stand in lines of the part ``requests`` and are 0 in all others.
    ``engine`` tells engines apart as well.
    The sum of ``joules_uj`` is that of the measured joules, exactly.
    """
    dimensions, period = keys_of(by)
    asked = list(dict.fromkeys([*dimensions, *(["engine"] if engine else [])]))
    inner = [*dict.fromkeys([*dimensions, "engine"])]
    used = usage(tables, [*inner, *([period] if period else [])])
    books = _books(tables, used, period)
    lines = _of_requests(used, inner, period)
    if spread == "attributed":
        lines += [_spread(used, books, inner, period, pool) for pool in POOLS]
    lines += [_apart(books, inner, period, part, spread) for part in PARTS if part not in OF_REQUESTS]
    together = lines[0].union(*lines[1:])
    keys = [*([PERIOD] if period else []), *asked, OWNED, "unit", "part"]
    summed = together.group_by(keys).agg(
        joules_uj=wide_sum(together.joules_uj),
        **{name: together[name].sum().cast("int64") for name in COUNTS},
    )
    summed = summed.filter((summed.joules_uj != 0) | (summed.requests != 0))
    first = [PERIOD] if period else []
    return summed.order_by([*first, summed[OWNED].desc(), *asked, "unit", "part"])


def _books(tables: Tables, used: Table, period: str | None) -> Table:
    """For each engine and period what was measured, what of it is in which pool, and what requests used."""
    import ibis

    keys = [*([PERIOD] if period else []), "engine"]
    minutes = balance(tables, ("engine",), period)
    figures = ("attributed_uj", "idle_uj", "overhead_uj", "unattributed_uj", "residual_uj")
    none = ibis.literal(0, "int64")
    of_minutes = minutes.select(*keys, *figures, used_uj=none)
    of_requests = used.group_by(keys).agg(used_uj=used.joules_uj.sum().cast("int64"))
    of_requests = of_requests.select(*keys, **dict.fromkeys(figures, none), used_uj=of_requests.used_uj)
    both = of_minutes.union(of_requests)
    books = both.group_by(keys).agg(
        **{name: both[name].sum().cast("int64") for name in (*figures, "used_uj")}
    )
    return books.mutate(open_uj=books.attributed_uj - books.used_uj)


def _of_requests(used: Table, keys: list[str], period: str | None) -> list[Table]:
    """What came of something, with the counts, and what came of nothing: together what requests drew."""
    useful = used.joules_uj - used.wasted_uj
    return [
        _line(used, keys, period, REQUESTS, useful, owned=True, counted=True),
        _line(used, keys, period, WASTED, used.wasted_uj, owned=True, counted=False),
    ]


def _apart(books: Table, keys: list[str], period: str | None, part: str, spread: str) -> Table:
    """Lines on nobody's bill. What could not be spread, because nobody used the engine, is among them."""
    import ibis

    if part in POOLS and spread == "attributed":
        books = books.filter(books.used_uj <= 0)
    nobody: dict[str, Any] = {name: ibis.literal("") for name in DIMENSIONS if name != "engine"}
    books = books.mutate(**nobody, unit=ibis.literal(""))
    return _line(books, keys, period, part, books[f"{part}_uj"], owned=False, counted=False)


def _spread(used: Table, books: Table, keys: list[str], period: str | None, pool: str) -> Table:
    """A pool over those who used the engine. Edges of the running total are rounded, and a share is the
    difference of two edges: the shares add up to the pool, whatever the numbers."""
    import ibis

    on = [*([PERIOD] if period else []), "engine"]
    pools = books.select(*on, pool_uj=books[f"{pool}_uj"], all_uj=books.used_uj)
    pools = pools.filter(pools.all_uj > 0)
    weighed = used.inner_join(pools, on)
    others = [name for name in keys if name not in on]
    weighed = weighed.select(*on, *others, "unit", "joules_uj", "pool_uj", "all_uj")
    order = [weighed[name] for name in [*keys, "unit"]]
    running = ibis.window(group_by=on, order_by=order, preceding=None, following=0)
    weighed = weighed.mutate(until_uj=weighed.joules_uj.sum().over(running).cast("int64"))
    share = _edge(weighed, weighed.until_uj) - _edge(weighed, weighed.until_uj - weighed.joules_uj)
    return _line(weighed, keys, period, pool, share, owned=True, counted=False)


def _edge(weighed: Table, until_uj: Column) -> Column:
    part = until_uj.cast("float64") / weighed.all_uj.cast("float64")
    rounded = (weighed.pool_uj.cast("float64") * part).round().cast("int64")
    return (until_uj == weighed.all_uj).ifelse(weighed.pool_uj, rounded)


def _line(
    table: Table,
    keys: list[str],
    period: str | None,
    part: str,
    joules_uj: Column,
    *,
    owned: bool,
    counted: bool,
) -> Table:
    import ibis

    counts = {name: table[name] if counted else ibis.literal(0, "int64") for name in COUNTS}
    return table.select(
        *([PERIOD] if period else []),
        *keys,
        **{OWNED: ibis.literal(owned)},
        unit=table.unit,
        part=ibis.literal(part),
        joules_uj=joules_uj.cast("int64"),
        **counts,
    )
