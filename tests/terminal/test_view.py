"""What a frame shows: golden screens, and each thing that must be seen at a glance."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from joulescope import __version__
from joulescope.export.requests_json import RequestsView
from joulescope.model import MeterComparison, Snapshot
from joulescope.terminal.glyphs import Look
from joulescope.terminal.source import Reading, SourceError
from joulescope.terminal.state import PANES, Sort, ViewState
from joulescope.terminal.view import Scene, frame
from tests.export.samples import SECOND, engine_a, gpu_a, gpu_b, rich_snapshot, running
from tests.terminal.scenes import drawn, open_requests, readings, scene, snapshots

GOLDEN = Path(__file__).parent / "golden"


def with_snapshot(**changes: object) -> Scene:
    """The scene with parts of its latest snapshot replaced."""
    _, second = readings()
    snapshot = replace(second.snapshot, **changes)  # type: ignore[arg-type]
    return scene(reading=replace(second, snapshot=snapshot))


def with_gpu(**changes: object) -> Scene:
    _, after = snapshots()
    return with_snapshot(gpus=(replace(after.gpus[0], **changes),))  # type: ignore[arg-type]


def with_engine(**changes: object) -> Scene:
    _, after = snapshots()
    return with_snapshot(engines=(replace(after.engines[0], **changes),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "width", "height", "look", "state"),
    [
        ("running_80x24", 80, 24, Look(), ViewState()),
        ("running_140x40", 140, 40, Look(), ViewState()),
        ("finished_ascii_80x24", 80, 24, Look(unicode=False, colour=False), ViewState(pane="finished")),
        ("gpus_100x20", 100, 20, Look(), ViewState(pane="gpus")),
        ("engines_100x20", 100, 20, Look(colour=False), ViewState(pane="engines")),
        ("tasks_100x20", 100, 20, Look(), ViewState(pane="tasks")),
        ("help_80x24", 80, 24, Look(), ViewState(help=True)),
    ],
)
def test_golden_screens(name: str, width: int, height: int, look: Look, state: ViewState) -> None:
    """The screen is letter for letter what was looked at; ``UPDATE_GOLDEN=1`` writes it anew."""
    text = drawn(scene(state=state, look=look), width, height) + "\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("pane", PANES)
@pytest.mark.parametrize(
    ("width", "height"), [(80, 24), (200, 60), (40, 10), (20, 5), (1, 1), (500, 200), (80, 2)]
)
def test_every_size_is_kept(pane: str, width: int, height: int) -> None:
    """There are exactly as many lines as the terminal has, and none is wider."""
    lines = frame(scene(state=ViewState(pane=pane)), width, height).lines
    assert len(lines) == height
    assert max(cell_len(line.plain) for line in lines) <= width


def test_ascii_is_ascii() -> None:
    """Where the terminal knows no more, nothing else is drawn, whatever the names hold."""
    odd = replace(open_requests()[0], external_id="éclair-漢字", lora="ünï")
    _, second = readings()
    view = RequestsView.of(second.snapshot, [odd], [])
    for pane in PANES:
        state = ViewState(pane=pane, filter="é" if pane == "running" else "")
        text = drawn(
            scene(reading=replace(second, requests=view), look=Look(unicode=False), state=state), 200
        )
        assert text.isascii()


def test_rates_are_those_of_the_last_seconds() -> None:
    """250 J of prefill and 1000 J of decode in 5 s, 1250 J for 2500 tokens; and a request's 100 J in 5 s."""
    text = drawn(scene(), 140)
    engine = next(line for line in text.splitlines() if line.startswith("llama-0"))
    assert " 50 W" in engine
    assert " 200 W" in engine
    assert " 0.500 " in engine
    dear = next(line for line in text.splitlines() if line.startswith("dear"))
    assert " 20.0 " in dear


def test_work_that_is_dearer_than_usual_stands_out() -> None:
    """1250 J where 1000 J were expected; an engine that is compared with nothing has no such column."""
    shown = frame(scene(), 80, 24)
    line = next(line for line in shown.lines if line.plain.startswith("llama-0"))
    assert line.plain.rstrip().endswith(" 1.25")
    assert any("bold red" in str(span.style) for span in line.spans)
    assert "index" not in drawn(with_engine(baseline=None))


