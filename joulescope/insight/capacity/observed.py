"""What minutes of an engine say of it: who asks for what, what serves it, how it fared, and in what range."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from joulescope.errors import PlanError
from joulescope.insight.steady import LengthClass, Operation, Service, Workload, steady_state
from joulescope.insight.steady.requests import mean_of
from joulescope.minute_model import EngineMinute, Kind, Laws, Steps
from joulescope.minutes import merge

_LEAST_STEPS = 100.0
"""A minute with fewer steps does not tell what batches there were."""

_LEAST_TIMES, _ENERGIES = 5, 5
"""Coefficients of laws; those of time are more with experts."""

_FAR_OFF = 0.25
"""Where measured joules are further from the laws' than this, relative, the laws are of something else."""


@dataclass(frozen=True, slots=True)
class Span:
    """From the lowest to the highest that was seen, minute by minute."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Seen:
    """Ranges in which an engine was seen, and what held its steps back there."""

    batch: Span
    prompt_tokens: Span
    power_limit_watts: Span | None
    memory_bound: bool
    compute_bound: bool
    power_bound: bool


@dataclass(frozen=True, slots=True)
class Fared:
    """How it went, in the mean. ``None``: not known."""

    seconds: float
    batch: float
    running: float | None
    joules_per_token: float | None
    busy_joules_per_token: float | None
    """Without idle joules."""
    watts: float
    """Of all its GPUs, over the time that was measured: while the engine was not heard they drew too."""
    tokens_per_second: float
    requests_per_second: float
    step_seconds: float
    kv_usage_ratio: float | None
    first_token_seconds: float | None
    """As the engine sees it, from where it takes a request in."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One engine, as its minutes tell of it."""

    kind: Kind
    workload: Workload
    service: Service
    """With laws of which the joules are scaled to those that were measured."""
    seen: Seen
    fared: Fared
    minutes: int
    scale: float
    """Measured joules of steps by those of the laws; contained in the service's laws."""


def observe(minutes: Sequence[EngineMinute], engine: str | None = None) -> Observed:
    """What the minutes of one engine say; of several kinds of one engine the latest.

    Args:
        minutes: of any engines.
        engine: its label; may be left out where there is only one.

    Raises:
        PlanError: there are no minutes of it, or not enough is known.
    """
    mine = _minutes_of(minutes, engine)
    latest = max(mine, key=lambda minute: minute.end_wall_seconds)
    mine = [minute for minute in mine if minute.kind == latest.kind]
    label = latest.kind.engine
    taught = _taught(mine, label)
    whole = _sum(mine)
    classes = _classes(whole, label)
    laws, scale = _scaled(whole, taught, label)
    passes, drafted = _drafts(whole)
    workload = Workload(classes, arrivals_per_second=_rate(whole), shared_tokens=0.0)
    service = Service(
        laws=laws,
        limits=latest.limits,
        gpu_count=max(latest.kind.gpu_count, 1),
        tokens_per_pass=passes,
        drafted_per_pass=drafted,
        pipeline_parallel=max(latest.kind.pipeline_parallel, 1),
    )
    workload = replace(workload, shared_tokens=_shared(whole, workload, service))
    fared = _fared(whole)
    service = _in_flight(workload, service, fared)
    service = _scheduling(workload, service, fared)
    return Observed(
        kind=latest.kind,
        workload=workload,
        service=service,
        seen=_seen(mine),
        fared=fared,
        minutes=len(mine),
        scale=scale,
    )


def _taught(minutes: Sequence[EngineMinute], label: str) -> Laws:
    """The latest laws.

    Raises:
        PlanError: there are none, or nothing can be foreseen by them.
    """
    told = [minute for minute in minutes if minute.laws is not None]
    laws = max(told, key=lambda minute: minute.end_wall_seconds).laws if told else None
    if laws is None:
        raise PlanError(
            f"engine {label}: no minute has a fitted cost model. Let it serve for some minutes, or check "
            "that its GPUs are measured with 'joulescope doctor'"
        )
    if not is_of_known_form(laws):
        raise PlanError(
            f"engine {label}: its minutes have a cost model of another form than this version knows. Read "
            "them with the version that made them"
        )
    if not laws.cost.weight_bytes:
        raise PlanError(
            f"engine {label} does not say what its steps read and compute (bytes of weights), so nothing can "
            "be foreseen of it"
        )
    return laws


def is_of_known_form(laws: Laws) -> bool:
    """Whether there are as many coefficients as are known of, not all nothing, and covariances to match."""
    times, energies = laws.time_coefficients, laws.energy_coefficients
    alike = all(
        not covariance or {len(covariance), *map(len, covariance)} == {len(coefficients)}
        for covariance, coefficients in (
            (laws.time_covariance, times),
            (laws.energy_covariance, energies),
        )
    )
    return (
        alike
        and len(times) >= _LEAST_TIMES
        and len(energies) == _ENERGIES
        and min(max(times), max(energies)) > 0.0
    )


