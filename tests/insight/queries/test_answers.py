"""Answers are those that plain loops over the same numbers give."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from joulescope.errors import ConfigError
from joulescope.insight.queries import Span, balance, coverage, dearest, distribution, usage
from joulescope.insight.queries.ledger import open_root
from joulescope.insight.queries.span import moment, parse_span, text_of
from tests.insight.queries.conftest import RECIPE, Made
from tests.made_ledger import BEGIN_NS, DAY_NS

NOW_NS = 1_800_000_000_000_000_000


def by_loop(made: Made, key: Any) -> dict[Any, dict[str, int]]:
    """Sums by a key of each request, in plain Python."""
    sums: dict[Any, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    columns = made.requests
    for index in range(len(columns["engine"])):
        row = {name: column[index] for name, column in columns.items()}
        found = sums[key(row)]
        found["requests"] += 1
        found["incomplete_requests"] += not row["complete"]
        found["output_tokens"] += int(row["output_tokens"])
        found["prompt_tokens"] += int(row["prompt_tokens"])
        if row["joules_uj"] >= 0:
            found["measured_requests"] += 1
            found["joules_uj"] += int(row["joules_uj"])
            found["wasted_uj"] += int(row["wasted_uj"])
            found["measured_output_tokens"] += int(row["output_tokens"])
    return sums


def month_of(row: dict[str, Any]) -> str:
    return text_of(moment(int(row["end_unix_ns"])))[:7]


@pytest.mark.parametrize(
    ("by", "key", "shown"),
    [
        (("tenant",), lambda row: f"tenant-{row['tenant']}", lambda row: row["tenant"]),
        (("task",), lambda row: row["task"], lambda row: row["task"]),
        (("finish_reason",), lambda row: row["finish_reason"], lambda row: row["finish_reason"]),
        (("month",), month_of, lambda row: text_of(moment(row["period_ns"]))[:7]),
        (("day",), lambda row: row["end_unix_ns"] // DAY_NS, lambda row: row["period_ns"] // DAY_NS),
        (
            ("hour", "engine"),
            lambda row: (row["end_unix_ns"] // (DAY_NS // 24), f"engine-{row['engine']}"),
            lambda row: (row["period_ns"] // (DAY_NS // 24), row["engine"]),
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_what_requests_used(made: Made, by: tuple[str, ...], key: Any, shown: Any) -> None:
    """Whatever they are told apart by: sums to the microjoule, and every request once."""
    tables = made.tables()
    rows = tables.rows(usage(tables, by))
    truth = by_loop(made, key)
    assert {shown(row) for row in rows} == set(truth)
    for row in rows:
        sums = truth[shown(row)]
        assert {name: row[name] for name in sums} == dict(sums)
    begins = [row.get("period_ns", 0) for row in rows]
    assert begins == sorted(begins)


def test_the_dearest_group_comes_first(made: Made) -> None:
    """Rows of one period are in order of their joules."""
    tables = made.tables()
    joules = [row["joules_uj"] for row in tables.rows(usage(tables, ("tenant", "lora")))]
    assert joules == sorted(joules, reverse=True)
    assert len(joules) > 4


def test_balance_of_engines(made: Made) -> None:
    """Each engine's parts are those of its minutes and add up to what was measured."""
    tables = made.tables()
    rows = {row["engine"]: row for row in tables.rows(balance(tables))}
    assert set(rows) == {"", "engine-0", "engine-1"}
    for engine in (0, 1):
        own = made.minutes["engine"] == engine
        row = rows[f"engine-{engine}"]
        assert row["model"] == f"model-{engine}"
        for name in ("prefill", "decode", "idle", "overhead_startup", "unattributed", "wasted_abort"):
            assert row[f"{name}_uj"] == made.minutes[name][own].sum()
    assert sum(row["measured_uj"] for row in rows.values()) == made.measured_uj
    assert all(row["residual_uj"] == 0 for row in rows.values())


def test_quantiles_are_numpys(made: Made) -> None:
    """Quantiles between two requests are interpolated as numpy does; requests without joules are left out."""
    tables = made.tables()
    (row,) = tables.rows(distribution(tables))
    known = made.requests["joules_uj"] >= 0
    joules = made.requests["joules_uj"][known] / 1e6
    tokens = made.requests["output_tokens"][known]
    ratios = joules[tokens > 0] / tokens[tokens > 0]
    for name, values in (("joules", joules), ("joules_per_output_token", ratios)):
        for percent in (5, 50, 99):
            assert row[f"{name}_p{percent}"] == pytest.approx(np.percentile(values, percent), rel=1e-12)
        assert row[f"{name}_max"] == pytest.approx(values.max())
    assert row["requests"] == len(joules)


