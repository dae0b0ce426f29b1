"""A steady state with how sure it is: the coefficients' covariance, and the distance from what was seen.

The laws' coefficients are known up to a covariance. Along each of its main axes they are moved by one
standard deviation, the steady state is found again, and the changes of each figure's logarithm add up in
squares. What the form of the laws cannot express, which grows with the distance from what was seen, is one
axis more for time and one for energy, moved to both sides: near the capacity steps that are a little longer
make much longer queues, and a little shorter ones do not make them as much shorter. To that comes what a
what-if assumes, and what a pipeline may be in of two states: the figures are found for the ends of each too,
and the interval holds them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.uncertainty import NORMAL_90
from joulescope.insight.capacity.doubt import coefficient_covariances
from joulescope.insight.capacity.observed import Observed
from joulescope.insight.capacity.support import Support, octaves_outside, support_of
from joulescope.insight.steady import Operation, Service, Workload, flight_chances, latencies, steady_state
from joulescope.minute_model import Laws

Floats = NDArray[np.float64]

FORM, FORM_BY_OCTAVE = 0.02, 0.03
"""Standard deviation, relative, of what the laws' form cannot express, in time and in energy: within what was
seen, and for each octave of batch beyond."""

FORM_FULL, FORM_FULL_PIPELINE = 0.05, 0.2
"""The same, more, while the KV cache holds requests back: in what order requests are pushed out and taken in
decides what is computed again. In a pipeline the steps that this makes long hold up all others."""

FORM_BY_STAGE = 0.03
"""The same, more, for each further stage of a pipeline, as steps follow one another in clumps that are not
foreseen."""

_FILLS = 0.8
"""Usage of the KV cache from which on it may be full now and then."""

FORM_PERCENTILE = {
    "inter_token_seconds": ((50.0, 0.04), (90.0, 0.12), (95.0, 0.22), (99.0, 0.28)),
    "first_token_seconds": ((50.0, 0.10), (90.0, 0.16), (95.0, 0.30), (99.0, 0.25)),
}
"""The same, more, of percentiles by their percent: what how they are drawn leaves out, lengths within a class
above all."""

_QUEUES = 0.7
"""Usage of the KV cache up to which the time to the first token is told as percentiles. Beyond, the cache is
full at times, and who then waits how long is not known."""

_SELDOM = 0.05
"""A state of a pipeline that is met less often is not in the interval."""

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

Reading = dict[str, float | None]
"""Figures of one service; ``None`` where one is not defined."""


@dataclass(frozen=True, slots=True)
class Percentile:
    """A percentile of one of the latencies."""

    figure: str
    """``inter_token_seconds`` or ``first_token_seconds``."""
    percent: float

    @property
    def name(self) -> str:
        return f"{self.figure}_p{self.percent:g}"


PERCENTILES = tuple(
    Percentile(figure, percent)
    for figure in ("inter_token_seconds", "first_token_seconds")
    for percent in (50.0, 90.0, 95.0, 99.0)
)
"""Those that are told of the load that was observed."""


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
        ceiling = setting.ceiling(workload) if setting.ceiling is not None else None
        figures = self._figures(lambda service: _read(workload, service), workload, setting, operation)
        joules = figures.get("joules_per_token")
        if ceiling is not None and joules is not None:
            figures["joules_per_token"] = replace(joules, high=max(joules.high, ceiling))
        return Forecast(operation, figures, bound, support)

    def percentiles(
        self, workload: Workload, setting: Setting, asked: Sequence[Percentile] = PERCENTILES
    ) -> dict[str, Figure]:
        """Percentiles of latencies by their names, in a setting that is not refused; those that are not
        defined, as while a queue grows, are missing."""

        operation = steady_state(workload, setting.service)
        if not queue_is_told(operation):
            asked = [each for each in asked if each.figure != "first_token_seconds"]

        def read(service: Service) -> Reading:
            found = latencies(workload, service)
            return {each.name: found.percentile(each.figure, each.percent) for each in asked}

        figures = self._figures(read, workload, setting, operation)
        for each in asked:
            if each.name in figures:
                percents, widths = zip(*FORM_PERCENTILE[each.figure], strict=True)
                off = math.exp(NORMAL_90 * float(np.interp(each.percent, percents, widths)))
                told = figures[each.name]
                figures[each.name] = Figure(told.value, told.low / off, told.high * off)
        return figures

    def _figures(
        self,
        read: Callable[[Service], Reading],
        workload: Workload,
        setting: Setting,
        operation: Operation,
    ) -> dict[str, Figure]:
        """Figures with their intervals, however they are read off a service."""
        service = setting.service
        variants = (*setting.variants, *_pipelines(workload, service))
        told = [read(each) for each in (service, *variants)]
        spread = self._spread(read, told[0], service, operation)
        figures = {}
        for name in told[0]:
            values = [each[name] for each in told]
            known = [value for value in values if value is not None and math.isfinite(value)]
            width = spread[name]
            # Where at one end of what is assumed the queue grows there is no longest time.
            if len(known) < len(values) or width is None:
                continue
            low, high = (math.exp(NORMAL_90 * math.hypot(side, FORM)) for side in width)
            figures[name] = Figure(known[0], min(known) / low, max(known) * high)
        return figures

    def _spread(
        self, read: Callable[[Service], Reading], now: Reading, service: Service, operation: Operation
    ) -> dict[str, tuple[float, float] | None]:
        """Relative standard deviation of each figure, down and up; ``None`` where it has no longest value."""
        if self._axes is None:
            kind = self.observed.kind
            self._axes = list(axes_of(self.observed.service.laws, kind.gpu_name, kind.gpu_count))
        pulls = [(moved_laws(service.laws, *axis), False) for axis in self._axes]
        for time, energy in self._form(service, operation):
            pulls += [(moved_laws(service.laws, sign * time, sign * energy), True) for sign in (1.0, -1.0)]
        squares: dict[str, list[float] | None] = {name: [0.0, 0.0] for name in now}
        for laws, one_sided in pulls:
            moved = read(replace(service, laws=laws))
            for name in now:
                _widen(squares, name, (now[name], moved[name]), one_sided)
        return {
            name: None if square is None else (math.sqrt(square[0]), math.sqrt(square[1]))
            for name, square in squares.items()
        }

    def _form(self, service: Service, operation: Operation) -> list[tuple[Floats, Floats]]:
        """What the form of the laws cannot express: of time, and of energy."""
        octaves = octaves_outside(operation.batch, self.observed.seen.batch)
        full = FORM_FULL_PIPELINE if service.pipeline_parallel > 1 else FORM_FULL
        staged = FORM_BY_STAGE * (service.pipeline_parallel - 1)
        form = math.hypot(FORM + FORM_BY_OCTAVE * octaves, full * _fullness(operation), staged)
        time, energy = np.ones(len(service.laws.time_coefficients)), np.ones(5)
        return [(form * time, 0.0 * energy), (0.0 * time, form * energy)]


def _read(workload: Workload, service: Service) -> Reading:
    operation = steady_state(workload, service)
    return {name: read(operation) for name, read in FIGURES.items()}


def queue_is_told(operation: Operation) -> bool:
    """Whether percentiles of the time to the first token can be told: the KV cache has room."""
    return (operation.kv_usage_ratio or 0.0) <= _QUEUES


def _fullness(operation: Operation) -> float:
    """How near the KV cache is to holding requests back, 0..1."""
    used = operation.kv_usage_ratio or 0.0
    return min(max(operation.kv_full_ratio, (used - _FILLS) / (1.0 - _FILLS), 0.0), 1.0)


def _widen(
    squares: dict[str, list[float] | None],
    name: str,
    values: tuple[float | None, float | None],
    one_sided: bool,
) -> None:
    """Adds what a figure changes by to the squares of its changes down and up."""
    square, (before, after) = squares[name], values
    if square is None or not before:
        return
    if after is None:
        squares[name] = None
    elif after > 0.0:
        change = math.log(after / before)
        for side in (int(change > 0.0),) if one_sided else (0, 1):
            square[side] += change**2


def _pipelines(workload: Workload, service: Service) -> tuple[Service, ...]:
    """The same with as many steps under way as a pipeline may have for minutes, where that is not certain."""
    if service.pipeline_parallel == 1 or service.flights is not None:
        return ()
    chances = flight_chances(workload, service)
    met = [flights for flights, chance in enumerate(chances, start=1) if chance > _SELDOM]
    if len(met) < 2:
        return ()
    return tuple(replace(service, flights=float(flights)) for flights in (met[0], met[-1]))


def axes_of(laws: Laws, gpu_name: str, gpu_count: int) -> Sequence[tuple[Floats, Floats]]:
    """Main axes of what is not known of the coefficients: relative changes of those of time and of energy,
    each of one standard deviation."""
    times, energies = coefficient_covariances(laws, gpu_name, gpu_count)
    time, energy = np.zeros(len(laws.time_coefficients)), np.zeros(len(laws.energy_coefficients))
    axes = [(axis, energy) for axis in _main_axes(times)]
    return axes + [(time, axis) for axis in _main_axes(energies)]


def _main_axes(covariance: Floats | None) -> list[Floats]:
    if covariance is None:
        return []
    variances, vectors = np.linalg.eigh(covariance)
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