def _in_flight(workload: Workload, service: Service, fared: Fared) -> Service:
    """Of a pipeline: what its stages wait for each other is taken off the fitted waits. What that is follows
    from how many steps were under way at a time."""
    stages = service.pipeline_parallel
    if stages == 1 or fared.running is None:
        return service
    flights = min(max(fared.running / max(fared.batch, 1.0), 1.0), float(stages))
    by_step, by_request = service.laws.wait_seconds
    alone = replace(service, flights=flights, laws=replace(service.laws, wait_seconds=(0.0, 0.0)))
    wait = by_step + by_request * fared.batch - _stage_wait(steady_state(workload, alone), alone)
    return replace(service, laws=replace(service.laws, wait_seconds=(max(wait, 0.0), 0.0)))


def _stage_wait(operation: Operation, service: Service) -> float:
    """Seconds by step for which a stage waits, with requests running."""
    waiting = 0.0 if operation.joules_per_token is None else operation.joules_per_token.waiting
    idle_watts = service.gpu_count * service.laws.idle_watts
    if idle_watts <= 0.0 or operation.busy_ratio <= 0.0:
        return 0.0
    waited = waiting * operation.tokens_per_second / idle_watts
    return operation.step_seconds * waited / max(operation.busy_ratio - waited, 1e-9)


def _scheduling(workload: Workload, service: Service, fared: Fared) -> Service:
    """Whether steps are scheduled ahead, which engines do not tell: what agrees better with the time to the
    first token that was seen."""
    seen = fared.first_token_seconds
    if seen is None or not workload.arrivals_per_second:
        return service
    ahead, behind = (replace(service, async_scheduling=scheduled) for scheduled in (True, False))
    off = [_off(steady_state(workload, each), seen) for each in (ahead, behind)]
    return ahead if off[0] <= off[1] else behind


def _off(operation: Operation, seen: float) -> float:
    """How far the foreseen time to the first token is from that which the engine saw."""
    foreseen = operation.first_token_seconds
    return math.inf if foreseen is None else abs(foreseen - operation.intake_seconds - seen)


def _minutes_of(minutes: Sequence[EngineMinute], engine: str | None) -> list[EngineMinute]:
    there = sorted({minute.kind.engine for minute in minutes if minute.kind.engine})
    if not there:
        raise PlanError("there are no minutes of an engine in the source")
    if engine is None:
        if len(there) > 1:
            raise PlanError(
                f"the source tells of several engines: name one with --engine ({', '.join(there)})"
            )
        engine = there[0]
    if engine not in there:
        raise PlanError(f"the source does not tell of engine {engine}; there are: {', '.join(there)}")
    return [minute for minute in minutes if minute.kind.engine == engine]


def _sum(minutes: Iterable[EngineMinute]) -> EngineMinute:
    """All of one kind in one, whatever their limits: the figures that are summed do not depend on them."""
    listed = list(minutes)
    first = listed[0]
    alike = [
        replace(each, limits=first.limits, laws=None, start_wall_seconds=first.start_wall_seconds)
        for each in listed
    ]
    (whole,) = merge(alike)
    return whole


def all_steps(minute: EngineMinute) -> tuple[Steps, Steps]:
    return minute.decode_steps, minute.prefill_steps


def _classes(whole: EngineMinute, label: str) -> tuple[LengthClass, ...]:
    classes = tuple(
        LengthClass(
            weight=float(cell.requests),
            prompt_tokens=cell.prompt_tokens / cell.requests,
            output_tokens=cell.output_tokens / cell.requests,
            cached_tokens=cell.cached_tokens / cell.requests,
            task=cell.task,
        )
        for cell in whole.tasks
        if cell.requests and cell.prompt_tokens
    )
    if not classes:
        raise PlanError(f"engine {label}: no request ended in these minutes, so that no lengths are known")
    return classes


def _rate(whole: EngineMinute) -> float:
    if whole.load.seconds <= 0.0:
        return 0.0
    return whole.load.requests_started / whole.load.seconds


def _scaled(whole: EngineMinute, laws: Laws, label: str) -> tuple[Laws, float]:
    """The laws with the joules that were measured of the steps, and by how much these are more.

    The minutes' own modelled joules are by the laws of their moment, which may still have been learning.
    """
    measured = joules_of_steps(whole, laws.idle_watts)
    work = work_of_steps(whole, whole.kind.gpu_count)
    steps = sum(price * amount for price, amount in zip(laws.energy_coefficients, work, strict=True))
    if steps <= 0.0 or measured <= 0.0:
        return laws, 1.0
    scale = measured / steps
    if abs(scale - 1.0) > _FAR_OFF:
        raise PlanError(
            f"engine {label}: measured joules are {scale:.2f} times what its cost model says, so the model "
            "does not describe these minutes. Take a window in which it ran alone and nothing changed"
        )
    return replace(laws, energy_coefficients=tuple(scale * each for each in laws.energy_coefficients)), scale