def test_unknown_is_a_dash_and_not_zero() -> None:
    """A request that waits has no joules, no watts and no J per token."""
    text = drawn(scene())
    queued = next(line for line in text.splitlines() if line.startswith("queued"))
    assert queued.split()[1:] == ["waiting", "1.0s", "0", "-", "-", "-", "1", "-"]


def test_the_costliest_comes_first_and_the_unknown_last() -> None:
    """Sorted by joules; reversed the unknown stays last."""
    for descending, order in ((True, ["dear", "cheap", "queued"]), (False, ["cheap", "dear", "queued"])):
        sorts = {**ViewState().sorts, "running": Sort("joules", descending)}
        text = drawn(scene(state=ViewState(sorts=sorts)))
        names = [
            line.split()[0] for line in text.splitlines() if line[:5].strip() in ("dear", "cheap", "queue")
        ]
        assert names == order


@pytest.mark.parametrize(
    ("state", "names"),
    [
        (ViewState(filter="DEAR"), ["dear"]),
        (ViewState(filter="tone"), ["cheap"]),
        (ViewState(filter="waiting"), ["queued"]),
        (ViewState(filter="nothing like it"), []),
        (ViewState(engine="odd-1"), []),
    ],
)
def test_filters_leave_what_matches(state: ViewState, names: list[str]) -> None:
    """By id, adapter or phase, in any case; by engine. What is filtered by is said."""
    text = drawn(scene(state=state))
    shown = [line.split()[0] for line in text.splitlines() if line.startswith(("dear", "cheap", "queued"))]
    assert shown == names
    assert (f"filter {state.filter}" if state.filter else "engine odd-1") in text
    assert names or "\nnone\n" in text


def test_scrolling_ends_with_the_rows() -> None:
    """The last page is full, and the state that comes back goes no farther."""
    _, second = readings()
    many = [running(request_id=f"r{number:03}", external_id="", engine="llama-0") for number in range(100)]
    view = RequestsView.of(second.snapshot, many, ())
    far = scene(reading=replace(second, requests=view), state=ViewState(scroll=1 << 20))
    shown = frame(far, 80, 24)
    assert "r099" in shown.lines[-2].plain
    assert 70 < shown.scroll < 100


def test_a_clients_text_cannot_drive_the_terminal() -> None:
    """Control characters and markup in ids, adapters and names are shown, not obeyed."""
    evil = "\x1b[2J[red]x\u202e\x9b1m"
    _, second = readings()
    request = replace(open_requests()[0], external_id=evil, lora=evil, engine=evil, phase=evil)
    engine = engine_a()
    snapshot = replace(
        second.snapshot, engines=(replace(engine, info=replace(engine.info, engine=evil, served_model=evil)),)
    )
    reading = Reading(snapshot, RequestsView.of(snapshot, [request, running()], ()), version=evil)
    for pane in PANES:
        text = drawn(scene(reading=reading, state=ViewState(pane=pane, engine=evil)), 200)
        assert text.replace("\n", "").isprintable()
    assert "?[2J[red]x" in drawn(scene(reading=reading), 200)


def test_many_gpus_and_engines_leave_room_for_requests() -> None:
    """Sixteen GPUs and eight engines on 24 lines: a few of each, how many more, and the requests."""
    gpu, engine = gpu_a(), engine_a()
    gpus = tuple(replace(gpu, info=replace(gpu.info, gpu=f"GPU-{n}", index=n)) for n in range(16))
    engines = tuple(replace(engine, info=replace(engine.info, engine=f"llama-{n}")) for n in range(8))
    text = drawn(with_snapshot(gpus=gpus, engines=engines))
    assert "more GPUs: press 4" in text
    assert "more engines: press 3" in text
    assert "dear" in text
    _, second = readings()
    reading = replace(second, snapshot=replace(second.snapshot, gpus=gpus, engines=engines))
    assert "15 H100" in drawn(scene(reading=reading, state=ViewState(pane="gpus")), 100, 30)


# ------------------------------------------------------------------------------------ what is wrong


