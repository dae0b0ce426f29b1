"""The simulated H100 against published measurements."""

from __future__ import annotations

from functools import cache, partial

import pytest

from joulescope.simulation.calibration import PUBLISHED, ServingPoint, main, measure
from joulescope.simulation.parts import World

measured = cache(partial(measure, seconds=40.0))
"""Each point is measured once for all tests, and shorter than by whoever prints it."""


@pytest.mark.parametrize(
    ("world", "reference"), PUBLISHED, ids=lambda value: getattr(value, "max_num_seqs", "")
)
def test_steady_state_is_within_ten_percent_of_the_benchmark(world: World, reference: ServingPoint) -> None:
    """J/token, watts, tokens/s and inter-token time of a saturated chat load match ML.ENERGY's table."""
    simulated = measured(world, reference.max_num_seqs)
    errors = simulated.relative_errors(reference)
    assert len(errors) == 4
    assert all(abs(error) <= 0.10 for error in errors.values()), errors


def test_another_seed_stays_within_the_scatter_of_the_benchmark() -> None:
    """The match does not hang on one lucky stream of requests: repeats differ by less than 5 %."""
    world, reference = PUBLISHED[1]
    errors = measure(world, 64, seconds=40.0, seed=7).relative_errors(measured(world, 64))
    assert reference.max_num_seqs == 64
    assert all(abs(error) <= 0.05 for error in errors.values()), errors


def test_the_script_prints_the_error_of_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever doubts the calibration can print it: one line for each figure of each point."""
    main(measured)
    lines = [line for line in capsys.readouterr().out.splitlines() if "published" in line]
    assert len(lines) == 4 * len(PUBLISHED)
    assert all(line.rstrip().endswith("%") for line in lines)
