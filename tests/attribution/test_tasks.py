"""Task classes: who says of which a request is, when that is known, and that no joule is lost or moved."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from joulescope.attribution.labels import LabelRules
from joulescope.attribution.policy import Policy
from joulescope.attribution.requests import RequestTable
from joulescope.attribution.tasks import MAX_TASK_CHARACTERS, TaskBook, told_task
from joulescope.config import Settings
from joulescope.config.load import load
from joulescope.config.tasks import LengthRules
from joulescope.daemon.label_rules import label_rules
from joulescope.hook import wire
from joulescope.label_model import LengthRule
from joulescope.model import EngineTotals, FinishedRequest, OpenRequest, RequestEnded, RequestStarted
from joulescope.pipeline import Pipeline
from tests.attribution.test_properties import run, worlds
from tests.examples import examples
from tests.worlds import MS, SECOND, end, hello, start, step

BY_LENGTHS = "short: output <= 2; deep: prompt >= 3 and output >= 3; long: output >= 6; brief: max_output < 4"
IDS = (
    "",
    "chatcmpl-a",
    "~rag~1",
    "acme~code~1",
    "cmpl-~x~1",
    "embd-~y~1",
    "~other~1",
    "~none~1",
    "odd-1",
    "even-1",
)
RULES = LabelRules(
    tasks=("rag",),
    most_tasks=2,
    task_from=("header", "lora", "lengths", "request_id"),
    task_pattern=re.compile("(?P<task>odd|even)-"),
    task_lengths=LengthRules().parse(BY_LENGTHS),
)
MOST_NAMES = len({"none", "other", "rag", "short", "deep", "long", "brief"}) + RULES.most_tasks


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    world=worlds(),
    told=st.lists(
        st.tuples(
            st.sampled_from(IDS), st.sampled_from(("", "", "", "sql")), st.sampled_from((None, 0, 3, 9))
        ),
        min_size=1,
        max_size=9,
    ),
)
def test_each_class_has_the_joules_of_its_requests(
    world: list[object], told: list[tuple[str, str, int | None]]
) -> None:
    """At any time each class holds what its requests used, to the microjoule and the token; what open
    requests used whose class is not decided is told beside; together that is what is attributed. No counter
    falls, and there is never a class without bound."""
    for item in world:
        if isinstance(item, wire.RequestStart):
            number = 7 * item.session + item.request
            item.external_id, item.lora, item.max_tokens = told[number % len(told)]
            item.request_id = f"{item.external_id}|{number}"
    before: dict[object, float] = {}
    for pipeline, snapshot, finished in run(world, Policy(labels=RULES)):
        after: dict[object, float] = {}
        for engine in snapshot.engines:
            check_sums(engine)
            open_now = pipeline.open_requests().costliest(1000)
            label = engine.info.engine
            check_requests(
                engine,
                [request for request in finished if request.engine == label],
                [request for request in open_now if request.engine == label],
            )
            assert len(engine.tasks) <= MOST_NAMES
            after.update(counters(engine))
        assert all(after[key] >= value for key, value in before.items())
        before = after


def check_sums(engine: EngineTotals) -> None:
    attributed = Counter[str]()
    for (_, phase), joules in engine.attributed_joules.items():
        attributed[phase] += round(1e6 * joules)
    for phase in ("prefill", "decode"):
        parts = [each.joules[phase] for each in engine.tasks.values()]
        assert (
            sum(round(1e6 * part) for part in [*parts, engine.undecided_joules[phase]]) == attributed[phase]
        )
    done = sum(each.requests_finished for each in engine.tasks.values())
    assert done == sum(engine.requests_finished.values())
    buckets = zip(*(each.joules_per_request.counts for each in engine.tasks.values()), strict=True)
    assert tuple(map(sum, buckets)) == engine.joules_per_request.counts


def check_requests(
    engine: EngineTotals, finished: Sequence[FinishedRequest], open_now: Sequence[OpenRequest]
) -> None:
    uj, tokens = Counter[str](), Counter[str]()
    for request in (*finished, *open_now):
        uj[request.task] += round(1e6 * (request.attributed_joules or 0.0))
    for each in open_now:
        tokens[each.task] += each.output_tokens
    assert uj.pop("", 0) == round(1e6 * sum(engine.undecided_joules.values()))
    assert "" not in {request.task for request in finished}
    assert {name: round(1e6 * sum(told.joules.values())) for name, told in engine.tasks.items()} == {
        name: uj[name] for name in engine.tasks
    }
    assert set(+uj) <= set(engine.tasks)
    undecided = engine.tokens.get("generated", 0) - sum(t.generated_tokens for t in engine.tasks.values())
    assert undecided == tokens[""]
    ended = Counter(request.task for request in finished)
    assert ended == Counter({name: told.requests_finished for name, told in engine.tasks.items()})


def counters(engine: EngineTotals) -> Iterable[tuple[object, float]]:
    yield (engine.info.engine, "refused"), engine.refused_labels["task"]
    for name, told in engine.tasks.items():
        key = (engine.info.engine, name)
        yield (*key, "tokens"), told.generated_tokens
        yield (*key, "finished"), told.requests_finished
        yield (*key, "observed"), sum(told.joules_per_request.counts)
        for phase, joules in told.joules.items():
            yield (*key, phase), joules


CONDITIONS = st.lists(
    st.tuples(
        st.sampled_from(("prompt", "output", "max_output")),
        st.sampled_from((">=", "<=", ">", "<", "=")),
        st.integers(1, 12),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=examples(300), deadline=None)
@given(
    conditions=st.lists(CONDITIONS, min_size=1, max_size=4),
    prompt=st.integers(0, 12),
    limit=st.one_of(st.none(), st.integers(0, 12)),
    pieces=st.lists(st.integers(0, 4), max_size=6),
)
def test_what_is_decided_early_is_what_the_end_would_say(
    conditions: list[list[tuple[str, str, int]]], prompt: int, limit: int | None, pieces: list[int]
) -> None:
    """Whenever a class is decided, it is the first rule that holds of the lengths as they come out in the
    end, by the conditions as Python reads them."""
    texts = [" and ".join(f"{a} {b} {c}" for a, b, c in each) for each in conditions]
    try:
        rules = LengthRules().parse("; ".join(f"r{at}: {text}" for at, text in enumerate(texts)))
    except ValueError:  # of a rule that can never hold
        assume(False)
    final = min(sum(pieces), limit) if limit is not None else sum(pieces)
    values = {"prompt": prompt, "output": final, "max_output": limit}
    expected = next(
        (f"r{at}" for at, each in enumerate(conditions) if all(_holds(c, values) for c in each)), "none"
    )
    book, table = TaskBook(LabelRules(task_from=("lengths",), task_lengths=rules)), RequestTable()
    slot = table.open(RequestStarted("e", 1, "r", 0, prompt_tokens=prompt, max_tokens=limit))
    book.open(table, slot)
    said = [_task(table, slot)]
    for piece in pieces:
        table.generated_tokens[slot] = min(table.generated_tokens[slot] + piece, final)
        book.reconsider(table)
        said.append(_task(table, slot))
    book.decide_ends(table, [RequestEnded("e", 1, 1, "stop")])
    assert _task(table, slot) == expected
    assert set(said) <= {"", expected}
    assert said == sorted(said, key=bool)


COMPARED = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "=": operator.eq}


def _holds(condition: tuple[str, str, int], values: dict[str, int | None]) -> bool:
    length, comparison, number = condition
    value = values[length]
    return value is not None and bool(COMPARED[comparison](value, number))


def _task(table: RequestTable, slot: int) -> str:
    started = table.started[slot]
    assert started is not None
    return "" if table.task_due[slot] else started.task


@pytest.mark.parametrize(
    ("rule", "prompt", "limit", "generated", "decided"),
    [
        ("a: prompt >= 10", 10, None, 0, "a"),
        ("a: prompt >= 10", 9, None, 0, "none"),
        ("a: output >= 5", 1, None, 4, ""),
        ("a: output >= 5", 1, None, 5, "a"),
        ("a: output >= 5", 1, 4, 0, "none"),  # it may not become so long
        ("a: output < 5", 1, 4, 0, "a"),
        ("a: output < 5", 1, 9, 5, "none"),
        ("a: output < 5", 1, 9, 4, ""),
        ("a: prompt > 3 and output < 5", 3, 9, 0, "none"),
        ("a: max_output <= 4", 1, 4, 0, "a"),
        ("a: max_output <= 4", 1, None, 0, "none"),
        ("a: output = 3; b: prompt >= 1", 1, 9, 0, ""),
        ("a: output = 3; b: prompt >= 1", 1, 9, 4, "b"),
    ],
)
def test_a_class_is_decided_as_soon_as_nothing_can_change_it(
    rule: str, prompt: int, limit: int | None, generated: int, decided: str
) -> None:
    """By prompt and limit at once; by the output when enough came out, or the limit leaves no room."""
    rules = LabelRules(task_from=("lengths",), task_lengths=LengthRules().parse(rule))
    book, table = TaskBook(rules), RequestTable()
    slot = table.open(RequestStarted("e", 1, "r", 0, prompt_tokens=prompt, max_tokens=limit))
    book.open(table, slot)
    table.generated_tokens[slot] = generated
    book.reconsider(table)
    assert _task(table, slot) == decided


def test_a_pooling_request_has_no_output_to_wait_for() -> None:
    """An embedding generates nothing: what its output could decide is decided when it comes."""
    rules = LabelRules(task_from=("lengths",), task_lengths=LengthRules().parse("a: output < 5"))
    book, table = TaskBook(rules), RequestTable()
    slot = table.open(RequestStarted("e", 1, "r", 0, kind="pooling"))
    book.open(table, slot)
    assert _task(table, slot) == "a"


def test_a_request_whose_start_was_lost_has_no_lengths_to_go_by() -> None:
    """Its prompt is not known, and not known is not short; a source behind the rules is asked."""
    pipeline = Pipeline(Policy(labels=RULES))
    pipeline.take(0, [hello(gpus=())])
    pipeline.take(0, [step(0, 0, MS, [7]), end(7, 2 * MS, 0)])
    pipeline.take(0, [start(8, 3 * MS, prompt=1, resumed=True), end(8, 4 * MS, 0)])
    pipeline.finish(SECOND)
    told = {request.request_id: request.task for request in pipeline.drain_finished()}
    assert told == {"unknown-7": "none", "r8": "short"}


@pytest.mark.parametrize(
    ("external_id", "header", "route"),
    [
        ("chatcmpl-acme~rag~7f3", "rag", "chat"),
        ("cmpl-~rag~7f3-0", "rag", "completion"),
        ("2_chatcmpl-~rag~7f3", "rag", "chat"),
        ("embd-~rag~1-0", "rag", "embedding"),
        ("score-1", "", "score"),
        ("transcribe-~notes~1", "notes", "transcription"),
        ("generate-tokens-1", "", "generate"),
        ("resp_0a1b", "", "responses"),
        ("~rag~7f3", "rag", ""),
        ("chatcmpl-acme~7f3", "", "chat"),
        ("chatcmpl-acme~~7f3", "", "chat"),
        ("chatcmpl-~r ag~7f3", "", "chat"),
        ("chatcmpl-~" + "a" * 64 + "~7f3", "", "chat"),
        ("chatcmpl-~rag~x~y", "rag", "chat"),
        ("a\ud800~\ud800~1", "", ""),
        ("", "", ""),
    ],
)
def test_header_and_route_stand_in_the_id(external_id: str, header: str, route: str) -> None:
    """The middleware's mark and vLLM's prefix; what is not plain says nothing."""
    request = RequestStarted("e", 1, "", 0, external_id)
    assert told_task(request, RULES, ("header",)) == header
    assert told_task(request, RULES, ("route",)) == route


def test_the_first_source_that_says_anything_is_believed() -> None:
    """In the order that is given; a source that says nothing leaves it to the next."""
    request = RequestStarted("e", 1, "chatcmpl-~rag~odd-1", 0, lora="sql")
    assert told_task(request, RULES, ("header", "route")) == "rag"
    assert told_task(request, RULES, ("route", "header")) == "chat"
    assert told_task(request, RULES, ("request_id", "lora", "route")) == "sql"
    assert told_task(request, RULES, ("request_id",)) == ""
    long = RequestStarted("e", 1, "r", 0, lora="s\ud800" * 80)
    assert told_task(long, RULES, ("lora",)) == ("s?" * 80)[:MAX_TASK_CHARACTERS]


def test_what_follows_the_lengths_is_asked_where_no_rule_holds() -> None:
    """A source behind the rules is read at the start and counts when the rules are through."""
    flags = {"task_from": "lengths,route", "task_lengths": "long: output >= 5"}
    book, table = TaskBook(label_rules(load(flags, {})[0])), RequestTable()
    for number, generated in ((1, 4), (2, 5)):
        slot = table.open(RequestStarted("e", number, "cmpl-1", 0))
        book.open(table, slot)
        table.generated_tokens[slot] = generated
    book.reconsider(table)
    book.decide_ends(table, [RequestEnded("e", 1, 9, "stop"), RequestEnded("e", 2, 9, "stop")])
    assert [started.task for started in table.started if started] == ["completion", "long"]


def test_classes_beyond_the_limit_are_other_everywhere() -> None:
    """A client that makes names up fills no page and no log: what has no room is ``other`` in its account."""
    rules = LabelRules(tasks=("rag",), most_tasks=1, task_from=("header",))
    pipeline = Pipeline(Policy(labels=rules))
    pipeline.take(0, [wire.Hello(time_ns=0, engine=wire.EngineFacts(model="m"))])
    for number, name in enumerate(("x", "y", "z", "rag", "none", "other")):
        pipeline.take(0, [wire.RequestStart(request=number, request_id=f"~{name}~1", time_ns=number)])
        pipeline.take(0, [wire.RequestEnd(request=number, time_ns=number, reason="stop")])
    pipeline.finish(100)
    assert [request.task for request in pipeline.drain_finished()] == [
        "x",
        "other",
        "other",
        "rag",
        "none",
        "other",
    ]
    (engine,) = pipeline.snapshot(100).engines
    assert list(engine.tasks) == ["none", "other", "rag", "x"]
    assert engine.refused_labels["task"] == 2


def test_without_tasks_nothing_is_said_of_them() -> None:
    """Off is the default: no task in the accounts, none in the snapshot."""
    assert label_rules(Settings()).task_from == ()
    pipeline = Pipeline()
    pipeline.take(0, [wire.Hello(time_ns=0, engine=wire.EngineFacts(model="m"))])
    pipeline.take(0, [wire.RequestStart(request=1, request_id="~rag~1", time_ns=0)])
    pipeline.take(0, [wire.RequestEnd(request=1, time_ns=1, reason="stop")])
    pipeline.finish(2)
    (engine,) = pipeline.snapshot(2).engines
    assert (engine.tasks, engine.undecided_joules, "task" in engine.refused_labels) == ({}, {}, False)
    assert [request.task for request in pipeline.drain_finished()] == [""]


def test_rules_are_values_that_compare() -> None:
    """Two rules that ask the same are the same, however they are written."""
    read = LengthRules().parse
    assert read("a: output < 5") == read("a : output <= 4") == (LengthRule("a", output=(0, 4)),)
