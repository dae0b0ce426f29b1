"""Ends several parts at once, so that one that hangs takes no time from the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

Close = Callable[[float], object]
"""Ends a part within so many seconds."""


def close_together(closes: Sequence[Close], left_seconds: Callable[[], float]) -> None:
    """Returns when all have ended, or when no time is left: what still runs dies with the process."""
    threads = [
        threading.Thread(target=close, args=(left_seconds(),), name="joulescope-close", daemon=True)
        for close in closes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(left_seconds())
