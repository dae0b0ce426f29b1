"""Passwords of basic authentication: checked with bcrypt, a few at a time.

A check costs some 60 ms of a core on purpose. So that nobody can have more of the machine than that, one
runs at a time, few wait, fewer of the same address, and after a wrong password the next check waits: at
most a fifth of a core goes into guesses. A password that was right is remembered and costs nothing again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import secrets
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import NamedTuple

import bcrypt
from starlette.concurrency import run_in_threadpool

from joulescope.clock import Clock

MOST_WAITING = 8
"""Checks that may be under way or waiting."""

MOST_WAITING_OF_ONE = 2
"""The same for one address, so that one client cannot lock out the others."""

MOST_KNOWN = 128
REST = 4.0
"""Rest after a wrong password, in durations of its check."""

_BCRYPT_BYTES = 72
"""What bcrypt heeds of a password; Go's does not look at the rest either."""


class Credentials(NamedTuple):
    """What a client says of itself."""

    user: str
    password: bytes


class Verdict(Enum):
    """What a check came to."""

    RIGHT = "right"
    WRONG = "wrong"
    BUSY = "busy"
    """Too many are waiting: nothing was checked."""


def credentials_of(header: str) -> Credentials | None:
    """From the header ``Authorization``; ``None`` if there are none."""
    scheme, _, value = header.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(value.strip(), validate=True).partition(b":")
        return Credentials(user.decode(), password) if colon else None
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None


class Passwords:
    """Checks credentials. All calls come from one event loop."""

    def __init__(self, clock: Clock, rest: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._clock = clock
        self._rest = rest
        self._secret = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._turn = asyncio.Semaphore(1)
        self._waiting: Counter[str] = Counter()
        self._decoys: dict[bytes, bytes] = {}

    async def check(self, users: Mapping[str, bytes], credentials: Credentials, peer: str) -> Verdict:
        """Whether this is one of the users. An unknown name takes as long as a wrong password."""
        hashed = users.get(credentials.user)
        if hashed is not None and self._knows(key := self._key(credentials, hashed)):
            return Verdict.RIGHT
        if self._waiting.total() >= MOST_WAITING or self._waiting[peer] >= MOST_WAITING_OF_ONE:
            return Verdict.BUSY
        self._waiting[peer] += 1
        try:
            async with self._turn:
                if not await self._matches(hashed or self._decoy(users), credentials.password):
                    return Verdict.WRONG
        finally:
            self._waiting[peer] -= 1
            if not self._waiting[peer]:
                del self._waiting[peer]
        if hashed is None:
            return Verdict.WRONG
        self._remember(key)
        return Verdict.RIGHT

    async def _matches(self, hashed: bytes, password: bytes) -> bool:
        begun_ns = self._clock.now_ns()
        if await run_in_threadpool(bcrypt.checkpw, password[:_BCRYPT_BYTES], hashed):
            return True
        await self._rest(REST * (self._clock.now_ns() - begun_ns) / 1e9)
        return False

    def _knows(self, key: bytes) -> bool:
        if key not in self._known:
            return False
        self._known.move_to_end(key)
        return True

    def _remember(self, key: bytes) -> None:
        self._known[key] = None
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    def _key(self, credentials: Credentials, hashed: bytes) -> bytes:
        """Stands for a password in memory. It dies with the hash, and with the process."""
        digest = hashlib.blake2b(key=self._secret)
        for part in (credentials.user.encode(), hashed, credentials.password):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.digest()

    def _decoy(self, users: Mapping[str, bytes]) -> bytes:
        """A hash that no password has, as costly as the costliest of the users'."""
        cost = max(hashed[4:6] for hashed in users.values())
        if cost not in self._decoys:
            self._decoys[cost] = bcrypt.gensalt(int(cost)) + b"." * 31
        return self._decoys[cost]
