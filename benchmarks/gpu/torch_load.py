"""Load that a benchmark makes itself: matrix products by torch, in a process of its own.

The process tells when each burst began and ended by CLOCK_MONOTONIC, which both share.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.gpu.step_response import Burst

UNITS_OF_WORK = 20
"""Products between two looks at the clock; half a millisecond to some milliseconds in all."""

SPREAD_RATIO = 0.1
"""A pause is up to so much longer, by lot, so that bursts fall anywhere between two renewals of a reading."""

_PROGRAM = """
import random, sys, time
import torch
size = 4096
a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
(a @ a).sum().item()
print("up", flush=True)
lots = random.Random(0)
for line in sys.stdin:
    count, on, off = line.split()
    for _ in range(int(count)):
        time.sleep(float(off) * (1 + lots.random() * {spread}))
        begin = now = time.monotonic_ns()
        while now - begin < float(on) * 1e9:
            for _ in range({units}): a @ a
            torch.cuda.synchronize()
            now = time.monotonic_ns()
        print(begin, now, flush=True)
    print("done", flush=True)
"""


class NoTorchError(Exception):
    """There is no torch here that reaches a GPU; says why."""


class TorchBursts:
    """A process that holds a CUDA context and is idle until it is told to work."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def go(self, count: int, on_seconds: float, off_seconds: float) -> None:
        """Begins the bursts; each comes after a pause."""
        assert self._process.stdin is not None
        print(count, on_seconds, off_seconds, file=self._process.stdin, flush=True)

    def stamps(self) -> Sequence[Burst]:
        """Waits until all bursts are over and tells when they were.

        Raises:
            NoTorchError: if the process ended before.
        """
        assert self._process.stdout is not None
        found = []
        while (line := self._process.stdout.readline()) != "done\n":
            if not line:
                raise NoTorchError("the load ended early")
            begin, end = line.split()
            found.append((int(begin), int(end)))
        return found


@contextmanager
def torch_bursts(python: str = sys.executable) -> Iterator[TorchBursts]:
    """Starts the process and waits for its CUDA context; ends it afterwards.

    Raises:
        NoTorchError: if there is no torch, or none that reaches a GPU.
    """
    command = [python, "-c", _PROGRAM.format(units=UNITS_OF_WORK, spread=SPREAD_RATIO)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != "up\n":
            said = process.stderr.read().strip().splitlines()
            raise NoTorchError(said[-1] if said else "it ended without a word")
        yield TorchBursts(process)
    finally:
        process.kill()
        process.communicate()
