"""The benchmark of the ways to measure: its truth, its errors, and one short run."""

from __future__ import annotations

import pytest

from benchmarks.meter_loads import LOADS, NAMES, Truth, live, stand_in, truth_of
from benchmarks.meters import Errors, compare, errors_of, grouped, summary_of, text_of
from joulescope.model import EnergyInterval
from tests.fake_nvml import DriverClock

GPU = "GPU-bench"
S = 1_000_000_000


@pytest.mark.parametrize("load", LOADS)
def test_the_truth_is_what_the_driver_draws(load: str) -> None:
    """Two formulas that were written apart agree on every load, to the microjoule of rounding."""
    part = live("h100")
    with stand_in([part]) as driver:
        clock = DriverClock(S, driver=driver)
        clock.advance(0.1234)
        before = driver.true_joules(GPU)
        truth = truth_of(LOADS[load], part, 10.0).begin(driver, GPU)
        for _ in range(50):
            clock.advance(0.1777)
            drawn = driver.true_joules(GPU) - before
            assert truth.between(truth.begin_ns, clock.time_ns) == pytest.approx(drawn, abs=1e-3)


def test_errors_are_of_what_is_true() -> None:
    """At 100 W two seconds told as 110 J and 95 J are 2.5 % too much in all, 10 % and 5 % each."""
    truth = Truth(100.0, 100.0, 0.0, 0.0, 0.0)
    told = [EnergyInterval(GPU, 0, S, 110_000_000), EnergyInterval(GPU, S, 2 * S, 95_000_000)]
    errors = errors_of(told, truth)
    assert errors is not None
    assert errors.total == pytest.approx(0.025)
    assert errors.intervals == pytest.approx((0.1, 0.05))
    assert errors_of([], truth) is None


def test_a_summary_shows_the_worst_run_with_its_sign() -> None:
    """Runs that are off by +1 and −3 % come to −3 and a mean of 2; runs that could not be do not count."""
    found = summary_of([Errors(0.01, (0.02,)), Errors(-0.03, (0.04, 0.06)), None])
    assert found is not None
    assert found["total_worst"] == pytest.approx(-3.0)
    assert found["total_mean"] == pytest.approx(2.0)
    assert found["interval_p50"] == pytest.approx(4.0)
    assert summary_of([None]) is None


def test_parts_with_the_same_figures_share_a_row() -> None:
    """Names are joined where all cells are the same, and the order of the parts is kept."""
    rows = {"a": ["1", "2"], "b": ["1", "3"], "c": ["1", "2"]}
    assert grouped(rows) == [("a, c", ("1", "2")), ("b", ("1", "3"))]


def test_a_short_run_ranks_the_ways() -> None:
    """Where load repeats every 100 ms, short windows need more polls, and the sidecar takes them itself."""
    errors = compare(["pascal", "h100"], ["wave_100ms"], 5.0, 2)
    pascal, h100 = errors["pascal"]["wave_100ms"], errors["h100"]["wave_100ms"]
    assert abs(pascal["usage_20"]["total_worst"]) > 5
    assert abs(pascal["sidecar"]["total_worst"]) < 2
    assert pascal["buffer"] is None
    assert abs(h100["instant_100"]["total_worst"]) > 20
    assert abs(h100["sidecar"]["total_worst"]) < 2
    assert h100["sidecar"]["interval_p95"] < 2
    page = text_of({"machine": {}, "seconds": 5.0, "phases": 2, "errors": errors})
    assert "| square wave, 100 ms | pascal | " in page
    assert "| – |" in page


@pytest.mark.parametrize("part", [name for name in NAMES if name.endswith("-power")])
def test_a_part_without_its_counter_is_measured_by_power(part: str) -> None:
    """A steady load is right to a percent on every part, whichever reading the sidecar chooses."""
    found = compare([part], ["steady"], 3.0, 1)[part]["steady"]["sidecar"]
    assert abs(found["total_worst"]) < 1
