"""Wrong calls are errors where they are made, with words that mend them; nothing of them is sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from joulescope.hook import wire
from joulescope.sdk import Cost, Engine, Request
from joulescope.sdk import book as book_module
from tests.sdk.bench import GPU, SECOND, Bench, kinds, of

WRONG_CALLS: list[tuple[Callable[[Engine, Request], Any], str]] = [
    (lambda engine, request: engine.step({request: 0}), "work of request 'r1' is 0: it must lie between 1"),
    (lambda engine, request: engine.step({request: -4}), "is -4"),
    (lambda engine, request: engine.step({request: 2**31}), "2147483647"),
    (lambda engine, request: engine.step({request: 0.5}), "choose a smaller unit"),
    (lambda engine, request: engine.step({request: True}), "whole number"),
    (lambda engine, request: engine.step({}), "nobody is in the step"),
    (lambda engine, request: engine.step(["r1"]), "use what request_started"),
    (lambda engine, request: engine.step([request, request]), "named twice"),
    (lambda engine, request: engine.step([request], start_ns=1), "s before what it must follow"),
    (lambda engine, request: engine.step([request], start_ns=time.time_ns()), "time.monotonic_ns"),
    (lambda engine, request: engine.step([request], start_ns=5.5), "whole nanoseconds"),
    (lambda engine, request: engine.step([request]).produced({request: -1}), "output of request 'r1' is -1"),
    (lambda engine, request: engine.request_ended(None), "None is no request"),
    (lambda engine, request: engine.request_ended(request, ""), "the reason is empty"),
    (lambda engine, request: engine.request_started(""), "the request's id is empty"),
    (lambda engine, request: engine.request_started(7), "must be a string"),
    (lambda engine, request: engine.request_started("r2", prompt_work=-1), "prompt_work of request 'r2'"),
    (lambda engine, request: engine.request_started("r2", lora=None), "lora is None"),
    (
        lambda engine, request: engine.report_step([request], start_ns=6 * SECOND, end_ns=5 * SECOND),
        "end_ns lies 1.000 s before",
    ),
    (
        lambda engine, request: engine.report_step([request], start_ns=5 * SECOND, end_ns=9 * SECOND),
        "end_ns lies 3.000 s in the future",
    ),
]


@pytest.mark.parametrize(("call", "words"), WRONG_CALLS, ids=[words for _, words in WRONG_CALLS])
def test_a_wrong_call_is_an_error_at_once(
    bench: Bench, call: Callable[[Engine, Request], Any], words: str
) -> None:
    """The message says what is wrong and what it was, and the request's account is as it was before."""
    request = bench.engine.request_started("r1")
    bench.clock.advance(1.0)
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        call(bench.engine, request)
    assert kinds(bench.turn()) == ["hello", "request_start"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gpus": GPU}, "give a list"),
        ({"gpus": [""]}, "nvidia-smi -L"),
        ({"gpus": [GPU, GPU]}, "twice"),
        ({"unit": ""}, "unit is empty"),
        ({"late_seconds": 6}, "between 0 and 5"),
        ({"late_seconds": -1}, "between 0 and 5"),
        ({"socket": "/" + "x" * 107}, "choose a shorter"),
    ],
)
def test_an_engine_that_cannot_be(options: dict[str, Any], words: str) -> None:
    """What cannot be used is said when the engine is made, before anything is served."""
    with pytest.raises(ValueError, match=words):
        Engine("painter", thread=False, environ={}, **options)


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({}, "says nothing"),
        ({"weight_bytes": -1.0}, r"Cost.weight_bytes is -1.0"),
        ({"flops_per_work": float("nan")}, "finite"),
        ({"flops_per_output": "1e9"}, "Cost.flops_per_output is '1e9'"),
    ],
)
def test_a_cost_that_cannot_be(figures: dict[str, Any], words: str) -> None:
    """A cost of nothing, below nothing or of no number is no cost."""
    with pytest.raises(ValueError, match=words):
        Cost(**figures)


