"""Tasks of a trace: with the same settings a replay gives each request the class that it had live."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from joulescope.attribution.policy import Policy
from joulescope.clock import WallAnchor
from joulescope.config.load import load
from joulescope.daemon.label_rules import label_rules
from joulescope.hook import wire
from joulescope.ingest.trace import TraceReader, TraceWriter
from joulescope.minute_model import EngineMinute
from joulescope.model import EngineTotals, FinishedRequest
from joulescope.pipeline import Pipeline, Scope
from joulescope.replay import Replay
from joulescope.simulation.traces import simulate_trace
from tests.worlds import MS

SECONDS = 12.0
BY_ID = {"task_from": "request_id", "task_pattern": "(?P<task>[a-z]+)-"}
BY_LENGTHS = {
    "task_from": "header,lengths,route",
    "task_lengths": "summarise: prompt >= 2000 and output < 250; long: output >= 200",
}


def live(path: Path, policy: Policy) -> tuple[list[FinishedRequest], EngineTotals]:
    """A simulated engine through the pipeline as ``serve`` runs it, written down on the way."""
    pipeline = Pipeline(policy, Scope(all_gpus=True), wall=WallAnchor(0, 0), recorder=TraceWriter(path))
    feeder, settled_ns, now_ns = Replay([]), 0, 0
    for record in simulate_trace(SECONDS, seed=5):
        if isinstance(record, wire.RequestStart) and record.request % 3 == 0:
            record.external_id = f"chatcmpl-~tools~{record.external_id}"
        now_ns = max(now_ns, feeder.feed(pipeline, record))
        if now_ns - settled_ns >= 500 * MS:
            settled_ns = now_ns
            pipeline.settle(now_ns)
    pipeline.finish(now_ns)
    (engine,) = pipeline.snapshot(now_ns).engines
    return pipeline.drain_finished(), engine


@pytest.mark.parametrize("flags", [BY_ID, BY_LENGTHS], ids=["by id", "by header and lengths"])
def test_a_replay_tells_the_tasks_that_were_told_live(tmp_path: Path, flags: dict[str, str]) -> None:
    """Each request has its class again, and each class its requests, tokens and joules."""
    path, policy = tmp_path / "trace.jsonl", Policy(labels=label_rules(load(flags, {})[0]))
    finished, engine = live(path, policy)
    with TraceReader(path) as reader:
        replay = Replay(reader, policy)
        again = {request.request_id: request.task for request in replay}
    assert again == {request.request_id: request.task for request in finished}
    assert len(set(again.values())) >= 3
    assert replay.snapshot is not None
    (told,) = replay.snapshot.engines
    assert set(told.tasks) == set(engine.tasks)
    for name, totals in engine.tasks.items():
        assert told.tasks[name].requests_finished == totals.requests_finished
        assert told.tasks[name].generated_tokens == totals.generated_tokens
        assert told.tasks[name].joules == pytest.approx(totals.joules, rel=1e-3, abs=0.5)


def test_minutes_have_the_finished_requests_of_each_class(tmp_path: Path) -> None:
    """By their ends, with their joules: summed over minutes and lengths they are those of the class."""
    path, policy = tmp_path / "trace.jsonl", Policy(labels=label_rules(load(BY_LENGTHS, {})[0]))
    finished, _ = live(path, policy)
    minutes: list[EngineMinute] = []
    with TraceReader(path) as reader:
        list(Replay(reader, policy, on_minute=minutes.append))
    cells = [cell for minute in minutes for cell in minute.tasks]
    told = Counter[str]()
    for cell in cells:
        told[cell.task] += cell.requests
    assert told == Counter(request.task for request in finished)
    joules = sum(cell.joules for cell in cells if cell.task == "summarise")
    own = [request.attributed_joules or 0.0 for request in finished if request.task == "summarise"]
    assert joules == pytest.approx(sum(own), rel=1e-3, abs=0.5)


def test_the_class_is_the_one_that_the_simulation_meant(tmp_path: Path) -> None:
    """Of rules on lengths: by the lengths that each account states, whatever was known when."""
    policy = Policy(labels=label_rules(load(BY_LENGTHS, {})[0]))
    finished, _ = live(tmp_path / "trace.jsonl", policy)
    for request in finished:
        short = request.prompt_tokens >= 2000 and request.output_tokens < 250
        by_length = "summarise" if short else "long" if request.output_tokens >= 200 else "none"
        assert request.task == ("tools" if "~" in request.external_id else by_length)