def joules_of_steps(whole: EngineMinute, idle_watts: float) -> float:
    """Measured joules of the steps alone: what the GPUs drew while they waited for the host is taken off."""
    joules = whole.joules
    measured = joules.prefill + joules.decode + joules.overhead_preemption + joules.overhead_rejected_draft
    return measured - sum(each.waited_seconds for each in all_steps(whole)) * idle_watts


def work_of_steps(whole: EngineMinute, gpus: int) -> tuple[float, ...]:
    """What the joules of the steps are linear in, on all GPUs, in the order of the laws' coefficients."""
    steps = all_steps(whole)
    return (
        sum(each.weight_bytes for each in steps),
        sum(each.kv_bytes for each in steps),
        sum(each.flops for each in steps),
        sum(each.sequences for each in steps) * max(gpus, 1),
        sum(each.seconds for each in steps),
    )


def _drafts(whole: EngineMinute) -> tuple[float, float]:
    """Tokens that a decoding request gets of a step, and those that are drafted for it."""
    tokens = whole.tokens
    first = float(sum(cell.requests for cell in whole.tasks))
    decoded = max(tokens.generated - first, 0.0)
    passes = decoded - tokens.accepted
    if not tokens.drafted or passes <= 0.0:
        return 1.0, 0.0
    return decoded / passes, tokens.drafted / passes


def _shared(whole: EngineMinute, workload: Workload, service: Service) -> float:
    """KV cache that shared prefixes take: what is in use beyond what the running requests hold."""
    load, limit = whole.load, service.limits.kv_cache_tokens
    known = load.kv_known_seconds
    if not limit or known <= 0.0 or load.seconds <= 0.0:
        return 0.0
    if not any(each.cached_tokens for each in workload.classes):
        return 0.0
    held = mean_of(workload.classes, service.tokens_per_pass, 1.0).held
    used = load.kv_usage_seconds / known * limit
    return min(max(used - held * load.running_seconds / load.seconds, 0.0), 0.9 * limit)


def _seen(minutes: Sequence[EngineMinute]) -> Seen:
    batches, prompts, limits = [], [], []
    bound = [0.0, 0.0, 0.0]
    for minute in minutes:
        count = sum(each.steps for each in all_steps(minute))
        if count >= _LEAST_STEPS or len(minutes) == 1:
            batches.append(sum(each.sequences for each in all_steps(minute)) / max(count, 1.0))
        prompts += [cell.prompt_tokens / cell.requests for cell in minute.tasks if cell.requests]
        if minute.gpu.power_limit_known_seconds > 0.0:
            limits.append(minute.gpu.power_limit_joules / minute.gpu.power_limit_known_seconds)
        for each in all_steps(minute):
            bound[0] += each.memory_bound_seconds
            bound[1] += each.compute_bound_seconds
            bound[2] += each.power_bound_seconds
    memory, compute, power = (each > 0.01 * max(sum(bound), 1e-9) for each in bound)
    return Seen(
        batch=Span(min(batches, default=1.0), max(batches, default=1.0)),
        prompt_tokens=Span(min(prompts, default=0.0), max(prompts, default=0.0)),
        power_limit_watts=Span(min(limits), max(limits)) if limits else None,
        memory_bound=memory,
        compute_bound=compute,
        power_bound=power,
    )


def _fared(whole: EngineMinute) -> Fared:
    load, joules, generated = whole.load, whole.joules, whole.tokens.generated
    seconds = load.seconds or max(whole.end_wall_seconds - whole.start_wall_seconds, 1e-9)
    steps = sum(each.steps for each in all_steps(whole))
    gpus = max(whole.kind.gpu_count, 1)
    worked = sum(each.seconds for each in all_steps(whole)) / gpus
    told = sum(cell.first_token_requests for cell in whole.tasks)
    first = sum(cell.first_token_seconds for cell in whole.tasks)
    return Fared(
        seconds=seconds,
        batch=sum(each.sequences for each in all_steps(whole)) / max(steps, 1.0),
        running=load.running_seconds / load.seconds if load.seconds else None,
        joules_per_token=joules.measured / generated if generated else None,
        busy_joules_per_token=(joules.measured - joules.idle) / generated if generated else None,
        watts=joules.measured / (whole.gpu.seconds / gpus or seconds),
        tokens_per_second=generated / seconds,
        requests_per_second=load.requests_started / seconds,
        step_seconds=worked / max(steps, 1.0),
        kv_usage_ratio=load.kv_usage_seconds / load.kv_known_seconds if load.kv_known_seconds else None,
        first_token_seconds=first / told if told else None,
    )
