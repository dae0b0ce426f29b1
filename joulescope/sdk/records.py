"""The records of ``docs/protocol.md`` as plain dicts: what :mod:`joulescope.hook.wire` defines, without it.

A field that has its default is left out. Instants are CLOCK_MONOTONIC nanoseconds. What the page calls
tokens is work where it is computed (``prompt_tokens``, ``context``, ``scheduled``) and output where it comes
out (``sampled``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Record = dict[str, object]

REQUEST_START, REQUEST_END, STEP, GAP = "request_start", "request_end", "step", "gap"
HELLO, PROGRESS = "hello", "progress"

MAX_COUNT = 2**31 - 1
"""Largest count that the sidecar takes."""

LENGTH_BYTES = 4


def request_start(
    request: int, request_id: str, time_ns: int, prompt: int, texts: Mapping[str, str]
) -> Record:
    """``texts``: further fields of the record, left out where they are empty."""
    record: Record = {
        "type": REQUEST_START,
        "request": request,
        "request_id": request_id,
        "time_ns": time_ns,
        **{name: text for name, text in texts.items() if text},
    }
    if prompt:
        record["prompt_tokens"] = prompt
    return record


def step(
    number: int,
    span_ns: tuple[int, int],
    requests: list[int],
    context: Iterable[int],
    work: Sequence[int],
    outputs: Sequence[int],
    waiting: int,
) -> Record:
    """A step that computed from the first to the second instant of ``span_ns``; ``waiting``: open requests
    that were not in it."""
    start_ns, end_ns = span_ns
    record: Record = {
        "type": STEP,
        "step": number,
        "schedule_start_ns": start_ns,
        "schedule_end_ns": start_ns,
        "output_start_ns": end_ns,
        "output_end_ns": end_ns,
        "request": requests,
        "context": [min(each, MAX_COUNT) for each in context],
        "running": len(requests),
        "waiting": waiting,
    }
    for name, column in (("scheduled", work), ("sampled", outputs)):
        if any(each != 1 for each in column):
            record[name] = list(column)
    return record


def request_end(request: int, time_ns: int, reason: str, final_step: int | None) -> Record:
    record: Record = {"type": REQUEST_END, "request": request, "time_ns": time_ns, "reason": reason}
    if final_step is not None:
        record["final_step"] = final_step
    return record


def overhead(start_ns: int, end_ns: int, reason: str) -> Record:
    return {"type": "overhead", "start_ns": start_ns, "end_ns": end_ns, "reason": reason}


def gap(start_ns: int, end_ns: int, dropped: int, reason: str) -> Record:
    return {"type": GAP, "start_ns": start_ns, "end_ns": end_ns, "dropped": dropped, "reason": reason}


def progress(time_ns: int, pending_since_ns: int | None, dropped: int) -> Record:
    record: Record = {"type": PROGRESS, "time_ns": time_ns}
    if pending_since_ns is not None:
        record["pending_since_ns"] = pending_since_ns
    if dropped:
        record["dropped"] = dropped
    return record


def bye(time_ns: int, reason: str) -> Record:
    return {"type": "bye", "time_ns": time_ns, "reason": reason}
