"""A server looked at over time, played back by a real HTTP server: up, down, restarted, silent."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from joulescope.clock import ManualClock, WallAnchor
from joulescope.scraping.server import ScrapedServer
from joulescope.surroundings_model import ServerTotals
from tests.http_peer import Answer, Peer, http_peer
from tests.scraping.test_page import SGLANG, TGI, VLLM

GENERATED = b'vllm:generation_tokens_total{engine="0",model_name="tiny"} 60.0'
STARTED = b"process_start_time_seconds 1.79574767506e+09"
WALL = WallAnchor(monotonic_ns=0, wall_ns=1_795_748_000 * 1_000_000_000)
"""Some minutes after the process of the page began."""

assert GENERATED in VLLM
assert STARTED in VLLM


@pytest.fixture
def peer() -> Iterator[Peer]:
    with http_peer() as running:
        yield running


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000_000)


@pytest.fixture
def server(peer: Peer, clock: ManualClock) -> ScrapedServer:
    return ScrapedServer(peer.url + "/metrics", clock, WALL, period_seconds=5, timeout_seconds=5)


def vllm_page(tokens: int, start: bytes = STARTED) -> Answer:
    """vLLM's page at another time."""
    page = VLLM.replace(GENERATED, GENERATED.replace(b"60.0", b"%d.0" % tokens))
    return Answer(page.replace(STARTED, start))


def look(server: ScrapedServer, peer: Peer, clock: ManualClock, answer: Answer) -> ServerTotals:
    peer.answer = answer
    server.step()
    return server.totals(clock.now_ns())


def test_nothing_is_known_before_the_first_look(server: ScrapedServer, clock: ManualClock) -> None:
    """A server that was not asked yet is not up, and has no figures and no failures."""
    assert server.totals(clock.now_ns()) == ServerTotals(server.url)


@pytest.mark.parametrize(("page", "kind"), [(VLLM, "vllm"), (SGLANG, "sglang"), (TGI, "tgi")])
def test_each_kind_is_told(
    server: ScrapedServer, peer: Peer, clock: ManualClock, page: bytes, kind: str
) -> None:
    """The page says what answers; tokens of before the first look are not counted; text is asked for."""
    totals = look(server, peer, clock, Answer(page))
    assert (totals.kind, totals.up, totals.generated_tokens, totals.prompt_tokens) == (kind, True, 0, 0)
    assert peer.asked[0][1]["accept"].startswith("text/plain")


def test_tokens_go_on_over_a_restart(server: ScrapedServer, peer: Peer, clock: ManualClock) -> None:
    """A new process that has already made more tokens than the old one is seen by its start time."""
    look(server, peer, clock, vllm_page(60))
    assert look(server, peer, clock, vllm_page(100)).generated_tokens == 40
    look(server, peer, clock, Answer(status=503))
    totals = look(server, peer, clock, vllm_page(130, b"process_start_time_seconds 1.7957999e+09"))
    assert (totals.generated_tokens, totals.resets, totals.failures) == (170, 1, {"status": 1})
    assert look(server, peer, clock, vllm_page(135, b"process_start_time_seconds 1.7957999e+09")).resets == 1


def test_another_server_is_no_restart(server: ScrapedServer, peer: Peer, clock: ManualClock) -> None:
    """Behind a load balancer the life of a second server is not added to the first one's, again and again."""
    other = b"process_start_time_seconds 1.79574e+09"
    for start, tokens in ((STARTED, 60), (other, 9000), (STARTED, 70), (other, 9001), (other, 9003)):
        totals = look(server, peer, clock, vllm_page(tokens, start))
    assert (totals.generated_tokens, totals.resets) == (2, 3)


def test_a_server_that_is_down_is_absent_and_counted(
    server: ScrapedServer, peer: Peer, clock: ManualClock
) -> None:
    """Counters vanish too, or joules per token would rise without end; afterwards none is missing."""
    look(server, peer, clock, vllm_page(60))
    totals = look(server, peer, clock, Answer(b"<html>starting</html>"))
    assert totals == ServerTotals(server.url, failures={"unknown_server": 1})
    assert look(server, peer, clock, vllm_page(75)).generated_tokens == 15


def test_a_page_grows_stale(server: ScrapedServer, peer: Peer, clock: ManualClock) -> None:
    """If looking hangs, what was seen three periods and a timeout ago is not shown as if it were now."""
    look(server, peer, clock, vllm_page(60))
    clock.advance(20)
    assert server.totals(clock.now_ns()).up
    clock.advance(0.1)
    assert server.totals(clock.now_ns()) == ServerTotals(server.url)


def test_the_period_is_kept(server: ScrapedServer, peer: Peer, clock: ManualClock) -> None:
    """The pause is what is left of the period, and the whole of it after a failure."""
    peer.answer = lambda path: clock.advance(2) or vllm_page(60)  # type: ignore[func-returns-value]
    assert server.step() == 3
    peer.answer = lambda path: clock.advance(4.9) or Answer(b"junk 1")  # type: ignore[func-returns-value]
    assert server.step() == 5


def test_the_log_tells_each_trouble_once(
    server: ScrapedServer, peer: Peer, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that is down for a day is one line, with its URL, and its return another."""
    caplog.set_level(logging.INFO)
    for answer in (Answer(status=404), Answer(status=404), Answer(b"junk 1"), vllm_page(1), vllm_page(2)):
        look(server, peer, clock, answer)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]
    assert all(server.url in record.getMessage() for record in caplog.records)


def test_the_thread_looks_by_itself(peer: Peer, clock: ManualClock) -> None:
    """Started for real it asks at once, and ends when told to."""
    peer.answer = vllm_page(60)
    server = ScrapedServer(peer.url, clock, WALL, period_seconds=5)
    server.start()
    assert peer.was_asked.wait(20)
    server.stop(20)
    assert server.totals(clock.now_ns()).up
