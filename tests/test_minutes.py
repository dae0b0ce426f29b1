"""Minutes of engines as values: sums, columns and lines. Everything must hold for all minutes."""

from __future__ import annotations

import json
import math
import random
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulescope.errors import MinuteError
from joulescope.minute_model import EngineMinute, Joules, Kind, Limits, TaskSums, Tokens
from joulescope.minutes import (
    COLUMNS,
    add,
    bin_tokens,
    flatten,
    json_line,
    length_bin,
    merge,
    parse_line,
    read_lines,
    unflatten,
)
from tests.made_minutes import minutes

ONE_KIND = st.just(Kind("e"))
PLAIN = EngineMinute(Kind("e"), 60.0, 120.0)

few = settings(max_examples=15, deadline=None)


# ------------------------------------------------------------------------------------------------- sums


@few
@given(st.lists(minutes(ONE_KIND), min_size=1, max_size=4), st.randoms())
def test_the_order_of_minutes_changes_no_sum(made: list[EngineMinute], order: random.Random) -> None:
    """Sums are rounded once, at the end."""
    shuffled = list(made)
    order.shuffle(shuffled)
    one, other = merge(made)[0], merge(shuffled)[0]
    assert replace(one, laws=None, limits=Limits()) == replace(other, laws=None, limits=Limits())


@few
@given(minutes(ONE_KIND), minutes(ONE_KIND))
def test_every_figure_of_the_sum_is_the_sum_of_both(left: EngineMinute, right: EngineMinute) -> None:
    """No field is forgotten, whichever is added to the model later."""
    total = add(left, right)
    assert total == add(right, left) or left.end_wall_seconds == right.end_wall_seconds
    for name in ("joules", "tokens", "decode_steps", "prefill_steps", "load", "gpu"):
        for field in fields(getattr(total, name)):
            parts = [getattr(getattr(minute, name), field.name) for minute in (left, right)]
            assert getattr(getattr(total, name), field.name) == math.fsum(parts)
    cells = {(cell.task, cell.prompt_bin, cell.output_bin): cell.requests for cell in total.tasks}
    assert sum(cells.values()) == sum(cell.requests for minute in (left, right) for cell in minute.tasks)
    assert len(cells) == len(total.tasks)
    assert sum(dict(total.finish_reasons).values()) == sum(
        count for minute in (left, right) for _, count in minute.finish_reasons
    )


@few
@given(minutes(ONE_KIND), minutes(ONE_KIND), minutes(ONE_KIND))
def test_pairs_added_up_come_to_what_all_at_once_do(
    first: EngineMinute, second: EngineMinute, third: EngineMinute
) -> None:
    """Whole numbers exactly, others but for rounding."""
    by_pairs, at_once = add(add(first, second), third), merge((first, second, third))[0]
    assert by_pairs.tokens == at_once.tokens
    assert by_pairs.joules.measured == pytest.approx(at_once.joules.measured, rel=1e-12)


def test_a_sum_lasts_from_the_first_begin_to_the_last_end() -> None:
    """And has the limits and laws of the one that ended last."""
    later = replace(PLAIN, start_wall_seconds=120.0, end_wall_seconds=150.0, limits=Limits(64))
    total = add(later, PLAIN)
    assert (total.start_wall_seconds, total.end_wall_seconds, total.limits) == (60.0, 150.0, Limits(64))


def test_kinds_are_kept_apart() -> None:
    """Joules of two models make no sense as a sum."""
    other = replace(PLAIN, kind=Kind("e", dtype="fp8"))
    assert merge([PLAIN, other, PLAIN]) == (replace(PLAIN), other)
    with pytest.raises(ValueError, match="different kinds"):
        add(PLAIN, other)
    assert merge([]) == ()


# ------------------------------------------------------------------------------------------------- bins


@given(st.integers(1, 10**9))
def test_a_length_lies_in_its_bin(tokens: int) -> None:
    """Whatever logarithms round to."""
    at = length_bin(tokens)
    shortest, longest = bin_tokens(at)
    assert shortest <= tokens <= longest
    assert at == pytest.approx(2.0 * math.log2(tokens), abs=1.0)


def test_bins_are_half_octaves() -> None:
    """Two for each doubling, and what is empty is in the first."""
    assert [length_bin(tokens) for tokens in (0, 1, 2, 3, 4, 5, 6, 8, 1024, 1448, 1449)] == [
        0, 0, 2, 3, 4, 4, 5, 6, 20, 20, 21,
    ]  # fmt: skip
    assert bin_tokens(20) == (1024, 1448)


# ---------------------------------------------------------------------------------------------- columns


