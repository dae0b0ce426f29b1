"""Spans over OTLP, taken in by a real receiver: what they say, and what becomes of them."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from random import Random

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from joulescope.clock import ManualClock
from joulescope.export import RequestSink
from joulescope.export.otlp_backoff import Backoff
from joulescope.export.otlp_post import Answer, SpanPost, Verdict
from joulescope.export.otlp_resource import create_resource
from joulescope.export.otlp_spans import GIVE_UP_SECONDS, OtlpSpans
from joulescope.export.span_attributes import SPAN_ATTRIBUTES, SPAN_NAME, attributes_of
from joulescope.export.span_maker import SpanMaker
from joulescope.model import METHOD, METHOD_VERSION
from tests.export.otlp_world import ANCHOR, TRACE_PARENT, spans_to
from tests.export.samples import PARENT_SPAN_ID, TRACE_ID, finished
from tests.otlp_receiver import PATIENCE_SECONDS, ReceivedSpan, Receiver


def counted(**counts: int) -> dict[str, int]:
    """Counts by outcome, those not named being 0."""
    return {"exported": 0, "rejected": 0, "failed": 0, "dropped": 0, "unsampled": 0, **counts}


class Hurried(Backoff):
    """The real pauses, on a clock that only they advance; ``then`` is called with the time after each."""

    def __init__(self, clock: ManualClock, then: Callable[[float], None] = lambda seconds: None) -> None:
        super().__init__(Random(1))
        self.pauses: list[float] = []
        self._clock = clock
        self._then = then

    def after_failure(self, retry_after_seconds: float | None = None) -> float:
        pause_seconds = super().after_failure(retry_after_seconds)
        self.pauses.append(pause_seconds)
        self._clock.advance(pause_seconds)
        self._then(self._clock.now_ns() / 1e9)
        return 0.0


def requests_of(receiver: Receiver) -> list[ReceivedSpan]:
    """The spans of requests, without those of their phases."""
    return [span for span in receiver.spans if span.name == SPAN_NAME]


def test_a_span_carries_energy_tokens_model_and_ids(receiver: Receiver) -> None:
    """A request without a trace becomes a root span with wall times and all that is known of it."""
    sink: RequestSink = spans_to(receiver)
    sink.export([finished(7)])
    sink.close(PATIENCE_SECONDS)
    (span,) = receiver.spans
    assert (span.name, span.parent_span_id, span.is_error) == ("joulescope.request", "", False)
    assert (span.start_ns, span.end_ns) == (1_700_000_000_000_000_001, 1_700_000_002_000_000_006)
    assert span.attributes == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "llama",
        "gen_ai.response.model": "llama",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 64,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.response.finish_reasons": ("stop",),
        "joulescope.request.energy": 4.5,
        "joulescope.request.energy_low": 4.25,
        "joulescope.request.energy_high": 4.75,
        "joulescope.request.marginal_energy": 3.25,
        "joulescope.request.marginal_energy_low": 3.0,
        "joulescope.request.marginal_energy_high": 3.5,
        "joulescope.request.prefill_energy": 1.5,
        "joulescope.request.decode_energy": 3.0,
        "joulescope.request.wasted_energy": 0.0,
        "joulescope.request.avoided_energy": 0.5,
        "joulescope.request.energy_source": "counter",
        "joulescope.request.complete": True,
        "joulescope.request.time_to_first_token": 0.25,
        "joulescope.request.steps": 21,
        "joulescope.request.preemptions": 0,
        "gen_ai.request.id": "cmpl-7-0",
        "joulescope.request.id": "cmpl-7-0-1a2b3c4d",
        "joulescope.request.external_id": "cmpl-7-0",
        "joulescope.engine": "llama-0",
        "joulescope.method": METHOD,
        "joulescope.method_version": METHOD_VERSION,
    }
    assert span.resource["service.name"] == "joulescope"
    assert span.scope == "joulescope"
    assert sink.counts() == counted(exported=1)


def test_a_span_is_a_child_of_the_incoming_trace(receiver: Receiver) -> None:
    """With a traceparent the span joins that trace under that span, its state kept."""
    sink = spans_to(receiver)
    sink.export([finished(trace_parent=TRACE_PARENT, trace_state="vendor=1")])
    sink.close(PATIENCE_SECONDS)
    (span,) = receiver.spans
    assert (span.trace_id, span.parent_span_id) == (TRACE_ID, PARENT_SPAN_ID)
    assert (span.parent_is_remote, span.trace_state) == (True, "vendor=1")
    assert span.span_id not in (PARENT_SPAN_ID, "0" * 16)


def test_the_sampled_flag_is_kept() -> None:
    """The child's own context says sampled as its parent's did, so that whoever reads it decides alike."""
    maker = SpanMaker(ANCHOR, create_resource({}), "none")
    (span,) = maker.make([finished(trace_parent=TRACE_PARENT)]).spans
    assert span.get_span_context().trace_flags.sampled


def test_an_unsampled_trace_stays_unsampled(receiver: Receiver) -> None:
    """A client that decided against sampling gets no span; the request is counted as unsampled."""
    sink = spans_to(receiver)
    sink.export([finished(1, trace_parent=TRACE_PARENT[:-1] + "0"), finished(2)])
    sink.close(PATIENCE_SECONDS)
    assert [span.attributes["joulescope.request.external_id"] for span in receiver.spans] == ["cmpl-2-0"]
    assert sink.counts() == counted(exported=1, unsampled=1)


@pytest.mark.parametrize("trace_parent", ["garbage", f"00-{'0' * 32}-{PARENT_SPAN_ID}-01", "\ud800"])
def test_a_broken_traceparent_makes_a_root(receiver: Receiver, trace_parent: str) -> None:
    """What is not a valid traceparent is ignored, and costs no span."""
    sink = spans_to(receiver)
    sink.export([finished(trace_parent=trace_parent, request_id="odd\ud800id", finish_reason="error")])
    sink.close(PATIENCE_SECONDS)
    (span,) = receiver.spans
    assert (span.parent_span_id, span.is_error) == ("", True)
    assert span.attributes["joulescope.request.id"] == "odd?id"


def test_what_is_not_known_is_absent() -> None:
    """Joules that nobody measured have no attribute: a zero would be a claim."""
    names = ("attributed", "attributed_low", "attributed_high", "marginal", "marginal_low", "marginal_high")
    none = {f"{name}_joules": None for name in (*names, "prefill", "decode", "wasted", "avoided")}
    attributes = attributes_of(finished(**none, first_token_ns=None, complete=False))
    assert [name for name in attributes if "energy" in name] == []
    assert "joulescope.request.time_to_first_token" not in attributes
    assert attributes["joulescope.request.complete"] is False


def test_a_task_is_told_where_tasks_are_told_apart() -> None:
    """And is absent where they are not."""
    assert attributes_of(finished(task="rag"))["joulescope.request.task"] == "rag"
    assert "joulescope.request.task" not in attributes_of(finished())


def test_attribute_names_squat_no_namespace() -> None:
    """Names are unique, and either GenAI's or our own."""
    names = [attribute.name for attribute in SPAN_ATTRIBUTES]
    assert len(set(names)) == len(names)
    assert all(name.startswith(("gen_ai.", "joulescope.")) for name in names)


