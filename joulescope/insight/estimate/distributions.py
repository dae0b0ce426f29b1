"""What a parameter may be: distributions that are drawn from, asked for quantiles, and written as text.

Each keeps the words it was asked for with, so that a parameter file reads back to the same numbers. Units are
those of the parameter; a distribution knows none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np

from joulescope.errors import ConfigError
from joulescope.insight.estimate.expression import Call, number_text, parse_call

Floats = np.ndarray[Any, np.dtype[np.float64]]

_NORMAL = NormalDist()
_QUANTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)")


class Distribution(Protocol):
    """One parameter's values and how likely they are."""

    @property
    def mean(self) -> float:
        """Of all values."""

    def quantile(self, share: float) -> float:
        """The value that ``share`` of all (0 < share < 1) do not exceed."""

    def sample(self, random: np.random.Generator, count: int) -> Floats:
        """``count`` independent values.

        Two distributions of one form take the same numbers from ``random``, so that a change of a parameter
        shows without the noise of other draws.
        """

    def text(self) -> str:
        """What :func:`parse_distribution` makes it of again."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """One value."""

    value: float

    @property
    def mean(self) -> float:
        return self.value

    def quantile(self, share: float) -> float:
        return self.value

    def sample(self, random: np.random.Generator, count: int) -> Floats:
        return np.full(count, self.value)

    def text(self) -> str:
        return number_text(self.value)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Each value from ``low`` to ``high`` as likely as another."""

    low: float
    high: float

    @property
    def mean(self) -> float:
        return 0.5 * (self.low + self.high)

    def quantile(self, share: float) -> float:
        return self.low + share * (self.high - self.low)

    def sample(self, random: np.random.Generator, count: int) -> Floats:
        return self.low + (self.high - self.low) * random.random(count)

    def text(self) -> str:
        return f"uniform({number_text(self.low)}, {number_text(self.high)})"


