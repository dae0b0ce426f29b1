"""The listening socket, with real connections."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from joulescope.errors import ConfigError
from joulescope.hook.wire import Progress, encode_frame
from joulescope.ingest.listener import Arrival, Listener

ENCODER = msgspec.msgpack.Encoder()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    made = Listener(tmp_path / "run" / "js.sock", mode=0o600)
    yield made
    made.close()


def connect(listener: Listener) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.connect(str(listener.path))
    return peer


def poll(listener: Listener, turns: int = 4) -> list[Arrival]:
    return [arrival for _ in range(turns) for arrival in listener.poll(0.05)]


def test_records_arrive_by_session(listener: Listener) -> None:
    """Two connections are two sessions, each with its own records."""
    with connect(listener) as one, connect(listener) as two:
        one.sendall(encode_frame([Progress(time_ns=1)], ENCODER))
        two.sendall(encode_frame([Progress(time_ns=2)], ENCODER))
        arrivals = {arrival.session: arrival.records for arrival in poll(listener)}
    assert sorted(arrivals) == [1, 2]
    assert {record[0].time_ns for record in arrivals.values()} == {1, 2}  # type: ignore[union-attr]


def test_the_kernel_says_who_is_at_the_other_end(listener: Listener) -> None:
    """The process of a connection is known without its saying so, and only while it is connected."""
    with connect(listener):
        poll(listener)
        assert listener.peer_pid(1) == os.getpid()
        assert listener.peer_pid(2) is None
    poll(listener)
    assert listener.peer_pid(1) is None


def test_a_closed_connection_is_told_after_its_last_records(listener: Listener) -> None:
    """What was sent before the end is handed out before the end is."""
    with connect(listener) as peer:
        peer.sendall(encode_frame([Progress(time_ns=1)], ENCODER))
    arrivals = poll(listener)
    assert [bool(arrival.records) for arrival in arrivals] == [True, False]
    assert arrivals[-1].closed == "disconnected"


def test_a_peer_of_another_protocol_is_dropped_and_counted(listener: Listener) -> None:
    """An HTTP client on the socket costs one count."""
    with connect(listener) as peer:
        peer.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        arrivals = poll(listener)
    assert arrivals[-1].closed == "not_this_protocol"
    assert listener.rejected()["not_this_protocol"] == 1


def test_unfinished_frames_are_bounded_over_all_connections(tmp_path: Path) -> None:
    """A crowd that begins frames and never ends them costs the one that goes too far, not the memory."""
    listener = Listener(tmp_path / "js.sock", max_unfinished_bytes=3000)
    begun = (10_000).to_bytes(4, "big") + b"\x91" * 1000
    with connect(listener) as one, connect(listener) as two, connect(listener) as three:
        for peer in (one, two, three):
            peer.sendall(begun)
        closed = [arrival.closed for arrival in poll(listener) if arrival.closed]
    assert closed[0] == "too_much_unfinished"
    assert listener.refused["too_much_unfinished"] == 1
    listener.close()


def test_rejections_of_closed_connections_are_remembered(listener: Listener) -> None:
    """Counts do not vanish with the connection that caused them."""
    with connect(listener) as peer:
        payload = ENCODER.encode([{"type": "tomorrow"}])
        peer.sendall(len(payload).to_bytes(4, "big") + payload + b"\0\0")
        poll(listener)
    poll(listener)
    assert listener.rejected() == {"unknown_type": 1, "truncated_frame": 1}


def test_the_socket_has_the_asked_permissions_and_goes_with_the_listener(tmp_path: Path) -> None:
    """Group access is a security setting; a socket file left behind would confuse the next start."""
    path = tmp_path / "js.sock"
    listener = Listener(path, mode=0o620)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o620
    listener.close()
    assert not path.exists()


def test_a_socket_left_by_a_killed_sidecar_is_replaced(tmp_path: Path) -> None:
    """Nobody answers on it, so it is stale."""
    path = tmp_path / "js.sock"
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    dead.bind(str(path))
    dead.close()
    listener = Listener(path)
    with connect(listener):
        pass
    listener.close()


def test_a_socket_in_use_is_not_taken(listener: Listener) -> None:
    """A second sidecar on the same path is told so, and the first keeps working."""
    with pytest.raises(ConfigError, match="another joulescope already listens"):
        Listener(listener.path)
    with connect(listener) as peer:
        peer.sendall(encode_frame([Progress(time_ns=1)], ENCODER))
        assert any(arrival.records for arrival in poll(listener))


def test_paths_that_cannot_be_are_named(tmp_path: Path) -> None:
    """Too long, not a socket, not writable: each says what to change."""
    with pytest.raises(ConfigError, match="longer than 107 bytes"):
        Listener(tmp_path / ("x" * 108))
    plain = tmp_path / "file"
    plain.write_text("")
    with pytest.raises(ConfigError, match="is not a socket"):
        Listener(plain)
    with pytest.raises(ConfigError, match="cannot listen"):
        Listener(plain / "js.sock")


def test_the_sidecar_says_little_and_may_hang_up(listener: Listener) -> None:
    """A peer hears what is said to it; one that is hung up on, and one that is gone, are no trouble."""
    with connect(listener) as peer:
        peer.sendall(encode_frame([Progress(time_ns=1)], ENCODER))
        (arrival,) = poll(listener)
        assert listener.say(arrival.session, b"word")
        assert peer.recv(16) == b"word"
        listener.hang_up(arrival.session)
        assert peer.recv(16) == b""
        assert not listener.say(arrival.session, b"word")
        listener.hang_up(arrival.session)
        assert poll(listener) == []
