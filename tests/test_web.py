"""One bounded GET, against a real server that behaves and one that does not."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from joulescope import web
from joulescope.clock import SystemClock
from joulescope.errors import FetchError
from tests.http_peer import Answer, Peer, http_peer

CLOCK = SystemClock()


@pytest.fixture
def peer() -> Iterator[Peer]:
    with http_peer() as running:
        yield running


def refused(url: str, **options: float) -> FetchError:
    with pytest.raises(FetchError) as caught:
        web.get(url, CLOCK, headers={"auth-token": "sesame"}, **options)  # type: ignore[arg-type]
    assert "sesame" not in str(caught.value)
    return caught.value


def test_an_answer_is_its_body(peer: Peer) -> None:
    """The body comes back byte for byte, and the headers went out as given."""
    peer.answer = Answer(b"\x00\xff" * 40_000)
    assert web.get(peer.url + "/x?y=1", CLOCK, headers={"auth-token": "sesame"}) == b"\x00\xff" * 40_000
    ((path, headers),) = peer.asked
    assert (path, headers["auth-token"]) == ("/x?y=1", "sesame")


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (Answer(status=500), "status", "HTTP status 500"),
        (Answer(status=401), "status", "401; it wants a token"),
        (Answer(b"x" * 2000), "too_large", "longer than 1000 bytes"),
        (Answer(b"12", length=4), "unreachable", "broke off"),
        (Answer(raw=b"SSH-2.0-OpenSSH_9.9\r\n"), "unreachable", "does not answer as HTTP does"),
        (Answer(raw=b""), "unreachable", "closed connection"),
        (Answer(raw=b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200), "unreachable", "as HTTP does"),
    ],
)
def test_a_bad_answer_is_named(peer: Peer, answer: Answer, reason: str, words: str) -> None:
    """A failure of the server, too much, too little and what is no HTTP are told apart."""
    peer.answer = answer
    error = refused(peer.url + "/figure?key=geheim", max_bytes=1000)
    assert error.reason == reason
    assert words in str(error)
    assert str(error).startswith(peer.url + "/figure: ")
    assert "geheim" not in str(error)


@pytest.mark.parametrize("answer", [Answer(b"1", drip=True), Answer(b"1", length=2, drip=False)])
def test_a_slow_peer_costs_its_time_only(peer: Peer, answer: Answer) -> None:
    """A server that drips for ever is cut off; one that hangs up in the middle is not believed."""
    peer.answer = answer
    error = refused(peer.url, timeout_seconds=0.1)
    assert error.reason == ("timeout" if answer.drip else "unreachable")


def test_a_peer_that_says_nothing_is_given_up() -> None:
    """A server that accepts and never answers is cut off after the timeout."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        error = refused(f"http://127.0.0.1:{mute.getsockname()[1]}/", timeout_seconds=0.05)
    assert error.reason == "timeout"
    assert "within 0.05 s" in str(error)


def test_nobody_there_is_unreachable() -> None:
    """A port on which nobody listens is said to refuse."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = refused(f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert (error.reason, "refused" in str(error)) == ("unreachable", True)


def test_a_redirect_within_the_place_is_followed(peer: Peer) -> None:
    """A path that moved on the same host is found, token included."""
    moved = Answer(status=302, headers={"Location": "/new"})
    peer.answer = lambda path: Answer(b"7") if path == "/new" else moved
    assert web.get(peer.url + "/old", CLOCK, headers={"auth-token": "sesame"}) == b"7"
    assert [headers["auth-token"] for _, headers in peer.asked] == ["sesame", "sesame"]


def test_a_redirect_elsewhere_takes_no_token_along(peer: Peer) -> None:
    """Another host, port or scheme is not followed: the token would go with it. The message names it."""
    with http_peer() as other:
        for location in (other.url + "/x", "ftp://127.0.0.1/x", peer.url.replace("127.0.0.1", "localhost")):
            peer.answer = Answer(status=307, headers={"Location": location})
            error = refused(peer.url)
            assert error.reason in ("redirect", "status")
        assert other.asked == []
    assert "another place; if you trust it" in str(error)


def test_proxies_are_those_of_the_usual_variables(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source on the network is asked through the proxy; a server beside us is not, even if one is set."""
    monkeypatch.setenv("http_proxy", peer.url)
    monkeypatch.setenv("no_proxy", "")
    peer.answer = Answer(b"7")
    with http_peer() as near:
        near.answer = Answer(b"8")
        assert web.get("http://grid.invalid/x", CLOCK) == b"7"
        assert web.get(near.url + "/metrics", CLOCK, direct=True) == b"8"
    assert [path for path, _ in peer.asked] == ["http://grid.invalid/x"]


def test_a_circle_of_redirects_ends(peer: Peer) -> None:
    """A server that sends its caller round and round is given up."""
    peer.answer = Answer(status=302, headers={"Location": "/again"})
    assert refused(peer.url).reason == "redirect"
    assert len(peer.asked) < 20


@pytest.mark.parametrize(
    ("after", "seconds"), [("120", 120.0), ("999999", 3600.0), ("soon", None), ("", None), ("-5", None)]
)
def test_a_peer_may_ask_for_peace(peer: Peer, after: str, seconds: float | None) -> None:
    """Retry-After in seconds is passed on, an hour at most; other forms are not understood."""
    peer.answer = Answer(status=429, headers={"Retry-After": after})
    assert refused(peer.url).retry_seconds == seconds
