"""Small hand-made worlds: records that an engine and a sensor might send, for tests of the pipeline."""

from __future__ import annotations

from collections.abc import Sequence

from joulescope.hook import wire

MS = 1_000_000
SECOND = 1_000_000_000
GPU = "GPU-0"

COST = wire.CostFacts(
    source="config",
    weight_bytes=16e9,
    kv_bytes_per_token=131072.0,
    flops_per_token=16e9,
    flops_per_token_context=5.2e5,
)


def hello(
    time_ns: int = 0,
    *,
    gpus: Sequence[str] = (GPU,),
    session: int = 0,
    instance: str = "i",
    capabilities: Sequence[str] = (),
    cost: wire.CostFacts = COST,
) -> wire.Hello:
    facts = wire.EngineFacts(model="org/tiny", instance_id=instance, gpus=list(gpus), cost=cost)
    return wire.Hello(session=session, time_ns=time_ns, engine=facts, capabilities=list(capabilities))


def start(
    request: int, time_ns: int = 0, *, prompt: int = 10, session: int = 0, **more: object
) -> wire.RequestStart:
    return wire.RequestStart(
        session=session,
        request=request,
        request_id=f"r{request}",
        time_ns=time_ns,
        prompt_tokens=prompt,
        **more,  # type: ignore[arg-type]
    )


def step(
    number: int,
    begin_ns: int,
    end_ns: int,
    requests: Sequence[int],
    *,
    context: Sequence[int] | None = None,
    session: int = 0,
    **more: object,
) -> wire.Step:
    return wire.Step(
        session=session,
        step=number,
        schedule_start_ns=begin_ns,
        schedule_end_ns=begin_ns,
        output_start_ns=end_ns,
        output_end_ns=end_ns,
        request=list(requests),
        context=[100] * len(requests) if context is None else list(context),
        **more,  # type: ignore[arg-type]
    )


def end(
    request: int, time_ns: int, final_step: int | None = None, *, reason: str = "length", session: int = 0
) -> wire.RequestEnd:
    return wire.RequestEnd(
        session=session, request=request, time_ns=time_ns, reason=reason, final_step=final_step
    )


def samples(until_ns: int, watts: float, *, every_ns: int = 100 * MS, gpu: str = GPU) -> list[wire.Sample]:
    """A counter that rises steadily."""
    return [
        wire.Sample(gpu=gpu, time_ns=time_ns, energy_joules=watts * time_ns / SECOND, power_watts=watts)
        for time_ns in range(0, until_ns + 1, every_ns)
    ]


def by_time(*streams: Sequence[wire.AnyRecord]) -> list[wire.AnyRecord]:
    """Merges streams as a live recording would have them."""
    return sorted((record for stream in streams for record in stream), key=instant)


def instant(record: wire.AnyRecord) -> int:
    if isinstance(record, wire.Step):
        return record.output_end_ns
    if isinstance(record, (wire.Gap, wire.Overhead)):
        return record.end_ns
    return 0 if isinstance(record, wire.Gpu) else record.time_ns
