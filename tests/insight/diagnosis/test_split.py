"""The exact division of a change."""

from __future__ import annotations

from itertools import combinations
from math import fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.insight.diagnosis.split import shapley

PLAYERS = ("a", "b", "c", "d")
SETS = [frozenset(chosen) for size in range(5) for chosen in combinations(PLAYERS, size)]
GAMES = st.tuples(*[st.floats(-100.0, 100.0)] * len(SETS)).map(
    lambda values: dict(zip(SETS, values, strict=True))
)


@given(GAMES)
def test_parts_sum_to_the_change(game: dict[frozenset[str], float]) -> None:
    """Whatever the states cost, nothing is lost and nothing is left over."""
    parts = shapley(PLAYERS, game.__getitem__)
    change = game[frozenset(PLAYERS)] - game[frozenset()]
    assert fsum(parts.values()) == pytest.approx(change, abs=1e-9)


def test_causes_that_act_apart_get_what_each_adds() -> None:
    """A sum of causes is divided into its terms."""
    adds = {"a": 1.0, "b": -2.0, "c": 0.25}
    parts = shapley(tuple(adds), lambda chosen: sum(adds[each] for each in chosen))
    assert parts == pytest.approx(adds)


def test_what_two_causes_do_together_is_halved() -> None:
    """A product: neither alone changes anything."""
    parts = shapley(("a", "b", "c"), lambda chosen: 6.0 if {"a", "b"} <= chosen else 0.0)
    assert parts == pytest.approx({"a": 3.0, "b": 3.0, "c": 0.0})
