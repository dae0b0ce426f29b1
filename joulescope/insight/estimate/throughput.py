"""Tokens a second of a node by the lengths of its queries: a law in logarithms, a table, and fits of laws.

The form is that of arXiv 2509.20241: ln TPS is piecewise linear in ln L_in and ln L_out, and never above the
most that was observed. Here the pieces join: slopes change at knots, the law does not jump.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """One observation: mean tokens of a query, and output tokens a second of the whole node."""

    input_tokens: float
    output_tokens: float
    tokens_per_second: float
    weight: float = 1.0


class Throughput(Protocol):
    """Output tokens a second of a node, at full load."""

    @property
    def scatter(self) -> float:
        """Standard deviation of ln TPS about it."""

    @property
    def input_range(self) -> Range | None:
        """Tokens for which it was observed; ``None`` where that is not said. So the next."""

    @property
    def output_range(self) -> Range | None: ...

    def rates(self, input_tokens: Floats, output_tokens: Floats) -> Floats:
        """Tokens a second, for arrays of one shape."""


@dataclass(frozen=True, slots=True)
class Law:
    """ln TPS = intercept + f(ln L_in) + g(ln L_out), f and g piecewise linear and joined, zero at ln 1."""

    intercept: float
    """ln(tokens/s) at one token of input and output."""
    input_slopes: tuple[float, ...] = (0.0,)
    """Of each piece, from short to long."""
    input_knots: tuple[float, ...] = ()
    """Tokens where one piece ends and the next begins."""
    output_slopes: tuple[float, ...] = (0.0,)
    output_knots: tuple[float, ...] = ()
    most_tokens_per_second: float | None = None
    """The law is cut off there."""
    scatter: float = 0.0
    input_range: Range | None = None
    output_range: Range | None = None
    source: str = ""

    def __post_init__(self) -> None:
        """Refuses what is no law.

        Raises:
            ValueError: slopes and knots do not go together, or a figure is not to be used.
        """
        for name, slopes, knots in (
            ("input", self.input_slopes, self.input_knots),
            ("output", self.output_slopes, self.output_knots),
        ):
            if len(slopes) != len(knots) + 1:
                raise ValueError(f"{name}_slopes takes one more value than {name}_knots")
            if not all(1.0 < knot < math.inf for knot in knots) or _falls(knots):
                raise ValueError(f"{name}_knots are to rise, and to be above one token")
        figures = (self.intercept, *self.input_slopes, *self.output_slopes)
        if not all(map(math.isfinite, figures)):
            raise ValueError("a coefficient is not finite")
        _refuse_scatter(self.scatter)
        if self.most_tokens_per_second is not None and not 0.0 < self.most_tokens_per_second < math.inf:
            raise ValueError("most_tokens_per_second is to be above 0")
        for name, seen in (("input_range", self.input_range), ("output_range", self.output_range)):
            if seen is not None and (len(seen) != 2 or not 0.0 <= seen[0] <= seen[1] < math.inf):
                raise ValueError(f"{name} takes the fewest tokens and the most")

    def rates(self, input_tokens: Floats, output_tokens: Floats) -> Floats:
        """Tokens a second; lengths below one token count as one."""
        logs = (
            self.intercept
            + _pieces(input_tokens, self.input_slopes, self.input_knots)
            + _pieces(output_tokens, self.output_slopes, self.output_knots)
        )
        found: Floats = np.exp(logs)
        most = self.most_tokens_per_second
        return found if most is None else np.minimum(found, most)


def _pieces(tokens: Floats, slopes: Sequence[float], knots: Sequence[float]) -> Floats:
    logs = _logs(tokens)
    found: Floats = slopes[0] * logs
    for before, after, knot in zip(slopes, slopes[1:], knots, strict=False):
        found = found + (after - before) * np.maximum(logs - math.log(knot), 0.0)
    return found


def _logs(tokens: Floats) -> Floats:
    logs: Floats = np.log(np.maximum(tokens, 1.0))
    return logs


def _falls(values: Sequence[float]) -> bool:
    return list(values) != sorted(set(values))


def _refuse_scatter(scatter: float) -> None:
    if not 0.0 <= scatter < math.inf:
        raise ValueError("the scatter is to be 0 or above")


def constant(tokens_per_second: float, source: str = "") -> Law:
    """The same for all lengths.

    Raises:
        ValueError: it is not above 0, or not finite.
    """
    if not 0.0 < tokens_per_second < math.inf:
        raise ValueError(f"{tokens_per_second:g} tokens a second are not above 0 and finite")
    return Law(math.log(tokens_per_second), source=source)


@dataclass(frozen=True, slots=True)
class Table:
    """TPS on a grid of lengths; in between linear in logarithms, beyond its edges as at the edge."""

    input_tokens: tuple[float, ...]
    output_tokens: tuple[float, ...]
    tokens_per_second: tuple[tuple[float, ...], ...]
    """A row for each of ``input_tokens``."""
    scatter: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        """Refuses what is no table.

        Raises:
            ValueError: the axes do not rise, or a cell is missing or not above 0.
        """
        for name in ("input_tokens", "output_tokens"):
            axis = getattr(self, name)
            if not axis or not all(1.0 <= tokens < math.inf for tokens in axis) or _falls(axis):
                raise ValueError(f"{name} are to rise, from one token on")
        rows = self.tokens_per_second
        if len(rows) != len(self.input_tokens) or any(len(row) != len(self.output_tokens) for row in rows):
            raise ValueError(
                "tokens_per_second takes a row for each of input_tokens, with a value for each of "
                "output_tokens"
            )
        if not all(0.0 < value < math.inf for row in rows for value in row):
            raise ValueError("tokens_per_second are to be above 0")
        _refuse_scatter(self.scatter)

    @property
    def input_range(self) -> Range:
        return self.input_tokens[0], self.input_tokens[-1]

    @property
    def output_range(self) -> Range:
        return self.output_tokens[0], self.output_tokens[-1]

    def rates(self, input_tokens: Floats, output_tokens: Floats) -> Floats:
        """Tokens a second."""
        row, down = _place(input_tokens, self.input_tokens)
        column, right = _place(output_tokens, self.output_tokens)
        logs = np.log(np.asarray(self.tokens_per_second))
        last_row, last_column = logs.shape[0] - 1, logs.shape[1] - 1
        next_row, next_column = np.minimum(row + 1, last_row), np.minimum(column + 1, last_column)
        upper = (1.0 - right) * logs[row, column] + right * logs[row, next_column]
        lower = (1.0 - right) * logs[next_row, column] + right * logs[next_row, next_column]
        found: Floats = np.exp((1.0 - down) * upper + down * lower)
        return found


def _place(tokens: Floats, axis: Sequence[float]) -> tuple[np.ndarray[Any, np.dtype[np.intp]], Floats]:
    """The cell of each length, and how far it is in it, in logarithms."""
    logs = np.clip(_logs(tokens), math.log(axis[0]), math.log(axis[-1]))
    edges = np.log(np.asarray(axis))
    cell = np.clip(np.searchsorted(edges, logs, side="right") - 1, 0, max(len(axis) - 2, 0))
    if len(axis) == 1:
        return cell, np.zeros_like(logs)
    return cell, (logs - edges[cell]) / (edges[cell + 1] - edges[cell])


# ---------------------------------------------------------------------------------------------- fitting


@dataclass(frozen=True, slots=True)
class Fit:
    """A law and how well it is known."""

    law: Law
    points: int
    notes: tuple[str, ...]
    """What the points do not say, in words."""


def fit(
    points: Sequence[Point],
    *,
    input_knots: Sequence[float] = (),
    output_knots: Sequence[float] = (),
    cut_off: bool = True,
    source: str = "",
) -> Fit:
    """Weighted least squares in logarithms; what the points do not tell apart gets the smallest slopes.

    Args:
        cut_off: whether the law ends at the most that was observed, as the paper's does.

    Raises:
        ValueError: there is no point, or one is not above 0.
    """
    if not points:
        raise ValueError("there is no point to fit")
    for each in points:
        figures = (each.input_tokens, each.output_tokens, each.tokens_per_second, each.weight)
        if not all(0.0 < figure < math.inf for figure in figures):
            raise ValueError(f"a point is not above 0: {each}")
    table = np.array([(p.input_tokens, p.output_tokens, p.tokens_per_second, p.weight) for p in points])
    inputs, outputs, rates, weights = table.T
    columns = [*hinges(inputs, input_knots), *hinges(outputs, output_knots)]
    design, logs = np.column_stack(columns), np.log(rates)
    root = np.sqrt(weights / weights.sum())
    middle, level = np.average(design, axis=0, weights=weights), np.average(logs, weights=weights)
    changes, _, rank, _ = np.linalg.lstsq(
        (design - middle) * root[:, None], (logs - level) * root, rcond=1e-9
    )
    left = logs - level - (design - middle) @ changes
    free = len(points) - rank - 1
    spread = (
        math.sqrt(float(np.sum(weights * left**2) / weights.sum()) * len(points) / free) if free > 0 else 0.0
    )
    split = len(input_knots) + 1
    law = Law(
        intercept=float(level - middle @ changes),
        input_slopes=tuple(map(float, np.cumsum(changes[:split]))),
        input_knots=tuple(input_knots),
        output_slopes=tuple(map(float, np.cumsum(changes[split:]))),
        output_knots=tuple(output_knots),
        most_tokens_per_second=float(rates.max()) if cut_off else None,
        scatter=spread,
        input_range=(float(inputs.min()), float(inputs.max())),
        output_range=(float(outputs.min()), float(outputs.max())),
        source=source,
    )
    return Fit(law, len(points), tuple(_notes(int(rank), design.shape[1], free)))


def hinges(tokens: Floats, knots: Sequence[float]) -> list[Floats]:
    """Columns of a law that is linear in ln tokens up to the first knot, and bends at each."""
    logs = _logs(tokens)
    return [logs, *(np.maximum(logs - math.log(knot), 0.0) for knot in knots)]


def _notes(rank: int, columns: int, free: int) -> list[str]:
    notes = []
    if rank < columns:
        notes.append(
            f"the points tell {rank} of {columns} slopes apart: lengths vary too little, or together; the "
            "law holds near the lengths that were seen"
        )
    if free <= 0:
        notes.append("as many coefficients as points: how far the law is off is not known")
    return notes


def scaled(throughput: Throughput, factor: float) -> Throughput:
    """The same with ``factor`` times the tokens a second."""
    if isinstance(throughput, Table):
        rows = tuple(tuple(factor * value for value in row) for row in throughput.tokens_per_second)
        return replace(throughput, tokens_per_second=rows)
    if isinstance(throughput, Law):
        most = throughput.most_tokens_per_second
        return replace(
            throughput,
            intercept=throughput.intercept + math.log(factor),
            most_tokens_per_second=None if most is None else most * factor,
        )
    raise TypeError(f"{type(throughput).__name__} cannot be scaled")
