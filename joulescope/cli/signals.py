"""Signals of a program that may be process 1 of a container.

The kernel keeps from process 1 of a pid namespace every signal that it has no handler for
(``pid_namespaces(7)``): without one, SIGTERM would be lost, and the pod would wait out its grace period.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that ask to flush and end. SIGHUP is what a closed terminal sends."""


def end_at_once_on_sigterm() -> None:
    """Until something runs that must be flushed, SIGTERM ends the process; for the earliest moment.

    Signals that were held over an ``exec`` (:func:`hold_signals`) arrive now.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def hold_signals() -> None:
    """Lets signals wait: a blocked one is kept even for process 1, and even over an ``exec``."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


def on_ending(stop: Callable[[], object]) -> None:
    """Calls ``stop`` for each signal that asks to end; again and again does no harm. A SIGHUP that whoever
    started us wants ignored (``nohup``) stays so."""
    for number in ENDING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: stop())


def reap_strangers() -> None:
    """As process 1, lets the kernel bury whom ``kubectl exec`` left behind; nothing here has children."""
    if os.getpid() == 1:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
