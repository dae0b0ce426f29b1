"""What makes this process a good guest: it cannot outlive its engine, is polite, and says nothing."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_NICENESS = 10


def die_with_parent() -> None:
    """Lets the kernel kill this process when the thread that started it ends, where the kernel can.

    ``prctl(2)``: the signal comes at the end of the *thread*, here the emitter's, which ends with the engine.
    What happened before the call is for :func:`orphaned` to see.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def orphaned(parent_pid: int) -> bool:
    """Whether the process that started this one is gone."""
    return os.getppid() != parent_pid


def be_polite() -> None:
    """Gives way to the engine's threads on the CPU."""
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)


class LastWords:
    """Standard error, kept for one line at the end: everything else that would be written there is dropped.

    The engine reads the pipe only when the process has ended, and nobody may block on it before.
    """

    def __init__(self) -> None:
        self._kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)

    def say(self, text: str) -> None:
        """One line, why this ended."""
        with contextlib.suppress(OSError):
            os.write(self._kept, " ".join(text.split()).encode()[:1000] + b"\n")
