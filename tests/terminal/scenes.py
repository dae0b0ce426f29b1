"""Scenes for the view: a busy sidecar as two readings five seconds apart, and what is made of them."""

from __future__ import annotations

from dataclasses import replace

from joulescope.export.requests_json import RequestsView
from joulescope.model import FinishedRequest, OpenRequest, Snapshot, TaskTotals
from joulescope.terminal.fetcher import Link
from joulescope.terminal.glyphs import Look
from joulescope.terminal.history import History
from joulescope.terminal.source import Reading
from joulescope.terminal.state import ViewState
from joulescope.terminal.view import Scene, frame
from tests.export.samples import GPU_A, SECOND, engine_a, finished, gpu_a, rich_snapshot, running

PLACE = "http://127.0.0.1:5685"


def snapshots() -> tuple[Snapshot, Snapshot]:
    """One GPU, one engine; in five seconds 1500 J: 1000 J decode, 250 J prefill, 250 J idle; 2500 tokens.

    By the baseline the 1250 J should have been 1000 J. 1000 J and 2400 tokens are of chats, the rest of rag.
    """
    gpu, engine = gpu_a(), engine_a()
    assert engine.baseline is not None
    before = replace(rich_snapshot(), gpus=(gpu,), engines=(engine,))
    after = replace(
        before,
        time_ns=before.time_ns + 5 * SECOND,
        gpus=(
            replace(
                gpu,
                measured_joules=gpu.measured_joules + 1500,
                attributed_joules=gpu.attributed_joules + 1250,
                idle_joules=gpu.idle_joules + 250,
            ),
        ),
        engines=(
            replace(
                engine,
                attributed_joules={(GPU_A, "prefill"): 550.0, (GPU_A, "decode"): 1500.25},
                tokens={**engine.tokens, "generated": 4500},
                steps=1000,
                tasks={
                    **engine.tasks,
                    "rag": task(engine.tasks["rag"], prefill=200.0, decode=50.0, tokens=100, finished=2),
                    "chat": task(engine.tasks["chat"], prefill=50.0, decode=950.0, tokens=2400, finished=8),
                },
                baseline=replace(engine.baseline, actual_joules=2030.5, expected_joules=1650.25),
            ),
        ),
    )
    return before, after


def task(before: TaskTotals, prefill: float, decode: float, tokens: int, finished: int) -> TaskTotals:
    """The same after so much more; each request that ended took as much as another."""
    told = before.joules_per_request
    counts = (*told.counts[:-1], told.counts[-1] + finished)
    return replace(
        before,
        joules={"prefill": before.joules["prefill"] + prefill, "decode": before.joules["decode"] + decode},
        generated_tokens=before.generated_tokens + tokens,
        requests_finished=before.requests_finished + finished,
        joules_per_request=replace(told, counts=counts, total=told.total + prefill + decode),
    )


def open_requests() -> tuple[OpenRequest, ...]:
    """Three that run, on one engine: one dear, one cheap with an adapter, one that waits."""
    dear = running(
        engine="llama-0", lora="", request_id="dear-0", external_id="dear", attributed_joules=120.0
    )
    cheap = running(engine="llama-0", request_id="cheap-0", external_id="cheap", attributed_joules=2.0)
    waiting = running(
        engine="llama-0",
        lora="",
        request_id="queued-0",
        external_id="queued",
        phase="waiting",
        start_ns=104 * SECOND,
        output_tokens=0,
        attributed_joules=None,
        prefill_joules=None,
        marginal_joules=None,
    )
    return (dear, cheap, waiting)


def finished_requests() -> tuple[FinishedRequest, ...]:
    """Two that ended, oldest first."""
    return (
        finished(1, end_ns=101 * SECOND, attributed_joules=40.0),
        finished(2, end_ns=104 * SECOND, finish_reason="abort", attributed_joules=9.5),
    )


def readings() -> tuple[Reading, Reading]:
    """Before and after; the dear request drew 20 W in between."""
    before, after = snapshots()
    dear, *others = open_requests()
    first = RequestsView.of(before, [replace(dear, attributed_joules=20.0)], ())
    return Reading(before, first), Reading(
        after, RequestsView.of(after, [dear, *others], finished_requests())
    )


def scene(
    *,
    state: ViewState | None = None,
    look: Look | None = None,
    reading: Reading | None = None,
    now_ns: int = 50 * SECOND,
    **link: object,
) -> Scene:
    """Half a second after the second reading; ``reading`` replaces that, ``link`` changes the link."""
    first, second = readings()
    second = reading or second
    history = History()
    history.add(first)
    history.add(second)
    fields: dict[str, object] = {
        "reading": second,
        "received_ns": now_ns - SECOND // 2,
        "count": 2,
        "changed_ns": now_ns - SECOND // 2,
    }
    return Scene(
        link=Link(**{**fields, **link}),  # type: ignore[arg-type]
        history=history,
        state=state or ViewState(),
        place=PLACE,
        now_ns=now_ns,
        look=look or Look(),
    )


def drawn(scene: Scene, width: int = 80, height: int = 24) -> str:
    """The frame's text, lines without blanks at their ends."""
    return "\n".join(line.plain.rstrip() for line in frame(scene, width, height).lines)
