"""A process that makes diagnoses for a sidecar: minutes in, JSON out, then it ends.

``python -m joulescope.insight.diagnosis.worker`` reads one line of JSON, ``{"engines": ["llama-0", null],
"before": 10, "now": 10, "closed_loop": null}``, then so many lines of minutes of the one window and of the
other. For each engine (``null``: the only one) it writes a line: ``{"engine": …, "diagnosis": {…}}`` as
``joulescope diagnose --json`` prints it, or ``{"engine": …, "problem": "…"}`` where too little is known.

It is a process because a diagnosis computes for up to some seconds in Python: in a thread of the sidecar it
would hold up the accounting at each step. It steps back for everybody else, and ends by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from joulescope.errors import MinuteError, PlanError
from joulescope.insight.diagnosis.diagnosis import diagnose
from joulescope.insight.diagnosis.recent import NAMES
from joulescope.insight.diagnosis.told import told
from joulescope.minute_model import EngineMinute
from joulescope.minutes import read_lines

NICENESS = 10
MAX_CPU_SECONDS = 60
"""The kernel ends it after so much, should nobody be left to do it."""


def answers(lines: IO[bytes]) -> Iterator[dict[str, Any]]:
    """What is answered to what was asked, engine by engine."""
    asked = json.loads(lines.readline())
    before = list(read_lines(islice(lines, asked["before"]), NAMES[0]))
    now = list(read_lines(islice(lines, asked["now"]), NAMES[1]))
    for engine in asked["engines"]:
        yield {"engine": engine, **_answer(before, now, engine, asked["closed_loop"])}


def _answer(
    before: Sequence[EngineMinute],
    now: Sequence[EngineMinute],
    engine: str | None,
    closed_loop: bool | None,
) -> dict[str, Any]:
    try:
        found = diagnose(before, now, engine=engine, names=NAMES, closed_loop=closed_loop)
        return {"diagnosis": told(found)}
    except (PlanError, MinuteError) as error:
        return {"problem": str(error)}


def step_back() -> None:
    """Others come first: on the processor, and where memory runs out, ``proc_pid_oom_score_adj(5)``."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))


def main() -> int:
    """Serves one question of standard input."""
    step_back()
    for answer in answers(sys.stdin.buffer):
        sys.stdout.write(json.dumps(answer, allow_nan=False) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
