"""Processes that write a ledger until they are killed: ``python -m tests.ledger.crashing FOLDER``.

Each line of its input, the number of the first request, makes another one: forked, because starting Python
anew takes longer than all that it then does. It says its process id, then after each flush how many requests
are promised to be there, and when it is dead the line ``dead`` follows.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pyarrow.parquet  # noqa: F401  # before the fork

from joulescope.clock import ManualClock
from joulescope.ledger.files import Files
from joulescope.ledger.recovery import recover
from joulescope.ledger.tables import MINUTES, REQUESTS
from joulescope.ledger.writer import LedgerWriter, Rotation
from tests.ledger.rows import DAY_SECONDS, NOON, minute, minute_row, request


def main() -> None:
    """One process after the other."""
    folder = Path(sys.argv[1])
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            live(folder, int(line))
        os.waitpid(pid, 0)
        print("\ndead", flush=True)


def live(folder: Path, number: int) -> None:
    """Takes over what is there, then writes, flushes and rotates over and over, around a midnight."""
    print(os.getpid(), flush=True)
    recover(Files(), folder)
    clock = ManualClock()
    writer = LedgerWriter(folder, clock, NOON, Rotation(seconds=5.0))
    while True:
        ends = [(number + at, 0.4 * DAY_SECONDS + (number + at) % 20_000) for at in range(20)]
        writer.add(REQUESTS, [request(at, end) for at, end in ends])
        number += 20
        whole = [minute_row(minute(number, joules=1.0))]
        writer.add(MINUTES, whole, [minute_row(minute(number + 1, joules=0.5))])
        writer.flush()
        print(f"flushed {number}", flush=True)
        clock.advance(1.0)
        writer.rotate()


if __name__ == "__main__":
    main()