def test_requests_of_others_are_not_known(bench: Bench, tmp_path: Path) -> None:
    """A request that has ended, or is another engine's, can be in no step."""
    other = Bench(tmp_path / "other.sock").engine
    stranger = other.request_started("theirs")
    with pytest.raises(ValueError, match=r"'theirs', open, .* is not of this engine"):
        bench.engine.step([stranger])
    request = bench.engine.request_started("r1")
    bench.engine.request_ended(request, "stop")
    for call in (bench.engine.request_ended, lambda each: bench.engine.step([each])):
        with pytest.raises(ValueError, match=r"'r1', ended: stop, .* has ended"):
            call(request)
    other.close()


def test_a_step_is_over_once(bench: Bench) -> None:
    """After its end a step takes nothing more, and outputs of strangers it never takes."""
    request, other = bench.engine.request_started("r1"), bench.engine.request_started("r2")
    step = bench.engine.step([request])
    with pytest.raises(ValueError, match=r"'r2'.* was not in this step"):
        step.produced([other])
    step.end()
    for call in (step.end, lambda: step.produced([request])):
        with pytest.raises(ValueError, match="has ended"):
            call()
    assert len(of(bench.turn(), wire.Step)) == 1


def test_a_step_that_is_ended_wrongly_is_still_under_way(bench: Bench) -> None:
    """A wrong instant costs nothing: the step can be ended again, rightly."""
    request = bench.engine.request_started("r1")
    step = bench.engine.step([request])
    with pytest.raises(ValueError, match="future"):
        step.end(end_ns=bench.clock.now_ns() + SECOND)
    step.end()
    assert kinds(bench.turn()) == ["hello", "request_start", "step"]


def test_steps_are_reported_in_the_order_of_their_ends(bench: Bench) -> None:
    """One that ended before the last one reported is refused: the sidecar would drop it in silence."""
    request = bench.engine.request_started("r1")
    bench.clock.advance(1.0)
    bench.engine.report_step([request], start_ns=5 * SECOND, end_ns=6 * SECOND)
    with pytest.raises(ValueError, match="the end of the last step"):
        bench.engine.report_step([request], start_ns=5 * SECOND, end_ns=5 * SECOND + 1)
    assert request.work == 1


def test_numbers_of_numpy_are_numbers(bench: Bench) -> None:
    """Work that comes out of an array need not be converted."""
    numpy = pytest.importorskip("numpy")
    request = bench.engine.request_started("r1", prompt_work=numpy.int32(3))
    with bench.engine.step({request: numpy.int64(9)}):
        pass
    (step,) = of(bench.turn(), wire.Step)
    assert step.scheduled == [9]


def test_requests_that_are_never_ended_do_not_fill_the_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond a limit the oldest is given up, which the log says once, and the sidecar hears of each."""
    monkeypatch.setattr(book_module, "MAX_OPEN_REQUESTS", 3)
    requests = [bench.engine.request_started(f"r{number}") for number in range(6)]
    ends = of(bench.turn(), wire.RequestEnd)
    assert [(end.request, end.reason) for end in ends] == [(number, "evicted") for number in (1, 2, 3)]
    assert [each.reason for each in requests] == ["evicted"] * 3 + [""] * 3
    (line,) = [record.getMessage() for record in caplog.records]
    assert "request_ended" in line


def test_steps_that_are_never_ended_are_found_out(bench: Bench) -> None:
    """An engine that forgets to end its steps hears of it before its memory is full."""
    request = bench.engine.request_started("r1")
    steps = [bench.engine.step([request]) for _ in range(1024)]
    with pytest.raises(ValueError, match="1024 steps are under way already"):
        bench.engine.step([request])
    steps[0].end()
    bench.engine.step([request]).end()
    assert request.work == 1025


def test_long_ids_are_cut(bench: Bench) -> None:
    """An id that a client made too long keeps what the sidecar would keep, and costs no more."""
    bench.engine.request_started("x" * 1000, trace_state="y" * 1000)
    (start,) = of(bench.turn(), wire.RequestStart)
    assert (len(start.request_id), len(start.trace_state)) == (256, 512)
