"""What an experiment needs of the place where it runs: a bench, simulated or real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from benchmarks.gpu.plan import Background, Kind, Plan
from benchmarks.gpu.recording import Recording


class Bench(Protocol):
    """A serving engine with joulescope beside it, whose GPU is measured."""

    def characterise(self) -> dict[str, Any]:
        """What the GPU's meter can tell, as :mod:`benchmarks.gpu.characterise` reports it.

        The figure ``idle_watts`` is used; the rest is for people.
        """
        ...

    def latencies_seconds(self, kinds: Sequence[Kind], background: Background) -> dict[str, float]:
        """From sending to the end of the answer, by name of the kind, while the background runs."""
        ...

    def run(self, plan: Plan) -> Recording:
        """Keeps the background up, injects what the plan says when it says so, and measures."""
        ...