@dataclass(frozen=True, slots=True)
class Triangular:
    """From ``low`` to ``high``, most likely at ``mode``."""

    low: float
    mode: float
    high: float

    @property
    def mean(self) -> float:
        return (self.low + self.mode + self.high) / 3.0

    def quantile(self, share: float) -> float:
        return float(self._quantiles(np.asarray(share)))

    def _quantiles(self, shares: Floats) -> Floats:
        width, left, right = self.high - self.low, self.mode - self.low, self.high - self.mode
        below = self.low + np.sqrt(shares * width * left)
        above = self.high - np.sqrt((1.0 - shares) * width * right)
        return np.where(shares * width < left, below, above)

    def sample(self, random: np.random.Generator, count: int) -> Floats:
        return self._quantiles(random.random(count))

    def text(self) -> str:
        return f"triangular({', '.join(map(number_text, (self.low, self.mode, self.high)))})"


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Its logarithm is normal; asked for by two quantiles, or by a median and ``sigma`` of the logarithm."""

    median: float
    sigma: float
    asked: str

    @property
    def mean(self) -> float:
        return self.median * math.exp(0.5 * self.sigma**2)

    def quantile(self, share: float) -> float:
        return self.median * math.exp(self.sigma * _NORMAL.inv_cdf(share))

    def sample(self, random: np.random.Generator, count: int) -> Floats:
        return self.median * np.exp(self.sigma * random.standard_normal(count))

    def text(self) -> str:
        return f"lognormal({self.asked})"


@dataclass(frozen=True, slots=True)
class Exponential:
    """From zero on, each further unit as likely as the one before."""

    median: float

    @property
    def mean(self) -> float:
        return self.median / math.log(2.0)

    def quantile(self, share: float) -> float:
        return -self.mean * math.log1p(-share)

    def sample(self, random: np.random.Generator, count: int) -> Floats:
        return self.mean * random.standard_exponential(count)

    def text(self) -> str:
        return f"exponential(median={number_text(self.median)})"


@dataclass(frozen=True, slots=True)
class Empirical:
    """Values that were observed, each by its weight; weights sum to one.

    The order is that of the observations: two of the same weights may have been observed together.
    """

    values: tuple[float, ...]
    weights: tuple[float, ...]
    asked: str = ""
    """How it was asked for, where that is a file."""

    @property
    def mean(self) -> float:
        return math.fsum(value * weight for value, weight in zip(self.values, self.weights, strict=True))

    def quantile(self, share: float) -> float:
        values, weights = zip(*sorted(zip(self.values, self.weights, strict=True)), strict=True)
        found: float = values[min(int(np.searchsorted(np.cumsum(weights), share)), len(values) - 1)]
        return found

    def sample(self, random: np.random.Generator, count: int) -> Floats:
        found: Floats = np.asarray(self.values, dtype=np.float64)[self.places(random, count)]
        return found

    def places(self, random: np.random.Generator, count: int) -> np.ndarray[Any, np.dtype[np.intp]]:
        """Which of the values are drawn."""
        at = np.searchsorted(np.cumsum(self.weights), random.random(count))
        return np.minimum(at, len(self.values) - 1)

    def text(self) -> str:
        if self.asked:
            return f"empirical({self.asked})"
        values, weights = (", ".join(map(number_text, each)) for each in (self.values, self.weights))
        return f"empirical(values=[{values}], weights=[{weights}])"


def empirical(values: Sequence[float], weights: Sequence[float], asked: str = "") -> Empirical:
    """A distribution of values by their weights, in any measure; values of no weight are left out.

    Raises:
        ValueError: there is none, or one is negative, or all weigh nothing.
    """
    kept = [(value, weight) for value, weight in zip(values, weights, strict=True) if weight != 0.0]
    total = math.fsum(weight for _, weight in kept)
    if not kept or min(weight for _, weight in kept) < 0.0 or not 0.0 < total < math.inf:
        raise ValueError("no value has a weight above zero")
    # What is written reads back to the same: weights that sum to one but for rounding stay as they are.
    scale = 1.0 if math.isclose(total, 1.0, rel_tol=1e-12) else total
    return Empirical(tuple(value for value, _ in kept), tuple(weight / scale for _, weight in kept), asked)


# ---------------------------------------------------------------------------------------------- reading


def parse_distribution(
    given: object, where: str, *, read_file: Callable[[Call], Distribution] | None = None
) -> Distribution:
    """What a flag or a YAML value asks for: a number, or an expression.

    Args:
        where: what it is the value of, for messages.
        read_file: makes ``empirical(FILE)``; ``None`` where files are not to be read.

    Raises:
        ConfigError: it is none; the message says what was written, and how it is written.
    """
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise ConfigError(f"{where}: {given!r} is no distribution; {_KNOWN}")
    call = parse_call(str(given), where)
    if isinstance(call, float):
        return Fixed(call)
    if call.name == "empirical" and "values" not in call.named:
        if read_file is None:
            raise call.error("give values=[…] and weights=[…]: files are not read here")
        return read_file(call)
    make = _MAKERS.get(call.name)
    if make is None:
        raise call.error(f"{call.name} is not known; {_KNOWN}")
    return make(call)


def _fixed(call: Call) -> Distribution:
    return Fixed(call.numbers(required=("value",))["value"])


def _uniform(call: Call) -> Distribution:
    made = Uniform(**call.numbers(required=("low", "high")))
    if made.low > made.high:
        raise call.error("low is above high")
    return made


def _triangular(call: Call) -> Distribution:
    made = Triangular(**call.numbers(required=("low", "mode", "high")))
    if not made.low <= made.mode <= made.high or made.low == made.high:
        raise call.error("low, mode and high are to rise in this order")
    return made


def _lognormal(call: Call) -> Distribution:
    """Two points of the distribution function, or a median and sigma."""
    if call.positional:
        raise call.error("name what is given: two quantiles (p5=…, p95=…), or median=… and sigma=…")
    values = {key: call.number(value, key) for key, value in call.named.items()}
    asked = ", ".join(f"{key}={number_text(value)}" for key, value in values.items())
    if values.keys() == {"median", "sigma"}:
        if values["median"] <= 0.0 or values["sigma"] < 0.0:
            raise call.error("the median is to be above 0, and sigma not below 0")
        return Lognormal(values["median"], values["sigma"], asked)
    points = sorted((_share(call, key), value) for key, value in values.items())
    if len(points) != 2:
        raise call.error("it takes two quantiles, such as p5=… and p95=…, or median=… and sigma=…")
    (low, low_value), (high, high_value) = points
    if low == high:
        raise call.error("both quantiles are the same")
    if not 0.0 < low_value <= high_value:
        raise call.error("quantiles are to be above 0, the higher not below the lower")
    low_z, high_z = _NORMAL.inv_cdf(low), _NORMAL.inv_cdf(high)
    sigma = (math.log(high_value) - math.log(low_value)) / (high_z - low_z)
    try:
        return Lognormal(low_value * math.exp(-sigma * low_z), sigma, asked)
    except OverflowError:
        raise call.error("its quantiles lie too far apart") from None


def _share(call: Call, key: str) -> float:
    if key == "median":
        return 0.5
    found = _QUANTILE.fullmatch(key)
    if found is None or not 0.0 < float(found[1]) < 100.0:
        raise call.error(f"{key} is not known; quantiles are p1 to p99, or median")
    return float(found[1]) / 100.0


def _exponential(call: Call) -> Distribution:
    values = call.numbers(optional=("median", "mean"))
    if len(values) != 1:
        raise call.error("give either median=… or mean=…")
    value = values.get("median", values.get("mean", 0.0) * math.log(2.0))
    if value <= 0.0:
        raise call.error("it is to be above 0")
    return Exponential(value)


def _empirical(call: Call) -> Distribution:
    given = call.take(required=("values",), optional=("weights",))
    values = given["values"]
    weights = given.get("weights", (1.0,) * len(values) if isinstance(values, tuple) else ())
    if not isinstance(values, tuple) or not isinstance(weights, tuple) or len(values) != len(weights):
        raise call.error("values and weights are to be lists of numbers, of one length")
    if min(weights) < 0.0:
        raise call.error("a weight is below 0")
    try:
        return empirical(values, weights)
    except ValueError as error:
        raise call.error(str(error)) from error


_MAKERS: Mapping[str, Callable[[Call], Distribution]] = {
    "fixed": _fixed,
    "uniform": _uniform,
    "triangular": _triangular,
    "lognormal": _lognormal,
    "exponential": _exponential,
    "empirical": _empirical,
}

_KNOWN = (
    "give a number, fixed(x), uniform(low, high), triangular(low, mode, high), lognormal(p5=…, p95=…), "
    "lognormal(median=…, sigma=…), exponential(median=…), empirical(FILE), empirical(FILE, column=NAME) or "
    "empirical(values=[…], weights=[…])"
)
