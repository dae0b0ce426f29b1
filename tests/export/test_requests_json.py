"""``/api/requests``: what it holds, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from joulescope import __version__
from joulescope.export.http import create_app
from joulescope.export.http_server import HttpServer
from joulescope.export.requests_json import RequestsView, decode_requests, encode_requests
from joulescope.model import FinishedRequest, OpenRequest
from tests.export.samples import finished, rich_snapshot, running
from tests.export.test_http import get

OPEN = (running(), running(request_id="chat-3", phase="waiting", attributed_joules=None))
FINISHED = (finished(), finished(request_id="later"))


@contextmanager
def serving(
    requests: Callable[[], tuple[Sequence[OpenRequest], Sequence[FinishedRequest]]] = lambda: (
        OPEN,
        FINISHED,
    ),
) -> Iterator[tuple[str, int]]:
    """The pages on a free port of the loopback."""
    app = create_app(rich_snapshot, lambda: (True, "ready"), get_requests=requests)
    server = HttpServer("127.0.0.1", 0, app)
    try:
        yield server.start()
    finally:
        server.stop()


def test_what_is_served_comes_back() -> None:
    """Read back it equals what was given; finished requests come latest first, and unknown stays unknown."""
    with serving() as address:
        status, headers, body = get(address, "/api/requests")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert headers["cache-control"] == "no-store"
    view = decode_requests(body)
    assert view.open == OPEN
    assert view.finished == FINISHED[::-1]
    snapshot = rich_snapshot()
    assert (view.time_ns, view.wall_seconds) == (snapshot.time_ns, snapshot.wall_seconds)
    assert view.open_total == sum(engine.requests_open for engine in snapshot.engines)
    raw = json.loads(body)
    assert raw["joulescope_version"] == __version__
    assert raw["open"][1]["attributed_joules"] is None


def test_a_query_asks_for_fewer() -> None:
    """``open`` and ``finished`` limit the lists, and the total stays; 0 leaves a list out."""
    with serving() as address:
        view = decode_requests(get(address, "/api/requests?open=1&finished=0")[2])
    assert view.open == OPEN[:1]
    assert view.finished == ()
    assert view.open_total >= 2


@pytest.mark.parametrize(
    "query", ["open=-1", "open=x", "finished=257", "open=", "finished=%D9%A1", "open=1e3"]
)
def test_a_limit_that_is_none_is_refused(query: str) -> None:
    """The answer is 400 and names the parameter and its range."""
    with serving() as address:
        status, _, body = get(address, f"/api/requests?{query}")
    assert status == 400
    assert body.decode().startswith(query.partition("=")[0] + " is a whole number from 0 to 256")


def test_no_more_than_the_bound_is_sent() -> None:
    """However many run, an answer holds 256 of them at most."""
    many = tuple(replace(OPEN[0], request_id=str(number)) for number in range(300))
    view = decode_requests(encode_requests(RequestsView.of(rich_snapshot(), many, ())))
    assert len(view.open) == 256
    assert view.open_total == 300


def test_half_a_character_becomes_a_question_mark() -> None:
    """A client's lone surrogate does not cost the page."""
    view = RequestsView.of(rich_snapshot(), [running(external_id="a\ud800")], [finished(lora="\udfff")])
    back = decode_requests(encode_requests(view))
    assert back.open[0].external_id == "a?"
    assert back.finished[0].lora == "?"


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"time_ns": "x"}', b"not JSON", b'{"open": [{}]}'])
def test_a_foreign_answer_is_a_clear_error(body: bytes) -> None:
    """Something else than such an object raises ``ValueError``, whatever its shape."""
    with pytest.raises(ValueError, match=r"Object|Expected|malformed"):
        decode_requests(body)
