"""Laws of throughput: joined pieces, tables that hit their cells, fits that find what was planted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.insight.estimate.throughput import Law, Point, Table, constant, fit, scaled

TOKENS = st.floats(1.0, 1e5)
SLOPES = st.floats(-1.5, 1.5)
PLANTED = Law(9.0, (-0.2, -0.9), (2000.0,), (0.3, 0.0), (300.0,))


def rate(law: Law | Table, inputs: float, outputs: float) -> float:
    return float(law.rates(np.array([inputs]), np.array([outputs]))[0])


@given(inputs=TOKENS, outputs=TOKENS, slopes=st.tuples(SLOPES, SLOPES, SLOPES))
def test_pieces_join_at_their_knots(
    inputs: float, outputs: float, slopes: tuple[float, float, float]
) -> None:
    """A hair below and above a knot the law says the same, and between knots its slope is the piece's."""
    law = Law(8.0, slopes, (100.0, 1000.0), (0.1,))
    for knot in (100.0, 1000.0):
        below, above = (rate(law, knot * (1.0 + side * 1e-9), outputs) for side in (-1.0, 1.0))
        assert below == pytest.approx(above, rel=1e-6)
    start, piece = {True: (2.0, 0), False: (2000.0, 2)}[inputs < 500.0]
    change = math.log(rate(law, 2.0 * start, outputs) / rate(law, start, outputs)) / math.log(2.0)
    assert change == pytest.approx(slopes[piece], abs=1e-9)


def test_a_law_is_cut_off_at_the_most() -> None:
    """As the paper's: never above what was observed."""
    law = Law(math.log(1000.0), output_slopes=(1.0,), most_tokens_per_second=5000.0)
    assert rate(law, 1.0, 3.0) == pytest.approx(3000.0)
    assert rate(law, 1.0, 300.0) == 5000.0


@given(
    points=st.lists(st.tuples(st.floats(10, 2e4), st.floats(10, 2e4)), min_size=12, max_size=30),
)
def test_a_fit_without_noise_says_what_the_law_said(points: list[tuple[float, float]]) -> None:
    """At the points themselves, whatever the points are; slopes that they do not tell apart are said."""
    made = fit(
        [Point(one, two, rate(PLANTED, one, two)) for one, two in points],
        input_knots=[2000.0],
        output_knots=[300.0],
        cut_off=False,
    )
    for one, two in points:
        assert rate(made.law, one, two) == pytest.approx(rate(PLANTED, one, two), rel=1e-4)
    assert made.law.scatter < 1e-4


def test_a_fit_finds_the_planted_slopes_and_the_scatter() -> None:
    """400 points with 10 % of noise."""
    random = np.random.default_rng(5)
    lengths = np.exp(random.uniform(math.log(50), math.log(2e4), (400, 2)))
    points = [
        Point(one, two, rate(PLANTED, one, two) * math.exp(0.1 * random.standard_normal()))
        for one, two in lengths
    ]
    law = fit(points, input_knots=[2000.0], output_knots=[300.0], cut_off=False).law
    assert law.input_slopes == pytest.approx(PLANTED.input_slopes, abs=0.03)
    assert law.output_slopes == pytest.approx(PLANTED.output_slopes, abs=0.03)
    assert law.scatter == pytest.approx(0.1, rel=0.15)


def test_lengths_that_do_not_vary_leave_slopes_open() -> None:
    """One length: the law is the mean there, slopes are zero, and it is said."""
    made = fit([Point(500, 300, 1000.0), Point(500, 300, 4000.0)], cut_off=False)
    assert rate(made.law, 500, 300) == pytest.approx(2000.0)
    assert made.law.input_slopes == pytest.approx((0.0,))
    assert any("0 of 2 slopes" in note for note in made.notes)


def test_a_heavier_point_pulls_more() -> None:
    """Weights are GPU time."""
    made = fit([Point(500, 300, 1000.0, 3.0), Point(500, 300, 16000.0, 1.0)], cut_off=False)
    assert rate(made.law, 500, 300) == pytest.approx(2000.0)


@pytest.mark.parametrize("points", [[], [Point(0, 1, 1)], [Point(1, 1, math.nan)], [Point(1, 1, 1, -1.0)]])
def test_points_that_are_none_are_refused(points: list[Point]) -> None:
    """Nothing, zero, not a number, a negative weight."""
    with pytest.raises(ValueError, match="point"):
        fit(points)


TABLE = Table((100.0, 1000.0, 5000.0), (50.0, 500.0), ((4000.0, 5000.0), (900.0, 2500.0), (150.0, 600.0)))


def test_a_table_hits_its_cells_and_stays_between_them() -> None:
    """Linear in logarithms in between; at the edge beyond it."""
    for row, inputs in enumerate(TABLE.input_tokens):
        for column, outputs in enumerate(TABLE.output_tokens):
            assert rate(TABLE, inputs, outputs) == pytest.approx(TABLE.tokens_per_second[row][column])
    assert rate(TABLE, math.sqrt(100.0 * 1000.0), 50.0) == pytest.approx(math.sqrt(4000.0 * 900.0))
    assert rate(TABLE, 1.0, 1.0) == pytest.approx(4000.0)
    assert rate(TABLE, 1e9, 1e9) == pytest.approx(600.0)
    one = Table((500.0,), (300.0,), ((2000.0,),))
    assert rate(one, 3.0, 9000.0) == pytest.approx(2000.0)


@given(inputs=TOKENS, outputs=TOKENS, factor=st.floats(0.1, 10.0))
def test_scaled_is_scaled(inputs: float, outputs: float, factor: float) -> None:
    """Each form, the cut-off too."""
    cut = Law(9.0, (-0.5,), (), (0.2,), (), 3000.0)
    for law in (PLANTED, cut, TABLE, constant(700.0)):
        before, after = (rate(each, inputs, outputs) for each in (law, scaled(law, factor)))
        assert after == pytest.approx(factor * before)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Law(1.0, (1.0, 2.0)),
        lambda: Law(1.0, (1.0, 2.0), (0.5,)),
        lambda: Law(1.0, (1.0, 2.0, 3.0), (200.0, 100.0)),
        lambda: Law(math.nan),
        lambda: Law(1.0, scatter=-1.0),
        lambda: Law(1.0, most_tokens_per_second=0.0),
        lambda: Table((), (), ()),
        lambda: Table((2.0, 1.0), (1.0,), ((1.0,), (1.0,))),
        lambda: Table((1.0,), (1.0, 2.0), ((1.0,),)),
        lambda: Table((1.0,), (1.0,), ((0.0,),)),
    ],
)
def test_what_is_no_law_is_refused(make: object) -> None:
    """Slopes without knots, knots that fall, tables with holes."""
    with pytest.raises(ValueError, match=r"slopes|knots|coefficient|most|rise|row|above"):
        make()  # type: ignore[operator]
