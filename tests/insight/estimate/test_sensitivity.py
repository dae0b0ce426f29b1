"""Which parameter moves the median most: swings that are known by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from joulescope.insight.estimate.distributions import Fixed
from joulescope.insight.estimate.parameters import Model
from joulescope.insight.estimate.presets import PRESETS
from joulescope.insight.estimate.sensitivity import sensitivity
from joulescope.insight.estimate.throughput import Law, constant
from tests.insight.estimate.made import distribution, plain


def test_a_swing_is_the_ratio_of_the_ends() -> None:
    """Each parameter acts in proportion; the widest comes first, and what is not spread is not there."""
    parameters = plain(
        pue=distribution("lognormal(p5=1.1, p95=1.4)"),
        node_power_ratio=distribution("lognormal(p5=0.2, p95=0.9)"),
        output="exponential(median=300)",
    )
    found = sensitivity(parameters)
    assert [swing.parameter for swing in found] == ["output_tokens", "node_power_ratio", "pue"]
    by = {swing.parameter: swing.ratio for swing in found}
    assert by["pue"] == pytest.approx(1.4 / 1.1)
    assert by["node_power_ratio"] == pytest.approx(0.9 / 0.2)
    assert sensitivity(plain()) == ()


def test_the_throughput_swings_by_its_scatter() -> None:
    """P5 to P95 of a lognormal with sigma 0.2; more tokens a second, fewer joules."""
    (swing,) = sensitivity(plain(throughput=Law(7.0, scatter=0.2)))
    assert swing.parameter == "throughput"
    assert swing.ratio == pytest.approx(2.718281828 ** (2 * 1.6448536 * 0.2))
    assert swing.low_joules > swing.high_joules


def test_models_swing_from_the_cheapest_to_the_dearest() -> None:
    """A mix of three."""
    models = tuple(
        Model(name, 1.0, Fixed(7000.0), constant(rate))
        for name, rate in (("mid", 2000.0), ("slow", 500.0), ("fast", 4000.0))
    )
    (swing,) = sensitivity(replace(plain(), models=models))
    assert (swing.parameter, swing.low, swing.high) == ("model", "fast", "slow")
    assert swing.ratio == pytest.approx(8.0)


def test_prompts_and_node_power() -> None:
    """Longer prompts lower the throughput; a node's power acts in proportion."""
    parameters = plain(prompt="uniform(100, 1000)", throughput=Law(9.0, (-1.0,)))
    model = replace(parameters.models[0], node_max_watts=distribution("uniform(5000, 10000)"))
    by = {swing.parameter: swing.ratio for swing in sensitivity(replace(parameters, models=(model,)))}
    assert by["input_tokens"] == pytest.approx(955.0 / 145.0)
    assert by["node_max_watts"] == pytest.approx(9750.0 / 5250.0)


def test_of_the_paper_the_length_moves_most() -> None:
    """Then the model, then the power, then the building."""
    found = sensitivity(replace(PRESETS["v2"].parameters, samples=2000))
    typical = [swing.parameter for swing in found if swing.query == "typical"]
    assert typical == ["output_tokens", "model", "node_power_ratio", "pue"]


def test_a_median_that_goes_to_zero_has_no_ratio() -> None:
    """A kind of query that may write nothing; of one that never writes no parameter moves anything."""
    (swing,) = sensitivity(plain(output="empirical(values=[0, 100], weights=[1, 1])"))
    assert swing.ratio == math.inf
    (still,) = sensitivity(plain(output=0.0, pue=distribution("uniform(1, 2)")))
    assert still.ratio == 1.0
