"""The cost of a step in the calibrated world."""

from __future__ import annotations

import numpy as np
import pytest

from joulescope.simulation.group import law_of
from joulescope.simulation.physics import FEATURES, Floats, features_of, flops_of
from joulescope.simulation.worlds import H100, H100_LLAMA_8B, LLAMA_3_1_8B

LAW = law_of(H100_LLAMA_8B)
FIXED_JOULES = float(LAW.energy_joules(np.zeros(len(FEATURES))))
HEADROOM_WATTS = H100.power_limit_watts - H100.active_watts


def features(*requests: tuple[int, int]) -> Floats:
    """A step of requests given as (context, scheduled), all of which sample."""
    context, scheduled = np.array(requests, dtype=np.int64).T
    return features_of(context, scheduled, np.ones(len(requests), dtype=np.int64))


def seconds_and_joules(*requests: tuple[int, int]) -> tuple[float, float]:
    cost = LAW.cost(features(*requests).sum(axis=1))
    return float(cost.seconds[0]), float(cost.joules[0])


def test_a_small_batch_pays_mostly_for_the_weights() -> None:
    """At batch 8 the part that is paid once is 80..95 % of a decode step, at batch 256 below 25 %."""
    for count, low, high in ((8, 0.80, 0.95), (256, 0.05, 0.25)):
        assert low < FIXED_JOULES / seconds_and_joules(*[(450, 1)] * count)[1] < high


def test_power_never_exceeds_the_cap() -> None:
    """Work that would draw more takes longer instead, up to the largest batch and prefill."""
    for requests in ([(0, 8192)], [(500, 1)] * 512, [(0, 300), *[(900, 1)] * 255]):
        seconds, joules = seconds_and_joules(*requests)
        assert joules / seconds <= H100.power_limit_watts * (1 + 1e-12)


def test_a_capped_step_is_stretched() -> None:
    """A step at the cap lasts just as long as its dynamic energy takes at the cap."""
    seconds, joules = seconds_and_joules((0, 200), *[(200, 1)] * 255)
    assert joules / seconds == pytest.approx(H100.power_limit_watts)
    assert seconds == pytest.approx((joules - H100.active_watts * seconds) / HEADROOM_WATTS)


def test_prefill_attention_is_quadratic() -> None:
    """Ten times the prompt takes more than ten times the energy beyond the fixed part."""
    short, long = seconds_and_joules((0, 2000))[1], seconds_and_joules((0, 20_000))[1]
    assert long - FIXED_JOULES > 10 * (short - FIXED_JOULES) * 1.05


def test_prefill_in_chunks_computes_the_same_attention_as_at_once() -> None:
    """Cutting a prompt into chunks changes no FLOP but those of the output head, which runs once more."""
    whole, first, second = (flops_of(LLAMA_3_1_8B, features(part)).sum() for part in CHUNKS)
    assert first + second - LLAMA_3_1_8B.flops_per_sample == pytest.approx(whole)


CHUNKS = ((0, 4000), (0, 1000), (1000, 3000))


def test_one_law_costs_many_steps_at_once() -> None:
    """Sums of any shape give costs of that shape, each the same as when it is asked for alone."""
    columns = features((10, 1), (500, 1), (0, 900), (3000, 40))
    at_once = LAW.cost(columns.reshape(len(FEATURES), 2, 2))
    assert at_once.joules.shape == (1, 2, 2)
    alone = [LAW.energy_joules(columns[:, at]) for at in range(4)]
    assert at_once.joules[0].ravel() == pytest.approx(np.array(alone))
