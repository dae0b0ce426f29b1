"""What the meters say that a request added, against what joulescope says.

A block is compared with the ``off`` block of its round. The background is a closed loop: its work goes by
steps. Injected requests make steps longer, so that in equal time fewer steps are done, and the plain
difference of two blocks is what the requests added *less what the lost steps would have drawn*. That is no
small thing: on a GPU that is never idle it can be two thirds. What is compared is therefore the difference
at equal background work::

    added per request = (E_on − E_off · W_on / W_off) / N

with E the joules of a block less idle time at idle power, W its background steps, N the injected requests.
W comes from the engine's records; no model and no figure of joulescope's is in it. (To put joulescope's own
figures for the background in its place would prove nothing: they sum to what was measured.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from benchmarks.gpu.intervals import Estimate, bootstrap_interval, mean_interval, ratio_interval
from benchmarks.gpu.plan import OFF, Plan
from benchmarks.gpu.recording import BlockFigures, Window


@dataclass(frozen=True, slots=True)
class Pair:
    """One block with requests and the ``off`` block of its round. Joules are per injected request."""

    round: int
    added_joules: float
    """At equal background work: see the text of this module."""
    plain_joules: float
    """The plain difference of the two blocks, at equal length."""
    marginal_joules: float
    attributed_joules: float
    true_single_joules: float | None
    true_group_joules: float | None
    lost_steps_ratio: float
    """Background steps per second that the block lacks, compared with ``off``."""
    tokens_per_step_ratio: float
    """Background tokens in a step, against ``off``: 1 if the background was the same."""
    power_watts: float
    """Mean of the block with requests."""


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One kind of request over all rounds. Joules are per request."""

    experiment: str
    arm: str
    requests_per_block: int
    pairs: tuple[Pair, ...]
    dropped: dict[str, int]
    """Blocks that could not be used, by reason."""

    def mean(self, name: str) -> float:
        """Mean over the pairs of one of their figures; the figure must be known."""
        return float(np.mean([getattr(pair, name) for pair in self.pairs]))

    def values(self, name: str) -> list[float]:
        return [getattr(pair, name) for pair in self.pairs]

    @property
    def added(self) -> Estimate:
        return mean_interval(self.values("added_joules"))

    @property
    def added_by_bootstrap(self) -> Estimate:
        return bootstrap_interval(self.values("added_joules"))

    def error_of(self, name: str) -> Estimate:
        """(figure − added) / added, with its interval."""
        ratio = ratio_interval(self.values(name), self.values("added_joules"))
        return Estimate(ratio.value - 1, ratio.low - 1, ratio.high - 1)

    def edge_error_joules(self, poll_seconds: float) -> float:
        """Standard error of ``added`` by the edges alone, joules per request.

        A tick is seen up to one poll late, evenly spread, while steps are counted by the instant of the
        poll. That puts an error of ``power · poll / √6`` on a block and √2 times that on a pair.
        """
        block_joules = self.mean("power_watts") * poll_seconds / math.sqrt(6)
        return math.sqrt(2 / len(self.pairs)) * block_joules / self.requests_per_block

    @property
    def knows_truth(self) -> bool:
        return all(pair.true_group_joules is not None for pair in self.pairs)


@dataclass(frozen=True, slots=True)
class Swap:
    """One request of a kind in the place of one of another. Joules per request swapped."""

    experiment: str
    taken: str
    given: str
    added: Estimate
    marginal: float
    difference: Estimate
    """Marginal less added."""


def compare(plan: Plan, blocks: Sequence[BlockFigures], idle_watts: float) -> list[ArmResult]:
    """Every kind of every experiment against its ``off`` blocks, in the plan's order.

    Args:
        idle_watts: what a GPU draws with nothing to do; idle time within a block is taken off with it.
    """
    off = {
        (figures.block.experiment, figures.block.round): figures
        for figures in blocks
        if figures.block.arm == OFF
    }
    experiments = dict.fromkeys(block.experiment for block in plan.blocks)
    arms = [(experiment, kind.name) for experiment in experiments for kind in plan.kinds]
    results = []
    for experiment, arm in arms:
        mine = [each for each in blocks if (each.block.experiment, each.block.arm) == (experiment, arm)]
        if mine:
            results.append(_arm(mine, off, idle_watts))
    return results


def _arm(
    mine: Sequence[BlockFigures], off: dict[tuple[str, int], BlockFigures], idle_watts: float
) -> ArmResult:
    pairs: list[Pair] = []
    dropped: dict[str, int] = {}
    for figures in mine:
        base = off[figures.block.experiment, figures.block.round]
        problems = figures.problems or tuple(f"off: {problem}" for problem in base.problems)
        if problems:
            dropped[problems[0]] = dropped.get(problems[0], 0) + 1
        else:
            pairs.append(pair_of(figures, base, idle_watts))
    block = mine[0].block
    return ArmResult(block.experiment, block.arm, mine[0].requests, tuple(pairs), dropped)


def pair_of(on: BlockFigures, off: BlockFigures, idle_watts: float) -> Pair:
    """The figures of one pair.

    Raises:
        ValueError: if the ``off`` block had no background steps to compare with.
    """
    count = on.requests
    added = plain = 0.0
    for window, base in zip(on.windows, off.windows, strict=True):
        if base.background_steps <= 0:
            raise ValueError(f"no background ran in block {off.block.number}")
        busy, busy_off = (each.energy_joules - idle_watts * each.idle_seconds for each in (window, base))
        added += busy - busy_off * window.background_steps / base.background_steps
        plain += window.energy_joules - base.energy_joules * window.seconds / base.seconds
    return Pair(
        round=on.block.round,
        added_joules=added / count,
        plain_joules=plain / count,
        marginal_joules=on.marginal_joules / count,
        attributed_joules=on.attributed_joules / count,
        true_single_joules=_per(on.true_single_joules, count),
        true_group_joules=_per(on.true_group_joules, count),
        lost_steps_ratio=1 - _steps_per_second(on.windows) / _steps_per_second(off.windows),
        tokens_per_step_ratio=_tokens_per_step(on.windows) / _tokens_per_step(off.windows),
        power_watts=sum(window.energy_joules / window.seconds for window in on.windows),
    )


def swaps(results: Sequence[ArmResult]) -> list[Swap]:
    """For each two neighbouring arms of an experiment: the second in the place of the first.

    The two are compared in rounds in which both could be used; the ``off`` block that both were compared
    with is the same and so cancels, but for the steps that one cost more than the other.
    """
    found: list[Swap] = []
    for first, second in pairwise(results):
        if first.experiment != second.experiment:
            continue
        before = {pair.round: pair for pair in first.pairs}
        both = [(before[pair.round], pair) for pair in second.pairs if pair.round in before]
        if len(both) < 2:
            continue
        added = [given.added_joules - taken.added_joules for taken, given in both]
        marginal = [given.marginal_joules - taken.marginal_joules for taken, given in both]
        differences = [ours - theirs for ours, theirs in zip(marginal, added, strict=True)]
        found.append(
            Swap(
                experiment=first.experiment,
                taken=first.arm,
                given=second.arm,
                added=mean_interval(added),
                marginal=float(np.mean(marginal)),
                difference=mean_interval(differences),
            )
        )
    return found


def _per(total: float | None, count: int) -> float | None:
    return None if total is None else total / count


def _steps_per_second(windows: Sequence[Window]) -> float:
    return sum(window.background_steps for window in windows) / sum(window.seconds for window in windows)


def _tokens_per_step(windows: Sequence[Window]) -> float:
    steps = sum(window.background_steps for window in windows)
    return sum(window.background_tokens for window in windows) / steps
