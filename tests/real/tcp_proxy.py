"""A small TCP proxy between two nodes that is as bad as a network can be: slow, uneven, one-sided, gone.

    python -m tests.real.tcp_proxy 127.0.0.1:7000 127.0.0.1:7001 --up 0.02 --down 0.2 --broken 5:15

Delays are added to what passes, in order; ``up`` is from who connects. Stretches in which it is broken count
from the first connection: connections end, and new ones are hung up on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import time

_CHUNK_BYTES = 64 * 1024


def endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def stretch(text: str) -> tuple[float, float]:
    begin, _, end = text.partition(":")
    return float(begin), float(end)


class Proxy:
    """State of one proxy; seconds throughout."""

    def __init__(
        self,
        to: tuple[str, int],
        up: float,
        down: float,
        jitter: float,
        broken: list[tuple[float, float]],
    ) -> None:
        self._to, self._up, self._down, self._jitter, self._broken = to, up, down, jitter, broken
        self._begin: float | None = None
        self._luck = random.Random(1)
        self._open: set[asyncio.Task[None]] = set()

    def _is_broken(self) -> bool:
        if self._begin is None:
            self._begin = time.monotonic()
        passed = time.monotonic() - self._begin
        return any(begin <= passed < end for begin, end in self._broken)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until one end has enough or the network breaks."""
        if self._is_broken():
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(*self._to)
        ways = [
            asyncio.ensure_future(self._carry(reader, far_writer, self._up)),
            asyncio.ensure_future(self._carry(far_reader, writer, self._down)),
            asyncio.ensure_future(self._watch()),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for end in (writer, far_writer):
            end.transport.abort()

    async def _watch(self) -> None:
        while not self._is_broken():
            await asyncio.sleep(0.02)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=4096)
        sending = asyncio.ensure_future(self._send(waiting, writer))
        last = 0.0
        with contextlib.suppress(OSError):
            try:
                while data := await reader.read(_CHUNK_BYTES):
                    last = max(last, time.monotonic() + delay + self._jitter * self._luck.random())
                    await waiting.put((last, data))
                await waiting.put((last, b""))
                await sending
            finally:
                sending.cancel()

    async def _send(self, waiting: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            if not data:
                return
            writer.write(data)
            await writer.drain()


async def _run(options: argparse.Namespace) -> None:
    proxy = Proxy(options.to, options.up, options.down, options.jitter, options.broken)
    server = await asyncio.start_server(proxy.serve, *options.listen)
    async with server:
        print("ready", flush=True)
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("listen", type=endpoint)
    parser.add_argument("to", type=endpoint)
    parser.add_argument("--up", type=float, default=0.0)
    parser.add_argument("--down", type=float, default=0.0)
    parser.add_argument("--jitter", type=float, default=0.0)
    parser.add_argument("--broken", type=stretch, action="append", default=[])
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
