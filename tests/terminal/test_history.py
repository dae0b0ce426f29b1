"""Rates and sparklines from past readings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from joulescope.export.requests_json import RequestsView
from joulescope.terminal.history import EngineNow, GpuNow, History, engine_now, gpu_now
from joulescope.terminal.source import Reading
from tests.export.samples import SECOND
from tests.terminal.scenes import open_requests, readings, snapshots


def at(
    seconds: float, *, joules: float = 0.0, tokens: int = 0, watts: float | None = 500.0, start: float = 0.0
) -> Reading:
    """A reading at an instant, with so much on its counters."""
    _, base = snapshots()
    (gpu,), (engine,) = base.gpus, base.engines
    assert gpu.reading is not None
    return Reading(
        replace(
            base,
            time_ns=round(seconds * SECOND),
            gpus=(replace(gpu, attributed_joules=joules, reading=replace(gpu.reading, power_watts=watts)),),
            engines=(replace(engine, tokens={"generated": tokens}),),
            sidecar=replace(base.sidecar, start_wall_seconds=start),
        ),
        None,
    )


def test_an_engines_figures_are_those_since_the_earlier_snapshot() -> None:
    """Watts by phase, J per token of late and ever; without an earlier one only the latter is known."""
    before, after = snapshots()
    now = engine_now(after.engines[0], after, before)
    assert (now.prefill_watts, now.decode_watts, now.joules_per_output) == (50.0, 200.0, 0.5)
    assert now.joules_per_output_ever == pytest.approx(2050.25 / 4500)
    assert (now.outputs_per_second, now.steps_per_second) == (500.0, 20.0)
    assert engine_now(after.engines[0], after, None) == EngineNow(
        joules_per_output_ever=now.joules_per_output_ever
    )


def test_a_gpus_shares_are_those_of_the_last_seconds() -> None:
    """1250 J and 250 J of 1500; nothing measured is not known, and not 0."""
    before, after = snapshots()
    now = gpu_now(after.gpus[0], before)
    assert now.attributed_ratio == pytest.approx(1250 / 1500)
    assert now.idle_ratio == pytest.approx(250 / 1500)
    assert gpu_now(after.gpus[0], after) == GpuNow()


def test_rates_need_two_seconds() -> None:
    """Before that there is no earlier snapshot; later it is ten seconds old at most."""
    history = History()
    for seconds in range(30):
        history.add(at(seconds))
        earlier = history.earlier()
        if seconds < 2:
            assert earlier is None
        else:
            assert earlier is not None
            assert earlier.time_ns == max(seconds - 10, 0) * SECOND


def test_a_restarted_sidecar_begins_anew() -> None:
    """Its counters are smaller: no rate and no column of the sparkline is made across the restart."""
    history = History()
    for second in range(5):
        history.add(at(second, joules=1000.0 + second, tokens=500 + second))
    history.add(at(5, joules=0.0, tokens=0, start=77.0))
    assert history.earlier() is None
    history.add(at(6, joules=8.0, tokens=4, start=77.0))
    figures = history.joules_per_output(7, 7.0)
    assert figures[-1] == 2.0
    assert all(figure is None or figure > 0 for figure in figures)


def test_a_machine_that_was_restarted_is_no_past() -> None:
    """Its clock began again: what is newer by that clock is forgotten."""
    history = History()
    history.add(at(5000, joules=1.0))
    history.add(at(10, joules=2.0, start=9.0))
    assert history.watts(4, 60.0) == [None, None, None, 500.0]


def test_the_same_snapshot_twice_is_one() -> None:
    """A sidecar that stands still draws no line."""
    history = History()
    history.add(at(1))
    history.add(at(1))
    assert history.seconds == 0.0


def test_sparklines_are_means_and_differences() -> None:
    """Watts are means of each stretch; joules per token what came in it; a gap stays a gap."""
    history = History()
    for second, watts in enumerate((100.0, 300.0, None, None, 500.0, 500.0)):
        history.add(at(second, joules=10.0 * second, tokens=5 * second, watts=watts))
    assert history.watts(3, 6.0) == [200.0, None, 500.0]
    assert history.joules_per_output(3, 6.0) == [2.0, 2.0, 2.0]
    assert History().watts(3, 6.0) == [None, None, None]


def test_a_requests_watts_need_two_seconds_of_it() -> None:
    """Its joules now less those before, over the time between; a new request has none yet."""
    first, second = readings()
    history = History()
    history.add(first)
    history.add(second)
    dear, cheap, waiting = open_requests()
    assert history.watts_of(dear, second.snapshot.time_ns) == 20.0
    assert history.watts_of(cheap, second.snapshot.time_ns) is None
    assert history.watts_of(waiting, second.snapshot.time_ns) is None


def test_a_copy_does_not_grow() -> None:
    """A view that is paused shows rates of then, whatever is read meanwhile."""
    history = History()
    for second in range(5):
        history.add(at(second, tokens=second))
    copied = history.copy()
    for second in range(5, 60):
        history.add(at(second, tokens=second))
    assert copied.seconds == 4.0
    assert copied.earlier() == at(0).snapshot
    assert history.seconds == 59.0


def test_the_past_is_bounded() -> None:
    """Ten minutes are kept, however long it runs."""
    history = History()
    for second in range(2000):
        reading = at(second)
        history.add(replace(reading, requests=RequestsView.of(reading.snapshot, open_requests(), ())))
    assert history.seconds == 600.0
