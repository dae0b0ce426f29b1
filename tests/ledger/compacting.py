"""Processes that compact a ledger and may be killed: ``python -m tests.ledger.compacting FOLDER``.

Each line of its input makes another one: forked, because starting Python anew takes longer than all that
it then does. It says its process id, and when it is dead the line ``dead`` follows, or ``done`` if it had
come to its end.
"""

from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path

import pyarrow.parquet  # noqa: F401  # before the fork

from joulescope.ledger.compaction import compact


def main() -> None:
    """One process after the other."""
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            print(os.getpid(), flush=True)
            compact(str(Path(sys.argv[1])), date.max)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print("done" if status == 0 else "dead", flush=True)


if __name__ == "__main__":
    main()
