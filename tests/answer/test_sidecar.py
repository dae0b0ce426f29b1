"""Asking the sidecar: within a deadline, not at all while it is gone, and with a count of everything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from joulescope.answer.sidecar import (
    FAILURES_TO_OPEN,
    LONGEST_PAUSE_SECONDS,
    MAX_AT_ONCE,
    Breaker,
    Figure,
    Sidecar,
)
from tests.answer.bench import answered, peer

PATIENCE_SECONDS = 20.0


def test_connections_are_used_again(tmp_path: Path) -> None:
    """Ten questions, one connection; each tells how those before it fared."""

    async def talk() -> None:
        async with peer(tmp_path / "a") as served:
            sidecar = Sidecar(str(tmp_path / "a"), PATIENCE_SECONDS)
            for _ in range(10):
                assert await sidecar.figure("/v1/requests/x") == Figure(12.5, False)
            assert served.connections == 1
            assert "X-Joulescope-Answers" not in served.questions[0]
            assert ";estimated=9\r\n" in served.questions[-1]
            assert sidecar.counts == {"estimated": 10}

    asyncio.run(talk())


def test_a_connection_that_was_closed_meanwhile_is_replaced(tmp_path: Path) -> None:
    """A server closes idle connections: that costs no figure."""

    async def talk() -> None:
        async with peer(tmp_path / "a") as served:
            sidecar = Sidecar(str(tmp_path / "a"), PATIENCE_SECONDS)
            await sidecar.figure("/1")
            answers = iter([answered(more="connection: close\r\n"), answered()])
            served.answer = lambda question: next(answers)
            assert await sidecar.figure("/2") is not None
            assert await sidecar.figure("/3") is not None
            assert served.connections == 2

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        (answered(b'{"estimated_joules": null, "final": false}'), "unknown"),
        (answered(b'{"error": "no request"}', "404 Not Found"), "unknown"),
        (answered(b"oops", "503 Service Unavailable"), "unreachable"),
        (answered(b"not json"), "unreachable"),
        (answered(b"{}"), "unreachable"),
        (answered(b'{"estimated_joules": NaN, "final": false}'), "unreachable"),
        (answered(b'{"estimated_joules": 1e999, "final": true}'), "unreachable"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "unreachable"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n", "unreachable"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "unreachable"),
        (b"\x00\x01\r\n\r\n", "unreachable"),
        (b"SSH-2.0-OpenSSH\r\n" + b"x" * 100_000 + b"\r\n\r\n", "unreachable"),
    ],
)
def test_answers_without_a_figure_are_counted(tmp_path: Path, told: bytes, outcome: str) -> None:
    """No figure known, or no sidecar at the other end: neither raises."""

    async def talk() -> None:
        async with peer(tmp_path / "a", lambda question: told):
            sidecar = Sidecar(str(tmp_path / "a"), PATIENCE_SECONDS)
            assert await sidecar.figure("/") is None
            assert sidecar.counts == {outcome: 1}

    asyncio.run(talk())


def test_nobody_waits_longer_than_the_deadline(tmp_path: Path) -> None:
    """A sidecar that says nothing costs the deadline, a few times; then it is left alone."""

    async def talk() -> None:
        async with peer(tmp_path / "a", lambda question: None) as served:
            sidecar = Sidecar(str(tmp_path / "a"), 0.001, clock_of(0.002))
            for _ in range(FAILURES_TO_OPEN + 3):
                assert await sidecar.figure("/") is None
            assert sidecar.counts == {"late": FAILURES_TO_OPEN, "skipped": 3}
            assert len(served.questions) <= FAILURES_TO_OPEN

    asyncio.run(talk())


def test_the_log_has_one_line_when_it_goes_and_one_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However many answers go out meanwhile."""
    now = [0.0]

    async def talk() -> None:
        sidecar = Sidecar(str(tmp_path / "a"), PATIENCE_SECONDS, lambda: now[0])
        for _ in range(20):
            now[0] += PATIENCE_SECONDS if not sidecar.counts["skipped"] else 0.0
            assert await sidecar.figure("/") is None
        async with peer(tmp_path / "a"):
            assert await sidecar.figure("/") is None  # the pause is not over
            now[0] += LONGEST_PAUSE_SECONDS
            assert await sidecar.figure("/") is not None
            assert await sidecar.figure("/") is not None

    with caplog.at_level(logging.INFO, "vllm.joulescope"):
        asyncio.run(talk())
    gone, back = [text for name, _, text in caplog.record_tuples if name == "vllm.joulescope"]
    assert "answer_socket" in gone
    assert "answers again" in back


def test_too_many_questions_at_once_are_not_asked(tmp_path: Path) -> None:
    """Beyond a bound answers go out without a figure, at once."""

    async def talk() -> None:
        async with peer(tmp_path / "a", lambda question: None):
            sidecar = Sidecar(str(tmp_path / "a"), PATIENCE_SECONDS)
            tasks = [asyncio.ensure_future(sidecar.figure("/")) for _ in range(MAX_AT_ONCE)]
            await asyncio.sleep(0)
            assert await sidecar.figure("/") is None
            assert sidecar.counts == {"skipped": 1}
            for task in tasks:
                task.cancel()
            assert all(isinstance(each, asyncio.CancelledError) for each in await _all(tasks))

    asyncio.run(talk())


async def _all(tasks: list[asyncio.Future[Figure | None]]) -> list[object]:
    return list(await asyncio.gather(*tasks, return_exceptions=True))


def test_questions_that_fail_side_by_side_fail_once() -> None:
    """A moment in which the machine is busy does not look like a sidecar that is gone."""
    breaker = Breaker(clock_of(0.001), moment_seconds=0.5)
    for _ in range(100):
        breaker.failed()
    assert breaker.may_ask()
    for _ in range(3000):
        breaker.failed()
    assert not breaker.may_ask()


def clock_of(step_seconds: float) -> Callable[[], float]:
    """Each look at it finds it so much later."""
    instants = count()
    return lambda: next(instants) * step_seconds


def test_the_breaker_tries_again_with_growing_pauses() -> None:
    """One question after 1, 2, 4 … at most 10 seconds; the first answer closes it."""
    now, pauses = 0.0, []
    breaker = Breaker(lambda: now)
    while len(pauses) < 8:
        asked_at = now
        while not breaker.may_ask():
            now += 0.5
        if breaker.is_open:
            pauses.append(now - asked_at)
        breaker.failed()
    assert pauses == [1, 2, 4, 8, 10, 10, 10, 10]
    now += LONGEST_PAUSE_SECONDS
    assert breaker.may_ask()
    assert not breaker.may_ask()  # one at a time
    assert breaker.succeeded()
    assert breaker.may_ask()
    assert not breaker.succeeded()
