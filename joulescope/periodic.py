"""A thread that does one thing again and again, with a pause that each turn decides."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_logger = logging.getLogger(__name__)


class Periodic:
    """Calls ``step`` until it is told to stop; what ``step`` returns is the pause before the next call.

    ``step`` handles its own errors. One that it does not foresee is a bug: it is logged, ``failed`` is
    called, and the thread goes on after ``pause_seconds``.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float],
        *,
        failed: Callable[[], None] = lambda: None,
        pause_seconds: float = 60.0,
    ) -> None:
        self._name = name
        self._step = step
        self._failed = failed
        self._pause_seconds = pause_seconds
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread, which dies with the process."""
        self._thread = threading.Thread(target=self._run, name=f"joulescope-{self._name}", daemon=True)
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Tells the thread to end; returns after the time even if it still waits for someone's answer."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._stopping.wait(self._guarded_step())

    def _guarded_step(self) -> float:
        try:
            return self._step()
        except Exception:
            _logger.exception("internal error in %s; please report it", self._name)
            self._failed()
            return self._pause_seconds
