"""Parts of what joulescope itself saw: one for each engine and minute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from joulescope.insight.compare.precision import gpu_of, parallel_of, precision_of
from joulescope.insight.compare.ramps import key_of, ramps
from joulescope.insight.compare.values import ENGINE, Mean, Origin, Part, Requests, Setup, Source, Work
from joulescope.minute_model import EngineMinute, Joules, Kind, TaskSums
from joulescope.minutes import merge

NO_TASK = "(no task)"
"""What requests without a task class are called."""
MEASURED_RATIO = 0.98
"""Part of a minute's GPU time that must have been measured for its joules to be set against its output."""


@dataclass
class _Gathered:
    origin: Origin
    parts: list[Part] = field(default_factory=list)
    half_measured: int = 0
    experts: bool = False
    """Whether the model reads more weights the more tokens there are."""


def sources_of(
    minutes: Iterable[EngineMinute], path: str, *, by_task: bool = False, tasks: Sequence[str] = ()
) -> list[Source]:
    """Sources by setup, parts in the order of time.

    Replicas of one setup are one source. What was drawn while no engine had the GPUs is left out.
    ``by_task``: one for each task class too, with the joules that the
    division charged to its requests. ``tasks``: only these.
    """
    found: dict[tuple[Setup, str], _Gathered] = {}
    told = [minute for minute in whole_minutes(minutes) if minute.kind.engine]
    on_ramp = ramps(told)
    for minute in told:
        setup, method = setup_of(minute.kind), f"{minute.kind.method} {minute.kind.method_version}".strip()
        wanted = _wanted(minute, tasks) if by_task or tasks else [None]
        for task in wanted:
            origin = Origin(_format(minute.kind), path, method, ENGINE, divided=task is not None)
            of_task = setup if task is None else replace(setup, task=task or NO_TASK)
            gathered = found.setdefault((of_task, method), _Gathered(origin))
            gathered.half_measured += not _is_measured(minute)
            gathered.experts |= minute.laws is not None and minute.laws.cost.expert_weight_bytes > 0
            key = key_of(minute)
            part = replace(part_of(minute, task), key=(path, *key), ramp=key in on_ramp)
            gathered.parts.append(part)
    return [
        Source(setup, gathered.origin, tuple(gathered.parts), _remarks(gathered))
        for (setup, _), gathered in found.items()
    ]


