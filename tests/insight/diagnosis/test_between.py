"""Which causes are found to differ, and whose a difference of the fitted laws is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from joulescope.insight.diagnosis import causes
from joulescope.insight.diagnosis.between import Between, between
from joulescope.insight.diagnosis.window import window_of
from joulescope.minute_model import EngineMinute
from tests.insight.diagnosis.windows import minutes


def _fitted(slower: float = 1.0, launch: float = 1.0, clock: float | None = None) -> list[EngineMinute]:
    """The same minutes, had work and launches taken other times, and sensors told another clock."""
    changed = []
    for minute in minutes():
        assert minute.laws is not None
        first, second, *work = minute.laws.time_coefficients
        times = (launch * first, second, *(slower * each for each in work))
        gpu = minute.gpu
        if clock is None:
            gpu = replace(gpu, sm_clock_hertz_seconds=0.0, sm_clock_known_seconds=0.0)
        else:
            gpu = replace(gpu, sm_clock_hertz_seconds=clock * gpu.sm_clock_hertz_seconds)
        laws = replace(minute.laws, time_coefficients=times)
        changed.append(_at_pace(replace(minute, laws=laws, gpu=gpu), minute))
    return changed


def _at_pace(minute: EngineMinute, before: EngineMinute) -> EngineMinute:
    """Its decode steps take what its laws say, and static power is drawn for as much longer."""
    steps = minute.decode_steps
    assert minute.laws is not None
    assert before.laws is not None
    other = steps.flops - steps.tokens * minute.laws.cost.flops_per_token
    row = (steps.steps, steps.sequences, steps.weight_bytes, steps.kv_bytes, other)
    foreseen = [
        sum(each * times for each, times in zip(row, laws.time_coefficients, strict=True))
        for laws in (before.laws, minute.laws)
    ]
    longer = steps.seconds * (foreseen[1] / foreseen[0] - 1.0)
    drawn = longer * minute.laws.energy_coefficients[-1]
    joules = replace(
        minute.joules, measured=minute.joules.measured + drawn, decode=minute.joules.decode + drawn
    )
    return replace(minute, decode_steps=replace(steps, seconds=steps.seconds + longer), joules=joules)


def _made(after: Sequence[EngineMinute]) -> Between:
    return between(window_of(minutes(), "A", None), window_of(after, "B", None))


def test_slower_work_without_a_word_of_the_clocks_is_efficiency() -> None:
    """Nothing else is known that would explain it."""
    made = _made(_fitted(slower=1.25))
    assert made.factors.keys() == {causes.EFFICIENCY}
    assert made.factors[causes.EFFICIENCY][0] == pytest.approx(1.25, rel=0.03)


def test_clocks_explain_as_much_as_they_fell_by() -> None:
    """A fifth less clock is a quarter more time; what is beyond that is not theirs."""
    just = _made(_fitted(slower=1.25, clock=0.8))
    assert just.factors.keys() == {causes.CLOCKS}
    more = _made(_fitted(slower=1.5, clock=0.8))
    assert more.factors[causes.CLOCKS][0] == pytest.approx(1.25)
    assert more.factors[causes.EFFICIENCY][0] == pytest.approx(1.2, rel=0.03)


def test_launches_are_the_hosts() -> None:
    """Longer launches alone: the host, and no kernels."""
    made = _made(_fitted(launch=2.0, clock=1.0))
    assert causes.HOST in made.players
    assert not made.factors
    assert made.change is not None
    assert made.change.launch == pytest.approx(2.0, rel=0.1)


def test_a_fit_that_went_astray_in_the_last_minute_is_not_believed() -> None:
    """The coefficients of a window are the middle ones of its later minutes."""
    window = list(minutes()) * 2
    laws = window[-1].laws
    assert laws is not None
    astray = replace(laws, energy_coefficients=tuple(0.6 * each for each in laws.energy_coefficients))
    later = replace(window[-1], laws=astray, end_wall_seconds=window[-1].end_wall_seconds + 1.0)
    assert (
        window_of([*window, later], "A", None).laws.energy_coefficients[-1]
        > 0.9 * laws.energy_coefficients[-1]
    )


def test_limits_that_differ_are_causes() -> None:
    """The engine says so itself, and nothing has to be inferred."""
    limits = replace(minutes()[0].limits, kv_cache_tokens=50_000, max_num_seqs=64)
    made = _made([replace(each, limits=limits) for each in minutes()])
    assert {causes.KV_CAPACITY, causes.BATCH_LIMIT} <= set(made.players)


def test_both_ends_are_as_measured() -> None:
    """Whatever the model says: with no cause and with all of them it meets the meters."""
    made = _made(_fitted(slower=1.25))
    assert made.joules_per_token(frozenset()) == pytest.approx(made.first.joules_per_token, rel=1e-12)
    everything = frozenset(made.players)
    assert made.joules_per_token(everything) == pytest.approx(made.second.joules_per_token, rel=1e-12)
