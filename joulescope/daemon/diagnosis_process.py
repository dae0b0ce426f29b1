"""Starts the process that makes diagnoses, and ends it when it takes too long."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import joulescope

COMMAND = (sys.executable, "-m", "joulescope.insight.diagnosis.worker")

MAX_BYTES = 16 << 20
"""Of lines of minutes that one process gets: it holds about three times as much while it parses them."""

TIMEOUT_SECONDS = 120.0
"""It stands back for everybody else: on a busy machine a second of work takes many."""

Spawn = Callable[..., "subprocess.Popen[bytes]"]


class ProcessError(Exception):
    """No answer came; ``outcome`` is one of :data:`joulescope.diagnosis_model.OUTCOMES`."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class DiagnosisProcess:
    """Asks :mod:`joulescope.insight.diagnosis.worker`. One question at a time; :meth:`end` is for any thread.

    Args:
        spawn: starts a process, as ``subprocess.Popen`` does.
    """

    def __init__(
        self,
        command: Sequence[str] = COMMAND,
        timeout_seconds: float = TIMEOUT_SECONDS,
        spawn: Spawn = subprocess.Popen,
    ) -> None:
        self._command, self._timeout_seconds, self._spawn = command, timeout_seconds, spawn
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._ended = False

    def ask(
        self,
        before: Sequence[bytes],
        now: Sequence[bytes],
        engines: Sequence[str | None],
        closed_loop: bool | None = None,
    ) -> list[dict[str, Any]]:
        """An answer for each engine.

        Args:
            before, now: lines of minutes.
            closed_loop: whether clients wait for answers; ``None``: as the minutes look.

        Raises:
            ProcessError: there is none, and why.
        """
        question = {
            "engines": list(engines),
            "before": len(before),
            "now": len(now),
            "closed_loop": closed_loop,
        }
        text = b"".join((json.dumps(question).encode(), b"\n", *before, *now))
        try:
            child = self._begin()
            with child:
                out, said = self._talk(child, text)
        except OSError as error:
            raise ProcessError("failed", f"its process cannot be started: {error.strerror}") from error
        finally:
            self._child = None
        if child.returncode == 0:
            with contextlib.suppress(ValueError):
                answers: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
                if [each.get("engine") for each in answers] == list(engines):
                    return answers
        last = (said.decode(errors="replace").strip().splitlines() or ["without an answer"])[-1]
        raise ProcessError("failed", f"its process ended with {child.returncode}: {last[:300]}")

    def _begin(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._ended:
                raise ProcessError("failed", "the sidecar ends")
            # Not from the working directory, which others may write to; the same joulescope as this one.
            root = str(Path(joulescope.__file__).resolve().parents[1])
            path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
            child = self._child = self._spawn(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
            )
        return child

    def _talk(self, child: subprocess.Popen[bytes], text: bytes) -> tuple[bytes, bytes]:
        try:
            return child.communicate(text, self._timeout_seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            raise ProcessError(
                "timeout", f"it took longer than {self._timeout_seconds:.0f} s; ask for a shorter time"
            ) from None

    def end(self) -> None:
        """Kills what runs; no other is started."""
        with self._lock:
            self._ended = True
            child = self._child
        if child is not None:
            with contextlib.suppress(OSError):
                child.kill()
