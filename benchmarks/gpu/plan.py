"""What is injected when: blocks of equal length, in rounds, in an order that is drawn by lot.

A *round* holds each *arm* of an experiment once: one block in which nothing is injected (``off``), and one
for each kind of request. The order within a round is random; every second round is the reverse of the one
before, so that whatever drifts steadily (temperature, leakage) cancels. Between blocks lies a gap in which
nothing is injected and nothing is measured.

A plan counts seconds from its own start. The bench says at which instant that was.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

OFF = "off"

EDGE_SECONDS = 0.3
"""Nothing is injected so soon after a block begins: its first tick of the counter must come before."""

TAIL = 1.6
"""An injected request must be over before its block is: so many times its latency is left for it."""

INJECTING_SECONDS = 2.5
"""Least time of a block in which requests may be sent."""

MIN_SPACING_SECONDS = 0.02

BACKGROUND_ID = "js-bg-"
_INJECTED_ID = re.compile(r"js-b(\d+)-(\d+)")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request to inject. All of a kind have the same lengths, in tokens."""

    name: str
    prompt_tokens: int
    output_tokens: int
    in_flight: float
    """So many at a time, in the mean; below 1 there is a pause after each, and they never meet."""

    def scaled(self, factor: float) -> Kind:
        """The same with lengths times ``factor``, at least 4 tokens; a single output token stays single."""
        prompt = max(round(self.prompt_tokens * factor), min(self.prompt_tokens, 4))
        output = max(round(self.output_tokens * factor), min(self.output_tokens, 4))
        return replace(self, prompt_tokens=prompt, output_tokens=output)


