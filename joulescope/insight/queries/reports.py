"""Answers as people ask for them: joules, kWh, money, grams and ratios made from sums, last of all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from joulescope.insight.queries.balance import OVERHEADS, WASTES, balance, coverage
from joulescope.insight.queries.chargeback import OF_REQUESTS, OWNED, POOLS
from joulescope.insight.queries.distribution import FIGURES, QUANTILES, column_of
from joulescope.insight.queries.money import Prices, kwh
from joulescope.insight.queries.span import moment, text_of
from joulescope.insight.queries.tables import DIMENSIONS, PERIOD, Tables

Row = dict[str, Any]


def _keys(row: Mapping[str, Any]) -> Row:
    """What a row is told apart by, its period as an instant."""
    begin = {"begin": text_of(moment(row[PERIOD]))} if PERIOD in row else {}
    return {**begin, **{name: row[name] for name in row if name in DIMENSIONS}}


def _amounts(microjoules: int, prices: Prices) -> Row:
    return {
        "joules": microjoules / 1e6,
        "kwh": kwh(microjoules),
        "cost": prices.cost(microjoules),
        "carbon_grams": prices.carbon_grams(microjoules),
    }


def _unit(row: Mapping[str, Any]) -> Row:
    return {"unit": row["unit"]}


def usage_rows(rows: Iterable[Mapping[str, Any]], prices: Prices) -> list[Row]:
    """Rows of :func:`joulescope.insight.queries.usage.usage` for reading."""
    return [
        {
            **_keys(row),
            **_unit(row),
            "requests": row["requests"],
            "prompt_tokens": row["prompt_tokens"],
            "cached_tokens": row["cached_tokens"],
            "output_tokens": row["output_tokens"],
            **_amounts(row["joules_uj"], prices),
            "joules_per_output_token": _ratio(row["joules_uj"] / 1e6, row["measured_output_tokens"]),
            "joules_per_request": _ratio(row["joules_uj"] / 1e6, row["measured_requests"]),
            "wasted_joules": row["wasted_uj"] / 1e6,
            "avoided_joules": row["avoided_uj"] / 1e6,
            "unmeasured_requests": row["requests"] - row["measured_requests"],
            "incomplete_requests": row["incomplete_requests"],
        }
        for row in rows
    ]


def _ratio(top: float, bottom: float) -> float | None:
    return top / bottom if bottom else None


# ------------------------------------------------------------------------------------- the whole of a span


def whole(tables: Tables, prices: Prices) -> Row:
    """The balance of all engines together and of each, wasted joules by reason, and what is known."""
    rows = tables.rows(balance(tables))
    names = [name for name in (rows[0] if rows else {}) if name.endswith("_uj")]
    total = {name: sum(row[name] for row in rows) for name in names}
    known = coverage(tables)
    engines = [{"engine": row["engine"], "model": row["model"], **_balance(row, prices)} for row in rows]
    return {
        "balance": _balance(total, prices) if total else None,
        "engines": engines,
        "coverage": _coverage(known),
    }


def _balance(row: Mapping[str, Any], prices: Prices) -> Row:
    measured = row["measured_uj"]
    generated = {"generated_tokens": row["generated_tokens"]} if "generated_tokens" in row else {}
    return {
        "measured": _amounts(measured, prices),
        "parts_joules": {
            "prefill": row["prefill_uj"] / 1e6,
            "decode": row["decode_uj"] / 1e6,
            "idle": row["idle_uj"] / 1e6,
            **{name: row[f"{name}_uj"] / 1e6 for name in OVERHEADS},
            "unattributed": row["unattributed_uj"] / 1e6,
            "residual": row["residual_uj"] / 1e6,
        },
        "idle_ratio": _ratio(row["idle_uj"], measured),
        "overhead_ratio": _ratio(row["overhead_uj"], measured),
        "unattributed_ratio": _ratio(row["unattributed_uj"], measured),
        "wasted_joules": {name.removeprefix("wasted_"): row[f"{name}_uj"] / 1e6 for name in WASTES},
        "avoided_joules": row["avoided_uj"] / 1e6,
        **generated,
    }


def _coverage(known: Mapping[str, Any]) -> Row:
    requests, measured = known["requests"], known["measured_requests"] or 0
    used, attributed = known["requests_uj"] or 0, known["attributed_uj"] or 0
    firsts = [known[name] for name in ("first_request_ns", "first_minute_ns") if known[name] is not None]
    lasts = [known[name] for name in ("last_request_ns", "last_minute_ns") if known[name] is not None]
    return {
        "first": text_of(moment(min(firsts))) if firsts else None,
        "last": text_of(moment(max(lasts))) if lasts else None,
        "requests": requests,
        "unmeasured_requests": requests - measured,
        "incomplete_requests": known["incomplete_requests"] or 0,
        "finished_requests_joules": used / 1e6,
        "open_joules": (attributed - used) / 1e6 if known["minutes"] else None,
        "minutes": known["minutes"],
    }


def whole_lines(where: str, answer: Mapping[str, Any], prices: Prices) -> Iterator[str]:
    """The same as text."""
    known = answer["coverage"]
    yield f"Ledger {where}: first {known['first']}, last {known['last']}"
    total = answer["balance"]
    if total is not None:
        yield "Measured   " + _amount_text(total["measured"], prices)
        measured = total["measured"]["joules"]
        for name, joules in total["parts_joules"].items():
            if joules:
                yield f"  {name.replace('_', ' '):<24}{joules:>18,.1f} J{_percent(joules, measured)}"
        wasted = {name: joules for name, joules in total["wasted_joules"].items() if joules}
        if wasted:
            yield "Wasted, contained in these"
            for name, joules in wasted.items():
                yield f"  {name.replace('_', ' '):<24}{joules:>18,.1f} J{_percent(joules, measured)}"
    yield (
        f"Requests   {known['requests']:,} finished, {known['unmeasured_requests']:,} without joules, "
        f"{known['incomplete_requests']:,} of which a part is missing"
    )
    if known["open_joules"] is not None:
        theirs, still_open = known["finished_requests_joules"], known["open_joules"]
        yield (
            f"           {theirs:,.1f} J are theirs; {still_open:,.1f} J are of requests open at the end, "
            "less what those open at the begin had drawn"
        )
    yield ""


def _percent(joules: float, measured: float) -> str:
    return f"{joules / measured:>8.2%}" if measured else ""


def _amount_text(amounts: Mapping[str, Any], prices: Prices) -> str:
    parts = [f"{amounts['joules']:,.1f} J", f"{amounts['kwh']:,.4g} kWh"]
    if amounts["cost"] is not None:
        parts.append(f"{_money(amounts['cost'])} {prices.currency}")
    if amounts["carbon_grams"] is not None:
        parts.append(f"{amounts['carbon_grams']:,.4g} gCO2e")
    if prices.pue is not None and len(parts) > 2:
        parts[-1] += f", with a PUE of {prices.pue:g}"
    return ", ".join(parts)


def _money(cost: float) -> str:
    """To the cent; what is less than one unit by the digits that count, as 0.00 would be nothing."""
    return f"{cost:,.2f}" if abs(cost) >= 1 or not cost else f"{cost:.3g}"


# --------------------------------------------------------------------------------------- bills and requests


def bill_rows(rows: Iterable[Mapping[str, Any]], prices: Prices) -> list[Row]:
    """Lines of :func:`joulescope.insight.queries.chargeback.chargeback` for reading."""
    return [
        {
            **_keys(row),
            "owned": row[OWNED],
            "part": row["part"],
            **_unit(row),
            "microjoules": row["joules_uj"],
            **_amounts(row["joules_uj"], prices),
            "requests": row["requests"],
            "prompt_tokens": row["prompt_tokens"],
            "cached_tokens": row["cached_tokens"],
            "output_tokens": row["output_tokens"],
        }
        for row in rows
    ]


def bill_total(rows: Iterable[Mapping[str, Any]], prices: Prices) -> Row:
    microjoules = sum(row["microjoules"] for row in rows)
    return {"microjoules": microjoules, **_amounts(microjoules, prices)}


def total_line(total: Mapping[str, Any], prices: Prices) -> str:
    return "Together " + _amount_text(total, prices)


def bill_in_columns(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row for each combination of keys, with a column for each part, for people."""
    made: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        keys = {name: row[name] for name in row if name in ("begin", *DIMENSIONS)}
        key = (*keys.values(), row["owned"], row["unit"], "" if row["owned"] else row["part"])
        found = made.setdefault(key, _blank(keys, row))
        column = f"{row['part']}_joules" if row["owned"] else "joules"
        found[column] = (found.get(column) or 0.0) + row["joules"]
        if row["owned"]:
            found["joules"] = (found["joules"] or 0.0) + row["joules"]
        for name in ("kwh", "cost", "carbon_grams"):
            found[name] = found[name] if row[name] is None else (found[name] or 0.0) + row[name]
        for name in ("requests", "output_tokens"):
            found[name] += row[name]
    return list(made.values())


