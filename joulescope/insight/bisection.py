"""Where a yes turns into a no, by halving."""

from __future__ import annotations

from collections.abc import Callable


def narrowed(
    low: float, high: float, is_below: Callable[[float], bool], halvings: int
) -> tuple[float, float]:
    """The part of ``low`` to ``high`` in which the value lies that divides those below it from the others.

    Args:
        is_below: whether a value is; up to some value yes, beyond it no.
        halvings: how often the stretch is halved, and ``is_below`` asked.
    """
    for _ in range(halvings):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return low, high
