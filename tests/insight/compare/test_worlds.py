"""Simulated worlds through the real command: what it says of GPUs, precisions and GPU counts is the truth.

Each world has more clients than its batch limit takes, so that the batch is the limit; its trace is
replayed by the command into minutes. The truth is what the simulated GPUs drew in the same minute, by the
tokens that came out; for batches that are interpolated it is that of a run which the command never sees.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from joulescope.cli.main import main
from joulescope.hook.wire import AnyRecord, Step
from joulescope.ingest.trace import TraceWriter
from joulescope.minute_model import EngineMinute, TaskSums
from joulescope.minutes import json_line
from joulescope.model import FinishedRequest
from joulescope.replay import Replay
from joulescope.simulation.calibration import CHAT_TASK
from joulescope.simulation.parts import World
from joulescope.simulation.traces import SimulatedRun
from joulescope.simulation.workload import RequestClass
from tests.insight.compare.worlds import A100_LIKE, BF16, FP8, ON_TWO

pytestmark = pytest.mark.slow

TASK = replace(CHAT_TASK, max_tokens=400)
RUNS: dict[str, tuple[World, tuple[int, ...]]] = {
    "h100": (FP8, (12, 20, 32)),
    "a100": (replace(FP8, hardware=A100_LIKE), (12, 20, 32)),
    "two": (replace(FP8, hardware=A100_LIKE, parallel=ON_TWO), (12,)),
    "bf16": (replace(FP8, hardware=A100_LIKE, model=BF16, parallel=ON_TWO), (12,)),
}
"""Worlds, and the batch limits at which each is run."""
REQUESTS_PER_SECOND = 0.16
"""For each place in the batch: more than can be served."""
KEPT_BACK = (("h100", 20), ("a100", 20))
STEADY = (61.0, 121.0)
"""The second minute of a run: it begins after one second of the simulation's clock."""


@dataclass
class Truth:
    """What the GPUs drew and what came out in the steady minute, and how long a step took."""

    joules: float = 0.0
    tokens: int = 0
    steps: int = 0
    seconds: float = 60.0

    @property
    def per_token(self) -> float:
        return self.joules / self.tokens

    @property
    def itl(self) -> float:
        return self.seconds / self.steps


def simulate(name: str, batch: int) -> tuple[list[AnyRecord], Truth]:
    world, _ = RUNS[name]
    run = SimulatedRun(
        125.0,
        seed=batch,
        rate_per_second=REQUESTS_PER_SECOND * batch,
        world=world,
        classes=(TASK,),
        limits=replace(world.limits, max_num_seqs=batch),
        sample_hz=5.0,
        truth=False,
    )
    truth, records, drawn, begun = Truth(), [], [], 0
    for record in run.records():
        records.append(record)
        if run.time_ns / 1e9 > STEADY[1] + 1.0:
            break
        if len(drawn) < 2 and run.time_ns / 1e9 >= STEADY[len(drawn)]:
            drawn.append(sum(each.drawn_joules for each in run.balances()))
            truth.seconds = run.time_ns / 1e9 - begun
            begun = run.time_ns / 1e9
        if isinstance(record, Step) and len(drawn) == 1:
            truth.tokens += sum(record.sampled) if record.sampled else len(record.request)
            truth.steps += 1
    truth.joules = drawn[1] - drawn[0]
    return records, truth


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, int], Truth]]:
    """A folder with minutes of all runs but those that are kept back, and the truth of all."""
    folder, truths = tmp_path_factory.mktemp("runs"), {}
    for name, (_, batches) in RUNS.items():
        for batch in batches:
            records, truths[name, batch] = simulate(name, batch)
            if (name, batch) in KEPT_BACK:
                continue
            trace = folder / f"{name}-{batch}.jstrace"
            writer = TraceWriter(trace)
            writer.write(records)
            writer.close()
            # Without the writer's own header, which has the time of this test: a minute begins with the run.
            trace.write_bytes(trace.read_bytes().split(b"\n", 1)[1])
            assert main(["replay", str(trace), "--minutes", str(trace.with_suffix(".jsonl"))]) == 0
    return folder, truths


