"""An engine over two nodes through real sockets: two namespaces, two clocks, a bad network between."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.real.two_nodes import BROKEN, Case, Outcome, impossible, run
from tests.requirements import need_program

pytestmark = pytest.mark.real

SECONDS = 12.0


@pytest.fixture(autouse=True, scope="module")
def _machine() -> None:
    """Network and time namespaces are root's to make, where the kernel lets it."""
    for program in ("ip", "unshare"):
        need_program(program)
    reason = impossible()
    if reason and os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason}; CI must be able to", pytrace=False)
    if reason:
        pytest.skip(reason)


def holds(outcome: Outcome) -> None:
    """All requests told, near the truth, and as sure as said."""
    assert len(outcome.requests) == len(outcome.truth) > 20
    errors = outcome.errors()
    assert sum(errors.values()) / len(errors) < 0.03
    assert "residual 0.000000" in outcome.log
    assert outcome.coverage() > 0.8


def test_one_node_for_comparison(tmp_path: Path) -> None:
    """Both GPUs beside the sidecar: the bed itself is right."""
    outcome = run(Case("one node", single=True, seconds=SECONDS), tmp_path)
    holds(outcome)
    assert len(outcome.whole()) == len(outcome.truth)


@pytest.mark.parametrize(
    "case",
    [
        Case("no delay", seconds=SECONDS),
        Case("pipeline", "pipeline-parallel-2", up_seconds=0.02, down_seconds=0.02, seconds=SECONDS),
        Case("one way", up_seconds=0.005, down_seconds=0.045, jitter_seconds=0.01, seconds=SECONDS),
    ],
    ids=lambda case: case.name,
)
def test_the_far_gpu_is_accounted_for_by_the_head_s_clock(case: Case, tmp_path: Path) -> None:
    """The head finds a clock that is 1000 s ahead to within what it says, and that is half the round trip."""
    outcome = run(case, tmp_path)
    holds(outcome)
    assert len(outcome.whole()) == len(outcome.truth)
    (offset,) = outcome.metric("joulescope_link_clock_offset_seconds")
    (error,) = outcome.metric("joulescope_link_clock_error_seconds")
    assert abs(abs(offset) - case.ahead_seconds) <= error
    assert error < (case.up_seconds + case.down_seconds + case.jitter_seconds) / 2 + 0.02
    assert outcome.metric("joulescope_link_up") == [1.0]


def test_a_clock_that_drifts_is_followed(tmp_path: Path) -> None:
    """By 100 ppm, as a bad quartz does: after the run it is some milliseconds off from where it began."""
    case = Case("drift", bare=True, up_seconds=0.005, down_seconds=0.005, drift_ratio=1e-4, seconds=SECONDS)
    outcome = run(case, tmp_path)
    holds(outcome)
    (error,) = outcome.metric("joulescope_link_clock_error_seconds")
    assert error < 0.02


def test_a_link_that_breaks_for_ten_seconds_loses_no_joule(tmp_path: Path) -> None:
    """The far GPU's counter tells afterwards what it drew, and figures are as sure as they say."""
    outcome = run(Case("broken", broken=BROKEN, seconds=20.0), tmp_path)
    holds(outcome)
    measured = [float(joules) for joules in re.findall(r"measured ([\d.]+) J", outcome.log)]
    assert len(measured) == 2
    assert min(measured) > 0.8 * max(measured)
