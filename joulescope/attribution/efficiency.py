"""Learns a baseline while an engine serves, and from then on compares what its work costs with it.

First a fit with a long memory learns beside the one that divides joules; then its coefficients are fixed and
checked on what comes next, which tells by how much it is off in all (``scale``) and from minute to minute
(``scatter``); then it is a baseline, and does not change any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone

from joulescope.attribution.baseline import (
    Baseline,
    Identity,
    freeze,
    says_enough,
)
from joulescope.attribution.cache_use import CacheBook, CacheWatch
from joulescope.attribution.cost import CostModel
from joulescope.attribution.fit import StepFit
from joulescope.attribution.foresight import Foresight, Work
from joulescope.attribution.wait_fit import WaitFit
from joulescope.model import EngineInfo, FinishedRequest

LEARNING_PART = 2.0 / 3.0
"""Of the time that it takes to make a baseline, what the coefficients get; the rest checks them."""

_BLOCKS, _LONGEST_BLOCK_SECONDS = 3, 30.0
"""While coefficients are checked, joules are summed over blocks of busy time to see how far these scatter: so
many at least, and none longer than this."""

_FORM = 0.01
"""What the form of the model cannot express of a change of load, relative."""

_LATELY = 0.998
"""Memory of what part of the joules is compared: some five hundred intervals."""

_RECENT = 0.97
"""Memory of the error of the expected joules: some thirty intervals."""


class _Learning:
    """A fit that remembers, beside the one that follows."""

    def __init__(self, info: EngineInfo, model: CostModel) -> None:
        self.fit = StepFit(info.cost, info.gpu_count, model.expectation, forgets=False)
        self._teacher: CostModel | None = None
        self.busy_seconds = 0.0
        self.idle_joules = 0.0
        self._waits = WaitFit()

    def sit_beside(self, model: CostModel | None) -> None:
        """What this model is taught the fit is taught too, and what another is no longer."""
        if self._teacher is model:
            return
        if self._teacher is not None and self._teacher.pupil is self.fit:
            self._teacher.pupil = None
        self._teacher = model
        if model is not None:
            self.fit.set_limit(model.expectation.limit_watts)
            model.pupil = self.fit

    def take(self, work: Work) -> None:
        self.busy_seconds += work.busy_seconds
        self.idle_joules += work.idle_watts * work.busy_seconds
        steps, sequences = work.counts.tolist()
        self._waits.take(steps, sequences, work.waited_seconds)

    @property
    def idle_watts(self) -> float:
        return self.idle_joules / max(self.busy_seconds, 1e-9)

    @property
    def wait_seconds(self) -> tuple[float, float]:
        return self._waits.seconds


class _Checking:
    """Fixed coefficients against what comes next."""

    def __init__(self, baseline: Baseline, busy_seconds: float, check_seconds: float) -> None:
        self.baseline, self.busy_seconds = baseline, busy_seconds
        self._block_seconds = min(check_seconds / _BLOCKS, _LONGEST_BLOCK_SECONDS)
        self._foresight = Foresight(baseline)
        self._blocks: list[tuple[float, float]] = []
        self._block = [0.0, 0.0, 0.0]

    def take(self, work: Work) -> None:
        self.busy_seconds += work.busy_seconds
        expected_joules = self._foresight.of(work).joules
        for index, value in enumerate((work.busy_seconds, work.joules, expected_joules)):
            self._block[index] += value
        if self._block[0] >= self._block_seconds * self.baseline.identity.gpu_count:
            self._blocks.append((self._block[1], self._block[2]))
            self._block = [0.0, 0.0, 0.0]

    @property
    def is_telling(self) -> bool:
        return len(self._blocks) >= _BLOCKS and any(joules > 0.0 for joules, _ in self._blocks)

    def verdict(self) -> tuple[float, float]:
        """Scale and scatter."""
        measured, expected = (sum(column) for column in zip(*self._blocks, strict=True))
        scale = measured / max(expected, 1e-9)
        off = [(joules / max(foreseen, 1e-9) / scale - 1.0) ** 2 for joules, foreseen in self._blocks]
        return scale, math.sqrt(sum(off) / (len(off) - 1))


class _Comparing:
    """A baseline against what the work costs now."""

    def __init__(self, baseline: Baseline) -> None:
        self.foresight = Foresight(baseline)
        self.cache = CacheWatch(baseline.cache)
        self.actual_joules = self.expected_joules = 0.0
        self._owed_joules = 0.0
        """What prompts made the engine compute more than they used to, not yet taken off."""
        self._variance_ratio: float | None = None
        self._compared_joules = self._passed_joules = 0.0
        """Of late."""

    def passed(self, joules: float, compared_joules: float = 0.0) -> None:
        """Notes what part of the joules of late is compared."""
        self._compared_joules = _LATELY * self._compared_joules + compared_joules
        self._passed_joules = _LATELY * self._passed_joules + joules

    def take(self, work: Work) -> None:
        self.actual_joules += work.joules
        self.passed(0.0, work.joules)
        foreseen = self.foresight.of(work)
        due_joules = foreseen.joules - self._owed_joules
        self._owed_joules = max(-due_joules, 0.0)
        self.expected_joules += max(due_joules, 0.0)
        ratio = self.foresight.variance_ratio(work, foreseen.busy_seconds)
        before = ratio if self._variance_ratio is None else self._variance_ratio
        self._variance_ratio = _RECENT * before + (1.0 - _RECENT) * ratio

    def finished(self, request: FinishedRequest) -> None:
        more_tokens = self.cache.more_tokens(request.prompt_tokens, request.cached_tokens)
        joules = self.foresight.prefill_joules(abs(more_tokens)) * self._compared_ratio
        self._owed_joules += math.copysign(joules, more_tokens)

    @property
    def _compared_ratio(self) -> float:
        whole_joules = self._compared_joules + self._passed_joules
        return self._compared_joules / whole_joules if whole_joules > 0.0 else 1.0

    @property
    def error_ratio(self) -> float | None:
        if self._variance_ratio is None:
            return None
        return math.sqrt(max(self._variance_ratio, 0.0) + self.foresight.baseline.scatter**2 + _FORM**2)


class Efficiency:
    """What one engine label's work costs against a baseline, which is learned first if none is given.

    Args:
        info, identity: the engine.
        baseline: what to compare with.
        learn_seconds: busy time, per GPU, in which a baseline is learned and checked.
        wall_seconds: tells the wall time of an instant.
    """

    def __init__(
        self,
        info: EngineInfo,
        identity: Identity,
        baseline: Baseline | None,
        *,
        learn_seconds: float,
        wall_seconds: Callable[[int], float],
    ) -> None:
        self.info, self.identity = info, identity
        self._learn_seconds, self._wall_seconds = learn_seconds, wall_seconds
        self._learning: _Learning | None = None
        self._checking: _Checking | None = None
        self._book = CacheBook()
        self._comparing = None if baseline is None else _Comparing(baseline)
        self.actual_joules = self.expected_joules = 0.0
        """Of baselines that were compared with before."""

    # ---------------------------------------------------------------------------------------- what comes in

    def take(self, work: Work, model: CostModel, time_ns: int) -> None:
        """The steps of a measured interval in which nothing else happened; ``model`` divides its joules."""
        if self._comparing is not None:
            self._comparing.take(work)
        elif self._checking is not None:
            self._check(self._checking, work, time_ns)
        else:
            self._learn(work, model, time_ns)

    def passed(self, joules: float) -> None:
        """An interval in which something else happened too, so that it is not compared."""
        if self._comparing is not None:
            self._comparing.passed(joules)

    def finished(self, request: FinishedRequest) -> None:
        """A request whose account is closed. One whose prompt was not computed to its end, or of which
        something is not known, says nothing of the cache."""
        done_tokens = request.scheduled_tokens + request.cached_tokens
        if not request.complete or not request.steps or done_tokens < request.prompt_tokens:
            return
        if self._comparing is not None:
            self._comparing.finished(request)
        elif request.prompt_tokens:
            self._book.note(request.prompt_tokens, request.cached_tokens)

    def is_now(self, info: EngineInfo, identity: Identity, baseline: Baseline | None) -> None:
        """Under the same label runs another model, or the same on other GPUs."""
        self.info, self.identity = info, identity
        self.compare_with(baseline)

    def compare_with(self, baseline: Baseline | None) -> None:
        """Another baseline from now on; ``None``: one is learned anew."""
        if self._comparing is not None:
            self.actual_joules += self._comparing.actual_joules
            self.expected_joules += self._comparing.expected_joules
        if self._learning is not None:
            self._learning.sit_beside(None)
        self._learning = self._checking = None
        self._book = CacheBook()
        self._comparing = None if baseline is None else _Comparing(baseline)

    # --------------------------------------------------------------------------------------------- results

    @property
    def baseline(self) -> Baseline | None:
        """What is compared with."""
        return None if self._comparing is None else self._comparing.foresight.baseline

    @property
    def learns(self) -> bool:
        """Whether a baseline is learned where there is none."""
        return self._learn_seconds > 0.0 and says_enough(self.info.cost)

    @property
    def learned_ratio(self) -> float | None:
        """How much of the learning is done; below 1 until there is a baseline; ``None``: none is learned."""
        if self._comparing is not None:
            return 1.0
        if not self.learns:
            return None
        state = self._checking or self._learning
        done_seconds = 0.0 if state is None else state.busy_seconds / max(self.identity.gpu_count, 1)
        return min(done_seconds / self._learn_seconds, 0.999)

    @property
    def actual(self) -> float | None:
        """Joules of all work that was compared; ``None`` before there is a baseline."""
        if self._comparing is None:
            return self.actual_joules or None
        return self.actual_joules + self._comparing.actual_joules

    @property
    def expected(self) -> float | None:
        """What the same work should have cost."""
        if self._comparing is None:
            return self.expected_joules or None
        return self.expected_joules + self._comparing.expected_joules

    @property
    def error_ratio(self) -> float | None:
        """Relative standard error of what is expected, for the work of late."""
        return None if self._comparing is None else self._comparing.error_ratio

    # -------------------------------------------------------------------------------------------- learning

    def _learn(self, work: Work, model: CostModel, time_ns: int) -> None:
        learning = self._learning
        if learning is None:
            if not model.has_learned:
                return  # what is expected of its GPU may not be known yet
            learning = self._learning = _Learning(self.info, model)
        learning.sit_beside(model)
        learning.take(work)
        if learning.busy_seconds >= LEARNING_PART * self._learn_seconds * self.identity.gpu_count:
            learning.sit_beside(None)
            self._learning = None
            check_seconds = (1.0 - LEARNING_PART) * self._learn_seconds
            self._checking = _Checking(self._frozen(learning, time_ns), learning.busy_seconds, check_seconds)

    def _frozen(self, learning: _Learning, time_ns: int) -> Baseline:
        frozen = freeze(learning.fit, self.identity, self.info, wall_seconds=self._wall_seconds(time_ns))
        return replace(frozen, idle_watts=learning.idle_watts, wait_seconds=learning.wait_seconds)

    def _check(self, checking: _Checking, work: Work, time_ns: int) -> None:
        checking.take(work)
        enough = checking.busy_seconds >= self._learn_seconds * self.identity.gpu_count
        if not (enough and checking.is_telling):
            return
        scale, scatter = checking.verdict()
        created = self._wall_seconds(time_ns)
        self._comparing = _Comparing(
            replace(
                checking.baseline,
                name=_name_of(self.info, created),
                created_wall_seconds=created,
                busy_seconds=checking.busy_seconds / max(self.identity.gpu_count, 1),
                scale=scale,
                scatter=scatter,
                cache=self._book.uses(),
            )
        )
        self._checking = None


def _name_of(info: EngineInfo, wall_seconds: float) -> str:
    """Such as ``Llama-3.1-8B-Instruct 0.32.0 2026-11-27T05:00Z``: what was learned, and when."""
    model = (info.served_model or info.model).rsplit("/", 1)[-1]
    day = datetime.fromtimestamp(wall_seconds, timezone.utc)
    return " ".join(part for part in (model, info.vllm_version, f"{day:%Y-%m-%dT%H:%MZ}") if part)
