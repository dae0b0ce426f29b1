"""How latencies are distributed: from output to output, and from a request's arrival to its first token.

The long run (:mod:`.model`) knows how often so many requests are present, and what steps with so many of them
may take, prompts included. Both latencies are drawn from that, always with the same luck, some thousand
times:

* between outputs lies the step that a request decodes in, whoever's prompts are in it; in a pipeline, one
  passage through all stages, each as long as the slowest step under way;
* before the first token lie the queue (so many requests must end first, at the rate at which they do), what
  is left of the step under way, the step that is scheduled already, and those that compute the prompt, beside
  the prompts of all who came during that same step, as the token budget allows.

What is left out: how long a request that was pushed out of the KV cache waits in mid-answer, that lengths of
stays are not exponential (which matters for queues, and there only), and whatever the long run leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from joulescope.insight.steady import chunks
from joulescope.insight.steady.model import Engine, Occupancy, States, engine_of, flight_chances, occupancy
from joulescope.insight.steady.step_law import SECONDS, StepLaw, decoder_of
from joulescope.insight.steady.values import Service, Workload

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DRAWS = 4_000
_SEED = 2607
_TURNS = 1
"""So often a step is followed by the next, which takes in who came during it."""

_CELL = 0.25
"""Half the width, in octaves, of the cells of prompt lengths of which minutes tell the mean."""

_MOST_BESIDE = 12
"""Of the requests that come during one step, so many are looked at one by one."""


@dataclass(frozen=True, slots=True, eq=False)
class Latencies:
    """Draws of latencies in seconds, ascending."""

    inter_token: Floats
    first_token: Floats | None
    """``None`` where the queue grows, or where no requests come at a rate."""

    def percentile(self, figure: str, percent: float) -> float | None:
        """Of ``inter_token_seconds`` or ``first_token_seconds``."""
        values = {"inter_token_seconds": self.inter_token, "first_token_seconds": self.first_token}[figure]
        return None if values is None else float(np.quantile(values, percent / 100.0))


def latencies(workload: Workload, service: Service) -> Latencies:
    """Latencies in the long run; of a pipeline, in all its states by how often they are met."""
    if service.pipeline_parallel == 1 or service.flights is not None:
        return _in_one_state(workload, service)
    parts = [
        (chance, _in_one_state(workload, replace(service, flights=float(flights))))
        for flights, chance in enumerate(flight_chances(workload, service), start=1)
        if chance > 1.0 / _DRAWS
    ]
    between = _blended([(chance, each.inter_token) for chance, each in parts])
    first = [(chance, each.first_token) for chance, each in parts if each.first_token is not None]
    return Latencies(between, _blended(first) if len(first) == len(parts) else None)


def _blended(parts: list[tuple[float, Floats]]) -> Floats:
    """One sample of several, as many draws of each as it is often met."""
    whole = sum(chance for chance, _ in parts)
    at = [(np.arange(n) + 0.5) / n for n in (max(round(_DRAWS * chance / whole), 1) for chance, _ in parts)]
    return np.sort(np.concatenate([np.quantile(v, u) for u, (_, v) in zip(at, parts, strict=True)]))


def _in_one_state(workload: Workload, service: Service) -> Latencies:
    engine = engine_of(workload.classes, workload.shared_tokens, service)
    flights, rate = service.flights, workload.arrivals_per_second
    full = engine.saturated(flights)
    capacity = float(full.ends[0])
    if rate is None:
        states = engine.states(np.array([max(workload.concurrency or 1.0, 1.0)]), flights)
        return Latencies(_Draws(engine, states, np.ones(1)).between(), None)
    if rate >= capacity * (1.0 - 1e-9):
        return Latencies(_Draws(engine, full, np.ones(1)).between(), None)
    found = occupancy(engine, max(rate, 1e-9 * capacity), capacity, flights)
    draws = _Draws(engine, found.states, found.chance)
    return Latencies(draws.between(rate), draws.before_first(found, rate))


@cache
def _luck(name: str, columns: int) -> Floats:
    """Evenly spread numbers in 0..1 (draws × columns): the same for a name whatever is asked."""
    rng = np.random.default_rng([_SEED, *name.encode()])
    cells = np.stack([rng.permutation(_DRAWS) for _ in range(columns)], axis=1)
    return np.asarray((cells + rng.random((_DRAWS, columns))) / _DRAWS)


def _chosen(weights: Floats, luck: Floats) -> Ints:
    """Which of some, by their weights."""
    sums = np.cumsum(weights)
    return np.minimum(np.searchsorted(sums / sums[-1], luck), len(weights) - 1)


class _Draws:
    """Draws from the states of one engine."""

    def __init__(self, engine: Engine, states: States, chance: Floats) -> None:
        self.engine, self.states, self.chance = engine, states, chance
        table = engine.table
        self._sums = {"decoders": np.cumsum(table.chances * table.decoders, axis=1)}
        self._sums["usual"] = np.cumsum(table.chances, axis=1)
        self._sums["longer"] = np.cumsum(table.chances * table.durations, axis=1)

    def _steps(self, sort: str, together: Floats, luck: Floats, between: Floats) -> Floats:
        """Seconds of usual steps with so many requests: as they are (``usual``), as decoding requests meet
        them (``decoders``), or as those meet them who come at any instant (``longer``)."""
        table = self.engine.table
        high = np.clip(np.searchsorted(table.batch, together), 0, len(table.batch) - 1)
        low = np.maximum(high - 1, 0)
        gap = np.maximum(table.batch[high] - table.batch[low], 1e-12)
        part = np.clip((together - table.batch[low]) / gap, 0.0, 1.0)
        rows = np.where(between < part, high, low)
        seconds = np.empty(len(together))
        sums = self._sums[sort]
        for row in np.unique(rows).tolist():
            mine = rows == row
            whole = sums[row, -1]
            if whole <= 0.0:  # nobody decodes beside a prompt alone
                seconds[mine] = table.plain[row, SECONDS]
                continue
            at = np.minimum(np.searchsorted(sums[row] / whole, luck[mine]), sums.shape[1] - 1)
            seconds[mine] = table.durations[row, at]
        return seconds

    def between(self, rate: float | None = None) -> Floats:
        """Seconds from output to output, where requests come at a rate; ``None``: as others end."""
        states, stages = self.states, self.engine.stages
        luck = _luck("between", 4 + stages * stages)
        at = _chosen(self.chance * states.ends, luck[:, 0])
        together = states.together[at]
        if rate is None:
            own = self._steps("decoders", together, luck[:, 1], luck[:, 2])
        else:
            own = self._steps("usual", together, luck[:, 1], luck[:, 2])
            turns = stages / np.maximum(states.flights[at], 1.0)
            for turn in range(_TURNS):
                window = turns * (own + states.bubble[at] + states.wait[at])
                own = self._after(together, rate * window, turn)
        own += self._computed_again(at, luck[:, 3])
        seconds = stages * states.wait[at]
        if stages == 1:
            return np.sort(own + seconds)
        under_way = states.flights[at]
        for stage in range(stages):
            longest = own.copy()
            for other in range(stages - 1):
                column = 4 + stage * stages + other
                there = luck[:, column] < under_way - 1.0 - other
                beside = self._steps("usual", together, np.roll(luck[:, column], 7), luck[:, 2])
                longest = np.where(there, np.maximum(longest, beside), longest)
            seconds = seconds + longest
        return np.sort(seconds)

    def _after(self, together: Floats, beside: Floats, turn: int) -> Floats:
        """Seconds of steps that take in whoever came during the one before: more come in a longer one.

        ``beside``: how many came, in the mean.
        """
        engine = self.engine
        law, decoder = StepLaw(engine.service), decoder_of(engine.service, engine.mean)
        rng = np.random.default_rng(_SEED + 10 + turn)
        count = np.minimum(rng.poisson(beside), _MOST_BESIDE)
        most = int(count.max())
        there = np.arange(most)[None, :] < count[:, None]
        prompts = (self._prompts(rng, most) * there[..., None]).sum(axis=1)
        budget = np.maximum(engine.budget - together * decoder[chunks.TOKENS], 1.0)
        prompts *= np.minimum(1.0, budget / np.maximum(prompts[:, chunks.TOKENS], 1.0))[:, None]
        sums = together[:, None] * decoder + prompts
        return np.asarray(law.cost(law.features(together + count, sums))[:, SECONDS])

    def _computed_again(self, at: Ints, luck: Floats) -> Floats:
        """What computing again makes some steps longer."""
        engine, states = self.engine, self.states
        often = states.full * states.together / engine.steps * sum(engine.again_by_end)
        often = np.clip(often, 0.0, 1.0)
        longer = np.where(often > 0.0, states.again[:, SECONDS] / np.maximum(often, 1e-12), 0.0)
        return np.where(luck < often[at], longer[at], 0.0)

    def before_first(self, found: Occupancy, rate: float) -> Floats:
        """Seconds from where a request comes to its first token."""
        engine, states = self.engine, self.states
        luck = _luck("first", 8)
        nobody = max(1.0 - float(self.chance.sum()), 0.0)
        state = _chosen(np.concatenate([[nobody], self.chance]), luck[:, 0])
        idle, at = state == 0, np.maximum(state - 1, 0)
        together = np.where(idle, 0.0, states.together[at])
        queue, queued = self._queue(found, at, idle)
        under_way = self._steps("longer", np.maximum(together, 1.0), luck[:, 1], luck[:, 2])
        looks = (under_way + states.bubble[at] + states.wait[at]) * np.where(idle, 0.0, 1.0)
        looks *= engine.stages / np.maximum(states.flights[at], 1.0)
        left = np.where(queued, 0.0, luck[:, 3] * looks)
        wait = states.wait[at]
        ahead = np.zeros(_DRAWS)
        if engine.service.async_scheduling:
            ahead = self._steps("usual", np.maximum(together, 1.0), luck[:, 4], luck[:, 2]) + wait
            ahead = np.where(idle, 0.0, ahead)
        window = np.where(
            queued, self._steps("usual", np.maximum(together, 1.0), luck[:, 4], luck[:, 2]), looks
        )
        prompt, steps = self._prompt(together, rate * window)
        return np.sort(queue + left + ahead + engine.stages * (prompt + steps * wait))

    def _queue(self, found: Occupancy, at: Ints, idle: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.bool_]]:
        """Seconds in the queue, and who waits in it at all."""
        rng = np.random.default_rng(_SEED)
        states = self.states
        deeper = np.zeros(_DRAWS)
        last = at == len(self.chance) - 1
        if found.tail > 0.0:
            deeper = np.where(last, rng.geometric(max(1.0 - found.tail, 1e-9), _DRAWS) - 1.0, 0.0)
        following = np.minimum(at + 1, len(self.chance) - 1)
        most = states.running[following]
        ahead = np.maximum(states.present[at] + deeper + 1.0 - most, 0.0)
        whole = np.floor(ahead)
        count = whole + (rng.random(_DRAWS) < ahead - whole)
        queued = (count > 0.0) & ~idle
        seconds = rng.gamma(np.maximum(count, 1.0)) / states.ends[following]
        return np.where(queued, seconds, 0.0), queued

    def _prompt(self, together: Floats, beside: Floats) -> tuple[Floats, Floats]:
        """Seconds of the steps that compute a prompt beside so many requests that come too, and how many.

        ``beside``: in the mean.
        """
        engine = self.engine
        law, decoder = StepLaw(engine.service), decoder_of(engine.service, engine.mean)
        rng = np.random.default_rng(_SEED + 1)
        count = np.minimum(rng.poisson(beside), _MOST_BESIDE)
        order = rng.random(_DRAWS)
        most = int(count.max())
        drawn = self._prompts(rng, 1 + most)
        others = np.arange(most)[None, :] < count[:, None]
        first = others & (rng.random(others.shape) < order[:, None])
        own, more = drawn[:, 0], (drawn[:, 1:] * others[..., None]).sum(axis=1)
        before = (drawn[:, 1:, chunks.TOKENS] * first).sum(axis=1)
        whole = own + more
        budget = np.maximum(engine.budget - together * decoder[chunks.TOKENS], 1.0)
        steps = np.ceil((before + own[:, chunks.TOKENS]) / budget)
        done = (steps - 1.0) * budget
        total = np.maximum(whole[:, chunks.TOKENS], 1.0)
        last = np.minimum(total - done, budget)
        requests = together + 1.0 + count
        decoding = together[:, None] * decoder
        seconds = np.zeros(_DRAWS)
        for tokens, times in ((np.minimum(budget, total), steps - 1.0), (last, np.ones(_DRAWS))):
            sums = decoding + whole * (tokens / total)[:, None]
            seconds += times * law.cost(law.features(requests, sums))[:, SECONDS]
        return seconds, steps

    def _prompts(self, rng: np.random.Generator, columns: int) -> Floats:
        """Prompts as they are computed (draws × columns × figures of :mod:`.chunks`)."""
        classes = self.engine.classes
        weights = np.array([each.weight for each in classes])
        at = _chosen(weights, rng.random(_DRAWS * columns)).reshape(_DRAWS, columns)
        prompt = np.array([each.prompt_tokens for each in classes])[at]
        prompt = prompt * np.exp2(_CELL * (2.0 * rng.random(prompt.shape) - 1.0))
        part = np.array([min(each.cached_tokens / max(each.prompt_tokens, 1.0), 1.0) for each in classes])
        cached = np.minimum(part[at] * prompt, np.maximum(prompt - 1.0, 0.0))
        own = np.maximum(prompt - cached, 1.0)
        figures = np.empty((_DRAWS, columns, chunks.FIGURES))
        figures[..., chunks.TOKENS] = own
        figures[..., chunks.KV_TOKENS] = prompt
        figures[..., chunks.POSITIONS] = own * (cached + 0.5 * (own + 1.0))
        figures[..., chunks.SAMPLES] = 1.0
        return figures
