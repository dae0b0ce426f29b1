"""The phases of a request: where its time and its joules went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from joulescope.model import TOKEN, FinishedRequest

QUEUE, PREFILL, DECODE, PREEMPTED, COMPUTE = "queue", "prefill", "decode", "preempted", "compute"

PHASES = {
    QUEUE: "from the scheduler's queue to the first step that computed it",
    PREFILL: "from there to its first token",
    DECODE: "from the first token to the end",
    COMPUTE: "in place of the two, where no tokens are generated: embeddings, images",
    PREEMPTED: "pushed out of the KV cache, inside one of the others",
}
"""All phases, in the order of a life, and what they are."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a request's life. ``joules`` is ``None`` where nobody measured, and 0 where it waited."""

    name: str
    start_ns: int
    end_ns: int
    joules: float | None


def phases_of(request: FinishedRequest) -> list[Phase]:
    """Its phases in the order of their begin: none where it is not known when it first ran.

    Together their joules are the request's, but for the rounding of each to a microjoule.
    """
    phases = sorted(_phases(request), key=lambda phase: (phase.start_ns, -phase.end_ns))
    return [phase for phase in phases if phase.end_ns >= phase.start_ns]


def _phases(request: FinishedRequest) -> Iterator[Phase]:
    start_ns, end_ns = request.start_ns, request.end_ns
    waiting_joules = None if request.attributed_joules is None else 0.0
    if request.first_step_ns is None:
        if not request.steps:
            yield Phase(QUEUE, start_ns, end_ns, waiting_joules)
        return
    first_step_ns = min(max(request.first_step_ns, start_ns), end_ns)
    yield Phase(QUEUE, start_ns, first_step_ns, waiting_joules)
    if request.kind != "generate" or request.unit != TOKEN:
        yield Phase(COMPUTE, first_step_ns, end_ns, request.attributed_joules)
    elif request.first_token_ns is None:
        yield Phase(PREFILL, first_step_ns, end_ns, request.prefill_joules)
    else:
        first_token_ns = min(max(request.first_token_ns, first_step_ns), end_ns)
        yield Phase(PREFILL, first_step_ns, first_token_ns, request.prefill_joules)
        yield Phase(DECODE, first_token_ns, end_ns, request.decode_joules)
    for begin_ns, again_ns in request.pauses_ns:
        yield Phase(PREEMPTED, begin_ns, min(again_ns, end_ns), waiting_joules)
