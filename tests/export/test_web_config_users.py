"""Passwords: right, wrong, remembered, and too many at once."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import bcrypt
import pytest

from joulescope.clock import ManualClock, SystemClock
from joulescope.export.web_config_users import (
    MOST_KNOWN,
    MOST_WAITING,
    MOST_WAITING_OF_ONE,
    REST,
    Credentials,
    Passwords,
    Verdict,
    credentials_of,
)
from tests.export.certificates import CHEAP_COST, HASH, PASSWORD, USER

USERS = {USER: HASH.encode()}
GOOD = Credentials(USER, PASSWORD.encode())
BAD = Credentials(USER, b"guess")
T = TypeVar("T")


class Resting:
    """Counts the rests after wrong passwords, and takes none."""

    def __init__(self) -> None:
        self.rests: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.rests.append(seconds)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def passwords(resting: Resting | None = None) -> Passwords:
    return Passwords(SystemClock(), resting or Resting())


@pytest.mark.parametrize(
    ("credentials", "verdict"),
    [
        (GOOD, Verdict.RIGHT),
        (BAD, Verdict.WRONG),
        (Credentials(USER, b""), Verdict.WRONG),
        (Credentials(USER, b"a\0b"), Verdict.WRONG),
        (Credentials("root", PASSWORD.encode()), Verdict.WRONG),
        (Credentials("", b""), Verdict.WRONG),
    ],
)
def test_a_password_is_right_or_wrong(credentials: Credentials, verdict: Verdict) -> None:
    """Only the user's own password does, twice too."""

    async def twice() -> list[Verdict]:
        checker = passwords()
        return [await checker.check(USERS, credentials, "a") for _ in range(2)]

    assert run(twice()) == [verdict, verdict]


def test_a_right_password_costs_once() -> None:
    """The second time it is known; with another hash it is checked anew, whatever it was before."""

    async def scenario() -> None:
        checker = passwords()
        clock_calls = Counting()
        checker._clock = clock_calls
        assert await checker.check(USERS, GOOD, "a") is Verdict.RIGHT
        checked = clock_calls.calls
        assert await checker.check(USERS, GOOD, "a") is Verdict.RIGHT
        assert clock_calls.calls == checked
        changed = {USER: bcrypt.hashpw(b"another", bcrypt.gensalt(CHEAP_COST))}
        assert await checker.check(changed, GOOD, "a") is Verdict.WRONG
        assert await checker.check({"x": HASH.encode()}, GOOD, "a") is Verdict.WRONG

    run(scenario())


class Counting(ManualClock):
    """A clock that counts how often it is asked: a check asks, the memory does not."""

    calls = 0

    def now_ns(self) -> int:
        self.calls += 1
        return super().now_ns()


def test_an_unknown_user_takes_as_long_as_a_wrong_password() -> None:
    """Its password is checked against a hash of the same cost, that none fits."""
    checker = passwords()
    dear = {USER: HASH.encode(), "b": bcrypt.hashpw(b"x", bcrypt.gensalt(CHEAP_COST + 1))}
    decoy = checker._decoy(dear)
    assert int(decoy[4:6]) == CHEAP_COST + 1
    assert len(decoy) == len(HASH)
    assert not bcrypt.checkpw(b"x", decoy)

    async def scenario() -> list[float]:
        resting = Resting()
        checker = Passwords(SystemClock(), resting)
        await checker.check(USERS, Credentials("nobody", b"x"), "a")
        return resting.rests

    assert run(scenario())[0] > 0


def test_memory_is_bounded_and_holds_no_password() -> None:
    """Of many right passwords the oldest are forgotten; what is kept cannot be read back."""
    secret = b"correct horse battery"
    hashed = bcrypt.hashpw(secret, bcrypt.gensalt(CHEAP_COST))
    users = {f"u{number}": hashed for number in range(MOST_KNOWN + 5)}

    async def scenario() -> Passwords:
        checker = passwords()
        for name in users:
            assert await checker.check(users, Credentials(name, secret), "a") is Verdict.RIGHT
        return checker

    checker = run(scenario())
    assert len(checker._known) == MOST_KNOWN
    assert all(len(key) == 64 and secret not in key for key in checker._known)


