"""Shows a source in this process's terminal, for the commands that have one to show."""

from __future__ import annotations

import os

from joulescope.clock import Clock, SystemClock
from joulescope.terminal.loop import Viewer
from joulescope.terminal.source import Source
from joulescope.terminal.tty import Stopped, Terminal, look_of


def show(
    source: Source,
    *,
    interval_seconds: float = 1.0,
    count: int | None = None,
    ascii_only: bool | None = None,
    clock: Clock | None = None,
    end_ns: int | None = None,
) -> int:
    """Draws until somebody quits; the exit code, 0, or 128 and the signal that ended it."""
    viewer = Viewer(
        source,
        clock or SystemClock(),
        look_of(os.environ, ascii_only=ascii_only),
        interval_seconds=interval_seconds,
        count=count,
        end_ns=end_ns,
    )
    try:
        viewer.run(Terminal())
    except Stopped as stopped:
        return 128 + stopped.number
    return 0
