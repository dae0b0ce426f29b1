"""Signals of a program that may be process 1 of a container.

The kernel keeps from process 1 of a pid namespace every signal that it has no handler for
(``pid_namespaces(7)``): without one, SIGTERM would be lost, and the pod would wait out its grace period.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that ask to flush and end. SIGHUP is what a closed terminal sends."""

EXIT_CUT_SHORT = 1
"""Something could not be flushed in time."""


def end_at_once_on_sigterm() -> None:
    """While nothing runs that must be flushed, SIGTERM ends the process: from the earliest moment, and again
    after a start that failed.

    Signals that were held over an ``exec`` (:func:`hold_signals`) arrive now.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def hold_signals() -> None:
    """Lets signals wait: a blocked one is kept even for process 1, and even over an ``exec``."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


def on_ending(stop: Callable[[], object], limit_seconds: float) -> None:
    """Calls ``stop`` at the first signal that asks to end, and ends the process so many seconds later at the
    latest, with :data:`EXIT_CUT_SHORT`; further signals change nothing.

    A thread of its own does both: the main thread may be held up, by a log that nobody reads or by a driver,
    and the locks that it holds must not hold up the end. A SIGHUP that whoever started us wants ignored
    (``nohup``) stays so.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(
        target=_end_on_byte, args=(reader, stop, limit_seconds), name="joulescope-signals", daemon=True
    ).start()
    for number in ENDING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # its number goes through the pipe


def _end_on_byte(reader: int, stop: Callable[[], object], limit_seconds: float) -> None:
    while os.read(reader, 1)[0] not in ENDING:
        pass
    stop()
    time.sleep(limit_seconds)
    os._exit(EXIT_CUT_SHORT)


def reap_strangers() -> None:
    """As process 1, lets the kernel bury whom ``kubectl exec`` left behind; nothing here has children."""
    if os.getpid() == 1:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