def whole_minutes(minutes: Iterable[EngineMinute]) -> list[EngineMinute]:
    """One value for each engine and minute, in the order of time: what came late has a row of its own."""
    rows: dict[tuple[int, str], list[EngineMinute]] = {}
    for minute in minutes:
        rows.setdefault((int(minute.start_wall_seconds // 60), minute.kind.engine), []).append(minute)
    return [minute for _, of_minute in sorted(rows.items()) for minute in merge(of_minute)]


def setup_of(kind: Kind) -> Setup:
    """What served, without what tells one replica from the next."""
    return Setup(
        model=kind.model or kind.served_model,
        precision=precision_of(kind.dtype, kind.quantization, kind.model),
        gpu=gpu_of(kind.gpu_name),
        gpu_count=kind.gpu_count,
        parallel=parallel_of(kind.tensor_parallel, kind.pipeline_parallel, kind.data_parallel),
        software=f"{kind.software} {kind.software_version}".strip(),
        unit=kind.unit,
    )


def part_of(minute: EngineMinute, task: str | None = None) -> Part:
    """One minute; of a task, what its requests that ended in it were charged."""
    cells = [cell for cell in minute.tasks if task is None or cell.task == task]
    load, gpus = minute.load, max(minute.kind.gpu_count, 1)
    begun = minute.start_wall_seconds
    busy = Mean(load.running_seconds, load.busy_seconds) if load.busy_seconds > 0 else None
    measured_seconds = minute.gpu.seconds / gpus
    return Part(
        where=f"{minute.kind.engine} {begun:.0f}",
        steady=_steady(minute) if task is None else _charged(cells, load.busy_seconds),
        whole=None if task is not None else _whole(minute, measured_seconds),
        batch=busy,
        gpu_seconds=minute.gpu.seconds or None,
        requests=_requests(cells),
        latencies=_latencies(cells),
        unattributed_joules=0.0 if task is not None else minute.joules.unattributed,
    )


def steady_joules(joules: Joules) -> float:
    """What the steps of requests drew, waste included: idle, startup and what no step explains are left out.

    It is what ML.ENERGY's steady window holds.
    """
    return (
        joules.prefill
        + joules.decode
        + joules.overhead_dummy_batch
        + joules.overhead_preemption
        + joules.overhead_rejected_draft
    )


def _format(kind: Kind) -> str:
    return f"joulescope {kind.joulescope_version}".strip()


def _wanted(minute: EngineMinute, tasks: Sequence[str]) -> list[str | None]:
    names = dict.fromkeys(cell.task for cell in minute.tasks)
    return [name for name in names if not tasks or name in tasks]


def _is_measured(minute: EngineMinute) -> bool:
    span = minute.end_wall_seconds - minute.start_wall_seconds
    return minute.gpu.seconds >= MEASURED_RATIO * span * max(minute.kind.gpu_count, 1)


def _steady(minute: EngineMinute) -> Work | None:
    if minute.load.busy_seconds <= 0:
        return None
    joules = steady_joules(minute.joules) if _is_measured(minute) else None
    return Work(joules, float(minute.tokens.generated), minute.load.busy_seconds)


def _whole(minute: EngineMinute, measured_seconds: float) -> Work:
    measured = _is_measured(minute)
    span = minute.end_wall_seconds - minute.start_wall_seconds
    return Work(
        minute.joules.measured if measured else None,
        float(minute.tokens.generated),
        measured_seconds if measured else span,
    )


def _charged(cells: Sequence[TaskSums], busy_seconds: float) -> Work | None:
    """The output of requests whose joules are not known is taken off in proportion."""
    requests = sum(cell.requests for cell in cells)
    known = sum(cell.measured_requests for cell in cells)
    if not known or busy_seconds <= 0:
        return None
    output = sum(cell.output_tokens for cell in cells) * known / requests
    return Work(sum(cell.joules for cell in cells), output, busy_seconds)


def _requests(cells: Sequence[TaskSums]) -> Requests:
    tasks: dict[str, int] = {}
    for cell in cells:
        tasks[cell.task] = tasks.get(cell.task, 0) + cell.requests
    count = sum(cell.requests for cell in cells)
    return Requests(
        count=count,
        failed=sum(cell.aborted for cell in cells),
        unmeasured=count - sum(cell.measured_requests for cell in cells),
        prompt_tokens=float(sum(cell.prompt_tokens for cell in cells)),
        cached_tokens=float(sum(cell.cached_tokens for cell in cells)),
        output_units=float(sum(cell.output_tokens for cell in cells)),
        tasks=tasks,
    )


def _latencies(cells: Sequence[TaskSums]) -> dict[str, Mean]:
    """Sums of inter-token times telescope: each request's are its end less its first token.

    Cells with a request that never had a first token are left out of ``itl``.
    """
    told = [cell for cell in cells if cell.requests and cell.first_token_requests == cell.requests]
    gaps = sum(cell.output_tokens - cell.requests for cell in told)
    sums = {
        "itl": Mean(sum(cell.seconds - cell.first_token_seconds for cell in told), gaps),
        "ttft": Mean(
            sum(cell.first_token_seconds for cell in cells), sum(cell.first_token_requests for cell in cells)
        ),
        "e2e": Mean(sum(cell.seconds for cell in cells), sum(cell.requests for cell in cells)),
    }
    return {name: each for name, each in sums.items() if each.count > 0}


def _remarks(gathered: _Gathered) -> tuple[str, ...]:
    found = []
    if gathered.half_measured:
        found.append(
            f"{gathered.half_measured} of {len(gathered.parts)} minutes were not measured to "
            f"{MEASURED_RATIO:.0%}: their joules are left out, with the output that goes with them"
        )
    if gathered.experts:
        found.append(
            "its model is a mixture of experts: two operating points do not tell how its steps grow with "
            "the batch, a third one does"
        )
    return tuple(found)