def test_a_lost_sidecar_is_said_with_the_age_of_the_data() -> None:
    """The age, the cause and the next try stand first, and everything below is dim."""
    error = SourceError("no sidecar answers at http://127.0.0.1:5685: Connection refused; start one")
    lost = scene(error=error, failures=3, received_ns=38 * SECOND, retry_ns=54 * SECOND)
    shown = frame(lost, 80, 24).lines
    assert shown[0].plain.startswith(" DATA IS 12s OLD ")
    assert "next try in 4.0s" in shown[0].plain
    assert "dear" in drawn(lost)
    assert all(
        any("dim" in str(span.style) for span in line.spans) for line in shown[1:-1] if line.plain.strip()
    )


def test_a_late_answer_is_said() -> None:
    """No error, but nothing for much longer than the interval."""
    assert "no answer for 10s" in drawn(scene(received_ns=40 * SECOND))
    slow = ViewState(interval_seconds=30.0)
    assert "no answer" not in drawn(scene(received_ns=40 * SECOND, state=slow))


def test_paused_is_not_stale() -> None:
    """What is shown may be old while paused, and the title says since when."""
    text = drawn(scene(received_ns=38 * SECOND, state=ViewState(paused=True)))
    assert "PAUSED 12s ago" in text.splitlines()[0]


def test_before_the_first_reading_the_cause_is_shown() -> None:
    """The address, the cause, and the next try."""
    asking = scene(reading=None, count=0)
    asking = replace(asking, link=replace(asking.link, reading=None))
    assert "asking http://127.0.0.1:5685" in drawn(asking)
    failed = replace(asking.link, error=SourceError("refused; start one"), failures=2, retry_ns=52 * SECOND)
    text = drawn(replace(asking, link=failed))
    assert "refused" in text
    assert "next try in 2.0s, try 3" in text


def test_another_version_is_said() -> None:
    """A sidecar of another version that can be read is read, and named."""
    _, second = readings()
    text = drawn(scene(reading=replace(second, version="9.9")))
    assert f"sidecar 9.9, top {__version__}" in text.splitlines()[0]
    old = drawn(scene(reading=replace(second, requests=None)))
    assert "has no page of single requests" in old


def test_a_sidecar_that_stands_still_is_said() -> None:
    """It answers, and its figures have not changed for longer than it takes to publish."""
    assert "! the sidecar answers, but has accounted for nothing for 8.0s" in drawn(
        scene(received_ns=50 * SECOND, changed_ns=42 * SECOND)
    )


def problem_line(scene: Scene) -> str:
    return next((line for line in drawn(scene, 110).splitlines() if line.startswith("!")), "")


def test_what_is_wrong_is_said_the_worst_first() -> None:
    """A silent sensor, a gone engine, dropped records, a late division, meters that disagree, a residual."""
    assert "GPU 0: the sensor gives no reading" in problem_line(with_gpu(up=False))
    assert "llama-0: disconnected" in problem_line(with_engine(up=False))
    assert "9 records dropped by llama-0, 2 of them now" in problem_line(with_engine(records_dropped=9))
    _, after = snapshots()
    late = replace(after.sidecar, attribution_lag_seconds=12.0)
    assert "joules are divided 12s late" in problem_line(with_snapshot(sidecar=late))
    far = MeterComparison(187.0, 327.0, 0.572)
    everything = with_gpu(comparison=far, residual_joules=1e-6)
    assert "residual 1e-06 J" in problem_line(everything)
    text = drawn(everything, 110, 40)
    assert text.index("residual") < text.index("held back") < text.index("counter/power 0.57")
    assert "no GPU is measured" in problem_line(with_snapshot(gpus=()))
    _, second = readings()
    complaint = "no energy is measured: NVML\x1b is not installed"
    unready = replace(second, snapshot=replace(second.snapshot, gpus=()), complaint=complaint)
    assert problem_line(scene(reading=unready)).startswith(
        "! not ready: no energy is measured: NVML? is not ins"
    )
    info = replace(engine_a().info, gpus=("GPU-other", "MIG-other"))
    assert problem_line(with_engine(info=info)).startswith(
        "! GPU-other: an engine uses it and nobody reads it"
    )
    assert "clocks held back by power_cap, thermal" in drawn(scene(), 110, 40)
    dropped = replace(after.sidecar, exported={("otlp", "dropped"): 3})
    assert "3 requests dropped by otlp, 3 of them now" in problem_line(with_snapshot(sidecar=dropped))
    rejected = replace(after.sidecar, exported={("otlp", "rejected"): 2, ("answer", "estimated"): 5})
    text = problem_line(with_snapshot(sidecar=rejected))
    assert "2 requests rejected by otlp" in text
    assert "estimated" not in text


