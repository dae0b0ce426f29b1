"""Rows that the ledger's tests write."""

from __future__ import annotations

from joulescope.clock import WallAnchor
from joulescope.export.records import finished_line
from joulescope.minute_model import EngineMinute, Joules, Kind, TaskSums, Tokens
from joulescope.minutes import json_line
from joulescope.model import FinishedRequest

DAY_SECONDS = 86_400
NOON = 1_769_860_800.0
"""2026-01-31T12:00:00Z."""

ANCHOR = WallAnchor(monotonic_ns=0, wall_ns=int(NOON) * 10**9)


def finished_request(number: int, end_seconds: float = 0.0) -> FinishedRequest:
    """A request that ended so long after noon."""
    return FinishedRequest(
        request_id=f"request-{number}",
        external_id=f"client-{number}",
        engine="e0",
        model="m",
        lora="",
        kind="generate",
        start_ns=round((end_seconds - 1.5) * 1e9),
        end_ns=round(end_seconds * 1e9),
        first_token_ns=None,
        finish_reason="stop",
        prompt_tokens=number,
        cached_tokens=0,
        output_tokens=7,
        scheduled_tokens=number + 7,
        recomputed_tokens=0,
        drafted_tokens=0,
        accepted_tokens=0,
        preemptions=0,
        steps=8,
        attributed_joules=float(number),
        marginal_joules=None,
        prefill_joules=None,
        decode_joules=None,
        wasted_joules=None,
        complete=True,
    )


def request(number: int, end_seconds: float = 0.0) -> tuple[bytes, float]:
    """A row of ``requests`` that ended so long after noon, and that instant."""
    return finished_line(finished_request(number, end_seconds), ANCHOR)[:-1], NOON + end_seconds


def minute(number: int, engine: str = "e0", joules: float | None = None) -> EngineMinute:
    """The minute that begins so many minutes after noon."""
    start = NOON + 60.0 * number
    return EngineMinute(
        kind=Kind(engine=engine, model="m"),
        start_wall_seconds=start,
        end_wall_seconds=start + 60.0,
        joules=Joules(measured=float(number) if joules is None else joules),
        tokens=Tokens(decode=number),
        tasks=(TaskSums("chat", 10, 12, requests=number),),
        finish_reasons=(("stop", number),),
    )


def minute_row(of: EngineMinute) -> tuple[bytes, float]:
    """A row of ``minutes``."""
    return json_line(of)[:-1].encode(), of.end_wall_seconds
