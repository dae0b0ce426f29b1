"""Finished requests that are kept: bounded by time, number and size, and found by any of their ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulescope.clock import ManualClock, WallAnchor
from joulescope.export.records import finished_line
from joulescope.export.request_ids import MAX_PARTS, answer_id
from joulescope.export.request_lookup import Found, Lookup
from joulescope.export.request_store import ENTRY_BYTES, RequestStore, Retention
from joulescope.model import FinishedRequest, OpenRequest
from tests.examples import examples
from tests.export.samples import finished

ANCHOR = WallAnchor(monotonic_ns=0, wall_ns=1_700_000_000_000_000_000)


def store_of(retention: Retention | None = None) -> tuple[RequestStore, ManualClock]:
    clock = ManualClock()
    return RequestStore(clock, ANCHOR, retention), clock


def request(external_id: str, number: int = 0, **more: object) -> FinishedRequest:
    return replace(
        finished(),
        request_id=f"{external_id}-{number:08x}",
        external_id=external_id,
        **more,  # type: ignore[arg-type]
    )


def opened(external_id: str, number: int = 0, engine: str = "e", start_ns: int = 0) -> OpenRequest:
    return OpenRequest(
        request_id=f"{external_id}-{number:08x}",
        external_id=external_id,
        engine=engine,
        model="m",
        lora="",
        kind="generate",
        start_ns=start_ns,
        first_token_ns=None,
        phase="decode",
        prompt_tokens=5,
        cached_tokens=0,
        output_tokens=2,
        preemptions=0,
        attributed_joules=1.5,
        prefill_joules=0.5,
        marginal_joules=0.5,
    )


class Open:
    """Open requests, found as the daemon finds them."""

    def __init__(self, *requests: OpenRequest) -> None:
        self.requests = requests

    def __call__(self, name: str) -> Sequence[OpenRequest]:
        return [each for each in self.requests if name in (each.request_id, each.external_id)]


def names(found: Found) -> list[str]:
    final = [kept.external_id for kept in found.finished]
    return sorted([*final, *(each.external_id for each in found.open)])


def test_a_line_is_kept_as_the_request_log_has_it() -> None:
    """Who asks gets the same bytes that stand in the log."""
    store, _ = store_of()
    store.export([finished()])
    (kept,) = store.by_request(finished().request_id)
    assert kept.line + b"\n" == finished_line(finished(), ANCHOR)


@pytest.mark.parametrize(
    ("external_id", "answer"),
    [
        ("cmpl-7f3a-0", "cmpl-7f3a"),
        ("cmpl-a-1-12", "cmpl-a-1"),
        ("embd-x-3", "embd-x"),
        ("score-x-3", "score-x"),
        ("chatcmpl-7f3a", "chatcmpl-7f3a"),
        ("chatcmpl-7f3a-1", "chatcmpl-7f3a-1"),
        ("chatcmpl-7f3a_1", "chatcmpl-7f3a"),
        ("resp_7f3a_0", "resp_7f3a"),
        ("job-7", "job-7"),  # another engine's own ids are no parts of anything
        ("", ""),
    ],
)
def test_the_answer_that_a_request_is_part_of(external_id: str, answer: str) -> None:
    """As vLLM numbers prompts: of completions and poolings always, of chats in a batch."""
    assert answer_id(external_id) == answer


def test_an_id_means_what_the_client_saw() -> None:
    """Two clients chose ``a`` and ``a-0``: each id leads to its own answer, and never to both."""
    store, _ = store_of()
    store.export([request("cmpl-a-0"), request("cmpl-a-1"), request("cmpl-a-0-0")])
    lookup = Lookup(store, Open())
    assert names(lookup.find("cmpl-a")) == ["cmpl-a-0", "cmpl-a-1"]
    assert names(lookup.find("cmpl-a-0")) == ["cmpl-a-0-0"]
    assert names(lookup.find("cmpl-a-1")) == ["cmpl-a-1"]
    assert names(lookup.find("cmpl-a-0-00000000")) == ["cmpl-a-0"]
    assert names(lookup.find("cmpl-")) == []


def test_chats_are_found_as_a_whole_first() -> None:
    """A chat's id is the engine's; only batches have parts."""
    store, _ = store_of()
    store.export([request("chatcmpl-a"), request("chatcmpl-a_1"), request("chatcmpl-b_0")])
    lookup = Lookup(store, Open(opened("chatcmpl-b_1")))
    assert names(lookup.find("chatcmpl-a")) == ["chatcmpl-a"]
    assert names(lookup.find("chatcmpl-b")) == ["chatcmpl-b_0", "chatcmpl-b_1"]


def test_an_answer_is_final_when_all_its_parts_are() -> None:
    """One prompt of three is done, two are open: joules so far are those of all."""
    store, _ = store_of()
    store.export([request("cmpl-a-1", attributed_joules=4.5)])
    found = Lookup(store, Open(opened("cmpl-a-0"), opened("cmpl-a-2"))).find("cmpl-a")
    assert not found.is_final
    assert found.attributed_joules == 4.5 + 2 * 1.5
    store.export([request("cmpl-a-0", 1), request("cmpl-a-2", 2)])
    assert Lookup(store, Open()).find("cmpl-a").is_final
    assert not Found().is_final


def test_joules_of_which_a_part_is_not_known_are_not_known() -> None:
    """A sum of what happens to be known would look like the whole."""
    store, _ = store_of()
    store.export([request("cmpl-a-0", attributed_joules=None), request("cmpl-a-1")])
    assert Lookup(store, Open()).find("cmpl-a").attributed_joules is None


def test_what_has_become_final_is_not_open_any_more() -> None:
    """The view of open requests is a little older than the store."""
    store, _ = store_of()
    done = request("chatcmpl-a")
    store.export([done])
    found = Lookup(store, Open(opened("chatcmpl-a", engine=done.engine))).find("chatcmpl-a")
    assert found.is_final
    assert len(found.finished) == 1


def test_an_id_that_was_used_before_means_the_latest() -> None:
    """A client may choose the same id again, and so may another client: who answers now says since when."""
    store, _ = store_of()
    store.export([request("chatcmpl-a", 1, start_ns=100), request("chatcmpl-a", 2, start_ns=900)])
    found = Lookup(store, Open(opened("chatcmpl-a", 3, start_ns=50))).find("chatcmpl-a")
    assert len(names(found)) == 3
    assert [kept.start_ns for kept in found.since(500).finished] == [900]
    assert found.since(500).open == ()
    assert found.since(None) == found


def test_the_oldest_go_after_their_time() -> None:
    """By age; and the answer to who asks too late can say how old the oldest is."""
    store, clock = store_of(Retention(seconds=60))
    store.export([request("a")])
    clock.advance(40)
    store.export([request("b")])
    assert store.oldest_seconds() == 40
    clock.advance(30)
    assert store.by_external("a") == ()
    assert len(store.by_external("b")) == 1
    assert store.oldest_seconds() == 30
    clock.advance(31)
    assert store.oldest_seconds() is None
    assert store.bytes == 0


def test_number_and_size_are_bounded() -> None:
    """Whichever bound is met first; the newest stay."""
    store, _ = store_of(Retention(count=3))
    store.export([request(f"r{number}") for number in range(10)])
    assert [bool(store.by_external(f"r{number}")) for number in range(6, 10)] == [False, True, True, True]
    size = len(finished_line(request("r0"), ANCHOR)) + ENTRY_BYTES
    small, _ = store_of(Retention(bytes=4 * size))
    small.export([request(f"r{number}") for number in range(10)])
    assert len(small) == 4
    assert small.bytes <= 4 * size
    assert small.counts() == {"kept": 10}


def test_one_id_a_thousand_times_does_not_make_an_endless_answer() -> None:
    """A client that never changes its id gets the last of its requests."""
    store, _ = store_of()
    store.export([request("same", number) for number in range(MAX_PARTS + 10)])
    found = store.by_external("same")
    assert len(found) == MAX_PARTS
    assert found[-1].request_id == f"same-{MAX_PARTS + 9:08x}"


@settings(deadline=None, max_examples=examples(50))
@given(
    st.lists(
        st.tuples(st.sampled_from(["cmpl-a-0", "cmpl-a-1", "chatcmpl-a", "job", ""]), st.floats(0.0, 40.0)),
        max_size=40,
    ),
    st.integers(1, 12),
    st.floats(1.0, 100.0),
)
def test_indexes_hold_what_the_queue_holds(
    events: list[tuple[str, float]], count: int, seconds: float
) -> None:
    """Whatever comes and goes: each index finds exactly what is kept, in its order, and nothing leaks."""
    store, clock = store_of(Retention(seconds, count))
    kept: list[tuple[float, FinishedRequest]] = []
    for number, (external_id, pause_seconds) in enumerate(events):
        clock.advance(pause_seconds)
        made = request(external_id, number)
        store.export([made])
        now = clock.now_ns() / 1e9
        kept = [(at, each) for at, each in [*kept, (now, made)][-count:] if at >= now - seconds - 1e-9]
        left = [each.request_id for each in store._queue]
        assert left == [each.request_id for _, each in kept][-len(left) :]
        for name in ("cmpl-a-0", "job"):
            found = [each.request_id for each in store.by_external(name)]
            assert found == [each for each in left if each.rpartition("-")[0] == name]
        parts = [each.request_id for each in store.by_answer("cmpl-a")]
        assert parts == [each for each in left if answer_id(each.rpartition("-")[0]) == "cmpl-a"]
    clock.advance(2 * seconds)
    assert store.oldest_seconds() is None
    assert [store._by_request, store._by_external, store._by_answer] == [{}, {}, {}]


def test_who_listens_hears_every_name() -> None:
    """Of the request, outside the engine, and of the answer."""
    store, _ = store_of()
    heard: list[frozenset[str] | None] = []
    stop = store.subscribe(heard.append)
    store.export([request("cmpl-a-0", 7)])
    stop()
    store.export([request("cmpl-b-0")])
    assert heard == [{"cmpl-a-0-00000007", "cmpl-a-0", "cmpl-a"}]
    assert json.loads(store.by_external("cmpl-b-0")[0].line)["external_id"] == "cmpl-b-0"