def test_guesses_get_a_fifth_of_a_core() -> None:
    """After a wrong password the next check waits four times as long as this one took."""

    async def scenario() -> list[float]:
        resting, clock = Resting(), Ticking()
        checker = Passwords(clock, resting)
        await checker.check(USERS, BAD, "a")
        await checker.check(USERS, GOOD, "a")
        return resting.rests

    assert run(scenario()) == [REST * 0.06]


class Ticking(ManualClock):
    """A clock on which each check takes 60 ms."""

    def now_ns(self) -> int:
        self.advance(0.06)
        return super().now_ns()


def test_a_flood_of_guesses_leaves_room_for_others() -> None:
    """One address may have two checks waiting, all together eight; more are turned away unchecked."""

    async def scenario() -> None:
        held = asyncio.Event()

        async def hold(_: float) -> None:
            await held.wait()

        checker = Passwords(SystemClock(), hold)
        flood = [asyncio.create_task(checker.check(USERS, BAD, "a")) for _ in range(50)]
        await asyncio.sleep(0)
        turned_away = [task for task in flood if task.done()]
        assert len(turned_away) == 50 - MOST_WAITING_OF_ONE
        assert {task.result() for task in turned_away} == {Verdict.BUSY}
        good = asyncio.create_task(checker.check(USERS, GOOD, "b"))
        others = [asyncio.create_task(checker.check(USERS, BAD, f"c{number}")) for number in range(20)]
        await asyncio.sleep(0)
        assert sum(not task.done() for task in (*flood, good, *others)) == MOST_WAITING
        held.set()
        assert await good is Verdict.RIGHT
        assert {await task for task in others} == {Verdict.WRONG, Verdict.BUSY}
        await asyncio.gather(*flood)
        assert not checker._waiting

    run(scenario())


def test_a_known_password_does_not_wait_behind_guesses() -> None:
    """A scraper that was let in once is let in at once, however many guess meanwhile."""

    async def scenario() -> None:
        held = asyncio.Event()

        async def hold(_: float) -> None:
            await held.wait()

        checker = Passwords(SystemClock(), hold)
        assert await checker.check(USERS, GOOD, "b") is Verdict.RIGHT
        flood = [asyncio.create_task(checker.check(USERS, BAD, f"c{number}")) for number in range(50)]
        await asyncio.sleep(0)
        assert await checker.check(USERS, GOOD, "b") is Verdict.RIGHT
        held.set()
        await asyncio.gather(*flood)

    run(scenario())


def test_a_check_does_not_hold_up_the_loop() -> None:
    """bcrypt runs in a thread of its own: meanwhile others are answered."""

    async def scenario() -> int:
        dear = {USER: bcrypt.hashpw(b"x", bcrypt.gensalt(10))}
        check = asyncio.create_task(passwords().check(dear, GOOD, "a"))
        turns = 0
        while not check.done():
            await asyncio.sleep(0)
            turns += 1
        assert threading.current_thread() is threading.main_thread()
        return turns

    assert run(scenario()) > 10


def test_what_bcrypt_does_not_heed() -> None:
    """Bytes beyond the 72nd are in no hash, and so do not matter, as with Go's."""
    long = b"p" * 72
    users = {USER: bcrypt.hashpw(long, bcrypt.gensalt(CHEAP_COST))}
    assert run(passwords().check(users, Credentials(USER, long + b"more"), "a")) is Verdict.RIGHT


def header(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (header("a:b"), Credentials("a", b"b")),
        (header("a:b:c"), Credentials("a", b"b:c")),
        (header("a:").replace("Basic", "bAsIc"), Credentials("a", b"")),
        (header("é:ß"), Credentials("é", "ß".encode())),
        (header("ab"), None),
        ("Basic !!!", None),
        ("Basic ", None),
        ("Basic é", None),
        ("Basic " + base64.b64encode(b"\xff:x").decode(), None),
        ("Bearer abc", None),
        ("", None),
    ],
)
def test_the_header_is_read_or_is_none(value: str, found: Credentials | None) -> None:
    """What is no basic authentication is no credentials, and no error."""
    assert credentials_of(value) == found