def test_more_problems_than_lines_are_counted() -> None:
    """A low terminal names the worst, and how many more there are."""
    text = drawn(scene(reading=Reading(rich_snapshot(), None)))
    (line,) = [line for line in text.splitlines() if line.startswith("!")]
    assert re.search(r"the sensor gives no reading  \(and \d+ more\)$", line)


def test_nothing_at_all_is_a_frame_too() -> None:
    """Right after the start there is no engine, no GPU and no request, and no division by zero."""
    text = drawn(scene(reading=Reading(Snapshot(time_ns=0, wall_seconds=0.0), None)))
    assert "no engine has connected yet" in text
    assert "no joules measured yet" in text


def test_mig_and_integrated_power_are_named() -> None:
    """An instance has no power of its own and its joules are an estimate; integrated power is said."""
    info = gpu_a().info
    assert "integrated power" in drawn(with_gpu(info=replace(info, energy_source="power")), 110, 40)
    instance = drawn(with_gpu(info=replace(info, parent="GPU-w", energy_source="mig_gpm")), 110, 40)
    assert " MIG " in instance
    assert "an estimate" in instance
    assert "no reading" in drawn(with_snapshot(gpus=(gpu_b(),)), 110)


@pytest.mark.parametrize(
    ("units", "shown"),
    [
        (["token"], "token"),
        (["image", "image"], "image"),
        (["image", "token"], "output"),
        (["a long unit"], "output"),
    ],
)
def test_the_unit_is_that_of_the_engines(units: list[str], shown: str) -> None:
    """Engines that paint have joules per image, not per token; a mixture, or a long word, is output."""
    engine = engine_a()
    engines = tuple(replace(engine, info=replace(engine.info, unit=unit)) for unit in units)
    assert f"J/{shown}" in drawn(with_snapshot(engines=engines))


def test_tasks_are_told_apart() -> None:
    """Of the last seconds and ever: a request of rag costs twice as much, and a token of it thrice."""
    text = drawn(scene(state=ViewState(pane="tasks")), 140)
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.startswith(("rag", "chat"))}
    assert list(rows) == ["chat", "rag"]  # by joules
    # finished, a second, tokens a second, W, J/request, J/token, ever, share, joules
    assert rows["chat"][1:8] == ["40", "1.6", "480", "200", "34.63", "0.417", "0.357"]
    assert rows["rag"][1:8] == ["10", "0.4", "20", "50", "65.00", "2.500", "1.083"]
    assert "none" not in rows


def test_tasks_that_are_not_told_apart_say_so() -> None:
    """And so does an engine that was chosen and has none."""
    assert "task_from" in drawn(replace(with_engine(tasks={}), state=ViewState(pane="tasks")))
    assert "task_from" in drawn(scene(state=ViewState(pane="tasks", engine="odd-1")))


def test_the_column_of_tasks_is_there_where_there_are_any() -> None:
    """Beside requests, and they can be filtered by it."""
    _, second = readings()
    dear, *others = open_requests()
    (names,) = (line for line in drawn(scene(), 200).splitlines() if line.startswith("request "))
    assert "task" not in names
    view = RequestsView.of(second.snapshot, [replace(dear, task="rag"), *others], ())
    with_task = scene(reading=replace(second, requests=view), state=ViewState(filter="RAG"))
    text = drawn(with_task, 200)
    (row,) = (line for line in text.splitlines() if line.startswith("dear"))
    assert row.split()[-1] == "rag"
    assert not [line for line in text.splitlines() if line.startswith("cheap")]


def test_what_is_filtered_by_is_said_in_a_narrow_terminal() -> None:
    """The counts of panes make room for it, and stay where there is room."""
    state = ViewState(filter="nothing like it")
    assert " 1 running   2 finished   3 engines   4 GPUs   5 tasks   filter" in drawn(scene(state=state), 80)
    assert " 1 running 3   2 finished 40 " in drawn(scene(state=state), 120)