@dataclass(frozen=True, slots=True)
class Background:
    """Clients that each send the next request as soon as the last is answered.

    So the batch is always full and the GPU never idle, and what the background does goes by steps, not by
    seconds: whatever slows a step slows the background with it.
    """

    streams: int = 32
    prompt_tokens: int = 64
    output_tokens: int = 512

    def first_output_tokens(self, stream: int) -> int:
        """The first answers have different lengths, so that streams end one after the other ever after."""
        return max(1, self.output_tokens * (stream + 1) // self.streams)


@dataclass(frozen=True, slots=True)
class Experiment:
    """Kinds that are compared with ``off`` and with each other."""

    name: str
    kinds: tuple[Kind, ...]
    same_instants: bool = False
    """Each kind is injected equally often and at the same instants: one class swapped for another."""

    def scaled(self, factor: float) -> Experiment:
        """For a small model or a short context: all lengths times ``factor``."""
        return replace(self, kinds=tuple(kind.scaled(factor) for kind in self.kinds))


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of one arm. Times are seconds, offsets count from the block's start."""

    number: int
    experiment: str
    round: int
    arm: str
    start_seconds: float
    length_seconds: float
    offsets_seconds: tuple[float, ...] = ()
    """When a request of the arm's kind is injected."""

    @property
    def end_seconds(self) -> float:
        return self.start_seconds + self.length_seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a bench has to do."""

    seed: int
    background: Background
    kinds: tuple[Kind, ...]
    blocks: tuple[Block, ...]
    gap_seconds: float

    @property
    def length_seconds(self) -> float:
        return self.blocks[-1].end_seconds + self.gap_seconds if self.blocks else 0.0

    def kind(self, name: str) -> Kind:
        return next(kind for kind in self.kinds if kind.name == name)

    def injections(self) -> Iterator[tuple[float, str, Kind]]:
        """Instant in seconds, request id and kind of each injected request, in order."""
        for block in self.blocks:
            for number, offset in enumerate(block.offsets_seconds):
                yield block.start_seconds + offset, injected_id(block.number, number), self.kind(block.arm)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take; ``lead_seconds`` is the undisturbed background before the first block."""

    rounds: int = 10
    block_seconds: float = 12.0
    gap_seconds: float = 1.5
    lead_seconds: float = 6.0


@dataclass(slots=True)
class _Builder:
    pace: Pace
    at_seconds: float
    rng: np.random.Generator
    blocks: list[Block] = field(default_factory=list)

    def add(self, experiment: Experiment, latencies: Mapping[str, float]) -> None:
        spacings = spacings_seconds(experiment, latencies)
        counts = {
            kind.name: _count(kind, spacings[kind.name], latencies[kind.name], self.pace)
            for kind in experiment.kinds
        }
        if experiment.same_instants:
            counts = dict.fromkeys(counts, min(counts.values()))
        arms = [OFF, *counts]
        for number in range(self.pace.rounds):
            if number % 2 == 0:
                order = [arms[place] for place in self.rng.permutation(len(arms))]
                shifts = self.rng.random(max(counts.values()))
            else:
                order.reverse()
            for arm in order:
                count = counts.get(arm, 0)
                offsets = _offsets(count, spacings.get(arm, 0.0), shifts[:count].tolist())
                self._put(experiment.name, number, arm, offsets)

    def _put(self, experiment: str, number: int, arm: str, offsets: tuple[float, ...]) -> None:
        length = self.pace.block_seconds
        self.blocks.append(Block(len(self.blocks), experiment, number, arm, self.at_seconds, length, offsets))
        self.at_seconds += length + self.pace.gap_seconds


def pace_for(pace: Pace, latencies: Mapping[str, float]) -> Pace:
    """The same pace, with blocks long enough for the slowest kind."""
    needed = 2 * EDGE_SECONDS + TAIL * max(latencies.values()) + INJECTING_SECONDS
    return replace(pace, block_seconds=max(pace.block_seconds, math.ceil(needed)))


def make_plan(
    experiments: Sequence[Experiment],
    latencies: Mapping[str, float],
    pace: Pace,
    background: Background,
    seed: int,
) -> Plan:
    """Blocks for all rounds of the experiments, one after the other.

    Args:
        latencies: seconds from sending to the end of the answer of each kind, under the background.
        seed: decides the order of the arms and the exact instants.

    Raises:
        ValueError: if a block is too short for a single request of some kind, or two experiments name
            different kinds alike.
    """
    kinds: dict[str, Kind] = {}
    for kind in (kind for experiment in experiments for kind in experiment.kinds):
        if kinds.setdefault(kind.name, kind) != kind:
            raise ValueError(f"two different kinds are called {kind.name}")
    builder = _Builder(pace, pace.lead_seconds, np.random.default_rng(seed))
    for experiment in experiments:
        builder.add(experiment, latencies)
    return Plan(seed, background, tuple(kinds.values()), tuple(builder.blocks), pace.gap_seconds)


def spacings_seconds(experiment: Experiment, latencies: Mapping[str, float]) -> dict[str, float]:
    """Mean time from one injection to the next, by kind."""
    spacings = {
        kind.name: max(latencies[kind.name] / kind.in_flight, MIN_SPACING_SECONDS)
        for kind in experiment.kinds
    }
    return dict.fromkeys(spacings, max(spacings.values())) if experiment.same_instants else spacings


def _count(kind: Kind, spacing_seconds: float, latency_seconds: float, pace: Pace) -> int:
    """How many fit into a block and end inside it, the counter's last tick included."""
    usable = pace.block_seconds - 2 * EDGE_SECONDS - TAIL * latency_seconds
    if usable < spacing_seconds:
        raise ValueError(
            f"blocks of {pace.block_seconds:g} s are too short for requests of kind {kind.name}, which take "
            f"{latency_seconds:.2f} s: make blocks longer, or the requests shorter"
        )
    return int(usable / spacing_seconds)


def _offsets(count: int, spacing_seconds: float, shifts: Sequence[float]) -> tuple[float, ...]:
    """Evenly spaced, each moved by up to half the spacing, so that nothing beats with the counter."""
    return tuple(
        float(EDGE_SECONDS + (number + 0.5 * shift) * spacing_seconds) for number, shift in enumerate(shifts)
    )


def injected_id(block: int, number: int) -> str:
    """Request id from which block and place can be read again."""
    return f"js-b{block:04d}-{number:04d}"


def block_of(request_id: str) -> int | None:
    """Number of the block that a request was injected in, ``None`` if it was not injected.

    Servers put things before and behind the id that a client chose; it is found inside.
    """
    found = _INJECTED_ID.search(request_id)
    return int(found[1]) if found else None


PREFILL = Kind("prefill only", 4096, 1, 0.4)
DECODE = Kind("decode only", 16, 192, 24)
MIXED = Kind("mixed", 1024, 64, 6)

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment("classes", (PREFILL, DECODE, MIXED)),
        Experiment("prompts", tuple(Kind(f"{n} → 1", n, 1, 0.4) for n in (512, 2048, 6144))),
        Experiment("outputs", tuple(Kind(f"16 → {n}", 16, n, 24) for n in (64, 128, 256))),
        Experiment(
            "swap", (Kind("256 → 128", 256, 128, 8), Kind("2048 → 32", 2048, 32, 8)), same_instants=True
        ),
        Experiment("density", (Kind("8 at a time", 16, 192, 8), Kind("24 at a time", 16, 192, 24))),
    )
}
"""``classes`` tells prefill and decode apart, ``prompts`` and ``outputs`` are ladders of length, ``swap``
replaces one class by another, and ``density`` injects the same requests thinly and thickly: if the cost of
several together is not the sum of single costs, it shows there."""
