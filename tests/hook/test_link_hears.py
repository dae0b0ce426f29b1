"""What the hook's end of the socket hears of the sidecar's little."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulescope.hook.link import MAX_HEARD_BYTES, Link
from tests.hook.listener import PatientListener


@pytest.fixture
def far(tmp_path: Path) -> Iterator[PatientListener]:
    made = PatientListener(tmp_path / "s")
    yield made
    made.close()


def connected(far: PatientListener) -> tuple[Link, socket.socket]:
    link = Link(str(far.path))
    assert link.connect(0)
    return link, far.accept()


def frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def test_frames_come_whole_however_they_are_cut(far: PatientListener) -> None:
    """Half a frame waits for its other half; nothing is handed out twice."""
    link, peer = connected(far)
    assert link.receive() == []
    peer.sendall(frame(b"one") + frame(b"")[:2])
    assert link.receive() == [b"one"]
    peer.sendall(frame(b"")[2:] + frame(b"three"))
    assert link.receive() == [b"", b"three"]
    assert not link.hung_up


def test_a_far_end_that_closes_is_noticed(far: PatientListener) -> None:
    """Reading tells it before the next thing is sent, and a new connection starts anew."""
    link, peer = connected(far)
    peer.sendall(b"\0\0")
    link.receive()
    far.hang_up()
    assert link.receive() == []
    assert link.hung_up
    link.abandon()
    assert link.connect(10**9)
    far.accept().sendall(frame(b"new"))
    assert link.receive() == [b"new"]
    assert not link.hung_up


def test_one_that_talks_on_is_not_listened_to(far: PatientListener) -> None:
    """A frame of impossible length fills no memory; sending goes on."""
    link, peer = connected(far)
    peer.setblocking(True)
    peer.sendall(b"\xff" * 4 + b"x" * (MAX_HEARD_BYTES // 2))
    link.receive()
    assert not link.hung_up
    peer.sendall(b"x" * (MAX_HEARD_BYTES // 2))
    link.receive()
    assert link.hung_up
    peer.sendall(frame(b"too late"))
    assert link.receive() == []
    assert link.send(frame(b"fine"), 1, 0)
    assert link.connected


def test_without_a_connection_there_is_nothing_to_hear(tmp_path: Path) -> None:
    """Asking costs nothing while nobody is there."""
    assert Link(str(tmp_path / "nobody")).receive() == []
