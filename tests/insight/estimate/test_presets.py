"""What the versions of the paper publish comes out, or it is known by how much not, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from joulescope.errors import ConfigError
from joulescope.insight.estimate.distributions import parse_distribution
from joulescope.insight.estimate.estimate import Estimate, estimate
from joulescope.insight.estimate.parameters import Parameters
from joulescope.insight.estimate.presets import PRESETS, one_version
from joulescope.insight.estimate.told import assumptions, beside_published

WIDE_PUE = parse_distribution("lognormal(p5=1.05, p95=1.60)", "test")


def preset(version: str) -> Parameters:
    """Fewer draws than usual, to be quick: the error of a median is half a percent."""
    return replace(PRESETS[version].parameters, samples=20_000)


def with_long(parameters: Parameters, share: float) -> Parameters:
    typical, long = parameters.queries
    return replace(parameters, queries=(replace(typical, weight=1.0 - share), replace(long, weight=share)))


def factors(found: Estimate) -> dict[str, float]:
    """Estimate by published figure, quartiles too."""
    rows = {}
    for each, _, ours, quartiles in beside_published(found):
        rows[each.name] = ours / each.value
        if each.quartiles and quartiles:
            rows[f"{each.name} Q1"], rows[f"{each.name} Q3"] = (
                mine / theirs for mine, theirs in zip(quartiles, each.quartiles, strict=True)
            )
    return rows


def near(factor: float) -> object:
    """Published figures have two digits: 3 % is their rounding and the noise of their 10,000 draws."""
    return pytest.approx(factor, abs=0.035)


def test_v2_comes_out() -> None:
    """Medians, quartiles and the day of a fleet, from what is public; 0.7 GWh is rounded from 0.73."""
    found = factors(estimate(preset("v2")))
    assert found.pop("fleet") == pytest.approx(0.73 / 0.7, abs=0.02)
    assert len(found) == 6
    assert found == {name: near(1.0) for name in found}


def test_v2_with_a_tenth_of_long_queries_comes_out() -> None:
    """1.7 GWh, and 0.8 with improved serving."""
    found = factors(estimate(with_long(preset("v2"), 0.1)))
    assert found["fleet-10%-long"] == near(1.0)
    assert found["fleet-10%-long-improved"] == near(1.0)


def test_v1_as_its_text_has_it_is_six_percent_low() -> None:
    """With PUE to 1.40; its fleet comes out within the rounding of one digit."""
    found = factors(estimate(preset("v1")))
    assert found["typical"] == pytest.approx(0.94, abs=0.02)
    assert found["long"] == pytest.approx(0.94, abs=0.02)
    assert found["fleet"] == pytest.approx(0.753 / 0.8, abs=0.02)
    long = factors(estimate(with_long(preset("v1"), 0.1)))
    assert long["fleet-10%-long"] == near(0.98)


def test_v1_comes_out_with_the_other_pue() -> None:
    """The one assumption that closes the gap of its medians: P95 of PUE at 1.60, as in the program of v2."""
    found = factors(estimate(replace(preset("v1"), pue=WIDE_PUE)))
    assert found.pop("fleet") == pytest.approx(0.81 / 0.8, abs=0.02)
    assert len(found) == 4
    assert found == {name: near(1.0) for name in found}


@pytest.mark.parametrize("version", PRESETS)
def test_levers_together_are_what_the_abstract_says(version: str) -> None:
    """8 to 20 times; v2's ranges, as its program has them, reach the upper end."""
    found = estimate(preset(version))
    (all_of,) = (each.factor for each in found.levers if not each.lever and each.query == "typical")
    assert 8.0 <= all_of.median <= 21.0


def test_the_versions_differ() -> None:
    """In power and PUE: a part of one is no part of the other."""
    one, two = (PRESETS[version].parameters for version in ("v1", "v2"))
    assert one.pue != two.pue
    assert one.models != two.models


def test_versions_are_never_mixed() -> None:
    """The error names both, and the places that name them."""
    with pytest.raises(ConfigError) as refused:
        one_version({"--preset v1": "v1", "plan.yaml": "", "other.yaml": "v2"})
    for word in ("presets are not mixed", "--preset v1 names v1", "other.yaml names v2"):
        assert word in str(refused.value)
    assert one_version({"a": "v2", "b": "", "c": "v2"}) == "v2"
    assert one_version({}) == ""
    with pytest.raises(ConfigError, match="'v3' is not known; there is v1, v2"):
        one_version({"a": "v3"})


def test_assumptions_go_with_what_they_are_of() -> None:
    """Who gives a PUE is not told what the preset's rests on."""
    parameters = replace(preset("v1"), samples=1000)
    assert any("PUE is as v1's text" in text for text in assumptions(estimate(parameters)))
    other = assumptions(estimate(replace(parameters, pue=WIDE_PUE)))
    assert not any("PUE is as v1's text" in text for text in other)
    assert other