def compared(capsys: pytest.CaptureFixture[str], folder: Path, *names: str, match: str) -> dict[str, Any]:
    sources = [f"{name}={path}" for name in names for path in sorted(folder.glob(f"{name}-*.jsonl"))]
    capsys.readouterr()
    assert main(["compare", "--json", "--match", match, *sources]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def figure(told: dict[str, Any], name: str, of: str, *, change: bool = False) -> float:
    side = told["matches"][0]["sides"][name]
    assert side["observed"]
    value: float = side["change" if change else "figures"][of]["value"]
    return value


def test_gpu_generations_are_compared_at_a_batch_that_neither_was_run_at(
    capsys: pytest.CaptureFixture[str], seen: tuple[Path, dict[tuple[str, int], Truth]]
) -> None:
    """Between 12 and 32, at 20: joules, times and their ratio are those of runs that were kept back."""
    folder, all_truths = seen
    told = compared(capsys, folder, "h100", "a100", match="batch=20")
    truths = {name: all_truths[name, batch] for name, batch in KEPT_BACK}
    for name, truth in truths.items():
        assert figure(told, name, "joules_per_unit") == pytest.approx(truth.per_token, rel=0.03)
        assert figure(told, name, "itl") == pytest.approx(truth.itl, rel=0.03)
        assert figure(told, name, "watts") == pytest.approx(truth.joules / truth.seconds, rel=0.03)
    ratio = truths["a100"].per_token / truths["h100"].per_token - 1
    assert ratio > 0.3
    assert figure(told, "a100", "joules_per_unit", change=True) == pytest.approx(ratio, abs=0.03)
    assert {side["name"]: side["setup"]["gpu"] for side in told["sides"]} == {"h100": "H100", "a100": "A100"}


def test_precisions_and_gpu_counts_are_compared_at_the_same_batch(
    capsys: pytest.CaptureFixture[str], seen: tuple[Path, dict[tuple[str, int], Truth]]
) -> None:
    """At 12: one GPU against two, and 8 bits against 16 on two. Two GPUs are faster and dearer."""
    folder, truths = seen
    told = compared(capsys, folder, "two", "a100", "bf16", match="batch=12")
    two = truths["two", 12]
    for name in ("a100", "bf16"):
        expected = truths[name, 12].per_token / two.per_token - 1
        assert figure(told, name, "joules_per_unit", change=True) == pytest.approx(expected, abs=0.02)
        expected = truths[name, 12].itl / two.itl - 1
        assert figure(told, name, "itl", change=True) == pytest.approx(expected, abs=0.02)
    facts = {side["name"]: (side["setup"]["precision"], side["setup"]["gpu_count"]) for side in told["sides"]}
    assert facts == {"two": ("FP8", 2), "a100": ("FP8", 1), "bf16": ("BF16", 2)}
    assert [side["whole"]["gpu_hours"] > 0 for side in told["sides"]] == [True] * 3


def test_at_the_same_latency_the_faster_gpu_is_nowhere_and_it_is_said(
    capsys: pytest.CaptureFixture[str], seen: tuple[Path, dict[tuple[str, int], Truth]]
) -> None:
    """The A100 is slower at its smallest batch than the H100 at its largest: nothing is made up."""
    folder, truths = seen
    slow = truths["a100", 32].itl
    told = compared(capsys, folder, "h100", "a100", match=f"itl={0.999 * slow:.6f}s")
    match = told["matches"][0]
    assert not match["sides"]["h100"]["observed"]
    assert match["sides"]["h100"]["high"] == pytest.approx(truths["h100", 32].itl, rel=0.03)
    assert match["sides"]["a100"]["observed"]
    cheapest = match["cheapest_within"]["h100"]["figures"]["joules_per_unit"]["value"]
    assert cheapest == pytest.approx(truths["h100", 32].per_token, rel=0.02)


def test_tasks_on_one_gpu_are_told_apart_by_the_joules_that_they_truly_caused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Chats beside long thoughts: joules by request and by token of each are those of the true ledger."""
    chat, thought = (
        RequestClass("chat", 0.8, 200, 0.5, 120, 0.4, 300),
        RequestClass("thought", 0.2, 200, 0.5, 1200, 0.2, 1600),
    )
    run = SimulatedRun(
        100.0, seed=3, rate_per_second=0.9, world=RUNS["a100"][0], classes=(chat, thought), sample_hz=5.0
    )
    minutes: list[EngineMinute] = []
    replay = Replay(run.records(), on_minute=minutes.append)
    finished = [request for request in replay if request.finish_reason != "abort"]
    source = tmp_path / "run.jsonl"
    source.write_text("".join(json_line(with_tasks(each, finished)) for each in minutes))
    assert main(["compare", "--json", "--by", "task", str(source)]) == 0
    told = {side["setup"]["task"]: side["whole"] for side in json.loads(capsys.readouterr().out)["sides"]}
    for task in ("chat", "thought"):
        own = [request for request in finished if task_of(request) == task]
        joules = sum(account.joules for request in own if (account := run.truth.get(request.request_id)))
        tokens = sum(request.output_tokens for request in own)
        assert told[task]["requests"] == len(own)
        assert told[task]["figures"]["joules_per_unit"]["value"] == pytest.approx(joules / tokens, rel=0.05)
        assert told[task]["figures"]["joules_per_request"]["value"] == pytest.approx(
            joules / len(own), rel=0.05
        )
    per_request = [told[task]["figures"]["joules_per_request"]["value"] for task in ("thought", "chat")]
    assert per_request[0] > 5 * per_request[1]


def task_of(request: FinishedRequest) -> str:
    return "chat" if request.output_tokens <= 300 else "thought"


def with_tasks(minute: EngineMinute, finished: Sequence[FinishedRequest]) -> EngineMinute:
    """The minute with its cells by task, as an engine that is told of task classes has them."""
    ended = [
        request
        for request in finished
        if minute.kind.engine == request.engine
        and minute.start_wall_seconds <= request.end_ns / 1e9 - 1.0 < minute.end_wall_seconds
    ]
    cells = {task: [each for each in ended if task_of(each) == task] for task in ("chat", "thought")}
    return replace(minute, tasks=tuple(_cell(task, own) for task, own in cells.items() if own))


def _cell(task: str, requests: Sequence[FinishedRequest]) -> TaskSums:
    firsts = [each.first_token_ns - each.start_ns for each in requests if each.first_token_ns is not None]
    known = [each.attributed_joules for each in requests if each.attributed_joules is not None]
    return TaskSums(
        task=task,
        prompt_bin=0,
        output_bin=0,
        requests=len(requests),
        prompt_tokens=sum(each.prompt_tokens for each in requests),
        output_tokens=sum(each.output_tokens for each in requests),
        joules=sum(known),
        measured_requests=len(known),
        seconds=sum(each.end_ns - each.start_ns for each in requests) / 1e9,
        first_token_seconds=sum(firsts) / 1e9,
        first_token_requests=len(firsts),
    )