@few
@given(minutes())
def test_a_row_has_all_columns_and_comes_back(minute: EngineMinute) -> None:
    """Flat, and as it was."""
    row = flatten(minute)
    assert list(row) == list(COLUMNS)
    assert unflatten(row) == minute


def test_columns_have_the_names_that_a_table_wants() -> None:
    """No two parts have a column of one name, and units stand in them."""
    for name in (
        "engine", "gpu_name", "max_num_seqs", "measured_joules", "wasted_abort_joules", "prefill_tokens",
        "decode_steps_seconds", "prefill_steps_static_joules", "load_busy_seconds", "gpu_seconds",
        "gpu_sm_clock_hertz_seconds", "tasks", "finish_reasons", "laws",
    ):  # fmt: skip
        assert name in COLUMNS
    sections = (minute_part for minute_part in (PLAIN.kind, PLAIN.limits, PLAIN.joules, PLAIN.tokens,
                PLAIN.decode_steps, PLAIN.prefill_steps, PLAIN.load, PLAIN.gpu))  # fmt: skip
    assert len(COLUMNS) == 5 + sum(len(fields(part)) for part in sections)


def test_a_row_of_another_version_is_read() -> None:
    """Columns that it lacks have their defaults, and those that nobody knows are passed over."""
    row = {"engine": "e", "start": "1970-01-01T00:01:00Z", "end": "1970-01-01T00:02:00Z", "new_figure": 3}
    assert unflatten({**row, "measured_joules": None}) == PLAIN


def test_pairs_are_read_as_a_map() -> None:
    """As a Parquet reader gives them."""
    row = {**flatten(PLAIN), "finish_reasons": [("stop", 2), ("abort", 1)]}
    assert unflatten(row).finish_reasons == (("abort", 1), ("stop", 2))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"engine": None}, "column engine is missing"),
        ({"engine": 3}, "column engine: 3 is not of type str"),
        ({"start": "yesterday"}, "column start: 'yesterday' is no instant"),
        ({"end": "1969-01-01T00:00:00Z"}, "before the start"),
        ({"measured_joules": "many"}, "column measured_joules: 'many' is not of type float"),
        ({"measured_joules": float("nan")}, "column measured_joules: nan is not of type float"),
        ({"prefill_tokens": 1.5}, "column prefill_tokens: 1.5 is not of type int"),
        ({"prefill_tokens": True}, "column prefill_tokens: True is not of type int"),
        ({"tasks": "chat"}, "column tasks: 'chat' is no list"),
        ({"tasks": [{"task": "chat"}]}, "lacks task, prompt_bin or output_bin"),
        ({"tasks": [1]}, "column tasks: 1 is no object"),
        ({"finish_reasons": [("stop",)]}, "is no reason with its count"),
        ({"laws": "{"}, "column laws is no JSON"),
        ({"laws": "[]"}, "column laws: '\\[\\]' is no object"),
        ({"laws": {"cost": {}, "time_coefficients": [1.0]}}, "energy_coefficients are missing"),
        ({"laws": {"cost": {"weight_bytes": "a"}}}, "column laws.cost.weight_bytes"),
    ],
)
def test_a_row_with_a_wrong_value_is_refused(changed: dict[str, object], message: str) -> None:
    """The message names the column."""
    with pytest.raises(MinuteError, match=message):
        unflatten({**flatten(PLAIN), **changed})


# ------------------------------------------------------------------------------------------------ lines


@few
@given(minutes())
def test_a_line_comes_back_as_it_was(minute: EngineMinute) -> None:
    """To the last bit of every number."""
    line = json_line(minute)
    assert line.count("\n") == 1
    assert parse_line(line) == minute


def test_a_line_can_be_read_by_others() -> None:
    """Instants are ISO 8601, columns those of the table."""
    minute = replace(
        PLAIN, joules=Joules(measured=2.5), tokens=Tokens(prefill=7), tasks=(TaskSums("", 3, 4),)
    )
    row = json.loads(json_line(minute))
    assert (row["start"], row["measured_joules"], row["prefill_tokens"]) == (
        "1970-01-01T00:01:00.000000Z",
        2.5,
        7,
    )
    assert row["tasks"][0]["prompt_bin"] == 3


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    """Garbage ends in an error of one kind."""
    with pytest.raises(MinuteError):
        parse_line(data)


def test_a_file_names_the_line_that_is_wrong() -> None:
    """And passes empty ones over."""
    lines = [json_line(PLAIN), "\n", "{}\n"]
    with pytest.raises(MinuteError, match=r"x\.jsonl:3: column engine is missing"):
        list(read_lines(lines, "x.jsonl"))
    assert list(read_lines(lines[:2], "x.jsonl")) == [PLAIN]
