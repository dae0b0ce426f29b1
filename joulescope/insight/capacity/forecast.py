"""A steady state with how sure it is: the coefficients' covariance, and the distance from what was seen.

The laws' coefficients are known up to a covariance. Along each of its main axes they are moved by one
standard deviation, the steady state is found again, and the changes of each figure's logarithm add up in
squares. To that comes what the form of the laws cannot express, which grows with the distance from what was
seen, and what a what-if assumes: the figures are found for the ends of each assumption too, and the interval
holds them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.uncertainty import ATTRIBUTED, NORMAL_90
from joulescope.insight.capacity.observed import Observed
from joulescope.insight.capacity.support import Support, support_of
from joulescope.insight.steady import Operation, Service, Workload, steady_state
from joulescope.minute_model import Laws

Floats = NDArray[np.float64]

FORM, FORM_BY_OCTAVE = 0.02, 0.03
"""Standard deviation, relative, of what the laws' form cannot express: within what was seen, and for each
octave of batch beyond. Set on simulated worlds, see ``benchmarks/results/capacity.md``."""

_NEGLIGIBLE = 1e-4
"""Part of the covariance's variance below which an axis is left out."""

FIGURES: dict[str, Callable[[Operation], float | None]] = {
    "joules_per_token": lambda at: None if at.joules_per_token is None else at.joules_per_token.total,
    "inter_token_seconds": lambda at: at.inter_token_seconds,
    "first_token_seconds": lambda at: at.first_token_seconds,
    "tokens_per_second": lambda at: at.tokens_per_second,
    "requests_per_second": lambda at: at.requests_per_second,
    "watts": lambda at: at.watts,
}
"""What is foreseen with an interval."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its 90 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """A steady state and how sure it is."""

    operation: Operation
    figures: dict[str, Figure]
    """By the names of :data:`FIGURES`; those that are not defined are missing. Empty where refused."""
    bound: str
    """What sets the pace of most steps: ``memory``, ``compute`` or ``power``."""
    support: Support

    def value(self, name: str) -> float | None:
        """A figure's value, if it is defined."""
        figure = self.figures.get(name)
        return None if figure is None else figure.value


@dataclass(frozen=True, slots=True)
class Setting:
    """A service that may differ from the observed one, and what that assumes."""

    name: str
    service: Service
    variants: tuple[Service, ...] = ()
    """The same by the ends of each assumption."""
    ceiling: Callable[[Workload], float] | None = None
    """Joules per token that others measured, at most; moves the upper end only."""
    assumptions: tuple[str, ...] = ()
    speculative: bool = False
    """Whether no data at all stand behind it."""


@dataclass(slots=True)
class Forecaster:
    """Foresees what an observed engine would do."""

    observed: Observed
    _axes: list[tuple[Floats, Floats]] | None = field(default=None, init=False)

    def of(self, workload: Workload, setting: Setting) -> Forecast:
        """The steady state of a setting under a workload."""
        operation = steady_state(workload, setting.service)
        bound = bound_of(operation, setting.service.laws)
        support = support_of(operation.batch, self.observed.seen, bound)
        if setting.speculative:
            notes = (*support.notes, f"{setting.name} was not seen")
            support = replace(
                support, verdict="beyond" if support.verdict == "seen" else support.verdict, notes=notes
            )
        if support.verdict == "refused":
            return Forecast(operation, {}, bound, support)
        spread = self._spread(workload, setting.service, operation)
        others = [steady_state(workload, variant) for variant in setting.variants]
        ceiling = setting.ceiling(workload) if setting.ceiling is not None else None
        form = FORM + FORM_BY_OCTAVE * support.octaves
        figures = {}
        for name, read in FIGURES.items():
            value = read(operation)
            if value is None or not math.isfinite(value):
                continue
            width = NORMAL_90 * math.hypot(spread.get(name, 0.0), form)
            told = [read(other) for other in others]
            if None in told:  # at one end of what is assumed the queue grows: there is no longest time
                continue
            ends = [value, *(end for end in told if end is not None)]
            if ceiling is not None and name == "joules_per_token":
                ends.append(ceiling)
            figures[name] = Figure(value, min(ends) * math.exp(-width), max(ends) * math.exp(width))
        return Forecast(operation, figures, bound, support)

    def _spread(self, workload: Workload, service: Service, operation: Operation) -> dict[str, float]:
        """Relative standard deviation of each figure by the coefficients' covariance."""
        if self._axes is None:
            self._axes = list(axes_of(self.observed.service.laws))
        squares: dict[str, float] = dict.fromkeys(FIGURES, 0.0)
        for time, energy in self._axes:
            moved = steady_state(workload, replace(service, laws=moved_laws(service.laws, time, energy)))
            for name, read in FIGURES.items():
                one, two = read(operation), read(moved)
                if one and two:
                    squares[name] += math.log(two / one) ** 2
        return {name: math.sqrt(square) for name, square in squares.items()}


def axes_of(laws: Laws) -> Sequence[tuple[Floats, Floats]]:
    """Main axes of what is not known of the coefficients: relative changes of those of time and of energy,
    each of one standard deviation."""
    time, energy = np.zeros(len(laws.time_coefficients)), np.zeros(len(laws.energy_coefficients))
    axes = [(axis, energy) for axis in _main_axes(laws.time_covariance)]
    return axes + [(time, axis) for axis in _main_axes(laws.energy_covariance)]


def _main_axes(covariance: tuple[tuple[float, ...], ...]) -> list[Floats]:
    if not covariance:
        return []
    variances, vectors = np.linalg.eigh(np.array(covariance) * ATTRIBUTED.coefficients**2)
    kept = variances > _NEGLIGIBLE * max(float(variances.sum()), 1e-300)
    return [
        np.asarray(vector * math.sqrt(variance))
        for variance, vector in zip(variances[kept].tolist(), vectors.T[kept], strict=True)
    ]


def moved_laws(laws: Laws, time: Floats, energy: Floats) -> Laws:
    """The laws with their coefficients changed by so much, relative; none becomes negative."""
    return replace(
        laws,
        time_coefficients=tuple((np.array(laws.time_coefficients) * np.exp(time)).tolist()),
        energy_coefficients=tuple((np.array(laws.energy_coefficients) * np.exp(energy)).tolist()),
    )


def bound_of(operation: Operation, laws: Laws) -> str:
    """What sets the pace: power where steps draw the limit, else arithmetic where it takes most of the time,
    else memory."""
    parts = operation.joules_per_token
    if parts is None:
        return "memory"
    dynamic = parts.weights + parts.kv + parts.flops + parts.sequences
    active_watts = laws.energy_coefficients[4]
    busy = parts.static / max(active_watts, 1e-12)
    if laws.limit_watts and dynamic / max(busy, 1e-12) >= 0.98 * (laws.limit_watts - active_watts):
        return "power"
    arithmetic = parts.flops / max(laws.energy_coefficients[2], 1e-30) * laws.time_coefficients[4]
    return "compute" if arithmetic > 0.5 * busy else "memory"
