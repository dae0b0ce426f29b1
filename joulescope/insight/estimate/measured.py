"""What a meter says of the same quantities: power, throughput, lengths and joules, by minutes of engines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from joulescope.engine_model import TOKEN
from joulescope.errors import MinuteError
from joulescope.insight.estimate.distributions import Empirical, empirical
from joulescope.insight.estimate.mixture_fit import Mixture
from joulescope.minute_model import EngineMinute, TaskSums


@dataclass(frozen=True, slots=True)
class Measured:
    """Engines over some time. Joules are those of their GPUs, not of the node or the building."""

    engines: tuple[str, ...]
    gpu_names: tuple[str, ...]
    joules: float
    """All that was drawn."""
    serving_joules: float
    """Without idle time, startup and what could not be attributed."""
    busy_gpu_seconds: float
    """GPU time with a request running."""
    output_tokens: float
    """Generated, also for requests that did not finish."""
    queries: int
    """That finished."""
    input_tokens_mean: float
    output_tokens_mean: float
    """Of those that finished."""
    input_lengths: Empirical
    output_lengths: Empirical
    """By the cells of the mix, value by value together: within a cell all count as its mean."""
    mixture: Mixture
    """Lengths as they came together, of queries with tokens; its time is that of a node of one GPU."""

    @property
    def overhead_factor(self) -> float:
        """All joules, by those of serving: what stands beside the fleet's factor."""
        return self.joules / self.serving_joules

    @property
    def gpu_watts(self) -> float:
        """Of a GPU that serves."""
        return self.serving_joules / self.busy_gpu_seconds

    @property
    def gpu_tokens_per_second(self) -> float:
        """Output tokens a second, by GPU, with a request running."""
        return self.output_tokens / self.busy_gpu_seconds

    @property
    def joules_per_query(self) -> float:
        """Joules of an output token times the output tokens of a finished query."""
        return self.joules / self.output_tokens * self.output_tokens_mean


def measure(minutes: Iterable[EngineMinute], source: str) -> Measured:
    """Sums of minutes of engines that generate tokens.

    Args:
        source: where they are from, for messages.

    Raises:
        MinuteError: something that is needed was not measured; the message says what.
    """
    found = [minute for minute in minutes if minute.kind.unit == TOKEN]
    cells = _together(found)
    queries = sum(cell.requests for cell in cells)
    joules = sum(minute.joules.measured for minute in found)
    serving = sum(map(_serving_joules, found))
    busy = sum(map(_busy_gpu_seconds, found))
    tokens = sum(minute.tokens.generated for minute in found)
    lacking = [
        what
        for what, known in (
            ("a joule of a GPU", joules > 0.0 and serving > 0.0),
            ("time in which a request ran", busy > 0.0),
            ("an output token", tokens > 0),
            (
                "a finished request with tokens",
                any(map(_has_tokens, cells)),
            ),
        )
        if not known
    ]
    if lacking:
        raise MinuteError(f"{source}: to lay beside an estimate it lacks {', '.join(lacking)}")
    inputs, outputs = _lengths(cells)
    return Measured(
        engines=_names(minute.kind.engine for minute in found),
        gpu_names=_names(minute.kind.gpu_name for minute in found),
        joules=joules,
        serving_joules=serving,
        busy_gpu_seconds=busy,
        output_tokens=float(tokens),
        queries=queries,
        input_tokens_mean=sum(cell.prompt_tokens for cell in cells) / queries,
        output_tokens_mean=sum(cell.output_tokens for cell in cells) / queries,
        input_lengths=inputs,
        output_lengths=outputs,
        mixture=_mixture(cells, busy),
    )


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({name for name in names if name}))


def _serving_joules(minute: EngineMinute) -> float:
    joules = minute.joules
    return (
        joules.prefill
        + joules.decode
        + joules.overhead_dummy_batch
        + joules.overhead_preemption
        + joules.overhead_rejected_draft
    )


def _busy_gpu_seconds(minute: EngineMinute) -> float:
    """By the engine's gauges; by its steps where it has none."""
    if minute.load.seconds > 0.0:
        return minute.load.busy_seconds * minute.kind.gpu_count
    return sum(steps.seconds + steps.waited_seconds for steps in (minute.decode_steps, minute.prefill_steps))


def measured_lengths(minutes: Iterable[EngineMinute], source: str) -> tuple[Empirical, Empirical]:
    """Input and output tokens of finished requests by the cells of the mix, value by value together.

    Raises:
        MinuteError: none finished.
    """
    cells = [
        cell for minute in minutes if minute.kind.unit == TOKEN for cell in minute.tasks if cell.requests
    ]
    if not cells:
        raise MinuteError(f"{source}: no finished request in it: lengths are not known")
    return _lengths(cells)


def _lengths(cells: Sequence[TaskSums]) -> tuple[Empirical, Empirical]:
    """Input and output tokens, value by value together."""
    rows = [(cell.prompt_tokens / cell.requests, cell.output_tokens / cell.requests) for cell in cells]
    weights = [float(cell.requests) for cell in cells]
    inputs, outputs = zip(*rows, strict=True)
    return empirical(inputs, weights), empirical(outputs, weights)


def _together(minutes: Iterable[EngineMinute]) -> list[TaskSums]:
    """Finished requests of all minutes by the bins of their lengths, whatever their task."""
    found: dict[tuple[int, int], TaskSums] = {}
    for minute in minutes:
        for cell in minute.tasks:
            key = cell.prompt_bin, cell.output_bin
            before = found.get(key, TaskSums("", *key))
            found[key] = replace(
                before,
                requests=before.requests + cell.requests,
                prompt_tokens=before.prompt_tokens + cell.prompt_tokens,
                output_tokens=before.output_tokens + cell.output_tokens,
            )
    return [found[key] for key in sorted(found) if found[key].requests > 0]


def measured_mixtures(minutes: Iterable[EngineMinute], gpus_per_node: int, source: str) -> list[Mixture]:
    """What finished in each minute, and the time that it took of a node of that many GPUs.

    Of the GPU time with requests running, finished queries have the part of their tokens in all that were
    generated. Engines are taken to scale with their GPUs.

    Raises:
        MinuteError: there is no minute in which a request with tokens finished.
    """
    mixtures = []
    for minute in minutes:
        cells = [
            cell for cell in minute.tasks if min(cell.requests, cell.prompt_tokens, cell.output_tokens) > 0
        ]
        busy = _busy_gpu_seconds(minute)
        if minute.kind.unit != TOKEN or not cells or busy <= 0.0 or minute.tokens.generated <= 0:
            continue
        finished = sum(cell.output_tokens for cell in cells) / minute.tokens.generated
        mixtures.append(_mixture(cells, busy / gpus_per_node * finished))
    if not mixtures:
        raise MinuteError(f"{source}: no minute in which a request with tokens finished: nothing to fit")
    return mixtures


def _has_tokens(cell: TaskSums) -> bool:
    return min(cell.requests, cell.prompt_tokens, cell.output_tokens) > 0


def _mixture(cells: Iterable[TaskSums], node_seconds: float) -> Mixture:
    rows = [(cell.requests, cell.prompt_tokens, cell.output_tokens) for cell in cells if _has_tokens(cell)]
    queries, inputs, outputs = np.array(rows, dtype=np.float64).T
    return Mixture(queries, inputs / queries, outputs / queries, node_seconds)
