"""The phases of a request, as values and as spans or events that a real receiver takes in."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.export.phases import PHASES, phases_of
from joulescope.export.span_attributes import EVENT_ATTRIBUTES, PHASE_ATTRIBUTES, SPAN_ATTRIBUTES
from joulescope.model import FinishedRequest
from tests.export.otlp_world import ANCHOR, TRACE_PARENT, spans_to
from tests.export.samples import SECOND, TRACE_ID, finished
from tests.otlp_receiver import PATIENCE_SECONDS, ReceivedSpan, Receiver

MS = 1_000_000


def whole(**changes: object) -> FinishedRequest:
    """It waited 50 ms, had its first token after 250 ms, and was out for 400 ms while decoding."""
    known = {
        "first_step_ns": 90 * SECOND + 50 * MS,
        "pauses_ns": ((91 * SECOND, 91 * SECOND + 400 * MS),),
        "preemptions": 1,
    }
    return finished(7, **{**known, **changes})


def test_phases_follow_each_other_and_share_the_joules() -> None:
    """Queue, prefill and decode tile the request's life; a preemption lies inside; waiting costs nothing."""
    phases = phases_of(whole())
    assert [(phase.name, phase.start_ns - 90 * SECOND, phase.end_ns - 90 * SECOND) for phase in phases] == [
        ("queue", 0, 50 * MS),
        ("prefill", 50 * MS, 250 * MS),
        ("decode", 250 * MS, 2 * SECOND + 5),
        ("preempted", SECOND, SECOND + 400 * MS),
    ]
    assert [phase.joules for phase in phases] == [0.0, 1.5, 3.0, 0.0]


def names(request: FinishedRequest) -> list[str]:
    return [phase.name for phase in phases_of(request)]


def test_a_request_without_a_first_token_ends_in_its_prefill() -> None:
    """Its client hung up before."""
    assert names(whole(first_token_ns=None, pauses_ns=())) == ["queue", "prefill"]


def test_a_request_that_never_ran_only_waited() -> None:
    """Given up in the queue."""
    (phase,) = phases_of(whole(first_step_ns=None, first_token_ns=None, steps=0, pauses_ns=()))
    assert (phase.name, phase.end_ns - phase.start_ns) == ("queue", 2 * SECOND + 5)


def test_where_the_first_step_is_not_known_nothing_is_said() -> None:
    """A wrong end of the queue is worse than none."""
    assert names(finished(7)) == []


@pytest.mark.parametrize("changes", [{"kind": "pooling"}, {"unit": "image"}])
def test_what_generates_no_tokens_computes(changes: dict[str, object]) -> None:
    """Embeddings and images have no prefill and decode to tell apart."""
    phases = phases_of(whole(pauses_ns=(), **changes))
    assert [(phase.name, phase.joules) for phase in phases] == [("queue", 0.0), ("compute", 4.5)]


def test_joules_that_nobody_measured_are_in_no_phase() -> None:
    """Not even in those that cost nothing: a zero would be a claim."""
    none = {f"{name}_joules": None for name in ("attributed", "prefill", "decode")}
    assert {phase.joules for phase in phases_of(whole(**none))} == {None}


instants = st.integers(0, 100)


@given(
    st.tuples(instants, instants),
    st.none() | instants,
    st.none() | instants,
    st.lists(st.tuples(instants, instants), max_size=3),
)
def test_phases_never_leave_the_request(
    life: tuple[int, int], first_step: int | None, first_token: int | None, pauses: list[tuple[int, int]]
) -> None:
    """Whatever instants an engine tells: known names, no length below zero, nothing after the end."""
    start_ns, end_ns = min(life), max(life)
    request = replace(
        finished(), start_ns=start_ns, end_ns=end_ns, first_step_ns=first_step, first_token_ns=first_token
    )
    for phase in phases_of(replace(request, pauses_ns=tuple(pauses))):
        assert phase.name in PHASES
        assert phase.start_ns <= phase.end_ns <= end_ns


def by_name(receiver: Receiver) -> dict[str, ReceivedSpan]:
    return {span.name: span for span in receiver.spans}


def test_phases_are_children_of_the_requests_span(receiver: Receiver) -> None:
    """By default: spans with the phase's time and joules, in the caller's trace."""
    sink = spans_to(receiver)
    sink.export([whole(trace_parent=TRACE_PARENT)])
    sink.close(PATIENCE_SECONDS)
    spans = by_name(receiver)
    request = spans.pop("joulescope.request")
    assert set(spans) == {
        f"joulescope.request.{name}" for name in ("queue", "prefill", "decode", "preempted")
    }
    for span in spans.values():
        assert (span.trace_id, span.parent_span_id) == (TRACE_ID, request.span_id)
        assert not span.parent_is_remote
        assert span.attributes["joulescope.engine"] == "llama-0"
    decode = spans["joulescope.request.decode"]
    assert decode.start_ns == ANCHOR.wall_of(90 * SECOND + 250 * MS)
    assert decode.end_ns == request.end_ns
    assert decode.attributes["joulescope.phase"] == "decode"
    energies = [span.attributes["joulescope.phase_energy"] for span in spans.values()]
    assert sum(energies) == request.attributes["joulescope.request.energy"] == 4.5
    assert sink.counts()["exported"] == 1


def test_phases_may_be_events(receiver: Receiver) -> None:
    """One span a request, with an instant and a length for each phase."""
    sink = spans_to(receiver, phases="events")
    sink.export([whole()])
    sink.close(PATIENCE_SECONDS)
    (span,) = receiver.spans
    assert [(event.name, event.time_ns - span.start_ns) for event in span.events] == [
        ("joulescope.request.queue", 0),
        ("joulescope.request.prefill", 50 * MS),
        ("joulescope.request.decode", 250 * MS),
        ("joulescope.request.preempted", SECOND),
    ]
    assert span.events[1].attributes == {
        "joulescope.phase": "prefill",
        "joulescope.phase_energy": 1.5,
        "joulescope.phase_duration": 0.2,
    }


def test_phases_may_be_left_out(receiver: Receiver) -> None:
    """For a backend that is paid by the span, and shows no events."""
    sink = spans_to(receiver, phases="none")
    sink.export([whole()])
    sink.close(PATIENCE_SECONDS)
    (span,) = receiver.spans
    assert span.events == ()


def test_what_is_not_sampled_has_no_phases(receiver: Receiver) -> None:
    """A phase follows its request's sampling decision."""
    sink = spans_to(receiver)
    sink.export([whole(trace_parent=TRACE_PARENT[:-1] + "0")])
    sink.close(PATIENCE_SECONDS)
    assert receiver.spans == []
    assert sink.counts()["unsampled"] == 1


def test_no_name_of_a_phase_is_one_of_the_request() -> None:
    """A sum over an attribute of all spans must not count the same joules twice; the engine is no sum."""
    of_phases = {attribute.name for attribute in (*PHASE_ATTRIBUTES, *EVENT_ATTRIBUTES)}
    assert of_phases & {attribute.name for attribute in SPAN_ATTRIBUTES} == {"joulescope.engine"}