@pytest.mark.parametrize("sort", ["joules", "per-token", "wasted"])
def test_the_dearest_requests(made: Made, sort: str) -> None:
    """In order, the first is the dearest of all, and none is there whose joules are not known."""
    tables = made.tables()
    rows = tables.rows(dearest(tables, 5, sort))
    figures = {
        "joules": made.requests["joules_uj"].astype(float),
        "wasted": made.requests["wasted_uj"].astype(float),
        "per-token": np.where(
            made.requests["output_tokens"] > 0,
            made.requests["joules_uj"] / 1e6 / np.maximum(made.requests["output_tokens"], 1),
            -1,
        ),
    }[sort]
    column = {"joules": "joules_uj", "wasted": "wasted_uj", "per-token": "joules_per_output_token"}[sort]
    assert [row[column] for row in rows] == pytest.approx(sorted(figures, reverse=True)[:5])
    assert rows[0]["request_id"] == made.requests["request_id"][np.argmax(figures)]


def test_coverage_counts_what_is_missing(made: Made) -> None:
    """Requests without joules and incomplete ones are counted, and so are joules that are nobody's."""
    known = coverage(made.tables())
    assert known["requests"] == 3000
    assert known["requests"] - known["measured_requests"] == (made.requests["joules_uj"] < 0).sum()
    assert known["incomplete_requests"] == (~made.requests["complete"]).sum()
    assert known["unattributed_uj"] == made.minutes["unattributed"].sum()
    assert known["attributed_uj"] - known["requests_uj"] == 2 * 5_000_000


def test_a_span_cuts_requests_by_their_end_and_minutes_by_their_start(made: Made) -> None:
    """Two spans that adjoin have together what the whole has; the edge belongs to the later one."""
    edge = int(np.sort(made.requests["end_unix_ns"])[1234])
    parts = [coverage(made.tables(span)) for span in (Span(None, edge), Span(edge, None))]
    whole = coverage(made.tables())
    assert parts[0]["requests"] == 1234
    for name in ("requests", "requests_uj", "minutes", "measured_uj"):
        assert parts[0][name] + parts[1][name] == whole[name]


@pytest.mark.parametrize(
    ("text", "instant_ns"),
    [
        ("2026-01-31", BEGIN_NS),
        ("2026-01-31T01:00+01:00", BEGIN_NS),
        ("2026-01-31T00:00:00.000001Z", BEGIN_NS + 1000),
        ("now", NOW_NS),
        ("36h", NOW_NS - 36 * 3600 * 10**9),
        ("1.5d", NOW_NS - 36 * 3600 * 10**9),
    ],
)
def test_instants_of_a_command_line(text: str, instant_ns: int) -> None:
    """Dates are UTC unless they say otherwise; ages count back from now."""
    assert parse_span(text, None, NOW_NS).begin_ns == instant_ns


@pytest.mark.parametrize(
    ("since", "until", "message"),
    [
        ("yesterday", None, "--since 'yesterday' is no instant"),
        (None, "2026-13-01", "--until '2026-13-01' is no instant"),
        ("1d", "2d", "--until 2d is not after --since 1d"),
        (
            "2026-01-31",
            "2026-01-31T00:00Z",
            "are the same instant, .* of a day the day after",
        ),
        (None, "9999-12-31", "--until '9999-12-31' is beyond what a ledger can hold, the years 1677 to 2262"),
        ("0001-01-01", None, "--since '0001-01-01' is beyond .* leave --since out to have everything"),
        ("99999999999d", None, "--since '99999999999d' is beyond"),
        (f"{'9' * 400}w", None, "is beyond"),
    ],
)
def test_spans_that_make_no_sense(since: str | None, until: str | None, message: str) -> None:
    """The error names the flag and shows how to write one."""
    with pytest.raises(ConfigError, match=message):
        parse_span(since, until, NOW_NS)


@pytest.mark.parametrize(("since", "until"), [("1677-09-24", None), (None, "2262-04-09")])
def test_the_longest_spans_can_be_asked(made: Made, since: str | None, until: str | None) -> None:
    """Up to the last day that nanoseconds of 64 bits have."""
    with open_root(str(made.root), parse_span(since, until, NOW_NS)) as opened:
        assert coverage(opened.tables)["requests"] == RECIPE.requests


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (("colour",), "nothing is told apart by 'colour': choose from engine, model, tenant"),
        (("day", "month"), "day and month cannot both"),
        (("tenant", "tenant"), "names something twice"),
    ],
)
def test_dimensions_that_make_no_sense(made: Made, by: tuple[str, ...], message: str) -> None:
    """Unknown names, two periods and repeated names are refused with what would do."""
    with pytest.raises(ConfigError, match=message):
        usage(made.tables(), by)
