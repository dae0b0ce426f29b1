"""Minutes of engines whose cost is known: steps of a batch of b take C + T·b seconds and A + E·b joules."""

from __future__ import annotations

from dataclasses import dataclass, replace

from joulescope.minute_model import EngineMinute, GpuSums, Joules, Kind, Load, Steps, TaskSums, Tokens
from joulescope.minutes import length_bin

KIND = Kind(
    engine="llama/0",
    model="meta-llama/Llama-3.1-8B-Instruct",
    dtype="bfloat16",
    gpu_name="NVIDIA H100 80GB HBM3",
    software_version="0.32.0",
    joulescope_version="0.1.0",
    method="fitted-shapley",
    method_version="3",
)
BEGIN = 1_764_000_000 // 60 * 60
IDLE_WATTS = 100.0
PROMPT, ANSWER = 200, 400
FIRST_TOKEN_SECONDS = 0.05


@dataclass(frozen=True)
class Law:
    """What a step of a batch costs."""

    joules: float = 3.3
    joules_each: float = 0.065
    seconds: float = 6.9e-3
    seconds_each: float = 0.085e-3

    def per_token(self, batch: float) -> float:
        return self.joules / batch + self.joules_each

    def itl(self, batch: float) -> float:
        return self.seconds + self.seconds_each * batch


H100 = Law()
A100 = Law(joules=3.6, joules_each=0.09, seconds=12e-3, seconds_each=0.18e-3)


def minute(
    batch: float,
    number: int = 0,
    law: Law = H100,
    *,
    kind: Kind = KIND,
    busy: float = 1.0,
    noise: float = 1.0,
    tasks: tuple[TaskSums, ...] | None = None,
) -> EngineMinute:
    """Minute ``number`` at a steady batch; ``busy``: part of it; ``noise``: factor on the joules of steps."""
    seconds = 60.0 * busy
    itl = law.itl(batch)
    tokens = round(seconds / itl * batch)
    decode = noise * law.per_token(batch) * tokens
    idle = IDLE_WATTS * (60.0 - seconds)
    requests = max(tokens // ANSWER, 1)
    return EngineMinute(
        kind=kind,
        start_wall_seconds=BEGIN + 60.0 * number,
        end_wall_seconds=BEGIN + 60.0 * number + 60.0,
        joules=Joules(measured=decode + idle, decode=decode, idle=idle),
        tokens=Tokens(prefill=requests * PROMPT, decode=tokens, generated=tokens),
        decode_steps=Steps(steps=seconds / itl, seconds=seconds, sequences=seconds / itl * batch),
        load=Load(
            seconds=60.0,
            busy_seconds=seconds,
            running_seconds=batch * seconds,
            requests_started=requests,
        ),
        gpu=GpuSums(seconds=60.0 * kind.gpu_count),
        tasks=(cell("", requests, itl, decode),) if tasks is None else tasks,
    )


def cell(task: str, requests: int, itl: float, joules: float, answer: int = ANSWER) -> TaskSums:
    """Requests of one length that all ran to their end."""
    decode_seconds = itl * (answer - 1)
    return TaskSums(
        task=task,
        prompt_bin=length_bin(PROMPT),
        output_bin=length_bin(answer),
        requests=requests,
        prompt_tokens=requests * PROMPT,
        output_tokens=requests * answer,
        joules=joules,
        measured_requests=requests,
        seconds=requests * (FIRST_TOKEN_SECONDS + decode_seconds),
        first_token_seconds=requests * FIRST_TOKEN_SECONDS,
        first_token_requests=requests,
    )


def stretch(batches: list[float], law: Law = H100, *, kind: Kind = KIND, each: int = 4) -> list[EngineMinute]:
    """``each`` minutes at every batch, rising slowly enough that none is a ramp.

    Joules scatter by a percent, the same way each time.
    """
    numbered = [batch for batch in batches for _ in range(each)]
    return [
        minute(batch, number, law, kind=kind, noise=1.0 + 0.01 * (-1) ** number)
        for number, batch in enumerate(numbered)
    ]


def kind_of(**changes: object) -> Kind:
    return replace(KIND, **changes)  # type: ignore[arg-type]