def test_a_full_batch_is_sent_without_waiting_for_the_delay(receiver: Receiver) -> None:
    """With an hour between sends, a batch that is full still goes out."""
    sink = spans_to(receiver, {"OTEL_BSP_SCHEDULE_DELAY": "3600000", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "3"})
    sink.export([finished(number) for number in range(3)])
    assert len(receiver.wait_for_spans(3)) == 3
    sink.close(PATIENCE_SECONDS)


def test_a_part_of_a_batch_is_sent_after_the_delay(receiver: Receiver) -> None:
    """A single request does not wait for others to fill its batch."""
    sink = spans_to(receiver, {"OTEL_BSP_SCHEDULE_DELAY": "1"})
    sink.export([finished()])
    assert len(receiver.wait_for_spans(1)) == 1
    sink.close(PATIENCE_SECONDS)


def test_a_full_queue_drops_and_counts(receiver: Receiver) -> None:
    """While the collector is stuck the caller is not: the queue fills, the rest is dropped and counted."""
    receiver.hold = threading.Event()
    sink = spans_to(receiver, {"OTEL_BSP_MAX_QUEUE_SIZE": "2", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"})
    sink.export([finished(0)])
    receiver.wait_for_requests(1)
    sink.export([finished(number) for number in range(1, 6)])
    assert sink.counts() == counted(dropped=3)
    receiver.hold.set()
    sink.close(PATIENCE_SECONDS)
    assert sink.counts() == counted(exported=3, dropped=3)
    sink.export([finished(9)])
    assert sink.counts()["dropped"] == 4


def test_a_refusing_collector_is_counted(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """Spans that the collector refuses for good are not sent again, and said once."""
    receiver.status = 400
    sink = spans_to(receiver, {"OTEL_BSP_SCHEDULE_DELAY": "1"})
    with caplog.at_level(logging.WARNING):
        sink.export([finished(1), finished(2)])
        receiver.wait_for_requests(1)
        sink.close(PATIENCE_SECONDS)
    assert receiver.requests == 1
    assert sink.counts() == counted(rejected=2)
    assert [record.message for record in caplog.records] == [
        "the OTLP collector does not take spans: HTTP status 400"
    ]


def test_closing_does_not_wait_for_a_stuck_collector(receiver: Receiver) -> None:
    """Ending gives up on a silent collector; what was under way or queued is counted, once."""
    receiver.hold = threading.Event()
    sink = spans_to(receiver, {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"})
    sink.export([finished(1), finished(2)])
    receiver.wait_for_requests(1)
    sink.close(0.05)
    sink.close(0.05)
    assert not receiver.hold.is_set()
    assert sink.counts() == counted(failed=1, dropped=1)


def test_an_unreachable_collector_neither_raises_nor_hangs() -> None:
    """With nothing listening, closing returns and the spans are accounted for."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        post = SpanPost({}, endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}/v1/traces")
        sink = OtlpSpans(ANCHOR, create_resource({}), post=post, environ={})
        sink.export([finished(1)])
        sink.close(0.05)
        assert sink.counts()["failed"] + sink.counts()["dropped"] == 1


def test_settings_that_make_no_sense_fall_back(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """A queue size that is no number is named in a warning, and the standard default is used."""
    with caplog.at_level(logging.WARNING):
        sink = spans_to(receiver, {"OTEL_BSP_MAX_QUEUE_SIZE": "many"})
    assert "OTEL_BSP_MAX_QUEUE_SIZE" in caplog.text
    sink.export([finished(1)])
    sink.close(PATIENCE_SECONDS)
    assert len(receiver.spans) == 1


def test_patience_is_asked_for_and_given(receiver: Receiver) -> None:
    """A collector that is busy gets the same spans again, not before it said, and the request counts once."""
    receiver.status, receiver.headers = 503, {"Retry-After": "30"}
    clock = ManualClock()

    def then(seconds: float) -> None:
        receiver.status = 200 if seconds > 100 else 429

    backoff = Hurried(clock, then)
    sink = spans_to(receiver, {"OTEL_BSP_SCHEDULE_DELAY": "1"}, clock=clock, backoff=backoff)
    sink.export([finished(1)])
    (span,) = receiver.wait_for_spans(1)
    sink.close(PATIENCE_SECONDS)
    assert backoff.pauses == [30, 30, 30, 30]
    assert receiver.requests == 5
    assert span.attributes["joulescope.request.external_id"] == "cmpl-1-0"
    assert sink.counts() == counted(exported=1)


def test_pauses_double_up_to_a_minute_and_begin_anew() -> None:
    """With jitter of a fifth; after an answer the next failure waits a second again."""
    backoff = Backoff(Random(7))
    pauses = [backoff.after_failure() for _ in range(9)]
    for pause, wanted in zip(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert 0.8 * wanted <= pause <= 1.2 * wanted
    assert len(set(pauses[6:])) == 3
    assert backoff.after_failure(200.0) == 200.0
    backoff.reset()
    assert backoff.after_failure() <= 1.2


class AwayForAnHour:
    """A collector that nobody reaches in the first hour of a clock."""

    def __init__(self, clock: ManualClock) -> None:
        self.attempts = 0
        self.taken: list[object] = []
        self.may_begin, self.is_back = threading.Event(), threading.Event()
        self._clock = clock

    def __call__(self, spans: Sequence[ReadableSpan]) -> Answer:
        self.may_begin.wait(PATIENCE_SECONDS)
        self.attempts += 1
        if self._clock.now_ns() < 3600e9:
            return Answer(Verdict.LATER, "Connection refused")
        self.taken += [(span.attributes or {})["gen_ai.request.id"] for span in spans]
        self.is_back.set()
        return Answer(Verdict.DELIVERED)

    def close(self) -> None:
        pass


def test_a_collector_that_is_away_for_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    """It is tried about once a minute, the log says so once, and when it is back it gets what waited: the
    newest, as many as there is room for. The rest is counted as dropped."""
    clock = ManualClock()
    post = AwayForAnHour(clock)
    environ = {"OTEL_BSP_MAX_QUEUE_SIZE": "6", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"}
    with caplog.at_level(logging.INFO):
        sink = OtlpSpans(
            ANCHOR,
            create_resource({}),
            post=post,
            phases="none",
            environ=environ,
            clock=clock,
            backoff=Hurried(clock),
        )
        sink.export([finished(number) for number in range(2)])
        sink.export([finished(number) for number in range(2, 12)])
        post.may_begin.set()
        assert post.is_back.wait(PATIENCE_SECONDS)
        sink.close(PATIENCE_SECONDS)
    assert post.taken[-6:] == [f"cmpl-{number}-0" for number in range(6, 12)]
    assert sink.counts() == counted(exported=len(post.taken), dropped=12 - len(post.taken))
    assert 60 <= post.attempts <= 90
    first, last = [record.message for record in caplog.records]
    assert "Connection refused; requests wait, 6 at most, and are tried again" in first
    assert last == "spans are delivered again"


def test_a_batch_is_given_up_after_two_hours_and_the_next_has_its_turn(receiver: Receiver) -> None:
    """One that some proxy cannot bear does not keep the others waiting for ever."""
    clock = ManualClock()
    receiver.status = 502

    def then(seconds: float) -> None:
        receiver.status = 200 if seconds > GIVE_UP_SECONDS + 120 else 502

    environ = {"OTEL_BSP_SCHEDULE_DELAY": "1", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"}
    sink = spans_to(receiver, environ, clock=clock, backoff=Hurried(clock, then))
    sink.export([finished(1), finished(2)])
    receiver.wait_for_spans(1)
    sink.close(PATIENCE_SECONDS)
    (span,) = requests_of(receiver)
    assert span.attributes["gen_ai.request.id"] == "cmpl-2-0"
    assert sink.counts() == counted(failed=1, exported=1)


def test_closing_ends_a_pause_with_one_last_attempt(receiver: Receiver) -> None:
    """The collector is back when the process ends: what waited for the next attempt gets it now."""
    receiver.status, receiver.headers = 503, {"Retry-After": "500"}
    sink = spans_to(receiver, {"OTEL_BSP_SCHEDULE_DELAY": "1"})
    sink.export([finished(1)])
    receiver.wait_for_requests(1)
    receiver.status = 200
    sink.close(PATIENCE_SECONDS)
    assert len(requests_of(receiver)) == 1
    assert sink.counts() == counted(exported=1)


def test_closing_tries_each_batch_once(receiver: Receiver) -> None:
    """With the collector away, the first batch fails and those behind it are not even tried."""
    receiver.status = 503
    sink = spans_to(receiver, {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"})
    sink.export([finished(number) for number in range(3)])
    receiver.wait_for_requests(1)
    sink.close(PATIENCE_SECONDS)
    assert sink.counts() == counted(failed=1, dropped=2)


@pytest.mark.parametrize(("refused", "rejected"), [(1, 1), (2, 2), (9, 3), (-4, 0)])
def test_spans_that_a_collector_refuses_of_a_batch_are_counted(
    receiver: Receiver, refused: int, rejected: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A partial success says how many spans, and so how many requests at most; they are not sent again."""
    receiver.rejects = (refused, "too old\x1b[31m")
    sink = spans_to(receiver)
    with caplog.at_level(logging.WARNING):
        sink.export([finished(number) for number in range(3)])
        sink.close(PATIENCE_SECONDS)
    assert sink.counts() == counted(exported=3 - rejected, rejected=rejected)
    assert receiver.requests == 1
    assert "too old [31m" in caplog.text
    assert "\x1b" not in caplog.text


def test_a_request_that_no_span_can_be_made_of_costs_its_batch_alone(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in one place does not end the thread: the batch is counted, and the next goes out."""
    sink = spans_to(receiver, {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"})
    sink.export([finished(1, start_ns="soon"), finished(2)])
    sink.close(PATIENCE_SECONDS)
    assert [span.attributes["gen_ai.request.id"] for span in requests_of(receiver)] == ["cmpl-2-0"]
    assert sink.counts() == counted(failed=1, exported=1)
    assert "please report it" in caplog.text
