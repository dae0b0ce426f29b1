"""Distributions hit the quantiles that were asked for, read back as written, and refuse nonsense."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulescope.errors import ConfigError
from joulescope.insight.estimate.distributions import Distribution, Lognormal, parse_distribution
from joulescope.insight.estimate.expression import number_text
from joulescope.insight.estimate.files import empirical_from_file

POSITIVE = st.floats(1e-3, 1e6)
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


def parsed(text: object) -> Distribution:
    return parse_distribution(text, "--pue", read_file=empirical_from_file)


@given(low=POSITIVE, factor=st.floats(1.0, 1e3), first=st.integers(1, 98), step=st.integers(1, 98))
def test_a_lognormal_has_the_quantiles_that_were_asked_for(
    low: float, factor: float, first: int, step: int
) -> None:
    """Any two of P1 to P99."""
    second = min(first + step, 99)
    made = parsed(f"lognormal(p{first}={low!r}, p{second}={low * factor!r})")
    assert made.quantile(first / 100) == pytest.approx(low, rel=1e-9)
    assert made.quantile(second / 100) == pytest.approx(low * factor, rel=1e-9)


@given(median=POSITIVE)
def test_an_exponential_has_the_median_that_was_asked_for(median: float) -> None:
    """And its mean is longer by 1 / ln 2."""
    made = parsed(f"exponential(median={median!r})")
    assert made.quantile(0.5) == pytest.approx(median)
    assert made.mean == pytest.approx(median / math.log(2.0))
    assert parsed(f"exponential(mean={made.mean!r})").quantile(0.5) == pytest.approx(median)


TEXTS = (
    "1.2",
    "fixed(3)",
    "uniform(1, 2)",
    "triangular(1, 1.5, 3)",
    "triangular(1, 1, 3)",
    "lognormal(p5=1.05, p95=1.4)",
    "lognormal(median=300, p90=1000)",
    "lognormal(median=2, sigma=0.5)",
    "exponential(median=300)",
    "empirical(values=[100, 200, 400], weights=[1, 2, 1])",
)


@pytest.mark.parametrize("text", TEXTS)
def test_draws_are_spread_as_the_quantiles_say(text: str) -> None:
    """Drawn quantiles and the drawn mean are the stated ones, within four standard errors."""
    made, count = parsed(text), 40_000
    drawn = made.sample(np.random.default_rng(7), count)
    for share in SHARES:
        step = 4.0 * math.sqrt(share * (1.0 - share) / count)
        low, high = (made.quantile(min(max(share + side, 1e-6), 1 - 1e-6)) for side in (-step, step))
        assert low - 1e-9 <= np.quantile(drawn, share) <= high + 1e-9
    assert drawn.mean() == pytest.approx(made.mean, abs=4.0 * drawn.std() / math.sqrt(count) + 1e-9)


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_written_reads_back_to_the_same(text: str) -> None:
    """A parameter file keeps every digit."""
    made = parsed(text)
    assert parsed(made.text()) == made


@given(
    st.lists(st.tuples(POSITIVE, st.integers(1, 9)), min_size=1, max_size=8, unique_by=lambda pair: pair[0])
)
def test_observed_values_come_back_with_their_weights(pairs: list[tuple[float, int]]) -> None:
    """In any order and any measure; quantiles are observed values."""
    values, weights = ([number_text(float(each)) for each in side] for side in zip(*pairs, strict=True))
    made = parsed(f"empirical(values=[{', '.join(values)}], weights=[{', '.join(weights)}])")
    total = sum(weight for _, weight in pairs)
    assert made.mean == pytest.approx(sum(value * weight for value, weight in pairs) / total)
    assert made.quantile(0.5) in {value for value, _ in pairs}
    assert parsed(made.text()).mean == pytest.approx(made.mean)


@settings(max_examples=50)
@given(share=st.floats(0.001, 0.998), step=st.floats(1e-4, 0.001))
def test_quantiles_rise(share: float, step: float) -> None:
    """For each form."""
    for text in TEXTS:
        made = parsed(text)
        assert made.quantile(share) <= made.quantile(share + step)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("gauss(1, 2)", "gauss is not known; give a number, fixed(x)"),
        ("1.2.3", "neither a number nor an expression"),
        ("nan", "neither a number nor an expression"),
        ("", "neither a number nor an expression"),
        (True, "no distribution"),
        (None, "no distribution"),
        ("uniform(2, 1)", "low is above high"),
        ("uniform(1)", "high is missing"),
        ("uniform(1, 2, 3)", "too many values"),
        ("uniform(low=1, high=)", "a value is missing"),
        ("uniform(low=1, high=x)", "high is to be a number"),
        ("uniform(low=1, low=2)", "low comes twice"),
        ("uniform(low=1, 2)", "stands without a name"),
        ("triangular(1, 4, 3)", "rise in this order"),
        ("lognormal(1, 2)", "name what is given"),
        ("lognormal(p5=1)", "two quantiles"),
        ("lognormal(p5=1, p95=0.5)", "not below the lower"),
        ("lognormal(p0=1, p95=2)", "p0 is not known"),
        ("lognormal(p50=1, median=2)", "both quantiles are the same"),
        ("lognormal(median=-1, sigma=1)", "above 0"),
        ("exponential(300)", "too many values"),
        ("exponential(median=1, mean=2)", "either median=… or mean=…"),
        ("exponential(median=0)", "above 0"),
        ("empirical(values=[1, 2], weights=[1])", "of one length"),
        ("empirical(values=[1, 2], weights=[0, 0])", "no value has a weight"),
        ("empirical(values=[1, 2], weights=[2, -1])", "below 0"),
        ("empirical(values=[1, x])", "not a list of numbers"),
        ("empirical(/nowhere/lengths.txt)", "cannot read /nowhere/lengths.txt: No such file"),
    ],
)
def test_nonsense_is_refused_in_words(given: object, told: str) -> None:
    """The message names the flag, what was written, and what would do."""
    with pytest.raises(ConfigError) as refused:
        parsed(given)
    assert str(refused.value).startswith("--pue: ")
    assert told in str(refused.value)


def test_values_of_a_file(tmp_path: Path) -> None:
    """One a line, with comments; or a column of a table. Few values are kept whole: the file can go."""
    plain, table = tmp_path / "lengths.txt", tmp_path / "lengths.csv"
    plain.write_text("# of last week\n100\n200\n\n200\n")
    table.write_text("id,output_tokens\na,100\nb,200\nc,200\n")
    one, other = parsed(f"empirical({plain})"), parsed(f"empirical({table}, column=output_tokens)")
    assert one == other
    assert one.text().startswith("empirical(values=[100, 200]")


def test_a_file_of_many_values_is_named_by_its_digest(tmp_path: Path) -> None:
    """Read again it is the same; changed, it is refused."""
    path = tmp_path / "lengths.txt"
    path.write_text("".join(f"{value}\n" for value in range(1, 201)))
    made = parsed(f"empirical({path})")
    assert parsed(made.text()) == made
    path.write_text("1\n")
    with pytest.raises(ConfigError, match=r"has changed: its SHA-256 begins with"):
        parsed(made.text())


@pytest.mark.parametrize(
    ("text", "asked", "told"),
    [
        ("1\nx\n", "empirical({})", "line 2: 'x' is no number"),
        ("1\ninf\n", "empirical({})", "line 2: inf is not finite"),
        ("", "empirical({})", "holds no number"),
        ("a,b\n1,2\n", "empirical({}, column=c)", "has no column c; it has a, b"),
        ("a,b\n1,2\n,3\n", "empirical({}, column=a)", "line 3: '' is no number"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, asked: str, told: str) -> None:
    """With the line."""
    path = tmp_path / "lengths.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        parsed(asked.format(path))


def test_a_change_of_a_parameter_does_not_move_its_draws() -> None:
    """Two lognormals take the same numbers: what differs between two estimates is the change alone."""
    one, other = Lognormal(1.0, 0.2, ""), Lognormal(3.0, 0.2, "")
    drawn = [each.sample(np.random.default_rng(1), 100) for each in (one, other)]
    np.testing.assert_allclose(drawn[1], 3.0 * drawn[0])
