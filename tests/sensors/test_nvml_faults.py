"""Every fault of an NVIDIA GPU or its driver: what is shown and logged, when it is over, what it costs."""

from __future__ import annotations

import logging
from contextlib import closing

import pytest

from tests.sensors.conftest import MakeDriver
from tests.sensors.nvml_bench import Bench, Page, Pausing
from tests.sensors.nvml_fault_table import FAULTS, Fault

TICK_SECONDS = 0.11
"""A counter tells of joules up to a tick after they were drawn, at the first reading and at the last: so much
more or less than the truth says nothing."""

TIMES_OPENED = 2
"""What the sensor says when it begins to answer, it may say when the fault begins and when it ends."""

MEASURED = "joulescope_measured_energy_joules_total"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(make_driver: MakeDriver, caplog: pytest.LogCaptureFixture, fault: Fault) -> None:
    """Each fault is shown and said as itself, is over when it is over, and costs what it must, no more."""
    caplog.set_level(logging.INFO)
    driver = make_driver(*fault.gpus)
    bench = Bench(driver, Pausing(10**9, driver=driver), [*driver.uuids(), *fault.plugged_in])
    with closing(bench):
        go_through(fault, bench, caplog)


def go_through(fault: Fault, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """What was there before, the fault, its end, and the reckoning."""
    gpu = bench.gpus[-1]
    if not fault.at_start:
        bench.run(5.3)
        caplog.clear()
    fault.begin(bench)
    bench.run(fault.lasts_seconds - 1.0)
    before = bench.page()
    bench.run(1.0)
    check_page(fault, gpu, before, bench.page())
    if fault.end is not None:
        fault.end(bench)
    check_back(fault, gpu, bench)
    bench.run(12.0)
    check_log(fault, caplog)
    check_accounts(fault, gpu, bench)


def check_page(fault: Fault, gpu: str, before: Page, page: Page) -> None:
    """Absent is not zero, stale is not fresh, and joules rise only if they are measured."""
    assert page.get(("joulescope_sensor_up", gpu)) == fault.up
    for name in fault.absent:
        assert (f"joulescope_gpu_{name}", gpu) not in page, name
    if fault.up is None:
        assert (MEASURED, gpu) not in page
    else:
        assert (page[MEASURED, gpu] > before[MEASURED, gpu]) == fault.rising


def check_back(fault: Fault, gpu: str, bench: Bench) -> None:
    """All is shown, and joules drawn after the end are accounted, within the time that is stated."""
    ended_ns = bench.clock.now_ns()
    if fault.back_seconds is None:
        bench.run(40.0)
        totals = bench.totals(gpu)
        assert totals is None or not totals.up
        return
    while not is_back(fault, gpu, bench, ended_ns):
        assert bench.clock.now_ns() - ended_ns <= fault.back_seconds * 1e9, "it is not back in time"
        bench.step()


def is_back(fault: Fault, gpu: str, bench: Bench, ended_ns: int) -> bool:
    totals = bench.totals(gpu)
    if totals is None or not totals.up or (totals.accounted_until_ns or 0) <= ended_ns:
        return False
    page = bench.page()
    return all((f"joulescope_gpu_{name}", gpu) in page for name in fault.absent)


def check_log(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """Each thing is said once, however often it was met, and nothing else is."""
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == len(fault.warnings), warnings
    for line, words in zip(warnings, fault.warnings, strict=True):
        assert words in line
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert any(fault.told in line for line in told) or not fault.told
    assert all(told.count(line) <= TIMES_OPENED for line in told), told


def check_accounts(fault: Fault, gpu: str, bench: Bench) -> None:
    """Every measured joule is somebody's once, none is invented, and only those of the fault are missing."""
    accounts = bench.finish()
    seen = fault.up is not None or fault.back_seconds is not None
    assert set(accounts) == (set(bench.gpus) if seen else set())
    for name, (totals, missing_joules) in accounts.items():
        lost_seconds = TICK_SECONDS + (most_lost_seconds(fault) if name == gpu else 0.0)
        watts = fault.gpus[-1].power_watts
        assert totals.residual_joules == 0
        assert totals.attributed_joules > 0
        assert totals.info.energy_source == fault.source
        assert -TICK_SECONDS * watts <= missing_joules <= lost_seconds * watts, name


def most_lost_seconds(fault: Fault) -> float:
    """How many seconds' joules may be missing of a GPU that has had the fault."""
    if fault.back_seconds is None:  # nothing of it is measured any more
        return float("inf")
    return fault.lost_seconds + fault.lost_meanwhile * (fault.lasts_seconds + (fault.back_seconds or 0.0))