def _blank(keys: Mapping[str, Any], row: Mapping[str, Any]) -> Row:
    parts = dict.fromkeys(f"{part}_joules" for part in (*OF_REQUESTS, *POOLS))
    name = "" if row["owned"] else f"({row['part']})"
    amounts = {"joules": None, "kwh": None, "cost": None, "carbon_grams": None}
    return {**keys, "nobody's": name, "requests": 0, "output_tokens": 0, **parts, **amounts}


def request_rows(rows: Iterable[Mapping[str, Any]], prices: Prices) -> list[Row]:
    """Rows of :func:`joulescope.insight.queries.distribution.dearest` for reading."""
    return [
        {
            "request_id": row["request_id"],
            "external_id": row["external_id"],
            **_keys(row),
            "end": text_of(moment(row["end_unix_ns"])),
            "seconds": (row["end_unix_ns"] - row["start_unix_ns"]) / 1e9,
            "prompt_tokens": row["prompt_tokens"],
            "cached_tokens": row["cached_tokens"],
            "output_tokens": row["output_tokens"],
            **_amounts(row["joules_uj"], prices),
            "joules_per_output_token": row["joules_per_output_token"],
            "wasted_joules": row["wasted_uj"] / 1e6,
            "incomplete": row["incomplete"],
        }
        for row in rows
    ]


def short_requests(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Fewer columns, for people."""
    left_out = ("external_id", "kwh", "carbon_grams", "incomplete")
    return [{name: value for name, value in row.items() if name not in left_out} for row in rows]


def distribution_rows(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows of :func:`joulescope.insight.queries.distribution.distribution`: one a figure."""
    return [
        {
            **_keys(row),
            "figure": figure.replace("output_token", f"output_{row['unit'] or 'token'}"),
            "requests": row["requests"],
            **{f"p{quantile * 100:.0f}": row[column_of(figure, quantile)] for quantile in QUANTILES},
            "max": row[f"{figure}_max"],
        }
        for row in rows
        for figure in FIGURES
    ]
