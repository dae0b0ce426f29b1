"""A change, divided exactly among its causes: the Shapley value over the states between two windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from math import factorial

MOST_PLAYERS = 12
"""2^12 states of a millisecond or so."""


def shapley(players: Sequence[str], value: Callable[[frozenset[str]], float]) -> dict[str, float]:
    """What each player adds in the mean over all orders in which they may come.

    The parts sum to ``value(all) − value(none)``.

    Args:
        value: of every set of players; asked once for each.
    """
    values = {
        frozenset(chosen): value(frozenset(chosen))
        for size in range(len(players) + 1)
        for chosen in combinations(players, size)
    }
    count, shares = len(players), {}
    for player in players:
        others = [other for other in players if other != player]
        shares[player] = sum(
            factorial(size)
            * factorial(count - size - 1)
            / factorial(count)
            * (values[frozenset((*chosen, player))] - values[frozenset(chosen)])
            for size in range(count)
            for chosen in combinations(others, size)
        )
    return shares
